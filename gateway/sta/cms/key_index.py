"""Our private keys, found by what a RecipientInfo names them with.

A gateway may hold thousands of keys and a message may have a thousand recipients, so neither is searched through for
each of the other. What the index finds is compared in full afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.errors import RejectionError
from gateway.ports import KeyOps
from gateway.sta.cms.identifiers import CertificateFields, CertificateIdentifier, IssuerAndSerial, certificate_fields


class KeyIndex:
    """Keys in the order in which they are to be tried. Immutable; safe to share between threads."""

    __slots__ = ("_by_identifier", "_by_serial", "_first")

    def __init__(self, keys: Sequence[KeyOps]) -> None:
        """Index the keys. One whose certificate cannot be read can be meant by nobody, and is left out."""
        self._by_serial: dict[int, list[tuple[KeyOps, CertificateFields]]] = {}
        self._by_identifier: dict[bytes, list[tuple[KeyOps, CertificateFields]]] = {}
        self._first: dict[bytes, int] = {}
        for key in keys:
            try:
                fields = certificate_fields(key.certificate)
            except RejectionError:
                continue
            self._by_serial.setdefault(fields.serial, []).append((key, fields))
            self._by_identifier.setdefault(fields.key_identifier, []).append((key, fields))

    def preferring(self, keys: Sequence[KeyOps]) -> KeyIndex:
        """The same index, except that those of its keys which are among these are tried first, in their order."""
        other = object.__new__(KeyIndex)
        other._by_serial, other._by_identifier = self._by_serial, self._by_identifier
        other._first = {key.certificate: place for place, key in enumerate(keys)}
        return other

    def matching(self, identifier: CertificateIdentifier) -> list[KeyOps]:
        """The keys whose certificate is meant, in the order in which they are to be tried."""
        if isinstance(identifier, IssuerAndSerial):
            listed = self._by_serial.get(identifier.serial, ())
        else:
            listed = self._by_identifier.get(identifier.value, ())
        found = [key for key, fields in listed if identifier.matches(fields)]
        if len(found) > 1 and self._first:
            found.sort(key=lambda key: self._first.get(key.certificate, len(self._first)))
        return found
