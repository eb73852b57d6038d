"""Which addresses a URL of somebody else may lead to (AS-75; S/MIME rule 17).

Purpose: decide on an address after the name has been resolved. ``public`` permits what is reached over the Internet
by everybody, at the ports where PKI is served; listed ranges are permitted on top, at any port, because an operator
named them.

Guarantees: the lists below are explicit and stand here in full. ``ipaddress.is_global`` is not asked: in Python 3.11 it
calls multicast, 6to4, NAT64, IPv4-compatible, site-local and several documentation ranges global. An IPv6 address
that carries an IPv4 address is judged by the address that it leads to, or refused.

Not covered: a translator prefix of one's own (RFC 6052 section 2.2) embeds IPv4 addresses in ordinary public ones; an
operator who runs one blocks the way to private addresses there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC_PORTS = frozenset({80, 443, 8080, 8443})
"""Where authorities serve lists, issuers and OCSP. At any other port of a stranger's choice stands some other service
(mail at 25, a database at 6379), which a request line of the stranger's choice may not reach."""

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # shared by providers (RFC 6598); a metadata service at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # the host agent of a cloud, at an address that looks public
        "169.254.0.0/16",  # link-local; metadata services at 169.254.169.254 and elsewhere
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a metadata service at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All that has been given out for global unicast. Everything outside is loopback, private, link-local, site-local,
multicast, IPv4-compatible, discard-only, translated or not assigned."""
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def as_on_the_wire(address: Address) -> Address:
    """The address that a connection would go to: ::ffff:127.0.0.1 is 127.0.0.1."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_public(address: Address) -> bool:
    """Whether the address is unicast and reached over the Internet by everybody."""
    address = as_on_the_wire(address)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    if address in _NAT64:
        # RFC 6052: on a network of IPv6 alone this is how public IPv4 hosts are reached.
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Where fetching may go."""

    listed: tuple[Network, ...] = ()
    public: bool = False

    @property
    def permits_anything(self) -> bool:
        """Whether any address at all is permitted."""
        return self.public or bool(self.listed)

    def refusal(self, address: Address, port: int) -> str | None:
        """Why the address (as on the wire) may not be connected to at that port; None when it may."""
        if any(address.version == network.version and address in network for network in self.listed):
            return None
        if not self.public or not is_public(address):
            return "the host is outside the allowed address ranges"
        if port not in PUBLIC_PORTS:
            return "the port is not one where lists and certificates are served"
        return None
