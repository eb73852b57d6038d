"""How two profiles agree, field by field, with points and reasons.

The points follow the input weights of HL7's Identity Matching implementation guide: address, telecom and record number
4 each, first and last name together 3, birth date 2, sex, previous name, nickname and middle name nothing of their own.
What is only near earns a part of it, so that the likelier patient stands first; a contradiction costs nothing in
``points`` (a sum of evidence) and something in ``rank`` (the order in which a person sees them).

Guarantees: pure, and symmetric: which side is the patient and which the claim makes no difference, neither to points
nor to agreements (an asymmetric comparison finds a duplicate from one side only).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from rapidfuzz.distance import OSA

from gateway.core.findings import Agreement
from gateway.matching.nicknames import are_nicknames
from gateway.matching.phonetic import sound
from gateway.matching.profile import Name, Place, Profile

GIVEN = 2.0
FAMILY = 1.0
BIRTH = 2.0
PHONE = ADDRESS = MAIL = RECORD_NUMBER = 4.0
_AGREEMENTS = tuple(Agreement)
_PARTICLES = frozenset({
    "de", "da", "del", "della", "der", "den", "di", "do", "dos", "das", "du", "la", "las", "le", "los", "van",
    "von", "y", "e", "el", "al", "bin", "ben", "ter", "ten",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a patient was found, or what speaks against it. No value of anybody stands in it."""

    field: str
    """``given name``, ``family name``, ``birth date``, ``sex``, ``phone``, ``address``, ``e-mail``, ``Direct address``,
    ``record number``, ``ZIP``, ``city``, ``name``."""
    how: str
    """``equal``, ``previous name``, ``compatible``, ``near``, ``sounds alike``, ``swapped``, ``different`` ..."""
    points: float

    def __str__(self) -> str:
        sign = {"equal": "=", "near": "\u2248", "different": "\u2260"}.get(self.how)
        return f"{self.field} {sign}" if sign else f"{self.field}: {self.how}"


@dataclass(frozen=True, slots=True)
class Match:
    """How two profiles agree."""

    points: float
    rank: float
    family: Agreement
    given: Agreement
    birth_date: Agreement
    sex: Agreement
    phones: frozenset[str]
    """Those that both have; likewise the next two. What only one side says is in none of them."""
    direct: frozenset[str]
    places: frozenset[Place]
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class _Tally:
    points: float = 0.0
    penalty: float = 0.0
    reasons: list[Reason] = field(default_factory=list)

    def add(self, what: str, how: str, points: float) -> None:
        self.points += points
        self.reasons.append(Reason(what, how, points))

    def against(self, what: str, how: str, penalty: float) -> None:
        self.penalty += penalty
        self.reasons.append(Reason(what, how, 0.0))


@dataclass(frozen=True, slots=True)
class NamePair:
    """How two names agree."""

    family: Agreement
    given: Agreement
    points: float
    family_points: float = 0.0
    """The part of the points that the family name has."""
    swapped: bool = False
    detail: str = ""
    """``nickname``, ``initial``, ``middle name``, ``suffix``: what makes a given name less than equal."""


def match(one: Profile, other: Profile) -> Match:
    """Compare two profiles."""
    tally = _Tally()
    pair = best_names(one.names, other.names)
    _tell_names(pair, tally)
    birth = _births(one, other, tally)
    sex = _sexes(one.sex, other.sex, tally)
    phones = _phones(one.phones, other.phones, tally)
    direct = _mails(one, other, tally)
    places = _places(one.places, other.places, tally)
    _identifiers(one, other, tally)
    return Match(
        tally.points,
        tally.points - tally.penalty,
        pair.family,
        pair.given,
        birth,
        sex,
        phones,
        direct,
        places,
        tuple(tally.reasons),
    )


def best_names(one: tuple[Name, ...], other: tuple[Name, ...]) -> NamePair:
    """The two names, one of each side, that agree best."""
    best = NamePair(Agreement.UNKNOWN, Agreement.UNKNOWN, 0.0)
    seen = False
    for left in one:
        for right in other:
            pair = name_pair(left, right)
            if not seen or _order(pair) > _order(best):
                best, seen = pair, True
    return best


def _order(pair: NamePair) -> tuple[float, int, int, str]:
    """Of equal points the better agreement decides, whichever side lists its names in which order."""
    return pair.points, -_AGREEMENTS.index(pair.family), -_AGREEMENTS.index(pair.given), pair.detail


