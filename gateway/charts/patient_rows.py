"""What both file readers share: the result of a row, and the checks of a patient's values.

A value is checked, never guessed: a row whose meaning is in doubt is refused with a reason that names the field
but not the value, because reasons end up on screens and in logs (promise 6). A Direct address that cannot be
read is left out and noticed instead: the patient must stay linkable by hand, and an address that is not
documented never links by itself.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import date

from gateway.core.address import normalise
from gateway.core.errors import InputError
from gateway.ports import Patient

MAX_ID_CHARS = 128
MAX_TEXT_CHARS = 256
MAX_ADDRESSES = 32
_ID = re.compile(rf"[!-~]{{1,{MAX_ID_CHARS}}}\Z")
_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[T ].*)?\Z", re.ASCII)
_COMPACT_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})\Z", re.ASCII)
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})\Z", re.ASCII)
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ADDRESS_PREFIXES = ("urn:direct:", "mailto:")
_SEX = {"m": "male", "f": "female", "o": "other", "u": "unknown", "unk": "unknown"}


class RowError(ValueError):
    """A row cannot be used; the text names the field and why, without its value."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Something about one line of the file, in words for the person who imports it."""

    line: int
    """1-based line where the row begins; 0 when it concerns the whole file."""
    reason: str


@dataclass(frozen=True, slots=True)
class PatientRow:
    """One patient that was read, and what to tell about the row although it is good."""

    line: int
    patient: Patient
    notices: tuple[str, ...] = ()
    names_addresses: bool = False
    """Whether the row says anything of a Direct address, be it one that has ended or cannot be read."""


@dataclass(slots=True)
class Notices:
    """Collects the notices of one row."""

    found: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        if text not in self.found:
            self.found.append(text)


def checked_id(value: object) -> str:
    """Return a patient id: 1 to 128 printable ASCII characters without a space.

    Raises:
        RowError: missing, of another type, too long, or with other characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise RowError("the patient id is missing")
    stripped = value.strip()
    if not _ID.match(stripped):
        raise RowError(f"the patient id must be 1 to {MAX_ID_CHARS} printable ASCII characters without a space")
    return stripped


def checked_text(value: object, name: str) -> str:
    """Return text fit for storage and for a terminal, with runs of white space made one space.

    Raises:
        RowError: not text, too long, or holds control characters (an escape sequence), bidirectional overrides
            or bytes that were not UTF-8.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"{name} is not text")
    text = " ".join(value.split())
    if len(text) > MAX_TEXT_CHARS:
        raise RowError(f"{name} is longer than {MAX_TEXT_CHARS} characters")
    for char in text:
        category = unicodedata.category(char)
        if category == "Cs":
            raise RowError(f"{name} is not valid UTF-8 text")
        if category == "Cc" or char in _BIDI_CONTROLS:
            raise RowError(f"{name} holds control characters")
    return text


def checked_date(text: str, name: str) -> date | None:
    """Return a date from ``YYYY-MM-DD`` (a time may follow), ``YYYYMMDD`` or ``MM/DD/YYYY``; None when empty.

    Raises:
        RowError: anything else; a day-first or two-digit-year date is not guessed.
    """
    if not text:
        return None
    found = _ISO_DATE.match(text) or _COMPACT_DATE.match(text)
    if found:
        year, month, day = found.groups()
    else:
        found = _US_DATE.match(text)
        if found is None:
            raise RowError(f"{name} is not a date (YYYY-MM-DD)")
        month, day, year = found.groups()
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise RowError(f"{name} is not a date of the calendar") from None


def checked_sex(text: str) -> str:
    """Return the FHIR administrative gender for the usual spellings; other text is kept in lower case."""
    lowered = text.lower()
    return _SEX.get(lowered, lowered)


def checked_addresses(values: list[str], notices: Notices) -> tuple[str, ...]:
    """Return the normalised Direct addresses in order, each once; those that cannot be read become notices.

    Raises:
        RowError: more than MAX_ADDRESSES.
    """
    kept: list[str] = []
    for value in values:
        text = value.strip()
        for prefix in _ADDRESS_PREFIXES:
            if text.lower().startswith(prefix):
                text = text[len(prefix) :]
        try:
            address = normalise(text)
            address.encode("utf-8")
        except (InputError, UnicodeEncodeError):
            notices.add("a Direct address cannot be read and was left out")
            continue
        if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zs"} for char in address):
            notices.add("a Direct address cannot be read and was left out")
            continue
        if address not in kept:
            kept.append(address)
    if len(kept) > MAX_ADDRESSES:
        raise RowError(f"more than {MAX_ADDRESSES} Direct addresses")
    return tuple(kept)
