"""Which client addresses count as private: loopback, RFC 1918 and IPv6's unique local addresses."""

from ipaddress import ip_address, ip_network
from typing import Final

PRIVATE_NETWORKS: Final = tuple(
    ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


def is_private(address: str) -> bool:
    """Say whether the address is inside one of PRIVATE_NETWORKS; what is no address is not."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in PRIVATE_NETWORKS)
