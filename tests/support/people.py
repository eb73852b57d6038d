"""A practice's patients made from a seed: names as skewed as they are in the United States, households, twins,
fathers and sons of one name, namesakes born on one day, birth dates that heap on the first of January.

And questions about them, each with its right answer and the class of what was done to it. Nobody in here is real.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from itertools import accumulate

from gateway.matching.nicknames import nicknames

FAMILIES = [
    "Smith", "Johnson", "Williams", "Brown", "Jones", "Garcia", "Miller", "Davis", "Rodriguez", "Martinez",
    "Hernandez", "Lopez", "Gonzalez", "Wilson", "Anderson", "Thomas", "Taylor", "Moore", "Jackson", "Martin", "Lee",
    "Perez", "Thompson", "White", "Harris", "Sanchez", "Clark", "Ramirez", "Lewis", "Robinson", "Walker", "Young",
    "Allen", "King", "Wright", "Scott", "Torres", "Nguyen", "Hill", "Flores", "Green", "Adams", "Nelson", "Baker",
    "Hall", "Rivera", "Campbell", "Mitchell", "Carter", "Roberts", "Gomez", "Phillips", "Evans", "Turner", "Diaz",
    "Parker", "Cruz", "Edwards", "Collins", "Reyes", "Stewart", "Morris", "Morales", "Murphy", "Cook", "Rogers",
    "Gutierrez", "Ortiz", "Morgan", "Cooper", "Peterson", "Bailey", "Reed", "Kelly", "Howard", "Ramos", "Kim",
    "Cox", "Ward", "Richardson", "Watson", "Brooks", "Chavez", "Wood", "James", "Bennett", "Gray", "Mendoza",
    "Ruiz", "Hughes", "Price", "Alvarez", "Castillo", "Sanders", "Patel", "Myers", "Long", "Ross", "Foster",
    "Jimenez", "O'Brien", "McDonald", "Peña", "Núñez", "Ibáñez", "Müller", "Chen", "Wang", "Li", "Singh", "Khan",
    "Tran", "Pham", "Okafor", "Kowalski",
]  # fmt: skip
GIRLS = [
    "Mary", "Maria", "Patricia", "Jennifer", "Linda", "Elizabeth", "Barbara", "Susan", "Jessica", "Sarah", "Karen",
    "Lisa", "Nancy", "Betty", "Sandra", "Margaret", "Ashley", "Kimberly", "Emily", "Donna", "Michelle", "Carol",
    "Amanda", "Melissa", "Deborah", "Stephanie", "Rebecca", "Laura", "Helen", "Sharon", "Cynthia", "Kathleen",
    "Amy", "Angela", "Shirley", "Anna", "Ruth", "Brenda", "Pamela", "Nicole", "Katherine", "Virginia", "Catherine",
    "Christine", "Samantha", "Debra", "Janet", "Rachel", "Carolyn", "Emma", "Olivia", "Sofía", "Guadalupe", "Juana",
    "Rosa", "Ana", "Ava", "Eva", "Ella", "Isabella", "Mia", "Lucía", "José", "Thu", "Mei",
]  # fmt: skip
BOYS = [
    "James", "John", "Robert", "Michael", "William", "David", "Richard", "Joseph", "Thomas", "Charles",
    "Christopher", "Daniel", "Matthew", "Anthony", "Mark", "Donald", "Steven", "Paul", "Andrew", "Joshua",
    "Kenneth", "Kevin", "Brian", "George", "Edward", "Ronald", "Timothy", "Jason", "Jeffrey", "Ryan", "Jacob",
    "Gary", "Nicholas", "Eric", "Jonathan", "Stephen", "Larry", "Justin", "Scott", "Brandon", "Benjamin", "Samuel",
    "Gregory", "Frank", "Alexander", "Raymond", "Patrick", "Jack", "Dennis", "Jerry", "José", "Juan", "Luis",
    "Carlos", "Jesús", "Miguel", "Jorge", "Ángel", "Noah", "Liam", "Aiden", "Jayden", "Ian", "Evan", "Minh", "Wei",
    "Omar",
]  # fmt: skip
_SYLLABLES = [
    "ba", "be", "bo", "da", "de", "do", "fa", "fi", "ga", "go", "ha", "ka", "ki", "la", "le", "lo", "ma", "me",
    "mi", "na", "no", "pa", "ra", "ri", "sa", "se", "so", "ta", "ti", "va", "vo", "za", "sch", "ll",
]  # fmt: skip
_ENDINGS = [
    "son", "man", "ski", "ez", "berg", "er", "ton", "ley", "well", "sen", "stein", "ford", "ini", "o", "field",
    "dale", "wicz", "ian", "rd", "nt",
]  # fmt: skip
_STREETS = [
    "Main", "Oak", "Maple", "Cedar", "Elm", "Washington", "Lake", "Hill", "Walnut", "Spring", "North", "Park",
    "River", "Church", "Franklin", "Mill",
]  # fmt: skip
_KINDS = ["Street", "Avenue", "Road", "Drive", "Lane", "Court", "Boulevard", "Place"]
_TOWNS = [("Boston", "021"), ("Springfield", "011"), ("Worcester", "016"), ("Lowell", "018"), ("Salem", "019")]


@dataclass(frozen=True)
class Person:
    """One row of a labelled registry."""

    id: str
    mrn: str
    given: str
    family: str
    maiden: str
    dob: date
    sex: str
    phone: str
    line: str
    zip: str
    city: str
    direct: str

    def row(self) -> dict[str, str]:
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class Question:
    """One row of labelled queries."""

    mutation: str
    person: Person
    right: str
    dob: str

    def row(self, number: int) -> dict[str, str]:
        own = self.person
        return {
            "query_id": f"q{number}", "mutation": self.mutation, "true_patient_id": self.right, "given": own.given,
            "family": own.family, "dob": self.dob, "sex": own.sex, "phone": own.phone, "line": own.line,
            "zip": own.zip, "city": own.city,
        }  # fmt: skip


class World:
    """A registry, and the questions about it."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random.Random(seed)
        self._serial = 0
        rare = [self._rare() for _ in range(max(200, size // 8))]
        self._families = [*FAMILIES, *rare]
        # As in the census: half of the people bear one of some hundred names, the other half rare ones.
        self._weights = [1 / (at + 4) for at in range(len(FAMILIES))]
        self._weights += [sum(self._weights) / len(rare)] * len(rare)
        self._weights = list(accumulate(self._weights))
        self.people: list[Person] = []
        self.unregistered: list[tuple[str, Person]] = []
        while len(self.people) < size:
            self.people += self._household()

    def _rare(self) -> str:
        stem = "".join(self.random.choices(_SYLLABLES, k=self.random.randint(1, 3)))
        return (stem + self.random.choice(_ENDINGS)).capitalize()

    def family(self) -> str:
        return self.random.choices(self._families, cum_weights=self._weights)[0]

    def given(self, sex: str) -> str:
        names = GIRLS if sex == "female" else BOYS
        return self.random.choices(names, [1 / (at + 3) for at in range(len(names))])[0]

    def born(self, first: int = 1925, last: int = 2024) -> date:
        year = self.random.randint(first, last)
        if self.random.random() < 0.02:
            return date(year, 1, 1)
        return date(year, 1, 1) + timedelta(days=self.random.randrange(365))

    def phone(self) -> str:
        return f"{self.random.choice(['617', '508', '978', '413'])}-{self.random.randint(200, 999)}-{self._digits(4)}"

    def _digits(self, count: int) -> str:
        return "".join(self.random.choices("0123456789", k=count))

    def home(self) -> tuple[str, str, str]:
        town, prefix = self.random.choice(_TOWNS)
        unit = self.random.choice(["", "", f" Apt {self.random.randint(1, 40)}", f" Unit {self.random.randint(1, 9)}"])
        line = f"{self.random.randint(1, 999)} {self.random.choice(_STREETS)} {self.random.choice(_KINDS)}{unit}"
        return line, f"{prefix}{self._digits(2)}", town

    def person(self, **known: object) -> Person:
        self._serial += 1
        sex = str(known.pop("sex", "") or self.random.choice(["female", "male"]))
        line, code, city = self.home()
        made = Person(
            f"p{self._serial}", f"M{self._serial:07}", self.given(sex), self.family(), "", self.born(), sex,
            self.phone(), line, code, city, "",
        )  # fmt: skip
        made = replace(made, **known)  # type: ignore[arg-type]
        if not made.direct and self.random.random() < 0.3:
            made = replace(made, direct=f"p{self._serial}@patients.direct.example")
        return made

    def _household(self) -> list[Person]:
        roll = self.random.random()
        head = self.person()
        same = {"line": head.line, "zip": head.zip, "city": head.city, "phone": head.phone, "family": head.family}
        if roll < 0.55:
            maiden = self.family() if head.sex == "female" and self.random.random() < 0.4 else ""
            if self.random.random() < 0.08:
                head = replace(head, family=f"{head.family}-{self.family()}")
            return [replace(head, maiden=maiden)]
        if roll < 0.85:
            young = {"dob": self.born(1990, 2024)}
            return [head, self.person(**same), self.person(**same, **young)]
        if roll < 0.90:
            # A father and a son of one name.
            elder = replace(head, sex="male", given=self.given("male"), dob=self.born(1930, 1965))
            son = self.person(**same, given=elder.given, sex="male", dob=self.born(1970, 2010))
            return [elder, replace(son, family=f"{son.family} Jr") if self.random.random() < 0.5 else son]
        if roll < 0.96:
            twin = self.person(**same, dob=head.dob)
            while twin.given == head.given:
                twin = replace(twin, given=self.given(twin.sex))
            if self.random.random() < 0.7:
                return [head, twin]
            self.unregistered.append(("twin_not_registered", twin))
            return [head]
        # Somebody else of the same name and birth date, who lives elsewhere.
        other = self.person(given=head.given, family=head.family, dob=head.dob, sex=head.sex)
        if self.random.random() < 0.5:
            return [head, other]
        self.unregistered.append(("namesake_same_day_not_registered", other))
        return [head]

    def typo(self, word: str) -> str:
        """One slip: a letter lost, doubled, changed, or swapped with its neighbour; never the same word."""
        while True:
            at = self.random.randrange(len(word))
            letter = self.random.choice("abcdefghijklmnopqrstuvwxyz")
            kind = self.random.randrange(4)
            if kind == 0:
                made = word[:at] + word[at + 1 :]
            elif kind == 1:
                made = word[:at] + letter + word[at:]
            elif kind == 2:
                made = word[:at] + letter + word[at + 1 :]
            else:
                made = word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
            if made.strip() and made.lower() != word.lower():
                return made

    def questions(self, each: int) -> Iterator[Question]:
        """So many questions of each class, as far as there are people for it."""
        for name, change in _CHANGES.items():
            for own in self.random.sample(self.people, min(each, len(self.people))):
                changed = change(self, own)
                if changed is not None:
                    yield Question(name, changed, own.id, changed.dob.isoformat())
        known = {(one.given, one.family, one.dob, one.line) for one in self.people}
        for name, stranger in _STRANGERS.items():
            for own in self.random.sample(self.people, min(each, len(self.people))):
                other = stranger(self, own)
                # Whom a twin was to be made of may have one of that name already.
                if other is not None and (other.given, other.family, other.dob, other.line) not in known:
                    yield Question(name, other, "", other.dob.isoformat())
        for name, person in self.unregistered:
            yield Question(name, person, "", person.dob.isoformat())


def _swap_day(_world: World, own: Person) -> Person | None:
    return replace(own, dob=date(own.dob.year, own.dob.day, own.dob.month)) if own.dob.day <= 12 else None


def _nickname(world: World, own: Person) -> Person | None:
    short = sorted(nicknames(own.given.lower()))
    return replace(own, given=world.random.choice(short).capitalize()) if short else None


def _near_sibling(world: World, own: Person) -> Person:
    return replace(own, id="", given=world.typo(own.given), direct="")


def _year_off(world: World, own: Person) -> Person:
    return replace(own, dob=own.dob.replace(year=own.dob.year + world.random.choice([-1, 1]), day=min(own.dob.day, 28)))


def _plain(text: str) -> str:
    return text.translate(str.maketrans("áéíóúñüÁÉÍÓÚÑ", "aeiounuAEIOUN"))


_CHANGES: dict[str, Callable[[World, Person], Person | None]] = {
    "exact": lambda _w, p: p,
    "case_space_punct": lambda _w, p: replace(p, given=f" {p.given.upper()}", family=f"{p.family.lower()}-"),
    "accents_removed": lambda _w, p: replace(p, given=_plain(p.given), family=_plain(p.family)),
    "phone_and_street_written_otherwise": lambda _w, p: replace(
        p,
        phone=f"+1 ({p.phone[:3]}) {p.phone[4:]} ext 7",
        line=p.line.upper().replace("STREET", "St.").replace("AVENUE", "Ave").replace("APT ", "#"),
    ),
    "given_typo": lambda w, p: replace(p, given=w.typo(p.given)),
    "family_typo": lambda w, p: replace(p, family=w.typo(p.family)),
    "both_names_typo": lambda w, p: replace(p, given=w.typo(p.given), family=w.typo(p.family)),
    "dob_day_month_swapped": _swap_day,
    "dob_year_off_by_one": _year_off,
    "moved": lambda _w, p: replace(p, phone="555-000-0000", line="99 Changed St", zip="99999", city="Elsewhere"),
    "surname_changed": lambda _w, p: replace(p, family=p.maiden or "Newname"),
    "one_of_two_surnames": lambda _w, p: replace(p, family=p.family.split("-")[0]) if "-" in p.family else None,
    "second_surname_added": lambda w, p: replace(p, family=f"{p.family} {w.family()}"),
    "initial": lambda _w, p: replace(p, given=p.given[0]),
    "nickname": _nickname,
    "middle_name_added": lambda w, p: replace(p, given=f"{p.given} {w.given(p.sex)}"),
    "names_swapped": lambda _w, p: replace(p, given=p.family, family=p.given),
    "name_dob_only": lambda _w, p: replace(p, sex="", phone="", line="", zip="", city=""),
    "name_phone_only": lambda _w, p: replace(p, dob=date(1900, 1, 1), sex="", line="", zip="", city=""),
    "name_dob_phone": lambda _w, p: replace(p, sex="", line="", zip="", city=""),
    "name_dob_address": lambda _w, p: replace(p, sex="", phone=""),
}
_STRANGERS: dict[str, Callable[[World, Person], Person | None]] = {
    "not_in_registry": lambda w, _p: replace(w.person(), id=""),
    "sibling_not_registered": lambda w, p: (
        other if (other := replace(p, given=w.given(p.sex))).given != p.given else None
    ),
    "near_named_twin_not_registered": _near_sibling,
    "twin_of_two_given_names_not_registered": lambda w, p: replace(p, given=f"{p.given} {w.given(p.sex)}"),
    "parent_same_name_not_registered": lambda _w, p: replace(p, dob=p.dob.replace(year=p.dob.year - 27, day=1)),
    "parent_born_same_day_of_another_year": lambda _w, p: replace(
        p, dob=p.dob.replace(year=p.dob.year - 20, day=min(p.dob.day, 28))
    ),
    "senior_not_registered": lambda _w, p: replace(p, family=f"{p.family} Sr") if p.family.endswith(" Jr") else None,
    "spouse_not_registered": lambda w, p: replace(
        w.person(), family=p.family, phone=p.phone, line=p.line, zip=p.zip, city=p.city
    ),
    "namesake_same_day_elsewhere": lambda w, p: replace(
        w.person(), given=p.given, family=p.family, dob=p.dob, sex=p.sex
    ),
    "namesake_same_day_with_placeholders": lambda _w, p: replace(
        p, phone="999-999-9999", line="Unknown", zip="00000", city=p.city
    ),
    "baby_without_a_name": lambda w, p: replace(
        p, given=w.random.choice(["Baby Boy", "BABYGIRL", "Twin A", "Unknown"])
    ),
    "nobody": lambda _w, p: replace(p, given="Test", family="Patient"),
    "no_birth_date": lambda _w, p: replace(p, dob=date(1901, 1, 1)),
}
