"""Host and port as URLs and the field Host have them (RFC 3986 3.2)."""


def authority(host: str, port: int | None = None) -> str:
    """Return a host, with its port if there is one; an IPv6 address, which has no brackets yet, is put into them."""
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return name if port is None else f"{name}:{port}"
