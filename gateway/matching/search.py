"""Find a patient by whatever is known: the likeliest first, each with the reasons why.

Guarantees: the number of hits and the work for them are bounded; the same question to the same patients gives the
same answer. A deceased, inactive or merged patient is found as any other one and says so (matching policy 7). Two
patients who are easily taken for each other say so as well (matching policy 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from gateway.matching.candidates import candidates
from gateway.matching.compare import Match, Reason, match, near
from gateway.matching.index import Entry, PatientIndex, house_keys
from gateway.matching.nicknames import are_nicknames
from gateway.matching.phonetic import sound
from gateway.matching.query import Query

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
LEAST_POINTS = 0.4
_MOST_ALIKE = 3
_EXAMINED_ALIKE = 200
_WHYS = ("similar patient at the same address", "similar patient born on the same day", "patient of the same name")


@dataclass(frozen=True, slots=True)
class Alike:
    """Another patient who is easily taken for this one."""

    patient_id: str
    why: str
    """``similar patient at the same address``, ``similar patient born on the same day``, ``patient of the same
    name``."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A patient who may be meant."""

    patient_id: str
    points: float
    """The evidence for him; 9 is the least that the guide takes for treatment, 10 for anything else."""
    reasons: tuple[Reason, ...]
    active: bool
    deceased: bool
    merged_into: str
    alike: tuple[Alike, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a question."""

    hits: tuple[Hit, ...]
    more: bool
    """Whether more patients share something with the question than were looked at or are shown."""


def search(index: PatientIndex, query: Query, limit: int = DEFAULT_LIMIT) -> Found:
    """Return the patients who may be meant, the likeliest first.

    Args:
        index: the patients.
        query: what is known (:mod:`gateway.matching.query`).
        limit: 1 to ``MAX_LIMIT``.
    """
    limit = max(1, min(limit, MAX_LIMIT))
    if query.is_empty:
        return Found((), more=False)
    numbers, more = candidates(index, query)
    ranked: list[tuple[float, str, Entry, Match, tuple[Reason, ...]]] = []
    for number in numbers:
        entry = index.at(number)
        matched = match(query.profile, entry.profile)
        words = tuple(_words(query, entry))
        points = matched.points + sum(reason.points for reason in words)
        missed = len(query.words) - sum(reason.field != "number" for reason in words)
        rank = matched.rank + points - matched.points - 0.5 * missed - (0.0 if entry.active else 0.1)
        if points >= LEAST_POINTS:
            ranked.append((-rank, entry.id, entry, matched, words))
    ranked.sort(key=lambda one: one[:2])
    hits = tuple(_hit(index, entry, matched, words) for _, _, entry, matched, words in ranked[:limit])
    return Found(hits, more=more or len(ranked) > limit)


def _hit(index: PatientIndex, entry: Entry, matched: Match, words: tuple[Reason, ...]) -> Hit:
    return Hit(
        entry.id,
        round(matched.points + sum(reason.points for reason in words), 2),
        (*matched.reasons, *words),
        entry.active,
        entry.deceased,
        entry.merged_into,
        alike(index, entry),
    )


def _words(query: Query, entry: Entry) -> Iterable[Reason]:
    """What each free word is of the patient."""
    for word in query.words:
        if reason := _word(word, entry):
            yield reason
    places = entry.profile.places
    for number in query.numbers:
        if any(place.number == number for place in places):
            yield Reason("number", "house number", 0.5)


def _word(word: str, entry: Entry) -> Reason | None:
    found = [
        reason
        for name in entry.profile.names
        for reason in (
            _name_word(word, name.family, name.family_words, "family name", 1.0, previous=name.previous),
            _name_word(word, name.given, name.given_words, "given name", 1.0, previous=False),
        )
        if reason
    ]
    for place in entry.profile.places:
        if word in place.city.split():
            found.append(Reason("city", "equal", 0.5))
        elif word in place.street.split():
            found.append(Reason("street", "equal", 0.5))
        elif word == place.state:
            found.append(Reason("state", "equal", 0.1))
    return max(found, key=lambda reason: (reason.points, reason.field, reason.how), default=None)


def _name_word(
    word: str, whole: str, words: tuple[str, ...], what: str, points: float, *, previous: bool
) -> Reason | None:
    if not whole:
        return None
    if word == whole or word in words:
        return Reason(what, "previous name" if previous else "equal", points - 0.1 * previous)
    if len(word) == 1:
        return Reason(what, "initial", 0.4) if word == whole[0] else None
    if what == "given name" and any(are_nicknames(word, one) for one in words):
        return Reason(what, "nickname", 0.7)
    if any(near(word, one) for one in (whole, *words)):
        return Reason(what, "near", 0.6)
    if len(word) >= 3 and any(one.startswith(word) for one in words):
        return Reason(what, "beginning", 0.7)
    if len(word) >= 3 and any(sound(word) == sound(one) for one in words):
        return Reason(what, "sounds alike", 0.4)
    return None


def alike(index: PatientIndex, entry: Entry) -> tuple[Alike, ...]:
    """Up to three other patients who are easily taken for this one (matching policy 5)."""
    found: dict[str, str] = {}
    own = entry.profile
    families = {name.family for name in own.names if name.is_family_real}
    givens = {name.given for name in own.names if name.is_given_real}
    for place in own.places:
        for key in house_keys(place):
            for other in _others(index, index.houses.get(key), entry):
                if any(place.street and place.street == its.street for its in other.profile.places) and not _share(
                    givens, other, "given"
                ):
                    found.setdefault(other.id, _WHYS[0])
    for day in own.births:
        for other in _others(index, index.births.get(day), entry):
            if _share(families, other, "family") and not _share(givens, other, "given"):
                found.setdefault(other.id, _WHYS[1])
    for family in sorted(families):
        for given in sorted(givens):
            both = _meet(index.families.get(family), index.givens.get(given))
            for other in _others(index, both, entry):
                if _share(families, other, "family") and _share(givens, other, "given"):
                    found.setdefault(other.id, _WHYS[2])
    ranked = sorted(found.items(), key=lambda item: (_WHYS.index(item[1]), item[0]))
    return tuple(Alike(patient_id, why) for patient_id, why in ranked[:_MOST_ALIKE])


def _others(index: PatientIndex, numbers: Iterable[int], entry: Entry) -> Iterable[Entry]:
    for number in islice(numbers, _EXAMINED_ALIKE):
        other = index.at(number)
        if other.id != entry.id:
            yield other


def _meet(one: Iterable[int], other: Iterable[int]) -> set[int]:
    return set(one) & set(other) if not isinstance(one, set) or not isinstance(other, set) else one & other


def _share(values: set[str], other: Entry, what: str) -> bool:
    return any(getattr(name, what) in values for name in other.profile.names if getattr(name, what))
