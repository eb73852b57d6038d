"""Which patients are worth comparing with a question: those that share a trait with it, the likeliest first.

Each trait that the question names votes for the patients that have it. What many patients have (a family name, a
town) votes only for those that something else has found, or where two such traits meet. So the work for a question
is bounded (``VOTES`` and ``COMPARED``), whatever the size of the index, and no trait that few patients have is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from heapq import nsmallest
from itertools import combinations, islice

from gateway.matching.compare import iso
from gateway.matching.index import PatientIndex, family_keys, given_keys, house_keys
from gateway.matching.postings import Postings
from gateway.matching.profile import Profile
from gateway.matching.query import Query

COMPARED = 120
"""Patients that are compared in full for one question."""
MANY = 1_500
"""A trait of more patients votes only where it meets another one."""
VOTES = 20_000
_MOST_COMMON = 8
_WEIGHTS = (2.0, 1.2, 0.8, 0.7)
"""Of a name: itself, one slip, two slips or a beginning, alike in sound."""

Group = tuple[float, Collection[int]]


def candidates(index: PatientIndex, query: Query) -> tuple[list[int], bool]:
    """The numbers of the patients to compare, and whether there would be more."""
    votes: dict[int, float] = {}
    common: list[Group] = []
    spent = 0
    for weight, group in sorted(_groups(index, query), key=lambda group: (-group[0], len(group[1]))):
        if len(group) > MANY or spent + len(group) > VOTES:
            common.append((weight, group))
            continue
        spent += len(group)
        for number in group:
            votes[number] = votes.get(number, 0.0) + weight
    more = _meet(votes, common) if common else False
    best = nsmallest(COMPARED, votes.items(), key=lambda item: (-item[1], item[0]))
    return [number for number, _ in best], more or len(votes) > COMPARED


def _meet(votes: dict[int, float], common: list[Group]) -> bool:
    """Let common traits vote for what is found already and for where they meet; whether something was left out."""
    common = sorted(common, key=lambda group: (-group[0], len(group[1])))[:_MOST_COMMON]
    sets = [(weight, group if isinstance(group, set) else set(group)) for weight, group in common]
    for weight, group in sets:
        smaller = group if len(group) < len(votes) else list(votes)
        for number in smaller:
            if number in votes and number in group:
                votes[number] += weight
    more = False
    for (weight, one), (other_weight, other) in combinations(sets, 2):
        both = one & other
        more = more or len(both) > MANY
        for number in islice(both, MANY):
            if number not in votes:
                votes[number] = weight + other_weight
    if not votes:
        weight, group = sets[0]
        votes.update((number, weight) for number in islice(group, MANY))
        return True
    return more


def _groups(index: PatientIndex, query: Query) -> Iterator[Group]:
    yield from ((weight, group) for weight, group in _all_groups(index, query) if group)


def _all_groups(index: PatientIndex, query: Query) -> Iterator[Group]:
    profile = query.profile
    yield from _contacts(index, profile)
    for day in profile.births:
        yield 4.0, index.births.get(day)
        yield from ((2.0, index.births.get(other)) for other in near_births(day))
    for name in profile.names:
        for word in family_keys(name):
            yield from _near(index, index.families, word, 1.0)
            yield 1.5, index.givens.get(word)
        for word in given_keys(name):
            yield from _near(index, index.givens, word, 1.0)
            yield 1.5, index.families.get(word)
    for word in query.words:
        yield from _near(index, index.families, word, 1.0)
        yield from _near(index, index.givens, word, 0.9)
        yield 0.7, index.surroundings.get(word)
    if len(query.words) > 1:
        for one, other in zip(query.words, query.words[1:], strict=False):
            yield 3.0, index.families.get(one + other)
            yield 3.0, index.givens.get(one + other)
    for number in query.numbers:
        yield from ((3.0, index.houses.get(f"{number} {word}")) for word in query.words)
        yield from ((3.0, index.houses.get(f"{place.zip} {number}")) for place in profile.places if place.zip)
    if profile.birth_part and not (profile.names or query.words or profile.phones or profile.identifiers[1:]):
        yield 1.0, _born_in(index, profile.birth_part)


def _contacts(index: PatientIndex, profile: Profile) -> Iterator[Group]:
    for _, value in profile.identifiers:
        yield 8.0, index.identifiers.get(value)
    for mail in dict.fromkeys((*profile.direct, *profile.emails)):
        yield 8.0, index.mails.get(mail)
    for phone in profile.phones:
        yield 4.0, index.phones.get(phone[3:])
    for place in profile.places:
        yield from ((4.0, index.houses.get(key)) for key in house_keys(place))
        yield 0.5, index.zips.get(place.zip)
        yield from ((0.25, index.surroundings.get(word)) for word in place.city.split())


def _near(index: PatientIndex, table: Postings[str], word: str, factor: float) -> Iterator[Group]:
    for other, distance in index.vocabulary.near(word):
        yield _WEIGHTS[distance] * factor, table.get(other)


def near_births(day: int) -> list[int]:
    """The days that one slip, a swap of day and month, or a wrong year, decade or century makes of a day."""
    text = iso(day)
    year, month, rest = text.split("-")
    texts = {f"{year}-{rest}-{month}"}
    texts |= {f"{int(year) + step:04d}-{month}-{rest}" for step in (-100, -10, -1, 1, 10, 100)}
    for at in (2, 3, 5, 6, 8, 9):
        texts |= {f"{text[:at]}{digit}{text[at + 1 :]}" for digit in "0123456789"}
    for at in (2, 5, 8):
        texts.add(f"{text[:at]}{text[at + 1]}{text[at]}{text[at + 2 :]}")
    days = []
    for other in sorted(texts - {text}):
        try:
            days.append(date.fromisoformat(other).toordinal())
        except ValueError:
            continue
    return days


def _born_in(index: PatientIndex, part: str) -> set[int]:
    """The patients born in a year or a month, as far as they are worth to be compared."""
    year = int(part[:4])
    first = date(year, int(part[5:7]) if len(part) > 4 else 1, 1).toordinal()
    found: set[int] = set()
    for day in range(first, min(first + 366, date.max.toordinal() + 1)):
        if not iso(day).startswith(part) or len(found) > MANY:
            break
        found.update(index.births.get(day))
    return found
