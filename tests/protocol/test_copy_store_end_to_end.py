"""The real practice moves from SQLite to PostgreSQL and back, and its mail clients notice nothing."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import COMMAND, Practice, wait_for
from tests.support.pki import Authority
from tests.support.postgresql import ROLE, shared_cluster

pytestmark = pytest.mark.timeout(300)
"""Three daemons start, one after the other."""
SENDER = "jane.doe@phr.example"
WRITER = "gateway_writer"
STACK = CryptographyStack()


def deliver(practice: Practice, partner: Authority, number: int, size: int = 0) -> bytes:
    inner = inner_message(
        SENDER, practice.addresses, message_id=f"<{number}@phr.example>", subject=f"Result {number} \N{STETHOSCOPE}"
    )
    inner += b"x" * 76 + b"\r\n" if not size else (b"y" * 76 + b"\r\n") * (size // 78)
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=practice.addresses, signer=partner.issue(address=SENDER),
        to=[practice.identity()], message_id=f"<{number}@phr.example>",
    )  # fmt: skip
    before = len(practice.inbox())
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250
    wait_for(lambda: len(practice.inbox()) > before, what="the message")
    return inner


def seen(practice: Practice) -> dict[str, Any]:
    """What an IMAP client keeps of a mailbox, and compares when it comes back."""
    with practice.imap() as client:
        client.enable("CONDSTORE")
        _, status = client.status("INBOX", "(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ UNSEEN)")
        client.select("INBOX", readonly=True)
        _, fetched = client.fetch("1:*", "(UID FLAGS MODSEQ INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")
        _, bodies = client.fetch("1:*", "(BODY.PEEK[])")
    return {"status": status, "fetched": fetched, "bodies": bodies}


def mark(practice: Practice, number: str, flags: str) -> None:
    with practice.imap() as client:
        client.select("INBOX")
        client.store(number, "+FLAGS", flags)


def copied(practice: Practice, *arguments: str) -> Any:
    # Not practice.run: the newest sealed messages must be copied without their keys.
    keys = practice.directory / "certs" / "store" / "bodies.keys"
    away = keys.with_name("elsewhere")
    keys.rename(away)
    try:
        done = subprocess.run(
            [*COMMAND, "copy-store", *arguments, "--config", str(practice.config), "--json"],
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip
    finally:
        away.rename(keys)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def uid_next(practice: Practice) -> int:
    with practice.imap() as client:
        _, status = client.status("INBOX", "(UIDNEXT)")
        assert status[0]
        found = re.search(rb"UIDNEXT (\d+)", status[0])
    assert found
    return int(found[1])


@pytest.mark.slow
def test_a_practice_moves_to_postgresql_and_back(tmp_path: Path, partner_ca: Authority) -> None:
    cluster = shared_cluster()
    if not cluster.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{WRITER}'"):  # noqa: S608 - our own name
        cluster.sql(f"CREATE ROLE {WRITER} LOGIN")
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    practice.start()
    inner = [deliver(practice, partner_ca, 1), deliver(practice, partner_ca, 2, size=2_500_000)]
    mark(practice, "1", r"(\Seen \Flagged $Later)")
    mark(practice, "2", r"(\Answered)")
    patients = practice.directory / "patients.csv"
    patients.write_text("id,family,given,dob\nP1,M\u00fcller,Ada,1990-02-03\n", encoding="utf-8")
    practice.run("patient", "import", str(patients))
    [newest, _] = practice.messages()
    practice.run("link", "add", newest["id"], "P1")
    practice.run("audit", "head")
    refused = practice.run("copy-store", "--to", cluster.url(WRITER), check=False)
    assert (refused.returncode, b"--from: a gateway" in refused.stderr) == (2, True), refused.stderr
    before = seen(practice)
    assert practice.stop() == 0
    sqlite = practice.directory / "data" / "gateway.db"
    sqlite_url = f"sqlite:///{sqlite}"
    kept = dump(sqlite)

    # There. The settings name the old store until the copy is complete.
    schema = "moved_end_to_end"
    arguments = "--to", cluster.url(WRITER), "--to-schema", schema, "--owner-url", cluster.url(ROLE)
    told = copied(practice, *arguments)
    assert (told["state"], told["audit"]["holds"], told["audit"]["heads"] >= 1) == ("complete", True, True)
    assert dump(sqlite) == kept, "the source is not changed"
    practice.set("store", url=cluster.url(WRITER), schema=schema)
    practice.run("audit", "verify")
    practice.start()
    assert seen(practice) == before
    expected = uid_next(practice)
    inner.append(deliver(practice, partner_ca, 3))
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        _, newest_uid = client.uid("SEARCH", "ALL")
    assert newest_uid[0].split()[-1] == str(expected).encode()
    mark(practice, "3", r"(\Seen)")
    assert practice.inbox() == inner
    before = seen(practice)
    assert practice.stop() == 0

    # And back, into another file.
    back = practice.directory / "data" / "back.db"
    told = copied(practice, "--to", f"sqlite:///{back}")
    assert told["state"] == "complete"
    assert copied(practice, "--to", f"sqlite:///{back}")["state"] == "already complete"
    practice.set("store", url=f"sqlite:///{back}")
    practice.start()
    try:
        assert seen(practice) == before
        assert practice.inbox() == inner
        deliver(practice, partner_ca, 4)
        practice.run("audit", "verify")
        moves = practice.json("audit", "list", "--action", "store.copied", "--ascending")
        assert [(event["detail"]["from"], event["detail"]["to"]) for event in moves] == [
            ("sqlite", "postgresql"),
            ("postgresql", "sqlite"),
        ]
    finally:
        practice.stop()
    # The old file is not what the log goes on from any more: nobody copies over it by mistake.
    practice.set("store", url=f"sqlite:///{back}")
    refused = practice.run("copy-store", "--to", sqlite_url, check=False)
    assert (refused.returncode, b"is in use" in refused.stderr) == (2, True)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())
