"""``serve --imap-test-policy`` with the real daemon: what it is, and where it is refused."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import COMMAND, Practice
from tests.support.pki import Authority

SENDER = "dr.ok@partner.example"
MESSAGE = b"From: a@b.example\r\nSubject: test\r\n\r\ntext\r\n"


def serve(practice: Practice) -> subprocess.CompletedProcess[str]:
    """Start it where it must not start."""
    return subprocess.run(
        [*COMMAND, "serve", "--imap-test-policy", "--config", str(practice.config)],
        capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip


def test_mail_clients_may_change_everything_and_the_store_keeps_nothing_of_it(tmp_path: Path) -> None:
    practice = Practice.make(tmp_path / "practice")
    practice.serve_options = ["--imap-test-policy"]
    for _ in range(2):  # The store is still empty after the first time.
        practice.start()
        assert "WARNING: --imap-test-policy" in practice.log.read_text()
        with practice.imap() as client:
            assert client.select("INBOX") == ("OK", [b"0"])
            assert client.create("Work")[0] == "OK"
            assert client.append("Work", "", "", MESSAGE)[0] == "OK"
            assert client.append("INBOX", r"(\Deleted)", "", MESSAGE)[0] == "OK"
            assert client.expunge() == ("OK", [b"1"])
            assert client.status("Work", "(MESSAGES)") == ("OK", [b"Work (MESSAGES 1)"])
        assert practice.messages() == []
        assert practice.stop() == 0
    with sqlite3.connect(practice.directory / "data" / "gateway.db") as database:
        assert database.execute("SELECT count(*) FROM mailbox_message").fetchone() == (0,)


def test_it_is_refused_where_others_could_reach_it(tmp_path: Path) -> None:
    practice = Practice.make(tmp_path / "practice")
    practice.set("imap", host="0.0.0.0")
    refused = serve(practice)
    assert refused.returncode == 2
    assert "imap.host must be a loopback address" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_it_is_refused_where_there_is_mail(tmp_path: Path, partner_ca: Authority) -> None:
    """Nobody would see it; and nobody may take the test mailboxes for the practice's."""
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    practice.start()
    raw = direct_message(
        CryptographyStack(),
        inner_message(SENDER, practice.addresses),
        sender=SENDER,
        recipients=practice.addresses,
        to=[practice.identity()],
        signer=partner_ca.issue(address=SENDER),
    )
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250
    practice.settled(1)
    practice.stop()
    refused = serve(practice)
    assert refused.returncode == 2
    assert "is for an empty store" in refused.stderr
    practice.start()
    assert len(practice.inbox()) == 1
    practice.stop()
