"""Whom a limit or a delay counts as one peer."""

from __future__ import annotations

import ipaddress


def peer_network(peer: str) -> str:
    """Whom the per-peer limit counts: one IPv4 address, or one IPv6 /64, as a host can use any address in it."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
