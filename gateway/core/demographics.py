"""Names, dates, phones, postal codes and sexes in the one form in which they are compared.

Guarantees: pure and total: any text gives a result and none raises; the time is linear in the text (callers bound it).
Two spellings of one thing (case, accents, punctuation, hyphens, full-width digits) give one result. Nothing is
guessed: what cannot be read gives the empty string or None, which agrees with nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import date

_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "\u0131": "i", "ħ": "h", "ŧ": "t"}
)
"""Letters that Unicode does not decompose although readers of English drop their mark."""
_ACCENTS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u180b-\u180d"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f\U000e0100-\U000e01ef]"
)
"""Accents of letters, the points of Hebrew and Arabic, and selectors of variants: they come and go in the same name.

All other marks are kept: in the scripts of India and Thailand they are the vowels, and in kana they tell two sounds
apart. Without them the names of twins are one.
"""
_APOSTROPHES = frozenset("'`.\u00b4\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\u2018\u2019\u2032")
_PHONE_EXTENSION = re.compile(r"(?:;|,|#|\be?xt?(?:ension|n)?\b|x(?=\s*\d)).*", re.IGNORECASE | re.DOTALL)
_DATES = (
    re.compile(r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})(?:[T ].*)?\Z", re.ASCII | re.DOTALL),
    re.compile(r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})(?:\d{2,6}(?:\.\d*)?(?:[+-]\d{2}:?\d{2}|Z)?)?\Z", re.ASCII),
    re.compile(r"(?P<m>\d{1,2})[/.-](?P<d>\d{1,2})[/.-](?P<y>\d{4})\Z", re.ASCII),
)
_PARTIAL_DATE = re.compile(r"(\d{4})(?:-?(\d{2}))?\Z", re.ASCII)
_POSTAL_CODE = re.compile(r"(\d{5})(?:[ -]?\d{4})?\Z", re.ASCII)
_SEXES = {
    "m": "male", "male": "male", "man": "male",
    "f": "female", "female": "female", "woman": "female",
    "o": "other", "other": "other", "un": "other", "a": "other", "x": "other", "ambiguous": "other",
    "undifferentiated": "other", "u": "unknown", "unk": "unknown", "unknown": "unknown", "n": "unknown",
}  # fmt: skip
_STREET_WORDS = {
    "avenue": "ave", "av": "ave", "boulevard": "blvd", "circle": "cir", "court": "ct", "crossing": "xing",
    "drive": "dr", "expressway": "expy", "freeway": "fwy", "heights": "hts", "highway": "hwy", "lane": "ln",
    "mount": "mt", "mountain": "mtn", "parkway": "pkwy", "place": "pl", "plaza": "plz", "point": "pt", "road": "rd",
    "route": "rte", "saint": "st", "square": "sq", "street": "st", "str": "st", "terrace": "ter", "trail": "trl",
    "turnpike": "tpke", "way": "way", "apartment": "apt", "building": "bldg", "floor": "fl", "room": "rm",
    "suite": "ste", "unit": "unit", "north": "n", "south": "s", "east": "e", "west": "w", "northeast": "ne",
    "northwest": "nw", "southeast": "se", "southwest": "sw",
}  # fmt: skip
"""The abbreviations of the postal service for the words that differ most often."""


def folded(text: str) -> str:
    """Lower-case words with single spaces: NFKD, case folded, without accents and punctuation, hyphens made spaces.

    ``"O'Brien-García "`` gives ``"obrien garcia"``.
    """
    if text.isascii():
        return " ".join(text.lower().translate(_ASCII).split())
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    plain = _ACCENTS.sub("", decomposed).translate(_LETTERS)
    return " ".join("".join(map(_kept, plain)).split())


def _kept(char: str) -> str:
    # Hyphens and other separators stand between words; an apostrophe or a full stop is within one.
    if char in _APOSTROPHES:
        return ""
    if char.isalnum():
        return char
    category = unicodedata.category(char)
    return char if category in {"Mn", "Mc", "Me"} else "" if category in {"Cf", "Sk"} else " "


_ASCII = {code: _kept(chr(code)) for code in range(128)}
"""The same for most texts at once: an index of patients folds a million of them."""


def words(text: str) -> tuple[str, ...]:
    """The words of :func:`folded`."""
    return tuple(folded(text).split())


def squashed(text: str) -> str:
    """:func:`folded` without its spaces: ``Van der Berg``, ``VanDerBerg`` and ``van-der-berg`` are one name."""
    return folded(text).replace(" ", "")


def us_phone(text: str) -> str:
    """Ten digits of a number of the North American plan, without country code and extension; else the empty string."""
    number = unicodedata.normalize("NFKC", text).strip().lower()
    for prefix in ("tel:", "fax:", "sms:"):
        number = number.removeprefix(prefix)
    number = _PHONE_EXTENSION.sub("", number)
    international = number.strip().startswith("+")
    digits = "".join(char for char in number if char in "0123456789")
    if len(digits) == 11 and digits[0] == "1":
        return digits[1:] if digits[1] not in "01" else ""
    if international or len(digits) != 10 or digits[0] in "01":
        return ""
    return digits


def calendar_date(text: str) -> date | None:
    """A whole date, or None: ``YYYY-MM-DD`` or ``YYYYMMDD`` (a time may follow), ``MM/DD/YYYY`` (also with - or .).

    Day-first and two-digit years are not guessed.
    """
    stripped = text.strip()
    for pattern in _DATES:
        if found := pattern.match(stripped):
            try:
                return date(int(found["y"]), int(found["m"]), int(found["d"]))
            except ValueError:
                return None
    return None


def partial_date(text: str) -> str:
    """``YYYY`` or ``YYYY-MM`` of an incomplete date (``1970``, ``197006``, ``1970-06``); else the empty string."""
    found = _PARTIAL_DATE.match(text.strip())
    if found is None or found[1] == "0000":
        return ""
    year, month = found.groups()
    if month is None:
        return year
    return f"{year}-{month}" if "01" <= month <= "12" else ""


def zip5(text: str) -> str:
    """The five digits of a US postal code (ZIP or ZIP+4), or the empty string."""
    found = _POSTAL_CODE.match(unicodedata.normalize("NFKC", text).strip())
    return found[1] if found else ""


def sex_code(text: str) -> str:
    """``male``, ``female``, ``other`` or ``unknown`` for the codes of HL7 v2, v3 and FHIR; empty for anything else."""
    return _SEXES.get(text.strip().lower(), "")


def street_key(lines: Iterable[str]) -> str:
    """An address line in the form in which it is compared: folded, with the usual words abbreviated."""
    return " ".join(_STREET_WORDS.get(word, word) for word in words(" ".join(lines)))
