"""The data plane: given this request and the routing table, which backend?

No Kubernetes call, no configuration file and no policy decision belongs on the path of a request.
"""
