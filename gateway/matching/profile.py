"""A patient, a claim or a question in the one form in which they are compared.

Guarantees: pure; the same person written in another case, with other accents, hyphens or punctuation gives the same
profile; placeholders (:mod:`gateway.matching.placeholders`) are gone, so that nothing that nobody meant is compared
(those of names are kept for the search, and marked). What is kept is immutable and shared where it repeats (names,
towns), because an index holds one profile per patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from sys import intern

from gateway.core.claims import Claim, Identifier, NameKind, PersonName, PostalAddress
from gateway.core.demographics import folded, sex_code, squashed, street_key, us_phone, words, zip5
from gateway.matching.placeholders import (
    is_nobody,
    no_birth_date,
    no_family_name,
    no_given_name,
    no_identifier,
    no_phone,
    no_street,
    no_zip,
)
from gateway.matching.records import PatientRecord

MAX_VALUES = 16
"""Of each kind that are compared; a source that lists more has its first ones taken (:func:`is_cut`)."""
MAX_NUMBERS = 64
"""Record numbers likewise: whoever exchanges documents with many others hands on those of all of them."""
MAX_CHARS = 128
"""Of one value that are compared."""
_SUFFIXES = {
    "jr": "jr", "junior": "jr", "sr": "sr", "senior": "sr", "ii": "ii", "2nd": "ii", "iii": "iii", "3rd": "iii",
    "iv": "iv", "4th": "iv",
}  # fmt: skip
_UNIT = frozenset({"apt", "ste", "unit", "rm", "fl", "bldg", "lot", "trlr", "spc", "no"})
_ASSIGNER = re.compile(r"urn:(?:oid|uuid):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Name:
    """One name. Empty: not said."""

    family: str
    """Squashed: ``garcialopez``."""
    family_words: tuple[str, ...]
    given: str
    """All given and middle names, squashed."""
    given_words: tuple[str, ...]
    suffix: str
    """``jr``, ``sr``, ``ii`` to ``iv``."""
    previous: bool
    is_given_real: bool
    """False for a placeholder, and when there is none: it can be searched for and is never evidence."""
    is_family_real: bool


@dataclass(frozen=True, slots=True)
class Place:
    """One postal address."""

    street: str
    """House number and street, abbreviated, without the unit; empty when there is no house number."""
    unit: str
    zip: str
    city: str
    state: str

    @property
    def number(self) -> str:
        """The house number or box; of a house in a grid that of the grid: ``w204n11912``."""
        words = self.street.split()
        # Without one there would be no street (place_of).
        return next(
            (word for word in words if word[0].isdigit()),
            next((word for word in words if any(char.isdigit() for char in word)), ""),
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that is compared. Each tuple holds a value once."""

    names: tuple[Name, ...] = ()
    births: tuple[int, ...] = ()
    """Ordinals of days. A patient has one at most; a question such as 3/4/56 may mean several."""
    birth_part: str = ""
    """``1970`` or ``1970-06``."""
    sex: str = ""
    """``male`` or ``female``; anything else says nothing."""
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    """Assigner and value, both normalised."""
    places: tuple[Place, ...] = ()


def of_record(record: PatientRecord) -> Profile:
    """The profile of a patient of the index."""
    births = (record.birth_date,) if record.birth_date else ()
    return Profile(
        names=names_of(record.names),
        births=ordinals(births),
        sex=known_sex(record.sex),
        phones=phones_of(record.phones),
        emails=mails_of(record.emails),
        direct=mails_of(record.direct_addresses),
        identifiers=identifiers_of(record.identifiers),
        places=places_of(record.addresses),
    )


def of_claim(claim: Claim) -> Profile:
    """The profile of what a source says."""
    births = (claim.birth_date,) if claim.birth_date else ()
    return Profile(
        names=names_of(claim.names),
        births=ordinals(births),
        birth_part="" if claim.birth_date else claim.birth_part,
        sex=known_sex(claim.sex),
        phones=phones_of(claim.phones),
        emails=mails_of(claim.emails),
        direct=mails_of(claim.direct_addresses),
        identifiers=identifiers_of(claim.identifiers),
        places=places_of(address for address in claim.addresses if not address.is_old),
    )


def is_cut(claim: Claim) -> bool:
    """Whether a claim may say more than its profile holds: what is left out may be of somebody else."""
    counted = (claim.names, claim.phones, claim.emails, claim.direct_addresses, claim.addresses)
    return any(len(values) > MAX_VALUES for values in counted) or len(claim.identifiers) > MAX_NUMBERS


