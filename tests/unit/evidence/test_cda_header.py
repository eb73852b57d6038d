"""C-CDA headers: recognised by content, and every field of the patient."""

import hashlib
from datetime import date

import pytest

from gateway.core.claims import (
    Disagreement,
    Identifier,
    NameKind,
    PersonName,
    PostalAddress,
    Source,
    Strength,
    contradictions,
)
from tests.unit.evidence.evidence_messages import cda, codes, of_message, of_piece, part

RICH = """
<id root="1.3.6.1.4.1.41179.2.4" extension="Lisa@Direct.MyPHD.us"/>
<id root="2.16.840.1.113883.1.111" extension="12345-0828"/>
<id root="2.16.840.1.113883.4.1" extension="444222222"/>
<id root="2.16.840.1.113883.4.1" extension="***-**-2222" nullFlavor="MSK"/>
<id nullFlavor="NI"/>
<sdtc:identifiedBy><sdtc:alternateIdentification>
  <sdtc:id root="2.16.840.1.113883.1.111" extension="12345-0828"/><sdtc:code code="MR"/>
</sdtc:alternateIdentification></sdtc:identifiedBy>
<sdtc:identifiedBy><sdtc:alternateIdentification>
  <sdtc:id root="1.3.6.1.4.1.41179.2.3" extension="doctor@direct.myphd.us"/>
</sdtc:alternateIdentification></sdtc:identifiedBy>
<addr use="HP"><streetAddressLine>1 Happy <!-- x -->Valley Road</streetAddressLine><city>Westerly</city>
  <state>RI</state><postalCode>02891</postalCode><country nullFlavor="UNK"/></addr>
<addr use="H"><streetAddressLine>9 Old Rd</streetAddressLine><city>Boston</city>
  <useablePeriod><low value="2001"/><high value="2010"/></useablePeriod></addr>
<telecom use="HP" value="tel:+1-4016412345"/><telecom value="mailto:lisa@mail.test"/>
<telecom value="fax:+1-4016412346"/><telecom nullFlavor="NA"/>
<patient>
  <name><given>Lise</given><family>Nelsen</family><validTime><high value="2010"/></validTime></name>
  <name use="P"><given>Lizzy</given><family>Nelson</family></name>
  <name use="L"><given>Lisa</given><given>Ann</given><given qualifier="CL">Lee</given><family>Nelson</family>
    <family qualifier="BR">Garc\u00eda</family><suffix>Jr</suffix></name>
  <administrativeGenderCode code="F"/><birthTime value="196208281200-0500"/>
  <sdtc:deceasedInd value="true"/>
</patient>
"""


def test_everything_of_a_header() -> None:
    found = of_piece(cda(RICH), "text/xml")
    assert found.problems == ()
    (claim,) = found.claims
    assert (claim.source, claim.strength, claim.path) == (Source.CDA_HEADER, Strength.AUTHOR, "2")
    assert claim.names == (
        PersonName("Nelson", ("Lisa", "Ann"), "", "Jr"),
        PersonName("Nelson", ("Lee",), kind=NameKind.ALIAS),
        PersonName("Garc\u00eda", ("Lisa", "Ann"), "", "Jr", NameKind.BIRTH),
        PersonName("Nelsen", ("Lise",), kind=NameKind.PREVIOUS),
        PersonName("Nelson", ("Lizzy",), kind=NameKind.ALIAS),
    )
    assert claim.birth_date == date(1962, 8, 28)
    assert (claim.sex, claim.deceased) == ("female", True)
    assert claim.identifiers == (Identifier("12345-0828", "2.16.840.1.113883.1.111", "MR"),)
    assert claim.direct_addresses == ("lisa@direct.myphd.us",)
    assert claim.phones == ("+1-4016412345",)
    assert claim.emails == ("lisa@mail.test",)
    assert claim.addresses == (
        PostalAddress(("1 Happy Valley Road",), "Westerly", "RI", "02891", ""),
        PostalAddress(("9 Old Rd",), "Boston", is_old=True),
    )
    assert "2222" not in repr(found)


def test_the_document_can_be_known_again() -> None:
    text = cda()
    (document,) = of_piece(text, "text/xml").documents
    assert (document.id_root, document.id_extension, document.code) == ("9.8.7", "doc-1", "34133-9")
    assert (document.code_system, document.title) == ("2.16.840.1.113883.6.1", "Summary")
    assert document.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("content_type", ["text/xml", "application/xml", "application/octet-stream", "text/plain"])
@pytest.mark.parametrize("encoding", ["base64", "8bit"])
def test_a_document_is_known_by_its_content(content_type: str, encoding: str) -> None:
    found = of_message(part(cda().encode(), content_type, encoding=encoding), sender="ada@direct.phr.test")
    assert [(claim.source, claim.path) for claim in found.claims] == [
        (Source.SIGNED_FROM, ""),
        (Source.CDA_HEADER, "2"),
    ]
    assert found.claims[0].direct_addresses == ("ada@direct.phr.test",)
    assert found.claims[0].strength is Strength.SIGNATURE


