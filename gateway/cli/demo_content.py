"""The demonstration's invented people and papers. No real person is described.

Three patients as FHIR NDJSON, one of whom (Ada Quimby) documents a Direct address of her personal health record:
the sender of the demonstration. And a small C-CDA about her, which travels as the attachment.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from gateway.charts.fhir import DIRECT_EXTENSION

RECEIVER_DOMAIN = "direct.lakeside-clinic.example"
RECEIVER = f"front-desk@{RECEIVER_DOMAIN}"
SENDER_DOMAIN = "direct.my-health-record.example"
SENDER = f"ada.quimby@{SENDER_DOMAIN}"
FORGER = f"someone.else@{SENDER_DOMAIN}"
PATIENT_ID = "demo-patient-1"
GENUINE_SUBJECT = "My summary of care before Thursday's visit"
FORGED_SUBJECT = "Please change my medication"


def patients_ndjson() -> str:
    """Return the patient index, one FHIR R4 Patient on a line."""
    people = [
        {"id": PATIENT_ID, "mrn": "LC-1001", "name": ("Quimby", "Ada", "Rose"), "born": "1961-03-14", "direct": SENDER},
        {
            "id": "demo-patient-2",
            "mrn": "LC-1002",
            "name": ("Okafor", "Ben"),
            "born": "1985-11-02",
            "direct": f"ben.okafor@{SENDER_DOMAIN}",
        },
        {"id": "demo-patient-3", "mrn": "LC-1003", "name": ("Lindqvist", "Cleo"), "born": "2009-07-29", "direct": ""},
    ]
    return "".join(json.dumps(_patient(person)) + "\n" for person in people)


def _patient(person: dict[str, Any]) -> dict[str, Any]:
    family, *given = person["name"]
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": person["id"],
        "active": True,
        "identifier": [
            {
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
                "system": "urn:oid:2.16.840.1.113883.19.5.99999.2",
                "value": person["mrn"],
            }
        ],
        "name": [{"use": "official", "family": family, "given": given}],
        "birthDate": person["born"],
        "address": [{"line": ["1 Harbour Street"], "city": "Lakeside", "postalCode": "00501"}],
    }
    if person["direct"]:
        extension = {"url": DIRECT_EXTENSION, "valueBoolean": True}
        patient["telecom"] = [{"system": "email", "value": person["direct"], "extension": [extension]}]
    return patient


def ccda() -> bytes:
    """Return a small Continuity of Care Document (C-CDA R2.1) about the first patient."""
    return b"""\
<?xml version="1.0" encoding="UTF-8"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <realmCode code="US"/>
  <typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
  <templateId root="2.16.840.1.113883.10.20.22.1.1" extension="2015-08-01"/>
  <templateId root="2.16.840.1.113883.10.20.22.1.2" extension="2015-08-01"/>
  <id root="2.16.840.1.113883.19.5.99999.1" extension="demo-ccd-1"/>
  <code code="34133-9" codeSystem="2.16.840.1.113883.6.1" displayName="Summarization of Episode Note"/>
  <title>Summary of care (demonstration, invented person)</title>
  <effectiveTime value="20260105093000+0000"/>
  <confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25"/>
  <languageCode code="en-US"/>
  <recordTarget>
    <patientRole>
      <id root="2.16.840.1.113883.19.5.99999.2" extension="LC-1001"/>
      <addr use="HP"><streetAddressLine>1 Harbour Street</streetAddressLine><city>Lakeside</city>\
<postalCode>00501</postalCode></addr>
      <patient>
        <name use="L"><given>Ada</given><given>Rose</given><family>Quimby</family></name>
        <administrativeGenderCode code="F" codeSystem="2.16.840.1.113883.5.1"/>
        <birthTime value="19610314"/>
      </patient>
    </patientRole>
  </recordTarget>
  <component>
    <structuredBody>
      <component>
        <section>
          <templateId root="2.16.840.1.113883.10.20.22.2.6.1" extension="2015-08-01"/>
          <code code="48765-2" codeSystem="2.16.840.1.113883.6.1" displayName="Allergies"/>
          <title>Allergies</title>
          <text><list><item>Penicillin: rash</item></list></text>
        </section>
      </component>
      <component>
        <section>
          <templateId root="2.16.840.1.113883.10.20.22.2.1.1" extension="2014-06-09"/>
          <code code="10160-0" codeSystem="2.16.840.1.113883.6.1" displayName="Medications"/>
          <title>Medications</title>
          <text><list><item>Lisinopril 10 mg, once a day</item></list></text>
        </section>
      </component>
    </structuredBody>
  </component>
</ClinicalDocument>
"""


def genuine_message(at: datetime, message_id: str) -> bytes:
    """Return the innermost message: text and a C-CDA attachment, CRLF line ends."""
    text = "Good morning,\n\nmy summary of care is attached, as you asked.\n\nAda Quimby"
    boundary = "=_demo_mixed"
    encoded = base64.encodebytes(ccda()).decode("ascii").rstrip("\n")
    return _crlf(
        f"""\
{_headers(at, message_id, GENUINE_SUBJECT)}
Content-Type: multipart/mixed; boundary="{boundary}"

--{boundary}
Content-Type: text/plain; charset=utf-8

{text}

--{boundary}
Content-Type: application/xml; name="summary-of-care.xml"
Content-Disposition: attachment; filename="summary-of-care.xml"
Content-Transfer-Encoding: base64

{encoded}
--{boundary}--
"""
    )


def forged_message(at: datetime, message_id: str) -> bytes:
    """Return what a forger writes in the patient's name."""
    return _crlf(
        f"""\
{_headers(at, message_id, FORGED_SUBJECT)}
Content-Type: text/plain; charset=utf-8

Please double the dose. Do not call back.
"""
    )


def _headers(at: datetime, message_id: str, subject: str) -> str:
    return (
        f"From: Ada Quimby <{SENDER}>\nTo: {RECEIVER}\nSubject: {subject}\n"
        f"Date: {format_datetime(at)}\nMessage-ID: {message_id}\nMIME-Version: 1.0"
    )


def _crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()
