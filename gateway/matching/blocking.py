"""Who may be meant at all, out of many patients, in little memory: which patients share an exact trait with a claim.

The whole index (:mod:`gateway.matching.index`) takes 2 kB for each patient. What decides on a link needs the patients
who are exact and those who are easily taken for them, and all of these share a birth date, a family with a given name,
a telephone, a house, a mail address or a record number with what the message says, or, where they are near in all of
these, have a telephone one slip away. So a number for each such trait is enough, some 200 bytes for each patient, and
whoever is found is read from the store and compared in full.

Guarantees: nobody who shares a trait is missed; somebody who does not may be found (two traits may have one number,
and what a patient had before is not forgotten), and the full comparison tells. To change a patient costs his traits.
Not to be changed by two threads.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator

from gateway.matching.index import house_keys
from gateway.matching.profile import Profile

_OWNER_BITS = 24
MOST_PATIENTS = 1 << _OWNER_BITS
_TRAIT_BITS = 64 - _OWNER_BITS
_OWNER = MOST_PATIENTS - 1
_RECENT = 50_000
"""Traits that are kept beside the sorted ones before all are sorted anew."""
_NUMBER, _REST = 100, 1
"""A record number points at one patient; of the other traits it takes several."""


def traits(profile: Profile) -> dict[str, int]:
    """What a patient is found by, each with its weight."""
    found = {f"i {value}": _NUMBER for _, value in profile.identifiers}
    rest = [f"b {day}" for day in profile.births]
    rest += [f"n {name.family} {name.given}" for name in profile.names if name.family and name.given]
    rest += [f"p {phone[3:]}" for phone in profile.phones]
    rest += [f"m {mail}" for mail in (*profile.direct, *profile.emails)]
    rest += [f"h {key}" for place in profile.places for key in house_keys(place)]
    return found | dict.fromkeys(rest, _REST)


def asked(profile: Profile) -> dict[str, int]:
    """The traits of those who may be meant by a claim, each with its weight.

    Who shares no trait with an exact patient comes within ``RUNNER_UP_POINTS`` of him only with a telephone and an
    address that are both near: 2 + 2.5 points of the 7 that it takes, where all else that is near gives 3.75.
    """
    found = traits(profile)
    if profile.places:
        near = {f"p {other}": _REST for phone in profile.phones for other in _slips(phone)}
        found = near | found
    return found


def _slips(phone: str) -> Iterator[str]:
    """What stands behind the area code of the telephones one slip away, where it is not the same."""
    area, local = phone[:3], phone[3:]
    for at in range(len(local)):
        yield from (local[:at] + digit + local[at + 1 :] for digit in "0123456789" if digit != local[at])
        if at:
            yield local[: at - 1] + local[at] + local[at - 1] + local[at + 1 :]
    yield area[-1] + local[1:]


class BlockingTable:
    """Patients by trait."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._owners: dict[str, int] = {}
        self._sorted = array("Q")
        """Trait and owner in one number each, in order."""
        self._recent: dict[int, set[int]] = {}
        """Owners by trait, of what came since it was sorted."""
        self._recent_count = 0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, patient_id: str, profile: Profile) -> None:
        """Add what the patient has now; what he had stays.

        Raises:
            OverflowError: there are more patients than fit.
        """
        owner = self._owners.get(patient_id)
        if owner is None:
            owner = len(self._ids)
            if owner >= MOST_PATIENTS:
                raise OverflowError("too many patients for the table")
            self._owners[patient_id] = owner
            self._ids.append(patient_id)
        for trait in traits(profile):
            owners = self._recent.setdefault(_number(trait), set())
            self._recent_count += owner not in owners
            owners.add(owner)
        if self._recent_count > _RECENT:
            self.settle()

    def settle(self) -> None:
        """Sort everything that was added."""
        pairs = {trait << _OWNER_BITS | owner for trait, owners in self._recent.items() for owner in owners}
        pairs.update(self._sorted)
        self._sorted = array("Q", sorted(pairs))
        self._recent = {}
        self._recent_count = 0

    def sharing(self, profile: Profile, limit: int) -> tuple[list[str], bool]:
        """The ids of patients who have a trait :func:`asked` for, those who have most first; whether these are all."""
        votes: Counter[int] = Counter()
        for trait, weight in asked(profile).items():
            for owner in self._having(_number(trait)):
                votes[owner] += weight
        # Of equal votes the order is that of the ids, so that the same question has the same answer.
        ranked = sorted((-count, self._ids[owner]) for owner, count in votes.items())
        return [patient_id for _, patient_id in ranked[:limit]], len(ranked) <= limit

    def _having(self, trait: int) -> Iterator[int]:
        yield from (owners := self._recent.get(trait, set()))
        at = bisect_left(self._sorted, trait << _OWNER_BITS)
        while at < len(self._sorted) and self._sorted[at] >> _OWNER_BITS == trait:
            owner = self._sorted[at] & _OWNER
            if owner not in owners:
                yield owner
            at += 1


def _number(trait: str) -> int:
    # Seeded for each process, so that nobody outside can make many traits fall together.
    return hash(trait) & ((1 << _TRAIT_BITS) - 1)


def shares(profile: Profile, wanted: Collection[str]) -> bool:
    """Whether the patient has one of the traits."""
    return not traits(profile).keys().isdisjoint(wanted)