def name_pair(one: Name, other: Name) -> NamePair:
    """Compare two names as they stand, and with given and family name swapped."""
    family, family_points = _family(one, other)
    given, given_points, detail = _given(one, other)
    if family is Agreement.EQUAL and (one.previous or other.previous):
        # Two who were born with one name and bear others now may be sisters.
        family = Agreement.COMPATIBLE if one.previous and other.previous else Agreement.PREVIOUS
    pair = NamePair(family, given, family_points + given_points, family_points, detail=detail)
    real = one.is_family_real and one.is_given_real and other.is_family_real and other.is_given_real
    if real and pair.points < 2.0 and one.family == other.given and one.given == other.family:
        return NamePair(Agreement.NEAR, Agreement.NEAR, 2.25, swapped=True)
    return pair


def _family(one: Name, other: Name) -> tuple[Agreement, float]:
    if not one.family or not other.family:
        return Agreement.UNKNOWN, 0.0
    if not (one.is_family_real and other.is_family_real):
        return Agreement.UNKNOWN, 0.25 if one.family == other.family else 0.0
    if one.family == other.family:
        return Agreement.EQUAL, FAMILY
    if not _surnames(one).isdisjoint(_surnames(other)):
        return Agreement.COMPATIBLE, 0.75
    edits = near(one.family, other.family)
    if edits:
        return Agreement.NEAR, 0.75 if edits == 1 else 0.5
    if sound(one.family) == sound(other.family):
        return Agreement.NEAR, 0.4
    return Agreement.DIFFERENT, 0.0


def _surnames(name: Name) -> frozenset[str]:
    return frozenset(word for word in name.family_words if len(word) > 2 and word not in _PARTICLES)


def _given(one: Name, other: Name) -> tuple[Agreement, float, str]:
    if not one.given or not other.given:
        return Agreement.UNKNOWN, 0.0, ""
    if not (one.is_given_real and other.is_given_real):
        return Agreement.UNKNOWN, 0.25 if one.given == other.given else 0.0, ""
    if one.suffix and other.suffix and one.suffix != other.suffix:
        # Father and son. The names agree otherwise, so they are shown one beside the other.
        return Agreement.DIFFERENT, 1.0 if one.given == other.given else 0.0, "suffix"
    if one.given == other.given:
        if all(map(_is_initial, one.given_words)):
            # Twins may share it, and nobody knows what it stands for.
            return Agreement.COMPATIBLE, 1.25, "initial"
        return Agreement.EQUAL, GIVEN, ""
    first, second = one.given_words, other.given_words
    if first[0] == second[0]:
        return _middles(first[1:], second[1:])
    if len(first[0]) == 1 or len(second[0]) == 1:
        if first[0][0] == second[0][0]:
            return Agreement.COMPATIBLE, 1.25, "initial"
        return Agreement.DIFFERENT, 0.0, ""
    if are_nicknames(first[0], second[0]):
        return Agreement.COMPATIBLE, 1.5, "nickname"
    edits = near(one.given, other.given) or near(first[0], second[0])
    if edits:
        return Agreement.NEAR, 1.25 if edits == 1 else 1.0, ""
    if first[0] in second or second[0] in first:
        return Agreement.NEAR, 1.0, "middle name"
    if sound(first[0]) == sound(second[0]):
        return Agreement.NEAR, 0.75, ""
    return Agreement.DIFFERENT, 0.0, ""


def _is_initial(word: str) -> bool:
    """Whether a given name is one letter of an alphabet; a sign of Chinese writing is a whole name."""
    return len(word) == 1 and word < "\u2e80"