@pytest.mark.parametrize(
    "data",
    [
        cda().encode("utf-16"),
        cda().replace("UTF-8", "utf-16").encode("utf-16-be"),
        cda(family="Garc\u00eda").replace("UTF-8", "ISO-8859-1").encode("latin-1"),
        b"\xef\xbb\xbf" + cda().encode(),
        ("\n\n  " + cda()).encode(),
        cda(head="<?xml-stylesheet type='text/xsl' href='http://evil.test/x'?><!-- <!DOCTYPE b> -->").encode(),
        cda().replace("<ClinicalDocument ", '<n:ClinicalDocument xmlns:n="urn:hl7-org:v3" ')
        .replace("</ClinicalDocument>", "</n:ClinicalDocument>").encode(),
    ],
)  # fmt: skip
def test_encodings_and_prologs(data: bytes) -> None:
    found = of_piece(data, "application/octet-stream", "summary.xml")
    assert codes(found) == []
    assert found.claims[0].birth_date == date(1961, 3, 14)
    assert found.claims[0].names[0].family in {"Quimby", "Garc\u00eda"}


def test_several_patients_of_one_document_contradict() -> None:
    one = '<id root="1.2" extension="1"/><patient><name><given>A</given><family>Q</family></name></patient>'
    found = of_piece(cda(one, one.replace(">A<", ">B<")), "text/xml")
    assert [claim.ordinal for claim in found.claims] == [1, 2]
    assert [one.field for one in contradictions(found.claims)] == [Disagreement.SEVERAL_PATIENTS]
    assert [claim.ordinal for claim in of_piece(cda(one, one), "text/xml").claims] == [1]


@pytest.mark.parametrize(
    ("role", "code"),
    [
        ('<patient><birthTime value="1961-03-99"/></patient>', "cda_birth_date_unreadable"),
        ('<patient><administrativeGenderCode code="dnfd"/></patient>', "cda_gender_unknown"),
        ("<patient><name>Ada Quimby</name></patient>", "cda_name_unstructured"),
        ('<id root="1.3.6.1.4.1.41179.2.4" extension="nobody"/>', "cda_direct_address_unreadable"),
        ("<patient>" + "<name><given>A</given></name>" * 201 + "</patient>", "cda_too_many_values"),
        (f"<patient><name><family>{'Q' * 40_000}</family></name></patient>", "claim_too_large"),
    ],
)
def test_what_cannot_be_read_has_a_name(role: str, code: str) -> None:
    found = of_piece(cda(role), "text/xml")
    assert codes(found) == [code]
    assert not found.is_complete


def test_an_incomplete_birth_date_is_kept_as_far_as_it_goes() -> None:
    found = of_piece(cda(born="1961"), "text/xml")
    assert (found.claims[0].birth_date, found.claims[0].birth_part) == (None, "1961")
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('<ClinicalDocument xmlns="urn:hl7-org:v3"><recordTarget/></ClinicalDocument>', "cda_patient_missing"),
        ('<ClinicalDocument xmlns="urn:hl7-org:v3"><patient xmlns="x"/></ClinicalDocument>', "cda_patient_missing"),
        ("<ClinicalDocument><recordTarget><patientRole/></recordTarget></ClinicalDocument>", "cda_namespace"),
        ('<x><ClinicalDocument xmlns="urn:hl7-org:v3"/></x>', "cda_wrapped"),
        ('<recordTarget xmlns="urn:hl7-org:v3"/>', "cda_fragment"),
        ("<recordTarget/>", "cda_fragment"),
        ("<", "xml_malformed"),
        (cda()[:-5], "xml_malformed"),
        ('<?xml version="1.0" encoding="utf-7"?><x/>', "xml_encoding"),
        (cda(head="<!DOCTYPE ClinicalDocument>"), "xml_doctype"),
    ],
)
def test_what_is_no_document_has_a_name(text: str, code: str) -> None:
    found = of_piece(text, "text/xml", "summary.xml")
    assert codes(found) == [code]
    assert (found.claims, found.is_complete) == ((), False)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('<ClinicalDocument xmlns="urn:hl7-org:v3"><title>x</title></ClinicalDocument>', "cda_patient_missing"),
        ("<ClinicalDocument><title>x</title></ClinicalDocument>", "cda_namespace"),
        ("", "xml_malformed"),
        ("garbage", "xml_malformed"),
    ],
)
def test_what_was_read_and_speaks_of_nobody_hides_nobody(text: str, code: str) -> None:
    found = of_piece(text, "text/xml", "summary.xml")
    assert codes(found) == [code]
    assert (found.claims, found.is_complete) == ((), True)


def test_other_xml_pages_and_words_in_brackets_are_nothing() -> None:
    for data, kind in (("<html><body>Jane</body></html>", "text/html"), ("<see attached>", "text/plain"),
                       ("<svg/>", "image/svg+xml"), ("<xsl:stylesheet xmlns:xsl='urn:x'/>", "text/xml")):  # fmt: skip
        found = of_piece(data, kind)
        assert (found.claims, found.problems) == ((), ())
