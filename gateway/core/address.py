"""Direct addresses and how they are compared (AS-2, AS-4, AS-5, AS-6).

Comparison folds case on both sides of the ``@``: the standard's own tests send to an all-capitals local part
(AS-4). What is stored and compared is always the normalised form. Folding never turns a character beyond ASCII into a
letter of ASCII: the KELVIN SIGN is no k, and whoever has it in an address is somebody else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from gateway.core.errors import InputError

_LOCAL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010FFFF-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010FFFF-]+)*\Z"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+\Z")
MAX_ADDRESS_CHARS = 254
MAX_LOCAL_CHARS = 64


@dataclass(frozen=True, slots=True, order=True)
class DirectAddress:
    """``local@domain`` in normalised (lower) case."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def parse_domain(text: str) -> str:
    """Return the normalised health domain.

    Raises:
        InputError: not an ordinary DNS name of two or more labels (AS-2), or a wildcard (AS-9).
    """
    if len(text) > MAX_ADDRESS_CHARS or not _DOMAIN.match(text):
        raise InputError(f"{text!r} is not a domain name")
    return text.lower()


@lru_cache(maxsize=4_096)
def parse_address(text: str) -> DirectAddress:
    """Return the normalised Direct address of a bare addr-spec (no display name, comment or quoting).

    Raises:
        InputError: not ``local@domain`` with a dot-atom local part and a DNS domain (RFC 5322 3.4.1, AS-2).
    """
    local, at, domain = text.rpartition("@")
    if not at or len(local) > MAX_LOCAL_CHARS or len(text) > MAX_ADDRESS_CHARS or not _LOCAL.match(local):
        raise InputError(f"{text!r} is not a Direct address")
    return DirectAddress(_folded(local), parse_domain(domain))


def _folded(local: str) -> str:
    return local.lower() if local.isascii() else "".join(map(_folded_char, local))


def _folded_char(char: str) -> str:
    small = char.lower()
    return small if char.isascii() or (len(small) == 1 and not small.isascii()) else char


def normalise(text: str) -> str:
    """Return the normalised spelling of an address, for comparison and as a key.

    Raises:
        InputError: as :func:`parse_address`.
    """
    return str(parse_address(text))