def _middles(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[Agreement, float, str]:
    """First names are the same; what of the others? Twins may be Maria Elena and Maria Luisa."""
    for left, right in zip(one, other, strict=False):
        if left != right and not (min(len(left), len(right)) == 1 and left[0] == right[0]):
            return Agreement.NEAR, 1.25, "middle name"
    return Agreement.COMPATIBLE, 1.75, "middle name"


def near(one: str, other: str) -> int:
    """How many slips of the keyboard lie between two words: 1 or 2, or 0 when they are equal or too far apart."""
    shorter = min(len(one), len(other))
    if one == other or shorter < 3:
        return 0
    most = 2 if shorter > 4 else 1
    edits = OSA.distance(one, other, score_cutoff=most)
    return edits if edits <= most else 0


def _tell_names(pair: NamePair, tally: _Tally) -> None:
    if pair.swapped:
        tally.add("name", "swapped", pair.points)
        return
    parts = (
        ("family name", pair.family, "", pair.family_points),
        ("given name", pair.given, pair.detail, pair.points - pair.family_points),
    )
    tally.points += pair.points
    for what, agreement, detail, points in parts:
        if agreement is Agreement.UNKNOWN:
            continue
        how = {Agreement.PREVIOUS: "previous name", Agreement.COMPATIBLE: detail or "part of it"}.get(
            agreement, detail or str(agreement)
        )
        tally.reasons.append(Reason(what, how, points))
        if agreement is Agreement.DIFFERENT:
            tally.penalty += 0.5


def _births(one: Profile, other: Profile, tally: _Tally) -> Agreement:
    if one.births and other.births:
        if not set(one.births).isdisjoint(other.births):
            tally.add("birth date", "equal", BIRTH)
            return Agreement.EQUAL
        how = max(near_days(a, b) for a in one.births for b in other.births)
        if how:
            tally.add("birth date", how, 1.0)
            return Agreement.NEAR
        tally.against("birth date", "different", 1.0)
        return Agreement.DIFFERENT
    part, births = (one.birth_part, other.births) if one.birth_part else (other.birth_part, one.births)
    if not part or not births:
        return Agreement.UNKNOWN
    if any(iso(day).startswith(part) for day in births):
        tally.add("birth date", "part of it", 0.5)
        return Agreement.COMPATIBLE
    tally.against("birth date", "different", 1.0)
    return Agreement.DIFFERENT


def near_days(one: int, other: int) -> str:
    """How two different days may be one that was written wrongly: the words for it, or nothing."""
    a, b = iso(one), iso(other)
    if a[:4] == b[:4] and a[5:7] == b[8:] and a[8:] == b[5:7]:
        return "day and month swapped"
    if a[5:] == b[5:] and abs(int(a[:4]) - int(b[:4])) in {1, 10, 100}:
        return "year near"
    return "near" if OSA.distance(a, b, score_cutoff=1) == 1 else ""


@lru_cache(maxsize=65_536)
def iso(day: int) -> str:
    """``YYYY-MM-DD`` of an ordinal."""
    return date.fromordinal(day).isoformat()


def _sexes(one: str, other: str, tally: _Tally) -> Agreement:
    if not one or not other:
        return Agreement.UNKNOWN
    if one == other:
        tally.add("sex", "equal", 0.0)
        return Agreement.EQUAL
    tally.against("sex", "different", 0.75)
    return Agreement.DIFFERENT


def _phones(one: tuple[str, ...], other: tuple[str, ...], tally: _Tally) -> frozenset[str]:
    common = frozenset(one) & frozenset(other)
    if common:
        tally.add("phone", "equal", PHONE)
    elif any(a[3:] == b[3:] for a in one for b in other):
        tally.add("phone", "other area code", 2.0)
    elif any(OSA.distance(a, b, score_cutoff=1) == 1 for a in one for b in other):
        tally.add("phone", "near", 2.0)
    return common


def _mails(one: Profile, other: Profile, tally: _Tally) -> frozenset[str]:
    direct = frozenset(one.direct) & frozenset(other.direct)
    if direct:
        tally.add("Direct address", "equal", MAIL)
    elif not frozenset((*one.direct, *one.emails)).isdisjoint((*other.direct, *other.emails)):
        tally.add("e-mail", "equal", MAIL)
    return direct


def _places(one: tuple[Place, ...], other: tuple[Place, ...], tally: _Tally) -> frozenset[Place]:
    best, how, common = 0.0, "", set()
    for left in one:
        for right in other:
            points, word = place_pair(left, right)
            if word == "equal":
                common |= {left, right}
            best, how = max((best, how), (points, word))
    if best:
        tally.add("address" if best > 1 else how, how if best > 1 else "equal", best)
    return frozenset(common)


def place_pair(one: Place, other: Place) -> tuple[float, str]:
    """Points of two addresses, and ``equal`` only where street, unit and town are."""
    same_zip = bool(one.zip) and one.zip == other.zip
    same_city = bool(one.city) and one.city == other.city
    other_state = one.state and other.state and one.state != other.state
    # The towns of one postal code have several names; where a code is missing, the name of the town must do.
    same_town = same_zip or (same_city and not (one.zip and other.zip) and not other_state)
    if one.street and one.street == other.street and same_town:
        return (ADDRESS, "equal") if one.unit == other.unit else (3.0, "other unit")
    if one.street and other.street and (same_zip or same_city):
        if one.number == other.number and near(one.street, other.street):
            return 2.5, "near"
        if one.street == other.street:
            return 2.5, "other ZIP"
    if same_zip:
        return 0.5, "ZIP"
    return (0.25, "city") if same_city else (0.0, "")


def _identifiers(one: Profile, other: Profile, tally: _Tally) -> None:
    common = {value for _, value in one.identifiers} & {value for _, value in other.identifiers}
    if not common:
        return
    if any(pair[0] for pair in set(one.identifiers) & set(other.identifiers)):
        tally.add("record number", "equal", RECORD_NUMBER)
    else:
        # Two practices may give out the same number: without the assigner it is a hint.
        tally.add("record number", "equal, assigner unknown", RECORD_NUMBER / 2)
