"""Normalising: two spellings of one thing become one, and nothing is guessed."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.demographics import (
    calendar_date,
    folded,
    partial_date,
    sex_code,
    squashed,
    street_key,
    us_phone,
    words,
    zip5,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("O'Brien-García ", "obrien garcia"),
        ("O\u2019BRIEN\u2010GARCI\u0301A", "obrien garcia"),
        ("Strauß", "strauss"),
        ("Sørensen Ł.", "sorensen l"),
        ("Müller", "muller"),
        ("\uff21\uff24\uff21", "ada"),
        ("  St.  John ", "st john"),
        ("\u200bAda\u00ad", "ada"),
        ("İnan", "inan"),
        ("", ""),
    ],
)
def test_names(text: str, expected: str) -> None:
    assert folded(text) == expected
    assert words(text) == tuple(expected.split())


@pytest.mark.parametrize(
    ("one", "other"),
    [("राम", "रमा"), ("अमित", "अमृत"), ("たいき", "だいき"), ("ユーキ", "ユキ"), ("สมชาย", "สมชัย"), ("ರವಿ", "ರವ")],
)
def test_marks_that_are_vowels_or_other_sounds_make_another_name(one: str, other: str) -> None:
    assert folded(one) != folded(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("O\u02bcBrien", "O'Brien"),
        ("\u02bbAlohi", "Alohi"),
        ("Nguy\u1ec5n", "Nguyen"),
        ("\u0645\u062d\u0645\u0651\u062f", "\u0645\u062d\u0645\u062f"),
        ("\uff80\uff9e\uff72\uff77", "\u30c0\u30a4\u30ad"),
        ("\u845b\U000e0100\u57ce", "\u845b\u57ce"),
    ],
)
def test_other_ways_to_write_a_name_make_the_same_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)


def test_spaces_in_a_name_do_not_matter() -> None:
    assert squashed("Van der Berg") == squashed("VANDERBERG") == squashed("van-der-Berg")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(555) 723-1544", "5557231544"),
        ("tel:+1(555)-723-1544", "5557231544"),
        ("+1-4013482345", "4013482345"),
        ("555.723.1544 x12", "5557231544"),
        ("555-723-1544 ext. 7", "5557231544"),
        ("tel:+15557231544;ext=7", "5557231544"),
        ("\uff15\uff15\uff15 723 1544", "5557231544"),
        ("723-1544", ""),
        ("+44 20 7946 0958", ""),
        ("+44 207946095", ""),
        ("0557231544", ""),
        ("", ""),
    ],
)
def test_phones(text: str, expected: str) -> None:
    assert us_phone(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1961-03-14", date(1961, 3, 14)),
        ("1961-3-4", date(1961, 3, 4)),
        ("19610314", date(1961, 3, 14)),
        ("196103141200", date(1961, 3, 14)),
        ("19610314120000.000-0500", date(1961, 3, 14)),
        ("1961-03-14T12:00:00Z", date(1961, 3, 14)),
        ("03/14/1961", date(1961, 3, 14)),
        ("3-14-1961", date(1961, 3, 14)),
        ("14/03/1961", None),
        ("1961-02-30", None),
        ("61-03-14", None),
        ("196103", None),
        ("\u0661961-03-14", None),
        ("", None),
    ],
)
def test_dates(text: str, expected: date | None) -> None:
    assert calendar_date(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1961", "1961"), ("196103", "1961-03"), ("1961-03", "1961-03"), ("1961-13", ""), ("0000", ""), ("61", "")],
)
def test_incomplete_dates(text: str, expected: str) -> None:
    assert partial_date(text) == expected


def test_postal_codes_sexes_and_streets() -> None:
    assert [zip5(text) for text in ("97006", "97006-1234", "970061234", " 97006 ", "9700", "SW1A 1AA")] == [
        "97006", "97006", "97006", "97006", "", "",
    ]  # fmt: skip
    assert [sex_code(text) for text in ("F", "male", "UN", "U", "dnfd", "")] == [
        "female", "male", "other", "unknown", "", "",
    ]  # fmt: skip
    assert street_key(["1357 Amber Drive", "Apartment 2"]) == street_key(["1357 AMBER DR.", "Apt 2"])


@given(st.text(max_size=60))
def test_any_text_gives_something_and_folding_twice_changes_nothing(text: str) -> None:
    once = folded(text)
    assert folded(once) == once
    assert us_phone(text) == "" or len(us_phone(text)) == 10
    calendar_date(text), partial_date(text), zip5(text), sex_code(text), street_key([text])
