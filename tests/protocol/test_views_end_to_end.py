"""What a mail client sees of verdict, link and review, through the real daemon (S33, S53)."""

from __future__ import annotations

import imaplib
import json
from pathlib import Path

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.idling import Idling
from tests.support.pki import Authority

SENDER = "jane.doe@phr.example"
TOLD_SECONDS = 20.0
"""The link is made by another process, whose commits the daemon finds within two seconds."""


def flags(client: imaplib.IMAP4_SSL, folder: str) -> list[str]:
    """One line for each message of the folder: its UID there and its keywords."""
    assert client.select(folder, readonly=True)[0] == "OK"
    answers = client.uid("FETCH", "1:*", "(FLAGS)")[1]
    return [answer.decode().partition("(")[2].replace("\\Seen ", "") for answer in answers if answer]


def test_a_message_goes_from_unlinked_to_linked_and_idling_clients_are_told(
    practice: Practice, partner_ca: Authority, tmp_path: Path
) -> None:
    listing = tmp_path / "patients.csv"
    listing.write_text("id,given,family,dob\np-9,Ann,Moe,1960-05-06\n")
    practice.run("patient", "import", str(listing))
    # A sender who writes the gateway's words into his own message is shown as he wrote, and believed in nothing.
    inner = inner_message(SENDER, practice.addresses)
    to = [practice.identity()]
    raw = direct_message(
        CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses,
        signer=partner_ca.issue(address=SENDER), to=to,
    )  # fmt: skip
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250
    [message] = practice.settled(1)
    assert practice.inbox("Unlinked") == practice.inbox() == [inner]
    with practice.imap() as client:
        listed = {line.decode().rpartition(" ")[2] for line in client.list()[1] if isinstance(line, bytes)}
        assert {"INBOX", "Unlinked", "Linked"} <= listed
        to_do = "UID 1 FLAGS ($DirectNeedsReview $DirectVerified))"
        assert flags(client, "INBOX") == flags(client, "Unlinked") == [to_do]
        assert flags(client, "Linked") == []
    with Idling(practice, "Unlinked") as queue, Idling(practice, "Linked") as chart, Idling(practice) as inbox:
        practice.run("link", "add", message["id"], "p-9")
        assert queue.wait_for(b"EXPUNGE", timeout=TOLD_SECONDS).strip() == b"* 1 EXPUNGE"
        assert chart.wait_for(b"EXISTS", timeout=TOLD_SECONDS).strip() == b"* 1 EXISTS"
        assert b"($DirectLinked $DirectVerified)" in inbox.wait_for(b"FETCH", timeout=TOLD_SECONDS)
    assert (practice.inbox("Unlinked"), practice.inbox("Linked")) == ([], [inner])
    with practice.imap() as client:
        client.select("Linked")
        assert client.store("1", "+FLAGS", "($DirectReviewed)")[0] == "OK"
        assert flags(client, "INBOX") == ["UID 1 FLAGS ($DirectLinked $DirectReviewed $DirectVerified))"]
    [review] = json.loads(practice.run("message", "show", message["id"], "--json").stdout)["reviews"]
    assert (review["state"], review["actor"] != "") == ("reviewed", True)
    assert b"reviewed" in practice.run("message", "show", message["id"]).stdout
    practice.run("audit", "verify")
