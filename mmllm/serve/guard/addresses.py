"""Who is at the other end: the client's address, past the proxies that the settings trust.

`X-Forwarded-For` and its kin are what anybody can send. They are believed only as far as trusted
proxies wrote them: from the right, up to the first address that is no such proxy.
"""

import functools
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

UNKNOWN = "unknown"
"""The address of a client that connects over a Unix socket."""

MAX_CHAIN = 20  # addresses of an X-Forwarded-For that are looked at
IPV6_PREFIX = 64  # one customer's smallest share: all of its addresses are one client

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Scope = Mapping[str, Any]


def client_of(scope: Scope, trusted: tuple[str, ...]) -> str:
    """The address that a request came from.

    Args:
      scope: of an ASGI request.
      trusted: addresses or networks of own proxies.

    Returns:
      An IP address in its shortest form, or UNKNOWN.
    """
    peer = _peer(scope)
    if peer is None:
        return UNKNOWN
    client = peer
    if _is_within(peer, trusted):
        for text in _forwarded_for(scope):
            hop = _parsed(text)
            if hop is None:  # a proxy wrote what it was sent: trust ends here
                break
            client = hop
            if not _is_within(hop, trusted):
                break
    return str(client)


def limit_key(address: str) -> str:
    """What stands for a client in rate limits: an IPv4 address, or the /64 of an IPv6 one."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, IPV6_PREFIX), strict=False))
    return address if parsed is None else str(parsed)


def is_proxied(scope: Scope, trusted: tuple[str, ...]) -> bool:
    """Whether a trusted proxy sent the request, so that its headers can be believed."""
    peer = _peer(scope)
    return peer is not None and _is_within(peer, trusted)


def is_https(scope: Scope, trusted: tuple[str, ...]) -> bool:
    """Whether the client speaks https, to this server or to a trusted proxy."""
    if is_proxied(scope, trusted):
        told = [value for value in _values(scope, b"x-forwarded-proto") if value]
        if told:
            return told[-1].rsplit(",", 1)[-1].strip().lower() == "https"
    return scope.get("scheme") == "https"


def _peer(scope: Scope) -> Address | None:
    client = scope.get("client")
    return _parsed(client[0]) if client else None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _forwarded_for(scope: Scope) -> Iterator[str]:
    """The addresses that proxies were called from, the last one first."""
    chain = ",".join(_values(scope, b"x-forwarded-for")).rsplit(",", MAX_CHAIN)
    yield from reversed([hop.strip() for hop in chain][-MAX_CHAIN:])


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    """An address as clients and proxies write it: 192.0.2.1, 192.0.2.1:80, ::1, [::1]:80."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@functools.lru_cache(maxsize=64)
def _networks(trusted: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in trusted)


def _is_within(address: Address, trusted: tuple[str, ...]) -> bool:
    return any(address in network for network in _networks(trusted))
