"""Content that means harm: nothing is expanded, fetched or shown, and the work has an end."""

import time
from functools import partial
from pathlib import Path

import pytest

from gateway.core.claims import Evidence, Source
from gateway.evidence import collecting
from gateway.evidence import message as evidence_message
from gateway.evidence.collecting import Collector, guarded
from gateway.evidence.message import read_evidence
from tests.unit.evidence.evidence_messages import CDA_NS, SENDER, cda, codes, message, of_message, of_piece, part

SECRET = "Zzyzxqwv"
"""A value that may stand in claims but in no problem."""


def _entity(declaration: str) -> str:
    return cda(family="&x;", head=f"<!DOCTYPE ClinicalDocument [{declaration}]>")


@pytest.mark.parametrize(
    "declaration",
    [
        '<!ENTITY x "expanded">',
        '<!ENTITY x SYSTEM "file:///etc/passwd">',
        '<!ENTITY x SYSTEM "http://127.0.0.1:9/x">',
        '<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;',
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;&b;&b;&b;&b;&b;">',
        '<!ATTLIST ClinicalDocument classCode CDATA "x">',
    ],
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_document_type_is_refused_in_every_encoding(declaration: str, codec: str) -> None:
    text = _entity(declaration).replace('<?xml version="1.0" encoding="UTF-8"?>', "")
    found = of_piece(text.encode(codec), "text/xml", "x.xml")
    assert codes(found) == ["xml_doctype"]
    assert found.claims == ()


def test_an_entity_without_a_declaration_and_an_inclusion_give_nothing() -> None:
    assert codes(of_piece(cda(family="&x;"), "text/xml")) == ["xml_malformed"]
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" parse="text" href="file:///etc/hostname"/>'
    found = of_piece(cda(family=include), "text/xml")
    assert found.claims[0].names[0].family == ""


@pytest.mark.parametrize(
    "data",
    [
        "<a>" * 300_000,
        f"<ClinicalDocument {CDA_NS}>" + "<a/>" * 700_000 + "</ClinicalDocument>",
        f"<ClinicalDocument {CDA_NS} " + " ".join(f'a{n}="1"' for n in range(200_000)) + "/>",
        "<!-- -->" * 300_000 + "<a/>",
        "<!--" * 500_000,
        "<?xml version='1.0'?>" + "<?a ?>" * 200_000,
        f"<ClinicalDocument {CDA_NS}><title>{'x' * 11_000_000}</title></ClinicalDocument>",
        cda(family="Q" * 5_000_000),
    ],
)
def test_the_work_on_a_document_has_an_end(data: str) -> None:
    begun = time.process_time()
    found = of_piece(data, "text/xml")
    assert found.problems
    assert found.claims == ()
    # What was read to its end and names nobody hides nobody.
    assert not found.is_complete or codes(found) == ["cda_patient_missing"]
    # Some hundred milliseconds on the slowest machine seen; what is not linear takes minutes.
    assert time.process_time() - begun < 5


def test_the_parts_of_a_message_are_bounded() -> None:
    found = of_message(*[part(cda(family=f"Q{n}").encode(), "text/xml") for n in range(300)])
    assert {"too_many_parts", "too_many_claims"} <= set(codes(found))
    assert len(found.claims) == collecting.MAX_CLAIMS
    assert not found.is_complete


def test_the_bytes_of_a_message_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MAX_BYTES", 1_500)
    small = part(cda().encode(), "text/xml", encoding="8bit")
    monkeypatch.setattr(evidence_message, "Collector", partial(Collector, bytes_left=1_500))
    found = of_message(*[small] * 6)
    assert 0 < len(found.claims) < 6
    assert set(codes(found)) == {"message_too_large"}
    assert not found.is_complete


def test_problems_are_bounded_and_a_lost_one_still_hides() -> None:
    found = Collector()
    for number in range(200):
        found.problem(Source.CDA_HEADER, str(number), "xml_malformed", "x", hides=number >= 64)
    evidence = found.evidence()
    assert len(evidence.problems) == collecting.MAX_PROBLEMS + 1
    assert not evidence.is_complete


def test_a_fault_of_a_reader_costs_its_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr(evidence_message, "read_hl7", broken)
    found = of_message(part(b"MSH|^~\\&|\r", "text/plain"), part(cda().encode(), "text/xml"), sender=SENDER)
    assert codes(found) == ["reader_failed"]
    assert found.problems[0].source is Source.HL7V2_PID
    assert SECRET not in repr(found)
    assert len(found.claims) == 2
    other = Collector()
    guarded(other, None, "", lambda: None)
    assert other.problems == []


def test_no_problem_shows_a_value() -> None:
    pieces = [
        cda(family=SECRET, born=SECRET, sex=SECRET),
        cda(f'<id root="1.3.6.1.4.1.41179.2.4" extension="{SECRET}"/><patient><name>{SECRET}</name></patient>'),
        f"<{SECRET}>",
        f'<?xml version="1.0" encoding="{SECRET}"?><x/>',
        f"MSH|^~\\&|\rPID|1||1||{SECRET}||{SECRET}\r{SECRET}",
        f'{{"resourceType": "Patient", "birthDate": "{SECRET}", "gender": "{SECRET}"}}',
        f'{{"resourceType": "Patient", "name": [{{"text": "{SECRET}"}}]}}',
    ]
    for text in pieces:
        found = of_piece(
            text, "text/xml" if text.startswith("<") else "", f"{SECRET}.xml" if text.startswith("<") else ""
        )
        assert found.problems
        assert SECRET not in repr(found.problems)


def test_a_structure_that_was_not_opened_is_told() -> None:
    nested = message(part(cda().encode(), "text/xml"))
    for level in range(25):
        nested = (
            f'Content-Type: multipart/mixed; boundary="l{level}"\r\n\r\n--l{level}\r\n'.encode()
            + nested
            + f"\r\n--l{level}--\r\n".encode()
        )
    found = read_evidence(nested, "")
    assert "part_not_opened" in codes(found)
    assert not found.is_complete
    encoded = of_message(part(message(part(cda().encode(), "text/xml")), "message/rfc822"))
    assert codes(encoded) == ["message_not_opened"]


def test_body_text_and_an_unverified_sender_are_no_evidence() -> None:
    assert read_evidence(message(), "") == Evidence()
    assert codes(read_evidence(message(), "not an address")) == ["sender_unreadable"]


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of_piece(cda(), "text/xml")
    assert list(tmp_path.iterdir()) == []
