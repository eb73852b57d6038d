"""HL7 v2 parts: found by content or label, in any delimiters, and what cannot be read."""

from datetime import date

import pytest

from gateway.core.claims import Claim, Disagreement, Identifier, PersonName, Source, Strength, contradictions
from tests.unit.evidence.evidence_messages import codes, of_message, of_piece, part

ADT = (
    "MSH|^~\\&|EHR|CLINIC|GW|X|20260101||ADT^A08^ADT_A01|1|P|2.5.1\r"
    "EVN|A08|20260101\r"
    "PID|1||MRN-7^^^CLINIC&1.2.3.4&ISO^MR~444222222^^^SSA^SS||O\\X26\\Quimby^Ada^M^Jr^^^L~Old^Ada^^^^^M||19610314|F|||"
    "1 Main St^^Springfield^OR^97477^US||^PRN^PH^^1^555^7231544~^NET^Internet^ada@mail.test|||||||123-45-6789\r"
)


def _only(found: object) -> Claim:
    (claim,) = getattr(found, "claims")  # noqa: B009
    assert isinstance(claim, Claim)
    return claim


@pytest.mark.parametrize(
    ("content_type", "filename"),
    [("application/hl7-v2", ""), ("text/plain", ""), ("application/octet-stream", "adt.hl7"), ("application/pdf", "")],
)
def test_a_message_is_known_by_its_content(content_type: str, filename: str) -> None:
    found = of_message(part(ADT.encode(), content_type, filename=filename))
    assert codes(found) == []
    claim = _only(found)
    assert (claim.source, claim.strength, claim.path) == (Source.HL7V2_PID, Strength.AUTHOR, "2")
    assert claim.names[0] == PersonName("O&Quimby", ("Ada",), "M", "Jr")
    assert claim.birth_date == date(1961, 3, 14)
    assert claim.identifiers == (Identifier("MRN-7", "1.2.3.4", "MR"),)
    assert claim.emails == ("ada@mail.test",)
    assert claim.addresses[0].city == "Springfield"
    assert "6789" not in repr(found)
    assert "444222222" not in repr(found)


def test_other_delimiters_line_ends_and_framing_give_the_same() -> None:
    other = ADT.translate(str.maketrans("|^~\\&", "#*!?@")).replace("ada@mail", "ada?T?mail")
    plain = _only(of_piece(ADT))
    framed = _only(of_piece("\x0b" + ADT.replace("\r", "\r\n") + "\x1c\r"))
    changed = _only(of_piece(other))
    assert framed == plain
    assert changed == plain


def test_spaces_around_every_delimiter_are_no_part_of_the_values() -> None:
    text = "MSH | ^ ~\\& | A | B | C | D | 20110613 || ADT ^ A01 | 1 | P | 2.3\n"
    text += "PID | 1 || 135769 || MOUSE ^ MICKEY ^|| 19281118 | M\n"
    claim = _only(of_piece(text))
    assert claim.names == (PersonName("MOUSE", ("MICKEY",)),)
    assert (claim.birth_date, claim.sex) == (date(1928, 11, 18), "male")


def test_messages_of_a_batch_with_different_patients_contradict() -> None:
    batch = "FHS|^~\\&|\rBHS|^~\\&|\r" + ADT + ADT.replace("Quimby^Ada", "Quimby^Eva") + ADT + "BTS|3\rFTS|1\r"
    found = of_piece(batch, "text/plain")
    assert [claim.ordinal for claim in found.claims] == [1, 2]
    assert [one.field for one in contradictions(found.claims)] == [Disagreement.SEVERAL_PATIENTS]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("MSH|", "hl7_unreadable"),
        ("MSH|^~\\&|\rnonsense\r", "hl7_unreadable"),
        ("nothing", "hl7_unreadable"),
        (ADT.replace("19610314", "14.03.61"), "hl7_value_unreadable"),
        (ADT.replace("Ada^M", "A" * 40_000), "hl7_patient_too_large"),
        ("MSH|^~\\&|\r" + "".join(f"PID|1||{n}\r" for n in range(65)), "hl7_too_many_patients"),
    ],
)
def test_what_cannot_be_read_has_a_name(text: str, code: str) -> None:
    found = of_piece(text, "application/hl7-v2")
    assert codes(found) == [code] or set(codes(found)) == {code, "too_many_claims"}
    assert not found.is_complete
