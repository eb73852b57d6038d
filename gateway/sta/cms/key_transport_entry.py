"""KeyTransRecipientInfo without its encrypted key (RFC 5652 section 6.2.1): read once for each certificate.

All that stands in an entry before the encrypted key is the same whenever somebody writes to the same certificate
again: it is found by its octets. It says how octets are read, and nothing of any key or policy. What is remembered is
bounded in entries and bytes, and holds no Document: that one counts what is read from it, and is for one message.

Failure modes: :class:`RejectionError` from :func:`read_method`; what cannot be read is None otherwise, and is left to
who reads entries element by element.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gateway.core.errors import RejectionError
from gateway.sta.cms.ber import ANY, INTEGER, OCTET_STRING, SEQUENCE, Document, Element, Expected
from gateway.sta.cms.identifiers import CertificateIdentifier, read_identifier

MAX_BEGINNING_BYTES = 1_024
RECIPIENT: Expected = ((INTEGER, "a recipient's version"), (ANY, "a recipient's identifier"))
ENCRYPTED_KEY: Expected = ((SEQUENCE, "a key encryption algorithm"), (OCTET_STRING, "an encrypted key"))
_MOST_KEY_BYTES = 512
_USUAL_KEYS = [(size, b"\x04\x82" + size.to_bytes(2, "big")) for size in (256, 384, _MOST_KEY_BYTES)]
"""Sizes of encrypted keys in bytes (RSA with 2048, 3072 and 4096 bits), and what stands before one."""


class Beginning(NamedTuple):
    """All of an entry that stands before the encrypted key, and what it says."""

    identifier: CertificateIdentifier
    method: bytes
    """The key encryption algorithm as encoded."""
    oid: str
    """The algorithm's identifier, dotted."""


def only_entry(infos: Element) -> bytes | None:
    """The one entry in the set of them as encoded; None when there are several, or it is of no usual size."""
    start, end = infos.body, infos.body_end
    if end - start > MAX_BEGINNING_BYTES + _MOST_KEY_BYTES:
        return None
    encoded = bytes(infos.document.source[start:end])
    is_one = encoded.startswith(b"\x30\x82") and int.from_bytes(encoded[2:4], "big") == end - start - 4
    return encoded if is_one else None


def known_beginning(encoded: bytes) -> tuple[Beginning, bytes] | None:
    """The beginning of an entry and the encrypted key, when that has a usual size and stands at the end."""
    for size, header in _USUAL_KEYS:
        before = len(encoded) - size
        if 0 < before <= MAX_BEGINNING_BYTES and encoded.startswith(header, before - len(header)):
            found = _beginning(encoded[:before], size)
            if found is not None:
                return found, encoded[before:]
    return None


@lru_cache(maxsize=512)
def _beginning(encoded: bytes, key_bytes: int) -> Beginning | None:
    """Read what stands before an encrypted key of that size; None when no such key follows, or it cannot be read.

    When every length in it is definite, nothing in it depends on the octets of the key.
    """
    document = Document(encoded + bytes(key_bytes))
    try:
        cursor = document.root().open()
        _, named = cursor.take_each(RECIPIENT)
        identifier = read_identifier(named, "a recipient's identifier")
        method, key = cursor.take_each(ENCRYPTED_KEY)
        oid = read_method(method)
    except RejectionError:
        return None
    is_the_key = (key.body, key.body_end) == (len(encoded), len(encoded) + key_bytes)
    return Beginning(identifier, method.encoded, oid) if is_the_key and document.is_definite else None


def read_method(element: Element) -> str:
    """Return the dotted identifier of a key encryption algorithm.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    return element.open().oid("a key encryption algorithm")
