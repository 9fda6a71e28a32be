"""The client's address: the connection's, or the one that a trusted proxy adds to X-Forwarded-For."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_HOPS = 32
_HOST_BITS = 64  # of an IPv6 address; one household or machine can use all of them


def parse_networks(value: str) -> tuple[Network, ...]:
    """Parse addresses and networks, separated by commas. Raises ValueError."""
    return tuple(_network(entry.strip()) for entry in value.split(",") if entry.strip())


def _network(entry: str) -> Network:
    try:
        return ip_network(entry)
    except ValueError:
        raise ValueError(
            f"{entry!r}; allowed: addresses, and networks such as 10.0.0.0/8, with commas between"
        ) from None


def parse_address(text: str) -> Address | None:
    """Parse an address with or without a port, as proxies write it; return None for anything else.

    An IPv4-mapped IPv6 address becomes the IPv4 address.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def client_address(peer: str | None, forwarded: Sequence[bytes], trusted: Iterable[Network]) -> Address | None:
    """Return the last address in X-Forwarded-For that is not a trusted proxy's. Clients can forge every entry before it.

    An entry that is not an address counts for the proxy that sent it. None when the connection has no address.
    """
    address = parse_address(peer or "")
    if not forwarded or not trusted:
        return address
    for hop in reversed(b",".join(forwarded).decode("latin-1").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
        if address is None or not any(address in network for network in trusted):
            break
        nearer = parse_address(hop)
        if nearer is None:
            break
        address = nearer
    return address


def group_of(address: Address | None) -> str:
    """Return the name of the group of addresses that shares one limit: an IPv4 address, or the /64 of an IPv6 address."""
    if isinstance(address, IPv6Address):
        return f"{IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/{_HOST_BITS}"
    return str(address or "unknown")


def is_loopback(host: str) -> bool:
    """Return whether a server on this host can be reached from this machine only."""
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback
