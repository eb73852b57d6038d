"""What somebody looks for: in fields, or in one box, where each word may be anything.

Nothing is refused: what a word may mean, it means all at once (``19560803`` is a birth date and a record number,
``01940`` a ZIP, a house number and a record number), and the patients decide. A date of digits is read month first, as
it is written in the United States, and day first as well where it can be; two digits of a year mean both centuries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from gateway.core.claims import Identifier, PersonName, PostalAddress
from gateway.core.demographics import calendar_date, partial_date, sex_code, us_phone, words, zip5
from gateway.matching.placeholders import no_birth_date
from gateway.matching.profile import (
    Place,
    Profile,
    identifiers_of,
    known_sex,
    mails_of,
    names_of,
    ordinals,
    phones_of,
    places_of,
)

MAX_TEXT_CHARS = 500
MAX_WORDS = 12
_MONTHS = {name: at // 2 + 1 for at, name in enumerate(
    [
        "jan", "january", "feb", "february", "mar", "march", "apr", "april", "may", "may", "jun", "june", "jul",
        "july", "aug", "august", "sep", "september", "oct", "october", "nov", "november", "dec", "december",
    ]
)}  # fmt: skip
_MONTHS["sept"] = 9
_MONTH = "(?P<b>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\.?"
_YEAR = r"(?P<y>\d{4}|'?\d{2})"
_DATES = (
    ("year first", re.compile(r"(?<![\d/.-])(?P<y>\d{4})([-/.])(?P<m>\d{1,2})\2(?P<d>\d{1,2})(?:T\S*)?(?![\d/.-])")),
    ("month first", re.compile(r"(?<![\d/.-])(?P<m>\d{1,2})([-/.])(?P<d>\d{1,2})\2(?P<y>\d{4}|\d{2})(?![\d/.-])")),
    ("named", re.compile(rf"\b{_MONTH}[ -]*(?P<d>\d{{1,2}})(?:st|nd|rd|th)?,?[ -]+{_YEAR}(?!\d)", re.IGNORECASE)),
    (
        "named",
        re.compile(rf"(?<!\d)(?P<d>\d{{1,2}})(?:st|nd|rd|th)?[ -]*(?:of )?{_MONTH},?[ -]*{_YEAR}(?!\d)", re.IGNORECASE),
    ),
)
_YEAR_ALONE = re.compile(r"\d{4}\Z", re.ASCII)
_COMPACT = re.compile(r"(?<!\d)(\d{8})(?!\d)")
_PHONE = re.compile(r"(?<![\w-])(?:tel:)?(?:\+?1[ .-]?)?\(?[2-9]\d{2}\)?[ ./-]?\d{3}[ .-]?\d{4}(?![\w-])")
_MAIL = re.compile(r"[^\s<>,;()]+@[^\s<>,;()]+")
_SEXES = {"male": "male", "female": "female"}


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    profile: Profile = field(default_factory=Profile)
    """What is known to be what."""
    words: tuple[str, ...] = ()
    """Words that may be a name, a town or a street."""
    numbers: tuple[str, ...] = ()
    """Words with digits that may be a house number, a ZIP or a record number."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is looked for."""
        return self == Query()


@dataclass(frozen=True, slots=True)
class Fields:
    """What a person typed into fields; each may be empty."""

    given: str = ""
    family: str = ""
    dob: str = ""
    sex: str = ""
    phone: str = ""
    mrn: str = ""
    address: str = ""
    city: str = ""
    zip: str = ""
    direct: str = ""


def unreadable(fields: Fields) -> tuple[str, ...]:
    """The names of fields that hold something that cannot be read as what they are for."""
    checks = (
        ("dob", fields.dob, bool(possible_days(fields.dob) or partial_date(fields.dob))),
        ("sex", fields.sex, bool(sex_code(fields.sex))),
        ("phone", fields.phone, bool(us_phone(fields.phone))),
        ("zip", fields.zip, bool(zip5(fields.zip))),
        ("direct", fields.direct, "@" in fields.direct),
    )
    return tuple(name for name, text, good in checks if text.strip() and not good)


