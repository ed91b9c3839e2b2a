"""HTTP messages (RFC 9110, RFC 9112) without a socket: framing, forwarding, and the exchange that the proxy sees."""
