"""What a clinician's assistant is told of a message that nobody's address book names, through the real daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority
from tests.unit.evidence.evidence_messages import message, part
from tests.unit.pipeline.test_link_by_index import document

SENDER = "records@hospital.example"
HEADER = "id,mrn,given,family,dob,sex,phone,line,city,zip,direct\n"
ADA = "p1,MRN-7,Ada,Quimby,1961-03-14,female,617-234-5678,12 Main Street,Boston,02108,\n"
EVE = "p2,MRN-8,Eve,Quimby,1961-03-14,female,617-234-5678,12 Main Street,Boston,02108,\n"


def deliver(practice: Practice, partner: Authority, content: bytes, number: int) -> None:
    head = f"From: {SENDER}\r\nTo: {practice.addresses[0]}\r\nMessage-ID: <{number}@hospital.example>\r\n"
    inner = content.replace(b"From: ada@direct.phr.test\r\n", head.encode())
    raw = direct_message(
        CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses,
        signer=partner.issue(address=SENDER), to=[practice.identity()], message_id=f"<{number}@hospital.example>",
    )  # fmt: skip
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250


def shown(practice: Practice, message_id: str, status: int) -> str:
    done = practice.run("match", "explain", message_id, check=False)
    assert done.returncode == status
    return done.stdout.decode()


def told(practice: Practice, message_id: str, status: int) -> Any:
    done = practice.run("match", "explain", message_id, "--json", check=False)
    assert done.returncode == status
    return json.loads(done.stdout)


def test_from_suggested_to_linked_and_why(practice: Practice, partner_ca: Authority, tmp_path: Path) -> None:
    listing = tmp_path / "patients.csv"
    listing.write_text(HEADER + ADA + EVE)
    practice.run("patient", "import", str(listing))
    deliver(practice, partner_ca, document(), 1)
    [first] = practice.settled(1)
    assert first["state"] == "filed"
    [then] = told(practice, first["id"], 0)["then"]
    assert (then["decision"], then["rule"], then["points"]) == ("suggested", "evidence-1:policy_off", 13.0)
    assert [one["patient"] for one in then["candidates"]] == ["p1", "p2"]
    words = shown(practice, first["id"], 0)
    assert "1. p1 (Quimby, Ada, born 1961-03-14): 13 points" in words
    assert "family name the same, given name the same, birth date the same" in words
    assert "mind patient p2" in words
    practice.stop()
    practice.set("charts", automatic_by="demographics")
    practice.start()
    # What the gateway would link by itself today, and did not then, is something to look at.
    assert "link it to patient p1" in shown(practice, first["id"], 1)
    deliver(practice, partner_ca, document(number="X"), 2)
    second = practice.settled(2)[0]
    assert second["state"] == "linked"
    words = shown(practice, second["id"], 0)
    assert "linked by the gateway to patient p1 (Quimby, Ada, born 1961-03-14), by the gateway" in words
    # A patient who comes while the daemon runs, from another process, is compared as well.
    listing.write_text(HEADER + ADA.replace("p1,MRN-7", "p3,MRN-9"))
    practice.run("patient", "import", str(listing))
    deliver(practice, partner_ca, document(number="Y"), 3)
    third = practice.settled(3)[0]
    assert third["state"] == "filed"
    assert told(practice, third["id"], 0)["then"][0]["rule"] == "evidence-1:several_patients"
    # The one that was linked would wait for a person today.
    assert told(practice, second["id"], 1)["now"]["differs"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["XDM_FULL.ZIP", "XDM_LIM.ZIP"])
def test_a_package_that_names_two_people_is_a_conflict(
    practice: Practice, partner_ca: Authority, tmp_path: Path, shared_data: Path, name: str
) -> None:
    """ONC's packages, with everything allowed to link that can be: METADATA.XML and document name two people."""
    package = min((shared_data / "clinical" / "ccda").rglob(name))
    practice.stop()
    practice.set("charts", automatic_by="demographics")
    practice.start()
    listing = tmp_path / "patients.csv"
    listing.write_text(HEADER + f"p1,,Isabella,Jones,1947-05-01,female,,,,,{SENDER}\n")
    practice.run("patient", "import", str(listing))
    deliver(practice, partner_ca, message(part(package.read_bytes(), "application/zip", filename="xdm.zip")), 1)
    [taken] = practice.settled(1)
    assert taken["state"] == "filed"
    found = told(practice, taken["id"], 1)
    assert (found["then"][0]["decision"], found["now"]["decision"]) == ("conflict", "conflict")
    words = shown(practice, taken["id"], 1)
    assert "CONFLICT  birth date: " in words
    assert "CONFLICT  family name: " in words
