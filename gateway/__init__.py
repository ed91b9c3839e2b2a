"""The data plane: given a request and the routing table, it chooses a backend and forwards the request.

No Kubernetes call, no configuration file and no policy decision belongs on the path of a request.
"""
