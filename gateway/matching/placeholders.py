"""Values that people type when they know nothing: they never count as evidence, on neither side of a comparison.

Guarantees: pure. A placeholder is taken as "not said", so that two patients without a telephone do not share one, and
a newborn without a name is nobody's namesake. A real person who happens to bear such a value (a Mrs. Test) is found as
everybody else; only an automatic link is not to be had from it.
"""

from __future__ import annotations

import re
from datetime import date

_NO_GIVEN = frozenset({
    "unknown", "unk", "unkown", "none", "null", "na", "nn", "noname", "test", "testpatient", "testing", "dummy",
    "fake", "sample", "example", "patient", "demo", "baby", "babyboy", "babygirl", "boy", "girl", "babyb", "babyg",
    "bb", "bg", "bbaby", "infant", "newborn", "nb", "male", "female", "son", "daughter", "child", "fetus", "twin",
    "twina", "twinb", "twinc", "twin1", "twin2", "triplet", "triplea", "tripleb", "triplec", "tripleta", "tripletb",
    "tripletc", "boya", "boyb", "boyone", "boytwo", "girla", "girlb", "girlone", "girltwo", "babya", "babyone",
    "babytwo", "babyboya", "babyboyb", "babygirla", "babygirlb", "babyboy1", "babyboy2", "babygirl1", "babygirl2",
    "twinone", "twintwo", "babytwin", "babytwina", "babytwinb", "boytwina", "boytwinb", "girltwina", "girltwinb",
    "unnamed", "unidentified", "anonymous", "deceased", "donor", "donotuse", "notgiven", "notknown", "nofirstname",
    "nfn", "fnu", "xx", "xxx", "xxxx", "zz", "zzz", "zzztest", "mr", "mrs", "ms", "miss", "dr",
})  # fmt: skip
_NEWBORN = re.compile(
    r"(?=.*(?:baby|boy|girl|twin|triplet|infant|newborn))"
    r"(?:baby|boy|girl|twin|triplet|infant|newborn|unnamed|male|female|of|one|two|three|four|bb|bg|nb|i{1,3}|[a-d1-4])+"
)
"""``Boy 1``, ``BBoy``, ``Baby Male``, ``Girl Twin B``: what a ward writes until there is a name, in one word."""
_REAL_GIVEN = frozenset({"boyd"})
_NO_FAMILY = frozenset({
    "unknown", "unk", "unkown", "none", "null", "na", "nn", "noname", "test", "testpatient", "testing", "dummy",
    "fake", "sample", "example", "patient", "demo", "unnamed", "unidentified", "anonymous", "notgiven", "notknown",
    "nolastname", "nln", "lnu", "xx", "xxx", "xxxx", "zz", "zzz", "zzztest", "donotuse",
})  # fmt: skip
_NOBODY = frozenset({"john", "jane", "johnny", "jon", "baby", "babyboy", "babygirl", "jdoe"})
_NO_STREET = frozenset({
    "unknown", "none", "null", "na", "homeless", "nofixedaddress", "nofixedabode", "generaldelivery", "transient",
    "undomiciled", "test", "notgiven", "noaddress", "badaddress", "returnedmail", "sameasabove", "same", "xxx",
})  # fmt: skip
_NO_DATES = frozenset(
    {
        date(1, 1, 1), date(1111, 11, 11), date(1753, 1, 1), date(1800, 1, 1), date(1850, 1, 1), date(1899, 12, 30),
        date(1899, 12, 31), date(1900, 1, 1), date(1900, 1, 2), date(1901, 1, 1), date(1904, 1, 1), date(9999, 12, 31),
        date(2222, 2, 22), date(9999, 9, 9), date(1900, 12, 31), date(1901, 1, 2), date(2099, 12, 31),
    }
)  # fmt: skip
_REAL_ZIPS = frozenset({"22222", "44444", "55555"})
"""Of places in Virginia, Ohio and Minnesota."""
_FIRST_YEAR = 1890
_LAST_YEAR = 2200


def no_given_name(squashed: str) -> bool:
    """Whether a given name (lower case, without spaces) says nothing."""
    if squashed in _NO_GIVEN or not any(char.isalpha() for char in squashed):
        return True
    return _NEWBORN.fullmatch(squashed) is not None and squashed not in _REAL_GIVEN


def no_family_name(squashed: str) -> bool:
    """Whether a family name (lower case, without spaces) says nothing."""
    return squashed in _NO_FAMILY or not any(char.isalpha() for char in squashed)


def is_nobody(given: str, family: str) -> bool:
    """Whether both names together are those of nobody (John Doe)."""
    return family == "doe" and given in _NOBODY


def no_birth_date(day: date) -> bool:
    """Whether a date is one that systems put where none is known, or one on which no living patient was born."""
    return day in _NO_DATES or not _FIRST_YEAR <= day.year <= _LAST_YEAR


def no_phone(digits: str) -> bool:
    """Whether ten digits are nobody's telephone: one digit repeated, all zeros or nines behind the area, a count."""
    local = digits[3:]
    return (
        len(set(digits)) == 1
        or len(set(local)) == 1
        or digits[:3] in {"000", "999"}
        or digits in {"1234567890", "0123456789", "9876543210"}
        or local in {"1234567", "0000000", "9999999"}
        or (digits[:3] == "555" and local in {"5551212", "5550000", "5559999"})
    )


def no_zip(digits: str) -> bool:
    """Whether five digits are no postal code of anybody."""
    return len(set(digits)) == 1 and digits not in _REAL_ZIPS


def no_street(squashed: str) -> bool:
    """Whether an address line (lower case, without spaces) says nothing."""
    return squashed in _NO_STREET or not any(char.isdigit() for char in squashed)


def no_identifier(squashed: str) -> bool:
    """Whether a record number (lower case, without spaces) is none: too short, one sign repeated, or a word for it."""
    return len(squashed) < 2 or len(set(squashed)) == 1 or squashed in {"unknown", "none", "null", "test", "na", "unk"}
