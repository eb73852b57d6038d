"""A practice whose inbox was filled by SMTP, and what must hold of it whatever a mail client tries.

The messages differ in what clients and servers stumble over: dots and "From " at the start of a line, octets beyond
ASCII in head and body, parts within parts, a message within a message, an empty body, no line end at the end, folded
and repeated header fields, lines of 998 octets, and one message that is larger than any buffer on the way.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import smtplib
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority

SENDER = "dr.mail@partner.example"
MESSAGES = 40
ATTEMPT = "message.delete_ignored"
"""What the audit log calls an attempt to delete, whichever answer it got."""


def inner(number: int, recipient: str) -> bytes:
    """The message of that number; always the same bytes."""
    bodies = [
        "Please see the attached summary.\r\n",
        ".\r\n..\r\n.dots\r\nFrom the start\r\n>From a quoted one\r\n.\r\n",
        "é ü ß 漢字\r\n" * 20,
        "line\r\n" * 2_000,
    ]
    made = inner_message(
        SENDER, [recipient], subject=f"letter {number} é", message_id=f"<mail{number}@partner.example>",
        text=bodies[number % len(bodies)], attachment=b"<x>%d</x>\r\n" % number if number % 2 else None,
    )  # fmt: skip
    head = (
        f"From: {SENDER}\r\nTo: {recipient}\r\nSubject: letter\r\n number {number}\r\n"
        f"Date: Mon, 05 Jan 2026 12:00:00 +0000\r\nMessage-ID: <mail{number}@partner.example>\r\n"
    ).encode()
    special = {
        3: head + b"\r\n",
        5: head + b"\r\nno line end at the end",
        7: head + b"X-Repeated: one\r\nX-Repeated: two\r\nX-Folded: a\r\n\tb\r\n\r\n" + b"x" * 998 + b"\r\nend\r\n",
        9: head + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\n" + "Größe é 漢字\r\n".encode() * 3,
        11: head + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
        b"Content-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\na\r\n--i\r\n"
        b"Content-Type: text/html\r\n\r\n<p>a\r\n--i--\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n"
        b"From: x@y.example\r\nSubject: within\r\n\r\nbody within\r\n--o--\r\nepilogue\r\n",
        13: head + b"\r\n" + b"%076d\r\n" % number * 8_000,
        15: head + b"\r\n\r\n\r\nempty lines around\r\n\r\n\r\n",
    }  # fmt: skip
    return special.get(number, made)


class DeliveredMail:
    """The practice, and what was sent to it."""

    def __init__(self, practice: Practice, partner: Authority) -> None:
        self.practice = practice
        self.inners: list[bytes] = []
        self._signer = partner.issue(address=SENDER)
        practice.trust(partner.pem)
        practice.set("imap", failed_login_delay_seconds=0)

    def deliver(self, count: int) -> list[bytes]:
        """Send that many more, as a partner does; returns them when they are in the inbox."""
        practice, stack = self.practice, CryptographyStack()
        [recipient] = practice.addresses
        fresh = [inner(len(self.inners) + number, recipient) for number in range(count)]
        with smtplib.SMTP("localhost", practice.smtp_port, timeout=60) as client:
            client.starttls(context=practice.tls())
            for number, content in enumerate(fresh, len(self.inners)):
                raw = direct_message(
                    stack, content, sender=SENDER, recipients=[recipient], signer=self._signer,
                    to=[practice.identity()], message_id=f"<mail{number}@partner.example>",
                )  # fmt: skip
                assert client.sendmail(SENDER, [recipient], raw) == {}
        self.inners += fresh
        wait_for(self._all_are_filed, what=f"{len(self.inners)} messages in the inbox")
        return fresh

    def _all_are_filed(self) -> bool:
        states = self.practice._states_in_the_file() or []
        assert "refused" not in states, self.practice.messages()
        return len(states) == len(self.inners) and not {"received", "unwrapped"} & set(states)

    def by_uid(self) -> dict[int, bytes]:
        """What an independent client (imaplib) sees: every message by its UID."""
        with self.practice.imap() as client:
            _, [count] = client.select("INBOX", readonly=True)
            _, answer = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
        found = {int(re.search(rb"UID (\d+)", item[0])[1]): item[1] for item in answer if isinstance(item, tuple)}  # type: ignore[index]
        assert count == b"%d" % len(found)
        return found

    def attempts(self) -> int:
        """How many events of the audit log tell of attempts to delete; one may be about many messages."""
        return self._count("audit_event WHERE action = ?", ATTEMPT)

    def _count(self, rows: str, *values: str) -> int:
        # A command of ours would take a second of the processor each time.
        path = self.practice.directory / "data" / "gateway.db"
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            [[count]] = database.execute(f"SELECT count(*) FROM {rows}", values)  # noqa: S608 - names of this file
        return int(count)

    @contextmanager
    def loses_nothing(self) -> Iterator[None]:
        """Whatever happens within: every message stays, under its UID, with the bytes that were sent."""
        before = self.by_uid()
        assert sorted(before.values()) == sorted(self.inners)
        yield
        after = self.by_uid()
        assert {uid: after.get(uid) for uid in before} == before
        assert sorted(after.values()) == sorted(self.inners)
        assert self._count("(SELECT DISTINCT message_id FROM message_state)") == len(self.inners)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """The daemon anew with ``deleted_flag = "refuse"``, and afterwards as it was."""
        self._restart_with("refuse")
        try:
            yield
        finally:
            self._restart_with("ignore")

    def restart(self) -> None:
        self.practice.stop()
        self.practice.start()

    def _restart_with(self, deleted_flag: str) -> None:
        self.practice.set("imap", deleted_flag=deleted_flag)
        self.restart()


@contextmanager
def delivered_mail(folder: Path, partner: Authority) -> Iterator[DeliveredMail]:
    """A running practice with MESSAGES messages in its inbox."""
    practice = Practice.make(folder / "practice")
    mail = DeliveredMail(practice, partner)
    practice.start()
    try:
        mail.deliver(MESSAGES)
        yield mail
    finally:
        practice.stop()


def need(program: str) -> str:
    """Where the program is; skips by name when it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(command: Sequence[str], folder: Path, *, seconds: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Run a client whose home is a folder of the test; it reads nothing of the user who tests."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=seconds,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TERM": "xterm", "LANG": "C.UTF-8"},
    )


def unix(content: bytes) -> bytes:
    """With the line ends of a client that keeps mail in Unix files."""
    return content.replace(b"\r\n", b"\n")


def folded(contents: Sequence[bytes]) -> list[bytes]:
    """To compare what a client keeps in Unix files, in any order. The line end at the very end is left out:
    such a client adds one where there is none."""
    return sorted(unix(content).rstrip(b"\n") for content in contents)


def rewritten(contents: Sequence[bytes]) -> list[bytes]:
    """As :func:`folded`, for a client that reads mail with Python's parser and lets that write it anew, as offlineimap
    and getmail do, which moves empty lines between the parts of some messages."""
    return folded([message_from_bytes(unix(content), policy=compat32).as_bytes() for content in contents])