def names_of(names: Iterable[PersonName]) -> tuple[Name, ...]:
    """The names that say something; one without a current name keeps its previous ones."""
    found = (_name(name) for name in names)
    return tuple(dict.fromkeys(name for name in found if name.family or name.given))[:MAX_VALUES]


def _name(name: PersonName) -> Name:
    family_words, suffix = _without_suffix(words(name.family[:MAX_CHARS]))
    given_words, other = _without_suffix(words(" ".join((*name.given, name.middle))[:MAX_CHARS]))
    said = _SUFFIXES.get(squashed(name.suffix[:MAX_CHARS]), "") or suffix or other
    family, given = "".join(family_words), "".join(given_words)
    nobody = is_nobody(given, family)
    # "Baby Boy Maria" is no Maria, and "Test Anna" is no Anna: the first word decides as well as the whole.
    given_placeholder = not given_words or no_given_name(given) or no_given_name(given_words[0])
    return Name(
        intern(family),
        tuple(map(intern, family_words)),
        intern(given),
        tuple(map(intern, given_words)),
        said,
        previous=name.kind in {NameKind.PREVIOUS, NameKind.BIRTH},
        is_given_real=not nobody and not given_placeholder,
        is_family_real=not nobody and not no_family_name(family),
    )


def _without_suffix(parts: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    if len(parts) > 1 and parts[-1] in _SUFFIXES:
        return parts[:-1], _SUFFIXES[parts[-1]]
    return parts, ""


def ordinals(days: Iterable[date]) -> tuple[int, ...]:
    """The days that are somebody's birth date, as ordinals."""
    return tuple(dict.fromkeys(day.toordinal() for day in days if not no_birth_date(day)))


def known_sex(text: str) -> str:
    """``male``, ``female`` or nothing: what else is recorded contradicts neither."""
    code = sex_code(text)
    return code if code in {"male", "female"} else ""


def phones_of(values: Iterable[str]) -> tuple[str, ...]:
    """The telephone numbers that are somebody's."""
    found = (us_phone(value[:MAX_CHARS]) for value in values)
    return tuple(dict.fromkeys(digits for digits in found if digits and not no_phone(digits)))[:MAX_VALUES]


def mails_of(values: Iterable[str]) -> tuple[str, ...]:
    """Mail addresses in lower case."""
    found = (value.strip().lower().removeprefix("mailto:").removeprefix("urn:direct:") for value in values)
    return tuple(dict.fromkeys(value for value in found if "@" in value))[:MAX_VALUES]


def identifiers_of(values: Iterable[Identifier]) -> tuple[tuple[str, str], ...]:
    """Assigner and value of the record numbers that are some."""
    found = ((assigner_key(value.assigner), identifier_key(value.value)) for value in values)
    return tuple(dict.fromkeys(pair for pair in found if not no_identifier(pair[1])))[:MAX_NUMBERS]


def assigner_key(text: str) -> str:
    """An assigner in the form in which it is compared: OID without ``urn:oid:``, lower case."""
    return intern(_ASSIGNER.sub("", text.strip()).lower())


def identifier_key(text: str) -> str:
    """A record number in the form in which it is compared: case and separators do not matter, zeros do."""
    return squashed(text[:MAX_CHARS])


def places_of(values: Iterable[PostalAddress]) -> tuple[Place, ...]:
    """The addresses that say something."""
    found = (place_of(value) for value in values)
    return tuple(dict.fromkeys(place for place in found if place.street or place.zip or place.city))[:MAX_VALUES]


def place_of(address: PostalAddress) -> Place:
    """An address with its unit apart."""
    line = street_key(text.replace("#", " unit ")[:MAX_CHARS] for text in address.lines)
    parts = line.split()
    unit = ""
    # The first word is the house number or the street: a unit stands behind it.
    for at, word in enumerate(parts[1:], start=1):
        if word in _UNIT:
            unit = "".join(part for part in parts[at + 1 :] if part not in _UNIT)
            parts = parts[:at]
            break
    street = "" if no_street("".join(parts)) else " ".join(parts)
    code = zip5(address.postal_code)
    return Place(
        street,
        unit if street else "",
        "" if no_zip(code) else intern(code),
        intern(folded(address.city[:MAX_CHARS])),
        intern(folded(address.state[:MAX_CHARS])),
    )
