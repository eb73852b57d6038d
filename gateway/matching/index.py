"""All patients in memory, by every trait that somebody may know of them.

Guarantees: adding, replacing and removing one patient costs what that patient has, whatever the size of the index.
What is asked for a trait comes from tables; no question walks over all patients. Not to be changed by two threads.

Failure modes: ``ConflictError`` for an id that is there already, ``NotFoundError`` for one that is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from gateway.core.errors import ConflictError, NotFoundError
from gateway.matching.postings import Postings
from gateway.matching.profile import Name, Place, Profile, of_record
from gateway.matching.records import PatientRecord
from gateway.matching.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Entry:
    """A patient as the index holds him."""

    id: str
    profile: Profile
    active: bool
    deceased: bool
    merged_into: str


class PatientIndex:
    """The patients."""

    def __init__(self, records: Iterable[PatientRecord] = ()) -> None:
        """Raises ConflictError when two records have one id."""
        self._entries: list[Entry | None] = []
        self._numbers: dict[str, int] = {}
        self._free: list[int] = []
        self.births: Postings[int] = Postings()
        self.phones: Postings[str] = Postings()
        """By the last seven digits: the area code is what is wrong most often."""
        self.mails: Postings[str] = Postings()
        self.identifiers: Postings[str] = Postings()
        """By value, whoever assigned it."""
        self.houses: Postings[str] = Postings()
        """By ZIP and house number, and by house number and street."""
        self.zips: Postings[str] = Postings()
        self.families: Postings[str] = Postings()
        self.givens: Postings[str] = Postings()
        self.surroundings: Postings[str] = Postings()
        """By the words of town and street."""
        self.vocabulary = Vocabulary()
        for record in records:
            self.add(record)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, patient_id: object) -> bool:
        return patient_id in self._numbers

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entry in self._entries if entry is not None)

    def entry(self, patient_id: str) -> Entry:
        """A patient.

        Raises:
            NotFoundError: there is none with that id.
        """
        number = self._numbers.get(patient_id)
        if number is None:
            raise NotFoundError("the index has no patient with that id")
        return self.at(number)

    def at(self, number: int) -> Entry:
        """The patient whose number a posting holds."""
        entry = self._entries[number]
        assert entry is not None  # noqa: S101 - a posting never names a free number
        return entry

    def number(self, patient_id: str) -> int | None:
        """The number under which postings hold a patient."""
        return self._numbers.get(patient_id)

    def add(self, record: PatientRecord) -> None:
        """Add a patient.

        Raises:
            ConflictError: the id is there already.
        """
        if record.id in self._numbers:
            raise ConflictError("the index has a patient with that id already")
        entry = Entry(record.id, of_record(record), record.active, record.deceased, record.merged_into)
        if self._free:
            number = self._free.pop()
            self._entries[number] = entry
        else:
            number = len(self._entries)
            self._entries.append(entry)
        self._numbers[record.id] = number
        self._file(entry.profile, number)

    def replace(self, record: PatientRecord) -> None:
        """Add a patient, in the place of the one with the same id if there is one."""
        if record.id in self._numbers:
            self.remove(record.id)
        self.add(record)

    def remove(self, patient_id: str) -> None:
        """Take a patient out.

        Raises:
            NotFoundError: there is none with that id.
        """
        profile = self.entry(patient_id).profile
        number = self._numbers.pop(patient_id)
        self._entries[number] = None
        self._free.append(number)
        for table, key in self._keys(profile):
            table.remove(key, number)
        for table, word in self._name_keys(profile):
            if table.remove(word, number):
                self.vocabulary.remove(word)
        for day in profile.births:
            self.births.remove(day, number)

    def _file(self, profile: Profile, number: int) -> None:
        for table, key in self._keys(profile):
            table.add(key, number)
        for table, word in self._name_keys(profile):
            if table.add(word, number):
                self.vocabulary.add(word)
        for day in profile.births:
            self.births.add(day, number)

    def _keys(self, profile: Profile) -> Iterator[tuple[Postings[str], str]]:
        yield from ((self.phones, phone[3:]) for phone in profile.phones)
        yield from ((self.mails, mail) for mail in dict.fromkeys((*profile.direct, *profile.emails)))
        yield from ((self.identifiers, value) for value in dict.fromkeys(value for _, value in profile.identifiers))
        for place in profile.places:
            yield from ((self.houses, key) for key in house_keys(place))
            yield from ((self.surroundings, word) for word in place_words(place))
            if place.zip:
                yield self.zips, place.zip

    def _name_keys(self, profile: Profile) -> Iterator[tuple[Postings[str], str]]:
        yield from ((self.families, word) for word in {word for name in profile.names for word in family_keys(name)})
        yield from ((self.givens, word) for word in {word for name in profile.names for word in given_keys(name)})


def family_keys(name: Name) -> Collection[str]:
    """The words under which a family name is found."""
    return {*name.family_words, name.family} - {""}


def given_keys(name: Name) -> Collection[str]:
    """The words under which given names are found."""
    return {*name.given_words, name.given} - {""}


def house_keys(place: Place) -> Collection[str]:
    """The keys under which a house is found: the postal code may be missing, or the street written otherwise."""
    number = place.number
    if not number:
        return ()
    street = next((word for word in place.street.split() if word != number and len(word) > 2), "")
    keys = {f"{place.zip} {number}" if place.zip else "", f"{number} {street}" if street else ""}
    return keys - {""}


def place_words(place: Place) -> Collection[str]:
    """The words under which somebody may look for an address."""
    words = {*place.city.split(), *(word for word in place.street.split() if not word[0].isdigit())}
    return {word for word in words if len(word) > 2}
