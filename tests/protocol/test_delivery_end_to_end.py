"""The main job through the real daemon: trust per recipient, replays, the no-delete inbox, the automatic link."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority

SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()


def deliver(practice: Practice, partner: Authority, inner: bytes, *, recipients: list[str] | None = None) -> bytes:
    """Send one message signed by SENDER; returns the raw bytes as sent."""
    rcpt = recipients or [practice.addresses[0]]
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=rcpt, signer=partner.issue(address=SENDER),
        to=[practice.identity(address) for address in rcpt],
    )  # fmt: skip
    assert practice.send(raw, SENDER, rcpt)[0] == 250
    return raw


def test_trust_is_decided_for_each_recipient(tmp_path: Path, partner_ca: Authority) -> None:
    """AS-56, AS-57: only the recipient whose anchors accept the signer gets the message."""
    practice = Practice.make(tmp_path / "two", addresses=("trusting", "wary"))
    trusting, wary = practice.addresses
    practice.trust(partner_ca.pem, only=trusting)
    practice.start()
    try:
        inner = inner_message(SENDER, [trusting, wary])
        deliver(practice, partner_ca, inner, recipients=[trusting, wary])
        [message] = practice.settled(1)
        assert message["delivered_to"] == [trusting]
        assert practice.inbox(f"Addresses/{trusting}").count(inner) == 1
        assert inner not in practice.inbox(f"Addresses/{wary}")
        assert practice.inbox().count(inner) == 1
    finally:
        practice.stop()


def test_the_same_bytes_again_are_one_message(practice: Practice, partner_ca: Authority) -> None:
    """F13: a sender whose reply was lost sends again; each time 250, one message, the same id."""
    inner = inner_message(SENDER, practice.addresses)
    raw = deliver(practice, partner_ca, inner)
    again = [practice.send(raw, SENDER, practice.addresses) for _ in range(3)]
    assert {code for code, _ in again} == {250}
    assert len({reply for _, reply in again}) == 1
    assert len(practice.settled(1)) == 1
    assert practice.inbox().count(inner) == 1


def test_another_ciphertext_of_the_same_message_is_shown_once(practice: Practice, partner_ca: Authority) -> None:
    """F14: a sender re-encrypts; both raw messages are kept as evidence, the inbox shows one."""
    inner = inner_message(SENDER, practice.addresses)
    deliver(practice, partner_ca, inner)
    deliver(practice, partner_ca, inner)
    assert len(practice.settled(2)) == 2
    assert practice.inbox().count(inner) == 1
    assert len(practice.json("message", "list", "--unlinked")) == 1, "there is one message to be linked"


def test_nothing_can_be_deleted(practice: Practice, partner_ca: Authority) -> None:
    """The no-delete rules: deletion is answered politely and does nothing."""
    inner = inner_message(SENDER, practice.addresses)
    deliver(practice, partner_ca, inner)
    practice.settled(1)
    before = practice.inbox()
    with practice.imap() as client:
        client.select("INBOX")
        status, answer = client.store("1:*", "+FLAGS", r"(\Deleted \Seen)")
        assert status == "OK"
        assert all(b"\\Deleted" not in (item or b"") for item in answer)
        assert client.expunge()[0] == "OK"
        assert client.close()[0] == "OK"
        assert client.create("Trash")[0] == "NO"
    assert practice.inbox() == before
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        assert client.search(None, "UNSEEN")[1] == [b""], "the other flag of the same command was kept"


def test_a_documented_sender_is_linked_and_imported(practice: Practice, partner_ca: Authority, tmp_path: Path) -> None:
    """S41, S46: the verified sender is one patient's documented address: linked, and written to the chart's folder."""
    listing = tmp_path / "patients.csv"
    listing.write_text(
        "id,mrn,given,family,dob,sex,direct\n"
        f"p-1,MRN1,Jane,Doe,1970-01-02,female,{SENDER}\n"
        "p-2,MRN2,John,Roe,1980-03-04,male,\n"
    )
    practice.run("patient", "import", str(listing))
    inner = inner_message(SENDER, practice.addresses)
    deliver(practice, partner_ca, inner)
    linked = wait_for(lambda: practice.json("link", "list", "p-1"), what="the automatic link")
    assert [link["mode"] for link in linked] == ["automatic"]
    record = wait_for(lambda: next((practice.directory / "charts").rglob("record.json"), None), what="the import")
    assert (record.parent / "message.eml").read_bytes() == inner
    assert hashlib.sha256(inner).hexdigest() in record.read_text()
    assert json.loads(record.read_text())["patient"]["id"] == "p-1"
    [part] = [p for p in (record.parent / "parts").iterdir() if p.suffix == ".xml"]
    assert b"ClinicalDocument" in part.read_bytes()

    [message] = practice.settled(1)
    same = practice.run("link", "add", message["id"], "p-1")
    assert b"already" in (same.stdout + same.stderr).lower()
    other = practice.run("link", "add", message["id"], "p-2", check=False)
    assert other.returncode == 1
    assert b"p-1" in other.stderr
    assert practice.json("link", "list", "p-2") == []


def test_an_unknown_sender_waits_for_a_person(practice: Practice, partner_ca: Authority, tmp_path: Path) -> None:
    """S33: what matches no patient stays in the unlinked queue until someone links it."""
    listing = tmp_path / "patients.csv"
    listing.write_text("id,given,family,dob\np-9,Ann,Moe,1960-05-06\n")
    practice.run("patient", "import", str(listing))
    deliver(practice, partner_ca, inner_message(SENDER, practice.addresses))
    [message] = practice.settled(1)
    assert message["state"] == "filed"
    assert [m["id"] for m in practice.json("message", "list", "--unlinked")] == [message["id"]]
    practice.run("link", "add", message["id"], "p-9")
    assert [link["mode"] for link in practice.json("link", "list", "p-9")] == ["manual"]
    assert practice.json("message", "list", "--unlinked") == []
    wait_for(lambda: next((practice.directory / "charts").rglob("record.json"), None), what="the import by hand")


def test_recipients_that_are_not_ours_are_refused(practice: Practice) -> None:
    """Relaying and unknown addresses end at RCPT."""
    import smtplib

    with smtplib.SMTP("localhost", practice.smtp_port, timeout=10) as client:
        client.ehlo()
        client.mail(SENDER)
        assert client.rcpt("someone@elsewhere.example")[0] == 550
        assert client.rcpt(f"nobody@{practice.domain}")[0] == 550
        assert client.rcpt(practice.addresses[0].upper())[0] == 250, "AS-4"


@pytest.mark.parametrize("command", [["message", "export"], ["message", "export", "--raw"]])
def test_export_gives_the_exact_bytes(
    practice: Practice, partner_ca: Authority, tmp_path: Path, command: list[str]
) -> None:
    inner = inner_message(SENDER, practice.addresses)
    raw = deliver(practice, partner_ca, inner)
    [message] = practice.settled(1)
    target = tmp_path / "exported.eml"
    practice.run(*command, message["id"], str(target))
    assert target.read_bytes() == (raw if "--raw" in command else inner)
