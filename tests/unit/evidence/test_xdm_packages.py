"""XDM packages: the packager's claim, the hash and the size, and packages that mean harm."""

import io
import struct
import zipfile

import pytest

from gateway.core.claims import Claim, Disagreement, Evidence, Source, Strength, contradictions
from tests.unit.evidence.evidence_messages import (
    PID_INFO,
    cda,
    codes,
    metadata,
    of_message,
    of_piece,
    package,
    part,
    xdm,
)

DOCUMENT = cda().encode()


def _by_source(found: Evidence) -> dict[Source, Claim]:
    return {claim.source: claim for claim in found.claims}


def _fields(found: Evidence) -> list[Disagreement]:
    return [one.field for one in contradictions(found.claims)]


@pytest.mark.parametrize(
    "content_type", ["application/zip", "application/octet-stream", "application/x-zip-compressed"]
)
def test_a_package_gives_two_claims_that_agree(content_type: str) -> None:
    found = of_message(part(xdm(DOCUMENT), content_type, filename="xdm.bin"))
    assert codes(found) == []
    assert _fields(found) == []
    claims = _by_source(found)
    packed, written = claims[Source.XDM_METADATA], claims[Source.CDA_HEADER]
    assert (packed.strength, packed.path) == (Strength.PACKAGER, "2/zip:2")
    assert (written.strength, written.path) == (Strength.AUTHOR, "2/zip:3")
    assert packed.names == written.names
    assert packed.identifiers[0].assigner == written.identifiers[0].assigner == "1.2.3.4"
    assert packed.addresses[0].postal_code == "97477"
    assert not written.is_doubtful
    assert "6789" not in repr(found)


@pytest.mark.parametrize(
    ("described", "code"),
    [({"sha1": "0" * 40}, "xdm_hash_mismatch"), ({"size": "17"}, "xdm_size_mismatch")],
)
def test_another_document_than_the_one_described_is_doubtful(described: dict[str, str], code: str) -> None:
    found = of_piece(xdm(DOCUMENT, **described), "application/zip")
    assert codes(found) == [code]
    assert not found.is_complete
    assert _by_source(found)[Source.CDA_HEADER].is_doubtful
    assert _fields(found) == [Disagreement.INTEGRITY]


@pytest.mark.parametrize("sha1", ["", "no hash", "0" * 39])
def test_a_missing_hash_is_told_and_casts_no_doubt(sha1: str) -> None:
    found = of_piece(xdm(DOCUMENT, sha1=sha1 or ""), "application/zip")
    assert codes(found) == ["xdm_hash_missing"]
    assert found.is_complete
    assert _fields(found) == []


def test_metadata_of_one_patient_and_a_document_of_another_conflict() -> None:
    found = of_piece(xdm(cda(family="Madison", born="19700601", sex="M").encode()), "application/zip")
    assert set(_fields(found)) == {Disagreement.BIRTH_DATE, Disagreement.FAMILY, Disagreement.SEX}


def test_a_document_that_the_metadata_names_but_the_package_lacks() -> None:
    said = metadata("GONE.XML", DOCUMENT, info=PID_INFO).encode()
    assert codes(of_piece(package({"IHE_XDM/SUBSET01/METADATA.XML": said}), "application/zip")) == [
        "xdm_document_missing"
    ]


def test_long_uris_backslashes_and_lower_case_are_found() -> None:
    said = metadata("x", DOCUMENT).replace("<Value>x</Value>", "<Value>2|C.XML</Value><Value>1|.\\do</Value>")
    found = of_piece(package({"ihe_xdm\\subset01\\metadata.xml": said.encode(), "IHE_XDM/SUBSET01/DOC.XML": DOCUMENT}))
    assert codes(found) == []
    assert len(found.claims) == 2


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"<a", "xdm_metadata_xml_malformed"),
        (b"<!DOCTYPE a><a/>", "xdm_metadata_xml_doctype"),
        (b"<a/>", "xdm_metadata_empty"),
        (metadata("DOC.XML", DOCUMENT, info=("PID-7|nonsense",)).encode(), "xdm_value_unreadable"),
        (metadata("DOC.XML", DOCUMENT, info=("Jane Doe",)).encode(), "xdm_patient_unreadable"),
    ],
)
def test_metadata_that_cannot_be_read_has_a_name_and_the_document_counts(said: bytes, code: str) -> None:
    found = of_piece(package({"IHE_XDM/S/METADATA.XML": said, "IHE_XDM/S/DOC.XML": DOCUMENT}), "application/zip")
    assert codes(found) == [code]
    assert Source.CDA_HEADER in _by_source(found)


