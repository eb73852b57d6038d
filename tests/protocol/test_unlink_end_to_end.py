"""To the wrong chart, off it again, and onto the right one, through the real daemon (S46 to S49).

The gateway links a message by itself; webhook and folder have it; a person undoes it. Both are told to take it back,
mail clients see it among the unlinked ones again, nothing sends it any more, and a link to another patient is another.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.protocol.test_delivery_end_to_end import SENDER, deliver
from tests.protocol.test_views_end_to_end import TOLD_SECONDS, flags
from tests.support.direct_messages import inner_message
from tests.support.gateway_process import Practice, free_ports, wait_for
from tests.support.idling import Idling
from tests.support.pki import Authority
from tests.support.webhook_receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"of the undone links " * 2).decode()


def tell_the_web(practice: Practice, port: int) -> None:
    """A webhook beside the folder that the practice has."""
    (practice.directory / "secret").write_text(SECRET)
    (practice.directory / "secret").chmod(0o600)
    with practice.config.open("a") as file:
        file.write(
            f'\n[[importer]]\nname = "ehr"\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/in"\n'
            f'allow = ["127.0.0.1"]\nsecret_files = ["secret"]\nretry_seconds = [1, 1, 1]\n'
        )


def done(practice: Practice, link: str, action: str) -> set[str]:
    """The targets that have done it."""
    path = practice.directory / "data" / "gateway.db"
    table = {"import": "link_receipt", "retract": "link_retraction"}[action]
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
        query = f"SELECT importer FROM {table} WHERE link_id = ?"  # noqa: S608 - our own names
        return {row[0] for row in database.execute(query, [link])}


def told(receiver: Receiver) -> list[tuple[str, str, str]]:
    """Kind, patient and key of each request, in their order."""
    found: list[tuple[str, str, str]] = []
    for one in receiver.requests():
        body: dict[str, Any] = json.loads(one["body"])
        assert one["verified_by"]
        found.append((body["type"], body["patient_id"], one["headers"]["webhook-id"]))
    return found


def test_a_wrong_link_is_undone_everywhere(tmp_path: Path, partner_ca: Authority) -> None:
    [port] = free_ports(1)
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    tell_the_web(practice, port)
    listing = tmp_path / "patients.csv"
    listing.write_text(f"id,family,given,direct\np-1,Lee,Ann,{SENDER}\np-2,Lee,Anna,\n")
    practice.run("patient", "import", str(listing))
    (tmp_path / "receiver").mkdir()
    receiver = Receiver(tmp_path / "receiver", port, (SECRET,)).start()
    practice.start()
    try:
        deliver(practice, partner_ca, inner_message(SENDER, practice.addresses))
        [message] = practice.settled(1)
        [wrong] = [one["id"] for one in practice.json("link", "list", "p-1")]
        wait_for(lambda: done(practice, wrong, "import") == {"ehr", "folder"}, what="both to have it")
        with Idling(practice, "Unlinked") as queue, Idling(practice) as inbox:
            practice.run("link", "undo", wrong, "--reason", "her sister's")
            assert queue.wait_for(b"EXISTS", timeout=TOLD_SECONDS).strip() == b"* 1 EXISTS"
            assert b"($DirectNeedsReview $DirectVerified)" in inbox.wait_for(b"FETCH", timeout=TOLD_SECONDS)
        with practice.imap() as client:
            assert flags(client, "Linked") == []
        wait_for(lambda: done(practice, wrong, "retract") == {"ehr", "folder"}, what="both to take it back")
        assert told(receiver) == [
            ("message.linked", "p-1", wrong),
            ("message.unlinked", "p-1", f"{wrong}.retract"),
        ]
        [record] = (practice.directory / "charts").glob(f"*/{wrong}.retracted.json")
        assert json.loads(record.read_bytes())["reason"] == "her sister's"

        # Nothing sends it any more, and the gateway does not come back to it.
        assert practice.json("import", "replay", "--target", "ehr")["ordered"] == 0
        right = practice.json("link", "add", message["id"], "p-2")["link"]["id"]
        wait_for(lambda: done(practice, right, "import") == {"ehr", "folder"}, what="both to have the right one")
        assert told(receiver)[2:] == [("message.linked", "p-2", right)]
        with practice.imap() as client:
            [line] = flags(client, "Linked")
            assert "$DirectLinked $DirectVerified)" in line
        history = practice.json("link", "list", message["id"])["links"]
        assert [(one["id"], one["undone"] is not None) for one in history] == [(wrong, True), (right, False)]
        practice.run("audit", "verify")
    finally:
        practice.stop()
        receiver.kill()
