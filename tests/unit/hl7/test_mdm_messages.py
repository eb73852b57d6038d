"""MDM messages, read by a library that is not ours (HL7-9)."""

from __future__ import annotations

import base64
import dataclasses
from datetime import UTC, date, datetime

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from gateway.core.errors import ImportRefusedError
from gateway.core.hl7 import read_message
from gateway.hl7.mdm import T04, MDMRules, control_id, import_message, retraction_message
from gateway.ports import ImportRequest, Link, MessagePart, Patient, Retraction

RULES = MDMRules("CLINIC", "EHR", "HOSP", "HOSPAA")
AT = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
CDA = b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"/>'


def request(**changes: object) -> ImportRequest:
    made = ImportRequest(
        link=Link("01J0000000000000000000LINK", "01J000000000000000000000MS", "7", "manual", "olga", "manual", AT),
        patient=Patient("7", "M77", "O'Neil^&|~\\", "Ann Q", date(1961, 2, 3), "female"),
        sender="dr@hisp.example",
        recipients=("inbox@clinic.example",),
        subject="Summary | of ^ care",
        sent_at=datetime(2026, 5, 31, 22, 0, tzinfo=UTC),
        received_at=AT,
        rfc822_message_id="<1@hisp.example>",
        content_sha256="0" * 64,
        content=b"",
        text="Dear colleague,\r\n\r\nfirst|second^third~\tfourth\\ \u00fc\x0b\x1c\nMSH|^~\\&|EVIL\n",
        parts=(
            MessagePart("", "text/plain", b"whatever"),
            MessagePart("summary.xml", "application/octet-stream", CDA),
            MessagePart("scan|a^b\r\nOBX|9.pdf", "application/pdf", b"%PDF-1.7 \x0b\x1c\r"),
            MessagePart("odd", "no type at all", bytes(range(256))),
        ),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_another_library_reads_every_value_of_the_document() -> None:
    octets = import_message(request(), RULES)
    assert not set(octets) & set(b"\n\x0b\x1c\x00")
    message = parse_message(octets.decode("utf-8"), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    assert [segment.name for segment in message.children] == ["MSH", "EVN", "PID", "PV1", "TXA", *["OBX"] * 5]
    assert message.msh.msh_9.to_er7() == "MDM^T02^MDM_T02"
    assert message.msh.msh_18.to_er7() == "UNICODE UTF-8"
    assert len(message.msh.msh_10.to_er7()) == 20
    assert message.pid.pid_3.to_er7() == "M77^^^HOSPAA^MR"
    assert message.pid.pid_5.to_er7() == r"O'Neil\S\\T\\F\\R\\E\^Ann Q"
    assert (message.pid.pid_7.to_er7(), message.pid.pid_8.to_er7()) == ("19610203", "F")
    txa = message.txa
    assert txa.txa_2.to_er7() == r"CN^Summary \F\ of \S\ care"
    assert (txa.txa_4.to_er7(), txa.txa_6.to_er7()) == ("20260531220000+0000", "20260601090000+0000")
    assert txa.txa_9.to_er7() == "dr@hisp.example"
    assert txa.txa_12.to_er7() == "01J0000000000000000000LINK^DIRECTGW"
    assert (txa.txa_17.to_er7(), txa.txa_19.to_er7()) == ("AU", "AV")
    kinds = [obx.obx_2.to_er7() for obx in message.obx]
    assert kinds == ["TX", "ED", "ED", "ED", "ED"]
    assert all(obx.obx_11.to_er7() == "F" for obx in message.obx)
    assert message.obx[2].obx_3.to_er7() == "CCD^summary.xml"
    values = [obx.obx_5.to_er7().split("^") for obx in message.obx[1:]]
    assert [value[:4] for value in values] == [
        ["", "text", "plain", "Base64"],
        ["", "text", "xml", "Base64"],
        ["", "application", "pdf", "Base64"],
        ["", "application", "octet-stream", "Base64"],
    ]
    assert [base64.b64decode(value[4]) for value in values] == [part.data for part in request().parts]


def test_the_document_is_valid_by_the_tables_of_another_library() -> None:
    plain = request(subject="", parts=(MessagePart("a.pdf", "application/pdf", b"%PDF"),), text="Hello")
    # The title stands where TXA-2 has one since 2.7; 2.5.1 knows no component there and lets receivers pass over it.
    text = import_message(plain, RULES).decode().replace("|CN^Direct message|", "|CN|")
    assert parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT).validate()


def test_our_own_reader_gives_the_text_back() -> None:
    found = read_message(import_message(request(), RULES)).all("OBX")[0]
    text = found.repetitions(5)[0].whole()
    assert text == "Dear colleague,\n\nfirst|second^third~\tfourth\\ \u00fc\n\ufffd\nMSH|^~\\&|EVIL\n"


def test_a_retry_is_the_same_octets_and_another_link_another_number() -> None:
    assert import_message(request(), RULES) == import_message(request(), RULES)
    assert control_id("a") == control_id("a") != control_id("b")
    assert len(control_id("a")) == 20


def test_the_text_of_the_message_is_not_attached_once_more() -> None:
    parts = (MessagePart("", "text/plain", b"Hello\r\n you"), MessagePart("a.txt", "text/plain", b"Hello you"))
    message = read_message(import_message(request(text="Hello you", parts=parts), RULES))
    assert [obx.text(3, 2) for obx in message.all("OBX")] == ["Message text", "a.txt"]


def test_a_patient_without_the_number_that_is_sent_is_refused_by_name() -> None:
    nobody = dataclasses.replace(request().patient, mrn="  ")
    with pytest.raises(ImportRefusedError) as caught:
        import_message(request(patient=nobody), RULES)
    assert caught.value.reason == "no_mrn"
    by_id = dataclasses.replace(RULES, uses_mrn=False)
    assert read_message(import_message(request(patient=nobody), by_id)).first("PID").text(3, 5) == "PI"  # type: ignore[union-attr]


def test_what_is_too_large_is_refused_by_name() -> None:
    with pytest.raises(ImportRefusedError) as caught:
        import_message(request(), dataclasses.replace(RULES, max_bytes=100))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("event", ["T11", T04])
def test_a_retraction_cancels_the_same_document_under_a_number_of_its_own(event: str) -> None:
    retraction = Retraction(request(), "mdm:x", "wrong|patient\rPID|", "olga", datetime(2026, 6, 2, tzinfo=UTC))
    octets = retraction_message(retraction, dataclasses.replace(RULES, retract_event=event))
    message = parse_message(octets.decode(), validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
    names = [segment.name for segment in message.children]
    assert names == ["MSH", "EVN", "PID", "PV1", "TXA", *(["OBX"] if event == T04 else [])]
    assert message.msh.msh_9.to_er7() == ("MDM^T11^MDM_T01" if event == "T11" else "MDM^T04^MDM_T02")
    assert message.txa.txa_12.to_er7() == "01J0000000000000000000LINK^DIRECTGW"
    assert message.txa.txa_19.to_er7() == "CA"
    assert message.msh.msh_10.to_er7() != control_id(request().link.id)
    assert octets == retraction_message(retraction, dataclasses.replace(RULES, retract_event=event))
