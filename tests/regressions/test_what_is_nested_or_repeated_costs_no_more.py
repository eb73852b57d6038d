"""What a document nests or repeats made the readers of evidence work, or hold, far more than its size."""

import hashlib
import secrets
import time
import tracemalloc

import pytest

from gateway.core.claims import Evidence
from gateway.evidence.collecting import MAX_CLAIM_CHARS
from tests.unit.evidence.evidence_messages import CDA_NS, codes, of_message, of_piece, package, part

METADATA = "IHE_XDM/SUBSET01/METADATA.XML"


def _cpu(data: bytes, content_type: str) -> tuple[float, Evidence]:
    begun = time.process_time()
    found = of_piece(data, content_type)
    return time.process_time() - begun, found


def _described_by(value: str) -> bytes:
    slot = f'<Slot name="sourcePatientInfo"><ValueList>{value}</ValueList></Slot>'
    return package({METADATA: f"<r><ExtrinsicObject>{slot}</ExtrinsicObject></r>".encode()})


def test_slots_in_slots_are_read_once() -> None:
    levels, text = 30, b"abcdefgh " * 110_000
    xml = b"<r>" + b'<ExtrinsicObject><Slot name="sourcePatientInfo">' * levels + b"<Value>" * 60 + text
    xml += b"</Value>" * 60 + b"</Slot></ExtrinsicObject>" * levels + b"</r>"
    seconds, found = _cpu(package({METADATA: xml}), "application/zip")
    assert seconds < 3.0
    assert found.claims == ()
    assert not found.is_complete


def test_a_value_that_holds_elements_is_told_and_not_half_read() -> None:
    value = "<Value>PID-5|Doe^<b/>Ann</Value>"
    found = of_piece(_described_by(value), "application/zip")
    assert "xdm_value_unreadable" in codes(found)
    assert not found.is_complete


def test_a_comment_within_a_value_hides_nothing() -> None:
    value = "<Value>PID-7|1970<!-- x -->0101</Value>"
    found = of_piece(_described_by(value), "application/zip")
    assert [str(claim.birth_date) for claim in found.claims] == ["1970-01-01"]


def test_many_values_of_one_field_are_joined_once() -> None:
    values = ("<Value>PID-5|" + "x" * 500 + "</Value>") * 100
    slot = f'<Slot name="sourcePatientInfo"><ValueList>{values}</ValueList></Slot>'
    xml = f"<r><ExtrinsicObject>{slot * 200}</ExtrinsicObject></r>"
    seconds, found = _cpu(package({METADATA: xml.encode()}), "application/zip")
    assert seconds < 4.0
    assert not found.is_complete


def test_escape_characters_without_end_are_not_looked_through() -> None:
    # Noise, because what packs too well is refused before it is read.
    noise = f"<!-- {secrets.token_hex(40_000)} -->".encode()
    xml = b'<r><ExtrinsicObject><Slot name="sourcePatientInfo"><Value>PID-5|' + b"\\" * 4_000_000
    xml += b"</Value></Slot></ExtrinsicObject>" + noise + b"</r>"
    seconds, found = _cpu(package({METADATA: xml}), "application/zip")
    assert codes(found) == ["xdm_patient_too_large"]
    assert not found.is_complete
    assert seconds < 1.5


def test_patients_in_many_parts_share_one_limit() -> None:
    head = "MSH|^~\\&|a|b|c|d|2020||ADT^A08|1|P|2.5\r"
    pids = "".join(f"PID|1||{number}^^^H^MR||Doe^" + "\\" * 30_000 + "\r" for number in range(10))
    begun = time.process_time()
    found = of_message(*[part((head + pids).encode(), "x-application/hl7-v2+er7") for _ in range(20)])
    assert time.process_time() - begun < 4.0
    assert "too_many_patients" in codes(found)
    assert not found.is_complete


def test_a_document_that_is_described_often_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    sha1 = hashlib.sha1

    def counted(data: bytes, **options: bool) -> object:
        hashed.append(len(data))
        return sha1(data, **options)

    monkeypatch.setattr(hashlib, "sha1", counted)
    slot = '<Slot name="{}"><ValueList><Value>{}</Value></ValueList></Slot>'
    one = f"<ExtrinsicObject>{slot.format('URI', 'DOC.XML')}{slot.format('hash', '0' * 40)}</ExtrinsicObject>"
    entries = {METADATA: f"<r>{one * 250}</r>".encode(), "IHE_XDM/SUBSET01/DOC.XML": b"<a>" + b"x" * 1000 + b"</a>"}
    found = of_piece(package(entries), "application/zip")
    assert "xdm_hash_mismatch" in codes(found)
    assert len(hashed) == 1


def test_a_long_family_name_with_many_nicknames_is_never_written_out() -> None:
    given = "".join(f'<given qualifier="CL">x{number}</given>' for number in range(150))
    name = f"<name><family>{'A' * 400_000}</family>{given}</name>"
    head = f"<ClinicalDocument {CDA_NS}><recordTarget><patientRole><patient>"
    document = f"{head}{name}</patient></patientRole></recordTarget></ClinicalDocument>".encode()
    tracemalloc.start()
    try:
        found = of_piece(document, "text/xml")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert codes(found) == ["claim_too_large"]
    assert peak < 20 * 1024 * 1024


@pytest.mark.parametrize(("chars", "is_kept"), [(MAX_CLAIM_CHARS // 2, True), (MAX_CLAIM_CHARS + 1, False)])
def test_the_limit_of_a_claim_is_where_it_was(chars: int, is_kept: bool) -> None:
    head = f"<ClinicalDocument {CDA_NS}><recordTarget><patientRole><patient>"
    name = f"<name><family>{'A' * chars}</family></name>"
    found = of_piece(f"{head}{name}</patient></patientRole></recordTarget></ClinicalDocument>", "text/xml")
    assert bool(found.claims) is is_kept
    assert found.is_complete is is_kept


@pytest.mark.parametrize("equals", ['="1"', '= "1"', "\n=\n'1'"])
def test_attributes_are_counted_however_they_are_written(equals: str) -> None:
    element = "<a " + " ".join(f"a{number}{equals}" for number in range(100)) + "/>"
    data = f"<ClinicalDocument {CDA_NS}>{element * 11_000}</ClinicalDocument>"
    seconds, found = _cpu(data.encode(), "text/xml")
    assert codes(found) == ["xml_too_complex"]
    assert seconds < 2.0


def test_a_file_of_line_ends_is_not_cut_into_millions() -> None:
    data = b"MSH|^~\\&|a|b|c|d|2020||ADT^A08|1|P|2.5\r" + b"\r" * 15_000_000
    seconds, found = _cpu(data, "x-application/hl7-v2+er7")
    assert codes(found) == ["hl7_too_large"]
    assert seconds < 1.5
