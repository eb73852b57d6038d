r"""Several people at one inbox, through the real daemon: whose \Seen, whose rights, and what they sent."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority

SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()
SECRET = "correct horse battery"
LETTER = (
    b"From: inbox@clinic.example\r\nTo: jane.doe@phr.example\r\nSubject: Your results\r\n"
    b"Message-ID: <5@clinic.example>\r\n\r\nAll is well.\r\n"
)


@pytest.fixture
def clinic(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    """A practice with per-user \\Seen, two logins beside the first one, and two messages in the shared inbox."""
    practice = Practice.make(tmp_path / "clinic")
    practice.trust(partner_ca.pem)
    practice.set("imap", seen="per_user")
    (practice.directory / "secret").write_text(SECRET)
    for login, rights in (("ann", "clinician"), ("temp", "lr")):
        add(practice, login, rights)
    practice.start()
    try:
        for number in range(2):
            deliver(practice, partner_ca, number)
        practice.settled(2)
        yield practice
    finally:
        practice.stop()


def add(practice: Practice, login: str, rights: str) -> None:
    words = ("--share-inbox", "--rights", rights, "--password-file", str(practice.directory / "secret"))
    practice.run("user", "add", login, *words)


def deliver(practice: Practice, partner: Authority, number: int) -> None:
    recipients = practice.addresses[:1]
    inner = inner_message(SENDER, recipients) + b"%d\r\n" % number
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=recipients, signer=partner.issue(address=SENDER),
        to=[practice.identity()],
    )  # fmt: skip
    assert practice.send(raw, SENDER, recipients)[0] == 250


def unseen(client: imaplib.IMAP4) -> list[bytes]:
    status, [found] = client.search(None, "UNSEEN")
    assert status == "OK"
    return bytes(found).split()


def refused(answer: tuple[str, list[Any]]) -> bytes:
    status, [text] = answer
    assert status == "NO"
    return bytes(text)


def test_each_reads_for_himself_and_a_reader_sets_no_flag(clinic: Practice) -> None:
    with clinic.imap() as first, clinic.imap("ann", SECRET) as ann, clinic.imap("temp", SECRET) as temp:
        for client in (first, ann):
            assert client.select("INBOX") == ("OK", [b"2"])
        first.fetch("1", "(BODY[])")
        first.store("2", "+FLAGS", "(\\Flagged)")
        ann.noop()
        assert (unseen(first), unseen(ann)) == ([b"2"], [b"1", b"2"])
        assert ann.status("INBOX", "(UNSEEN)") == ("OK", [b"INBOX (UNSEEN 2)"])
        assert ann.search(None, "FLAGGED") == ("OK", [b"2"])
        # With lr alone: SELECT says so, and nothing can be set, neither by name nor by reading.
        assert temp.select("INBOX", readonly=True) == ("OK", [b"2"])
        assert temp.myrights("INBOX") == ("OK", [b"INBOX lr"])
        assert b"NOPERM" in refused(temp.store("1", "+FLAGS", "(\\Seen \\Flagged)"))
        temp.fetch("1", "(BODY[])")
        assert unseen(temp) == [b"1", b"2"]
    # The shared marks stood still meanwhile: told to share again, everybody sees those.
    clinic.stop()
    clinic.set("imap", seen="shared")
    clinic.start()
    with clinic.imap() as first:
        first.select("INBOX")
        assert unseen(first) == [b"1", b"2"]
    clinic.stop()
    clinic.set("imap", seen="per_user")
    clinic.start()
    with clinic.imap() as first, clinic.imap("ann", SECRET) as ann:
        first.select("INBOX")
        ann.select("INBOX")
        assert (unseen(first), unseen(ann)) == ([b"2"], [b"1", b"2"])
    assert clinic.run("audit", "verify", "--bodies", "all").returncode == 0


def test_rights_that_are_taken_away_end_the_reading_at_once(clinic: Practice) -> None:
    with clinic.imap("ann", SECRET) as ann:
        ann.select("INBOX")
        assert ann.fetch("1:*", "(FLAGS)")[0] == "OK"
        clinic.run("user", "revoke", "ann", "INBOX")
        for attempt in (ann.fetch("1:*", "(FLAGS)"), ann.fetch("1", "(BODY.PEEK[])"), ann.search(None, "ALL")):
            assert b"taken away" in refused(attempt)
        assert ann.list() == ("OK", [None])
        clinic.run("user", "grant", "ann", "INBOX", "--of", "INBOX", "--rights", "reader")
        assert ann.select("INBOX", readonly=True) == ("OK", [b"2"])
        assert b"NOPERM" in refused(ann.store("1", "+FLAGS", "(\\Seen)"))


def test_a_copy_of_what_was_sent_is_kept_once(clinic: Practice) -> None:
    answers = []

    def append() -> None:
        with clinic.imap("ann", SECRET) as ann:
            answers.append(ann.append("Sent", "(\\Seen $Forwarded)", None, LETTER))

    threads = [threading.Thread(target=append) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 20
    [answer] = {(status, bytes(text)) for status, [text] in answers}
    assert answer[0] == "OK"
    assert b"APPENDUID" in answer[1]
    assert clinic.inbox("Sent", "ann", SECRET) == [LETTER]
    # Who shares the INBOX sees what was sent from it; who may only read adds nothing.
    assert clinic.inbox("Sent") == [LETTER]
    with clinic.imap("temp", SECRET) as temp:
        assert b"the right i" in refused(temp.append("Sent", None, None, LETTER))
    with clinic.imap() as first:
        assert b"folder Sent" in refused(first.append("INBOX", None, None, LETTER))
        assert LETTER not in clinic.inbox()
    # A daemon that is killed before the client hears of it: it comes again, and is the same message.
    assert clinic.process is not None
    with clinic.imap("ann", SECRET) as ann:
        os.kill(clinic.process.pid, signal.SIGKILL)
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            ann.append("Sent", None, None, LETTER)
    clinic.kill()
    clinic.start()
    with clinic.imap("ann", SECRET) as ann:
        assert ann.append("Sent", None, None, LETTER) == (answer[0], [answer[1]])
    assert clinic.inbox("Sent") == [LETTER]


def test_a_kept_copy_is_told_from_received_mail(clinic: Practice) -> None:
    with clinic.imap("ann", SECRET) as ann:
        assert ann.append("Sent", None, None, LETTER)[0] == "OK"
        assert b'(\\HasNoChildren \\Sent) "/" Sent' in ann.list()[1]
    [line] = [one for one in clinic.messages() if one["state"] == "kept"]
    assert (line["sender"], line["claimed_sender"]) == ("", "inbox@clinic.example")
    shown = clinic.json("message", "show", line["id"], "--body")
    assert shown["kept"]["by"] == "ann"
    assert shown["verdict"] == {}
    assert shown["body"].encode() == LETTER
    assert b"never judged" in clinic.run("message", "show", line["id"]).stdout
    assert json.loads(clinic.run("quarantine", "list", "--json").stdout) == []
    for words in (("message", "retry"), ("message", "recheck"), ("message", "export")):
        assert clinic.run(*words, line["id"], check=False).returncode == 1
    assert clinic.run("message", "export", line["id"], "--raw").stdout == LETTER
    assert clinic.run("audit", "verify", "--bodies", "all").returncode == 0
