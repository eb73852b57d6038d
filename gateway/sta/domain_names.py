"""Domains beyond ASCII in one canonical form, so that two spellings of one domain compare equal and nothing else does.

The form is that of the DNS and of certificates: A-labels (``xn--...``) in lower case, after IDNA 2008 (RFC 5891).
Capital letters are made small first, as for any domain. Nothing else is mapped: a label that is not in NFC, a wide or
otherwise compatible letter, an ideographic full stop, or a label that IDNA forbids makes the address unreadable,
because mail programs differ on what it means. ``idna`` is used and not the codec of the standard library, which
follows IDNA 2003: that turns a sharp s into ``ss``, which is the domain of somebody else.

Failure modes: InputError, with the address left out of the text.
"""

from __future__ import annotations

import unicodedata

import idna

from gateway.core.address import DirectAddress, parse_address
from gateway.core.errors import InputError

MAX_DOMAIN_CHARS = 253


def parse_any_address(text: str) -> DirectAddress:
    """Return the normalised Direct address of a bare addr-spec whose domain may be written in U-labels (RFC 5890).

    Raises:
        InputError: it is none, or its domain is none.
    """
    local, at, domain = text.rpartition("@")
    return parse_address(text if domain.isascii() else f"{local}{at}{in_a_labels(domain)}")


def in_a_labels(domain: str) -> str:
    """Return the domain with each label beyond ASCII as an A-label; those of ASCII stay as they are.

    Raises:
        InputError: IDNA 2008 forbids a label, or it is not in NFC.
    """
    if len(domain) > MAX_DOMAIN_CHARS:
        raise InputError("the domain is too long")
    # Divided at the ASCII full stop alone.
    return ".".join(label if label.isascii() else _a_label(label) for label in domain.split("."))


def _a_label(label: str) -> str:
    # Before the capitals go: the KELVIN SIGN would become a k, and it is no way to write one.
    if not unicodedata.is_normalized("NFC", label):
        raise InputError("the domain is not in the normal form of Unicode (NFC)")
    try:
        return idna.alabel(label.lower()).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise InputError("the domain is not valid after IDNA 2008") from None
