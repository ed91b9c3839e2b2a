"""Rules for the IP addresses of servers that a tenant chooses: backends of the gateway, pods that hooks read.

They are applied to the address that is connected to and not to its spelling. Were every address allowed, a tenant could
read the cloud's metadata, the node's own services and the cluster's control plane through these programs (server-side
request forgery). The name of a Service is no better: who may write Services and EndpointSlices decides where it leads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

Destination = Literal["remote", "service", "configured"]
"""Kind of a server: a remote one whose name a tenant chooses, a Service of the cluster, or one that the administrator
has configured."""

_NEVER: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host on this network (RFC 1122 3.2.1.3)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds keep their metadata
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the limited broadcast
        "168.63.129.16/32",  # Azure's wire server and metadata
        "100.100.100.200/32",  # Alibaba Cloud's metadata
        "192.0.0.192/32",  # Oracle Cloud's metadata
        "::/128",  # unspecified
        "::1/128",  # loopback
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, deprecated (RFC 3879)
        "ff00::/8",  # multicast
        "fd00:ec2::/32",  # Amazon's metadata and time services
        "fd20:ce::254/128",  # Google's metadata
    )
)

_RESERVED: Final = IPv4Network("240.0.0.0/4")
"""Reserved addresses, which some clusters give to their pods."""
_BROADCAST: Final = IPv4Address("255.255.255.255")

_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")  # RFC 3056
_TEREDO: Final = IPv6Network("2001::/32")  # RFC 4380
_IPV4_COMPATIBLE: Final = IPv6Network("::/96")  # RFC 4291 2.5.5.1, deprecated


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Addresses that a server may have that a tenant chooses."""

    cluster: tuple[Network, ...] = field(default=())
    """Ranges of the cluster's pods, Services and nodes: no remote backend is there, and every Service is."""
    allowed: tuple[Network, ...] = field(default=())
    """Ranges that are allowed for remote backends although another rule refuses them."""

    @classmethod
    def parse(cls, *, cluster: Iterable[str] = (), allowed: Iterable[str] = ()) -> "AddressRules":
        """Return rules from ranges in CIDR notation.

        Raises:
            ValueError: A range is no address with a prefix length, or has bits set behind the prefix.
        """
        return cls(tuple(map(ip_network, cluster)), tuple(map(ip_network, allowed)))

    def permit(self, address: str, destination: Destination = "remote") -> bool:
        """Return whether a server at `address` may be connected to; False for text that is no address in its usual
        spelling."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        if destination == "configured":
            return True
        if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
            return False  # zones exist for link-local addresses only
        ends = embedded(parsed)
        if destination == "remote":
            return all(self._permit_remote(one) for one in (parsed, *ends))
        # Packets to a translated address end in the cluster when the embedded address does.
        return all(map(_permit_anywhere, (parsed, *ends))) and all(map(self._in_cluster, ends or (parsed,)))

    def _permit_remote(self, address: Address) -> bool:
        if any(address in network for network in self.allowed):
            return True
        return not any(address in network for network in (*_NEVER, *self.cluster))

    def _in_cluster(self, address: Address) -> bool:
        return not self.cluster or any(address in network for network in self.cluster)


def _permit_anywhere(address: Address) -> bool:
    """Return whether anything outside of this host and its link may have an address."""
    if isinstance(address, IPv4Address) and address in _RESERVED:
        return address != _BROADCAST
    return not any(address in network for network in _NEVER)


def embedded(address: Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses at which packets to an IPv6 address may end, by mapping or translation."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    low = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(int(address) >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO:
        return (IPv4Address(int(low) ^ 0xFFFFFFFF),)
    if any(address in network for network in _NAT64):
        return (low,)
    if address in _IPV4_COMPATIBLE and int(address) > 1:
        return (low,)
    return ()
