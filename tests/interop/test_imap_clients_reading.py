"""mutt and neomutt, driven by keys, against the real daemon: they copy everything and see that they may not delete.

EP-18, EP-28, EP-29; docs/imap.md, "Mail clients and deletion".

They write an mbox, with LF line ends and header fields of
their own; there, and only there, line ends are folded and those fields left out before comparing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.support.delivered_mail import DeliveredMail, delivered_mail, folded, need, run
from tests.support.pki import Authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PROGRAMS = ["mutt", "neomutt"]
SCREEN_SECONDS = 60.0
NOT_PERMITTED = rb"Operation not permitted by ACL"


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[DeliveredMail]:
    with delivered_mail(tmp_path_factory.mktemp("reading"), partner_ca) as made:
        yield made


class Terminal:
    """A program on a terminal of its own. Keys are typed one after another, when the screen has what is waited for:
    an error makes these programs forget what was typed ahead."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._end, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "TERM": "xterm", "LANG": "C.UTF-8"},
        )  # fmt: skip
        os.close(theirs)
        self._screen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._end)

    def type(self, keys: str) -> None:
        self._screen = b""
        os.write(self._end, keys.encode())

    def wait_for(self, pattern: bytes) -> None:
        """Read what is written since the last key until the pattern is there."""
        deadline = time.monotonic() + SCREEN_SECONDS
        while not re.search(pattern, self._screen, re.DOTALL):
            assert time.monotonic() < deadline, self._screen[-3_000:]
            self._read()

    def ended(self) -> int:
        """Its exit status."""
        deadline = time.monotonic() + SCREEN_SECONDS
        while (status := self._process.poll()) is None:
            assert time.monotonic() < deadline, self._screen[-3_000:]
            self._read()
        return status

    def _read(self) -> None:
        readable, _, _ = select.select([self._end], [], [], 0.2)
        if readable:
            # At the end of the program Linux says EIO instead of nothing.
            with contextlib.suppress(OSError):
                self._screen += os.read(self._end, 65_536)


class Mutt:
    """mutt or neomutt on a terminal of its own."""

    def __init__(self, program: str, mail: DeliveredMail, folder: Path, form: str) -> None:
        self._program, self._script, self._folder = need(program), need("script"), folder
        practice = mail.practice
        implicit = form == "imaps"
        port = practice.imaps_port if implicit else practice.imap_port
        self._rc = folder / "rc"
        self._rc.write_text(
            f'set folder="imap{"s" * implicit}://{practice.login}@localhost:{port}"\nset spoolfile="+INBOX"\n'
            f'set imap_pass="{practice.password}"\nset certificate_file="{practice.tls_ca}"\n'
            f"set ssl_starttls={'no' if implicit else 'yes'}\nset ssl_force_tls=yes\nset ssl_verify_host=yes\n"
            "set confirmappend=no\nset confirmcreate=no\nset quit=yes\nset delete=yes\nset mark_old=no\n"
            'set mbox_type=mbox\nset header_cache=""\nset copy=no\nset record=""\nset sleep_time=0\n'
            f'set tmpdir="{folder}"\n'
        )

    def push(self, keys: str) -> bytes:
        """Type the keys; what was on the screen."""
        done: subprocess.CompletedProcess[bytes] = run(
            [self._script, "-qfc", f"{self._program} -n -F {self._rc} -e 'push {keys}'", "/dev/null"],
            self._folder,
            seconds=90,
        )
        return done.stdout

    @contextmanager
    def open(self) -> Iterator[Terminal]:
        """The client with its inbox on the screen; it is left with ``q``."""
        with Terminal([self._program, "-n", "-F", str(self._rc)], self._folder) as terminal:
            terminal.wait_for(rb"Msgs?:\d+")
            yield terminal
            terminal.type("q")
            assert terminal.ended() == 0

    def copy_all(self, target: Path) -> list[bytes]:
        self.push(f"<tag-pattern>~A<enter><tag-prefix><copy-message>{target}<enter><quit>")
        assert target.exists(), "nothing was written"
        # They count lengths instead of quoting "From " lines, so only a whole postmark separates messages.
        found = re.split(rb"(?m)^From \S+@\S+ \w{3} \w{3} [ \d]{2} [\d:]{8} \d{4}\n", target.read_bytes())[1:]
        return [_without_own_fields(message) for message in found]


def _without_own_fields(message: bytes) -> bytes:
    head, _, body = message.partition(b"\n\n")
    own = (b"Status:", b"Content-Length:", b"Lines:", b"Tags:")  # Tags: what neomutt calls keywords.
    kept = [line for line in head.split(b"\n") if not line.startswith(own)]
    return b"\n".join(kept) + b"\n\n" + body


@pytest.mark.parametrize("form", ["imaps", "starttls"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_message_is_copied(mail: DeliveredMail, tmp_path: Path, program: str, form: str) -> None:
    client = Mutt(program, mail, tmp_path, form)
    with mail.loses_nothing():
        assert folded(client.copy_all(tmp_path / "first")) == folded(mail.inners)
    mail.deliver(1)
    assert folded(client.copy_all(tmp_path / "second")) == folded(mail.inners)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_client_says_that_it_may_not_delete(mail: DeliveredMail, tmp_path: Path, program: str) -> None:
    """It asked for its rights (MYRIGHTS), so nothing is even tried."""
    client = Mutt(program, mail, tmp_path, "imaps")
    attempts = mail.attempts()
    with mail.loses_nothing(), client.open() as terminal:
        for keys in ("d", "D~A\n", "T~A\n;d"):
            terminal.type(keys)
            terminal.wait_for(NOT_PERMITTED)
        terminal.type("$")
        terminal.wait_for(rb"Mailbox is unchanged|0 deleted")
    assert mail.attempts() == attempts, "nothing was sent"
    assert folded(client.copy_all(tmp_path / "after")) == folded(mail.inners)
