"""Whom an encrypted message is for: the certificates that its recipient entries name (RFC 5652 section 6.2).

Only for telling an operator which private key is missing. Nothing is decrypted, and no decision rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from gateway.core.errors import RejectionError
from gateway.sta.cms.ber import CONSTRUCTED, CONTEXT, INTEGER, SEQUENCE, SET, Buffer, Element
from gateway.sta.cms.content_info import AUTH_ENVELOPED_DATA, ENVELOPED_DATA, open_content
from gateway.sta.cms.identifiers import CertificateIdentifier, read_identifier
from gateway.sta.cms.recipients import agreement_identifier

_KEY_AGREEMENT = CONTEXT | CONSTRUCTED | 1


def wanted_recipients(der: Buffer, limit: int) -> list[CertificateIdentifier]:
    """Return at most ``limit`` identifiers, in the order of the message; entries that cannot be read are left out.

    Raises:
        RejectionError: it is no EnvelopedData or AuthEnvelopedData that can be read.
    """
    fields = open_content(der, ENVELOPED_DATA, AUTH_ENVELOPED_DATA)[1].expect(SEQUENCE, "the enveloped data").open()
    fields.take(INTEGER, "the version")
    fields.optional(CONTEXT | CONSTRUCTED)  # originatorInfo
    found: list[CertificateIdentifier] = []
    for entry in islice(fields.take(SET, "the recipients").open(), limit):
        try:
            found += islice(_identifiers(entry), limit - len(found))
        except RejectionError:
            continue
    return found


def _identifiers(entry: Element) -> Iterator[CertificateIdentifier]:
    cursor = entry.open()
    cursor.skip(INTEGER, "a recipient's version")
    if entry.tag == SEQUENCE:
        yield read_identifier(cursor.next("a recipient's identifier"), "a recipient's identifier")
    elif entry.tag == _KEY_AGREEMENT:
        cursor.take(CONTEXT | CONSTRUCTED, "a key agreement's originator")
        cursor.optional(CONTEXT | CONSTRUCTED | 1)
        cursor.take(SEQUENCE, "a key agreement's algorithm")
        for recipient in cursor.take(SEQUENCE, "a key agreement's recipients").open():
            yield agreement_identifier(recipient.expect(SEQUENCE, "a key agreement's recipient").open())