def in_fields(fields: Fields, text: str = "") -> Query:
    """The question of fields, and of a box beside them."""
    box = in_one_box(text)
    address = PostalAddress((fields.address,) if fields.address else (), fields.city, "", fields.zip)
    days = possible_days(fields.dob)
    profile = Profile(
        names=names_of([PersonName(fields.family, (fields.given,) if fields.given else ())]),
        births=days or box.profile.births,
        birth_part=("" if days else partial_date(fields.dob)) or box.profile.birth_part,
        sex=known_sex(fields.sex) or box.profile.sex,
        phones=phones_of([fields.phone]) or box.profile.phones,
        emails=mails_of([fields.direct]) or box.profile.emails,
        direct=mails_of([fields.direct]) or box.profile.direct,
        identifiers=(*identifiers_of([Identifier(fields.mrn)] if fields.mrn else []), *box.profile.identifiers),
        places=(*places_of([address]), *box.profile.places),
    )
    return Query(profile, box.words, box.numbers)


def in_one_box(text: str) -> Query:
    """The question of one box."""
    rest = text[:MAX_TEXT_CHARS]
    mails = tuple(_MAIL.findall(rest))
    rest = _MAIL.sub(" ", rest)
    days, rest = _take_dates(rest)
    found = _PHONE.findall(rest)
    phones = phones_of(match.strip() for match in found)
    rest = _PHONE.sub(lambda match: f" {_digits(match[0])} " if _is_bare(match[0]) else " ", rest)
    raw = [word for word in rest.replace(",", " ").split() if any(char.isalnum() for char in word)][:MAX_WORDS]
    numbers = tuple(dict.fromkeys(word for word in raw if any(char.isdigit() for char in word)))
    plain = [word for word in raw if word not in numbers]
    sex = next((_SEXES[word.lower()] for word in plain if word.lower() in _SEXES), "")
    names = (part for word in plain if word.lower() not in _SEXES for part in words(word))
    digits = [word for number in numbers if (word := "".join(words(number)))]
    years = [number for number in digits if _YEAR_ALONE.match(number) and "1890" <= number <= "2100"]
    profile = Profile(
        births=days,
        birth_part=years[0] if years and not days else "",
        sex=sex,
        phones=phones,
        emails=mails_of(mails),
        direct=mails_of(mails),
        identifiers=identifiers_of(Identifier(number) for number in numbers),
        places=tuple(Place("", "", code, "", "") for number in numbers if (code := zip5(number))),
    )
    return Query(profile, tuple(dict.fromkeys(names)), tuple(digits))


def _is_bare(text: str) -> bool:
    return text.strip().isdigit()


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def possible_days(text: str) -> tuple[int, ...]:
    """The days that a date in any usual notation may mean, as ordinals, the likeliest first; empty: none."""
    days, rest = _take_dates(text[:MAX_TEXT_CHARS])
    if days and not rest.strip(" T:0123456789Z+-."):
        return days
    whole = calendar_date(text)
    return ordinals([whole]) if whole else ()


def _take_dates(text: str) -> tuple[tuple[int, ...], str]:
    """The days in the text, and the text without them. Eight digits stay, because they may be a record number."""
    found: list[date] = []
    for kind, pattern in _DATES:
        for match in list(pattern.finditer(text)):
            if days := _days(kind, match.groupdict()):
                found += days
                text = text.replace(match[0], " ", 1)
    for match in _COMPACT.finditer(text):
        digits = match[1]
        found += _valid([(digits[:4], digits[4:6], digits[6:]), (digits[4:], digits[:2], digits[2:4])])
    return ordinals(day for day in found if not no_birth_date(day)), text


def _days(kind: str, part: dict[str, str]) -> list[date]:
    year, day = part["y"].lstrip("'"), part["d"]
    month = str(_MONTHS[part["b"].lower()]) if kind == "named" else part["m"]
    years = [year] if len(year) == 4 else [f"19{year}", f"20{year}"]
    days = _valid((one, month, day) for one in years)
    # Day first only where it cannot be month first: the comparison knows of days and months that are swapped.
    return days if days or kind != "month first" else _valid((one, day, month) for one in years)


def _valid(candidates: Iterable[tuple[str, str, str]]) -> list[date]:
    days = []
    for year, month, day in candidates:
        try:
            days.append(date(int(year), int(month), int(day)))
        except ValueError:
            continue
    return days
