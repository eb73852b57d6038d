"""Who may receive mail here: what RCPT is answered from.

Guarantees: addresses are compared without regard to case, local part included (AS-4). Failure modes: none; an
address that cannot be read is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from gateway.core.address import normalise, parse_domain
from gateway.core.errors import InputError


class RecipientStatus(Enum):
    """What an address is to this gateway."""

    LOCAL = "local"
    """It has an inbox here: 250."""
    UNKNOWN = "unknown"
    """The domain is ours, the address is not: 550 5.1.1."""
    FOREIGN = "foreign"
    """Somebody else's domain: 550 5.7.1, for this listener never relays."""


class LocalRecipients:
    """The addresses and domains of the settings, as the question that the listener asks.

    Args:
        domains: local health domains.
        addresses: addresses that have an inbox.

    Raises:
        InputError: one of them is not a domain or an address.
    """

    def __init__(self, domains: Iterable[str], addresses: Iterable[str]) -> None:
        self._addresses = frozenset(normalise(address) for address in addresses)
        self._domains = frozenset(parse_domain(domain) for domain in domains)

    def __call__(self, address: str) -> RecipientStatus:
        try:
            if normalise(address) in self._addresses:
                return RecipientStatus.LOCAL
        except InputError:
            pass
        domain = address.rpartition("@")[2].lower()
        # <postmaster> without a domain is an address of ours by definition, though one without an inbox.
        return RecipientStatus.UNKNOWN if domain in self._domains or "@" not in address else RecipientStatus.FOREIGN