def test_a_zip_without_metadata_may_hold_documents_and_a_word_file_does_not() -> None:
    assert [claim.path for claim in of_piece(package({"a/ccd.xml": DOCUMENT})).claims] == ["2/zip:1"]
    found = of_piece(package({"[Content_Types].xml": b"<Types/>", "word/document.xml": DOCUMENT}))
    assert (found.claims, found.problems) == ((), ())


# --- packages that mean harm ---


def test_a_package_in_a_package_is_not_opened() -> None:
    found = of_piece(package({"inner.zip": xdm(DOCUMENT)}))
    assert (codes(found), found.claims) == (["zip_nested"], ())


def test_what_unpacks_to_too_much_is_not_unpacked() -> None:
    found = of_piece(package({"a.xml": b"<a>" + b" " * 3_000_000, "b.xml": DOCUMENT}))
    assert codes(found) == ["zip_ratio"]
    assert len(found.claims) == 1


def test_too_many_entries() -> None:
    assert codes(of_piece(package({f"{n}.xml": b"" for n in range(501)}))) == ["zip_too_many_entries"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_by_name(compression: int) -> None:
    assert codes(of_piece(package({"a.xml": DOCUMENT}, compression))) == ["zip_compression_unsupported"]


def test_an_encrypted_entry_is_told() -> None:
    data = bytearray(package({"a.xml": DOCUMENT}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark) + offset
        data[at] |= 1
    assert codes(of_piece(bytes(data))) == ["zip_encrypted"]


def test_entries_that_overlap_are_refused() -> None:
    data = bytearray(package({"a.xml": DOCUMENT, "b.xml": DOCUMENT}))
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<L", data, second + 42, 0)
    assert codes(of_piece(bytes(data))) == ["zip_overlapping_entries"]


@pytest.mark.parametrize("cut", [4, 30, 200, -1, -10, -30])
def test_a_truncated_package_is_told(cut: int) -> None:
    found = of_piece(xdm(DOCUMENT)[:cut], "application/zip")
    assert codes(found) == ["zip_broken"]
    assert not found.is_complete


def test_a_changed_byte_is_told() -> None:
    data = bytearray(package({"a.xml": DOCUMENT}, zipfile.ZIP_STORED))
    at = data.find(b"Quimby")
    data[at : at + 6] = b"Madiso"
    assert codes(of_piece(bytes(data))) == ["zip_entry_broken"]


def test_a_damaged_entry_is_told_whatever_its_name() -> None:
    data = bytearray(package({"DOCUMENT": DOCUMENT}))
    at = data.find(b"DOCUMENT") + len("DOCUMENT")
    data[at : at + 20] = b"\xff" * 20
    assert codes(of_piece(bytes(data))) == ["zip_entry_broken"]


def test_an_entry_without_a_name_is_an_entry() -> None:
    """The library's own question whether it is a folder fails on it."""
    data = bytearray(package({"x": DOCUMENT}, zipfile.ZIP_STORED))
    local, central = data.find(b"PK\x03\x04"), data.find(b"PK\x01\x02")
    # The one byte of the name becomes an extra field that is too short to mean anything.
    struct.pack_into("<HH", data, local + 26, 0, 1)
    struct.pack_into("<HH", data, central + 28, 0, 1)
    found = of_piece(bytes(data))
    assert codes(found) == []
    assert len(found.claims) == 1


def test_zip64_and_names_that_climb_are_harmless() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("../../etc/cron.d/x.xml", "w", force_zip64=True) as file:
        file.write(DOCUMENT)
    assert [claim.path for claim in of_piece(buffer.getvalue()).claims] == ["2/zip:1"]
