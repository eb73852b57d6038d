"""What the command says in words: each kind of reason, each warning, each conflict with its sources."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from gateway.core.claims import Claim, Evidence, NameKind, PersonName, PostalAddress, Source, Strength
from gateway.matching.compare import Reason
from gateway.matching.explain import SOURCES, conflicts, in_words, suggested
from gateway.matching.index import PatientIndex
from gateway.matching.records import PatientRecord

HOME = PostalAddress(("12 Main St",), "Boston", "", "02108")
ANN = PatientRecord(
    "p1", (PersonName("Lee", ("Ann",)),), date(1956, 8, 3), "female", phones=("617-234-5678",), addresses=(HOME,)
)
SAID = Claim(
    Source.CDA_HEADER,
    Strength.AUTHOR,
    "2",
    names=ANN.names,
    birth_date=ANN.birth_date,
    sex="female",
    phones=ANN.phones,
    addresses=ANN.addresses,
)
PACKED = replace(SAID, source=Source.XDM_METADATA, strength=Strength.PACKAGER, path="3/zip:2")


def of(*patients: PatientRecord, claims: tuple[Claim, ...] = (SAID,)) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The words and the warnings of each patient."""
    found = suggested(PatientIndex(patients), Evidence(claims))
    return {one.patient_id: (one.texts, one.warnings) for one in found}


def test_what_agrees_is_said_in_words() -> None:
    [(texts, warnings)] = of(ANN).values()
    assert texts == (
        "family name the same", "given name the same", "birth date the same", "sex the same", "phone the same",
        "address the same",
    )  # fmt: skip
    assert warnings == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": (PersonName("Lee", ("Anne",)),)}, "given name nearly the same"),
        ({"names": (PersonName("Lee", ("A",)),)}, "given name the same as far as the initial goes"),
        ({"names": (PersonName("Ann", ("Lee",)),)}, "given and family name exchanged"),
        (
            {"names": (PersonName("Okafor", ("Ann",)), PersonName("Lee", ("Ann",), kind=NameKind.BIRTH))},
            "family name the same as a previous one",
        ),
        ({"birth_date": date(1956, 3, 8)}, "birth date with day and month exchanged"),
        ({"birth_date": date(1957, 8, 3)}, "birth date the same but for the year"),
        ({"phones": ("508-234-5678",)}, "phone the same but for the area code"),
        ({"addresses": (PostalAddress(("12 Main St Apt 4",), "Boston", "", "02108"),)},
         "address the same but for the apartment"),
    ],
)  # fmt: skip
def test_what_nearly_agrees_is_said_in_words(change: dict[str, object], words: str) -> None:
    [(texts, _)] = of(replace(ANN, **change)).values()  # type: ignore[arg-type]
    assert words in texts


def test_a_word_that_nobody_translated_is_said_as_it_is() -> None:
    assert in_words(Reason("city", "beginning", 0.2)) == "city: beginning"


def test_warnings() -> None:
    twin = replace(ANN, id="p2", names=(PersonName("Lee", ("Bea",)),))
    other = replace(ANN, id="p3", phones=(), addresses=(), deceased=True)
    left = replace(other, id="p4", deceased=False, active=False)
    gone = replace(left, id="p5", merged_into="p1")
    found = of(ANN, twin, other, left, gone)
    assert any("p2" in warning and "same address" in warning for warning in found["p1"][1])
    assert any("p3" in warning and "same name" in warning for warning in found["p1"][1])
    assert "the clinical document (C-CDA) gives another given name" in found["p2"][1]
    assert found["p2"][0][-1] == "given name different"
    assert "recorded as deceased" in found["p3"][1]
    assert "the record is not active" in found["p4"][1]
    assert found["p5"][1][0] == "this record was merged into that of patient p1: look there"


def test_whose_sources_differ_each_is_named_once() -> None:
    moved = replace(ANN, birth_date=date(1956, 8, 4))
    [(_, warnings)] = of(moved, claims=(SAID, PACKED, replace(SAID, path="4"))).values()
    assert warnings == (
        "the clinical document (C-CDA) gives another birth date",
        "the package (XDM metadata) gives another birth date",
    )


def test_conflicts_name_the_sources_and_what_each_says() -> None:
    other = replace(PACKED, names=(PersonName("Moe", ("Ann",)),), birth_date=date(1981, 4, 2), sex="male")
    assert [(one.field, one.left, one.right) for one in conflicts(Evidence((SAID, other)))] == [
        ("birth_date", "cda_header 2", "xdm_metadata 3/zip:2"),
        ("family", "cda_header 2", "xdm_metadata 3/zip:2"),
        ("sex", "cda_header 2", "xdm_metadata 3/zip:2"),
    ]
    assert [one.text for one in conflicts(Evidence((SAID, other)))] == [
        "birth date: the clinical document (C-CDA) says 1956-08-03, the package (XDM metadata) says 1981-04-02",
        "family name: the clinical document (C-CDA) says Lee, the package (XDM metadata) says Moe",
        "sex: the clinical document (C-CDA) says female, the package (XDM metadata) says male",
    ]
    part = replace(PACKED, birth_date=None, birth_part="1970")
    assert conflicts(Evidence((SAID, part)))[0].text.endswith("says 1970")


def test_one_source_may_contradict_itself() -> None:
    doubtful, second = replace(SAID, is_doubtful=True), replace(PACKED, ordinal=2)
    assert [(one.field, one.right, one.text) for one in conflicts(Evidence((doubtful, second)))] == [
        ("integrity", "", "the clinical document (C-CDA) is not the document that its package describes"),
        ("several_patients", "", "the package (XDM metadata) names more than one patient"),
    ]


def test_given_names_that_differ_are_told_as_well() -> None:
    other = replace(PACKED, names=(PersonName("Lee", ("Bea",)),))
    [one] = conflicts(Evidence((SAID, other)))
    assert (one.field, one.left, one.right) == ("given", "cda_header 2", "xdm_metadata 3/zip:2")
    assert one.text == ("given name: the clinical document (C-CDA) says Ann; the package (XDM metadata) says Bea")
    assert conflicts(Evidence((SAID, PACKED))) == ()


def test_every_source_has_words() -> None:
    assert set(SOURCES) == set(Source)
