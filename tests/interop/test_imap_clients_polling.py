"""fetchmail and getmail6 over IMAP against the real daemon: what fetches mail away finds that nothing goes away.

EP-18, EP-28, EP-29; docs/imap.md, "Mail clients and deletion".

Both hand mail on with LF line ends; there, and only there,
line ends are folded before comparing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.delivered_mail import DeliveredMail, delivered_mail, folded, need, rewritten, run
from tests.support.pki import Authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NOTHING_NEW = 1
"""Exit status of fetchmail."""
NOT_EXPUNGED = 7
"""Exit status of fetchmail when what it marked as deleted is still there."""


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[DeliveredMail]:
    with delivered_mail(tmp_path_factory.mktemp("polling"), partner_ca) as made:
        yield made


class Taken:
    """Where a client hands over mail, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "taken"
        self.folder.mkdir()
        self.script = f"cat > $(mktemp {self.folder}/m.XXXXXX)"

    def contents(self) -> list[bytes]:
        return [_without_own_fields(path.read_bytes()) for path in self.folder.iterdir()]


def _without_own_fields(content: bytes) -> bytes:
    """getmail writes down that it saw no reverse path, and which mailbox it looked into."""
    head, end, body = content.removeprefix(b"Return-Path: <unknown>\n").partition(b"\n\n")
    return head.removesuffix(b"\nX-getmail-retrieved-from-mailbox: INBOX") + end + body


# --- fetchmail ---


class Fetchmail:
    def __init__(self, mail: DeliveredMail, folder: Path, form: str, what: str) -> None:
        practice, self._folder = mail.practice, folder
        self._program = need("fetchmail")
        self.taken = Taken(folder)
        self._rc = folder / "fetchmailrc"
        tls, port = "ssl", practice.imaps_port
        if form == "starttls":
            tls, port = "sslproto tls1.2+", practice.imap_port
        self._rc.write_text(
            "set no syslog\nset invisible\n"
            f'poll localhost protocol imap port {port} username "{practice.login}" password "{practice.password}" '
            f"{tls} sslcertck sslcertfile {practice.tls_ca} {what} no rewrite mda \"sh -c '{self.taken.script}'\"\n"
        )
        self._rc.chmod(0o600)

    def run(self, *options: str) -> int:
        command = [self._program, "-f", str(self._rc), "--pidfile", str(self._folder / "pid"), *options]
        done = run(command, self._folder, seconds=120)
        self.said = (done.stdout + done.stderr).decode()
        return done.returncode


@pytest.mark.parametrize("form", ["implicit", "starttls"])
def test_fetchmail_that_keeps(mail: DeliveredMail, tmp_path: Path, form: str) -> None:
    """The way that docs/imap.md recommends."""
    client = Fetchmail(mail, tmp_path, form, "keep")
    attempts = mail.attempts()
    with mail.loses_nothing():
        assert client.run("--fetchall") == 0, client.said
        assert folded(client.taken.contents()) == folded(mail.inners)
        assert client.run() == NOTHING_NEW, client.said
    mail.deliver(2)
    with mail.loses_nothing():
        assert client.run() == 0, client.said
        assert folded(client.taken.contents()) == folded(mail.inners), "what is new, and nothing twice"
        assert client.run() == NOTHING_NEW, client.said
    assert mail.attempts() == attempts


def test_fetchmail_that_wants_to_delete(mail: DeliveredMail, tmp_path: Path) -> None:
    """docs/imap.md: it gives up after one message; nothing is lost, and with ``keep`` it gets everything."""
    client = Fetchmail(mail, tmp_path, "implicit", "nokeep")
    attempts = mail.attempts()
    with mail.loses_nothing():
        assert client.run("--fetchall") == NOT_EXPUNGED, client.said
        assert "expunge" in client.said
        [first] = client.taken.contents()
        assert folded([first])[0] in folded(mail.inners)
    assert mail.attempts() > attempts
    (tmp_path / "keeping").mkdir()
    keeping = Fetchmail(mail, tmp_path / "keeping", "implicit", "keep")
    assert keeping.run("--fetchall") == 0, keeping.said
    assert folded(keeping.taken.contents()) == folded(mail.inners)


# --- getmail6 ---


@pytest.mark.parametrize("deletes", [False, True])
def test_getmail(mail: DeliveredMail, tmp_path: Path, *, deletes: bool) -> None:
    program, practice, taken = need("getmail"), mail.practice, Taken(tmp_path)
    rc = tmp_path / "getmailrc"
    rc.write_text(
        f"[retriever]\ntype = SimpleIMAPSSLRetriever\nserver = localhost\nport = {practice.imaps_port}\n"
        f"username = {practice.login}\npassword = {practice.password}\nca_certs = {practice.tls_ca}\n"
        'mailboxes = ("INBOX",)\n'
        # Its own maildir delivery refuses to work for root, as whom continuous integration runs.
        "[destination]\ntype = MDA_external\npath = /bin/sh\nallow_root_commands = true\n"
        f"arguments = ('-c', '{taken.script}')\n"
        f"[options]\ndelete = {'true' if deletes else 'false'}\nread_all = false\n"
        "delivered_to = false\nreceived = false\nverbose = 1\n"
    )

    def fetch() -> list[bytes]:
        done = run([program, "--getmaildir", str(tmp_path), "--rcfile", str(rc)], tmp_path, seconds=120)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return rewritten(taken.contents())

    attempts = mail.attempts()
    with mail.loses_nothing():
        assert fetch() == rewritten(mail.inners)
        assert fetch() == rewritten(mail.inners), "nothing is fetched twice"
    mail.deliver(2)
    with mail.loses_nothing():
        assert fetch() == rewritten(mail.inners), "what is new, and nothing twice"
    assert (mail.attempts() > attempts) is deletes
