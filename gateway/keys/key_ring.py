"""All private keys of this gateway, found by address or domain.

Several keys for one name are kept and offered newest first (AS-14), so that a rollover loses no mail: what was
encrypted to the old certificate is still opened. A certificate that has expired still decrypts, for the same reason.
One name may have a certificate for signing and another for encryption (AS-13): for decryption the keys that are meant
for it come first and the others last, because a peer may have encrypted to the wrong one and mail must not be lost
for it; for signing only those that may sign are offered.

Guarantees: immutable once made. Every question is answered from tables made at the start, so its cost depends on how
many names are asked for, never on how many keys there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from gateway.core.address import parse_address
from gateway.core.errors import InputError
from gateway.ports import KeyOps


class HeldKey(KeyOps, Protocol):
    """What the ring knows of a key besides its operations, wherever it lives."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER of the certificates above the leaf that are known here, to be sent along (AS-28)."""
        ...

    @property
    def not_before(self) -> datetime: ...

    @property
    def not_after(self) -> datetime: ...

    @property
    def source(self) -> str:
        """Where it comes from, for messages to the operator."""
        ...


class KeyRing:
    """Implements :class:`gateway.ports.KeyRing`."""

    __slots__ = ("_decrypting", "_domains", "_keys", "_names", "_signing", "notes", "warnings")

    def __init__(self, keys: Sequence[HeldKey], warnings: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        newest_first = sorted(keys, key=lambda key: key.not_before, reverse=True)
        self._keys: tuple[HeldKey, ...] = tuple({key.certificate: key for key in newest_first}.values())
        self._decrypting = _by_name(
            (*(key for key in self._keys if key.may_decrypt), *(key for key in self._keys if not key.may_decrypt))
        )
        self._signing = _by_name(key for key in self._keys if key.may_sign)
        self._names = frozenset(self._decrypting)
        self._domains = frozenset(name.rpartition("@")[2] for name in self._names)
        self.warnings = (*warnings, *self._one_sided())
        self.notes = tuple(notes)

    def keys_for(self, recipients: Sequence[str]) -> Sequence[HeldKey]:
        """Return the keys bound to any of the addresses, then those bound to exactly their domains (AS-49).

        Within each the keys that are meant for decryption come first, and of them the newest. What is no Direct
        address has no key.
        """
        addresses, domains = _split(recipients)
        found: dict[bytes, HeldKey] = {}
        for names in (addresses, domains):
            keys = [key for name in names for key in self._decrypting.get(name, ())]
            if len(names) > 1:
                keys.sort(key=_newest_that_decrypts_first)
            for key in keys:
                found.setdefault(key.certificate, key)
        return tuple(found.values())

    def signers_for(self, sender: str, at: datetime | None = None) -> Sequence[HeldKey]:
        """Return the keys that may sign for the address: its own first, then its domain's, newest first (AS-13).

        With ``at`` only those whose certificate is valid at the (aware) moment: an empty answer then means that
        nothing can be sent for the address (AS-76).
        """
        addresses, domains = _split((sender,))
        found = [key for name in (*addresses, *domains) for key in self._signing.get(name, ())]
        if at is not None:
            found = [key for key in found if key.not_before <= at <= key.not_after]
        return tuple({key.certificate: key for key in found}.values())

    def names(self) -> frozenset[str]:
        """Return every address and domain that has a key; the same object each time."""
        return self._names

    def domains(self) -> frozenset[str]:
        """Return the domains of all names: those for which this gateway receives; the same object each time."""
        return self._domains

    @property
    def keys(self) -> tuple[HeldKey, ...]:
        """Every key, newest first, also those whose certificate binds no name."""
        return self._keys

    def _one_sided(self) -> list[str]:
        """What an operator should know: names that nobody can encrypt to."""
        sources = (held[0].source for held in self._decrypting.values() if not held[0].may_decrypt)
        return [
            f"{source} may not decrypt, and no other key of its names may: peers cannot encrypt to them"
            for source in dict.fromkeys(sources)
        ]


def _newest_that_decrypts_first(key: HeldKey) -> tuple[bool, float]:
    return not key.may_decrypt, -key.not_before.timestamp()


def _by_name(keys: Iterable[HeldKey]) -> Mapping[str, tuple[HeldKey, ...]]:
    """Group by name; the order within a name is the order given."""
    groups: dict[str, list[HeldKey]] = {}
    for key in keys:
        for name in key.names:
            groups.setdefault(name, []).append(key)
    return {name: tuple(group) for name, group in groups.items()}


def _split(recipients: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the normalised addresses and their domains, each once and in order."""
    addresses: dict[str, None] = {}
    domains: dict[str, None] = {}
    for recipient in recipients:
        try:
            address = parse_address(recipient)
        except InputError:
            continue
        addresses[str(address)] = None
        domains[address.domain] = None
    return tuple(addresses), tuple(domains)
