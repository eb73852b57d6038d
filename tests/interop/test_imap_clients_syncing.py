"""mbsync and offlineimap against the real daemon, run after run: nothing twice, nothing lost, deletion in vain.

EP-18, EP-28, EP-29; docs/imap.md, "Mail clients and deletion".

Both keep mail on disk with LF line ends, which is their own
storage format; there, and only there, line ends are folded before comparing.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.delivered_mail import DeliveredMail, delivered_mail, folded, need, rewritten, run
from tests.support.pki import Authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DELETED = 5


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[DeliveredMail]:
    with delivered_mail(tmp_path_factory.mktemp("syncing"), partner_ca) as made:
        yield made


class Maildir:
    """The local copy that a client keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        return sorted(path for sub in ("cur", "new") for path in (self.folder / sub).iterdir())

    def contents(self) -> list[bytes]:
        return [_without_own_fields(path.read_bytes()) for path in self.files()]

    def mark_deleted(self, count: int) -> list[bytes]:
        """As a mail reader over the Maildir does; returns what was marked."""
        chosen = self.files()[:count]
        contents = [_without_own_fields(path.read_bytes()) for path in chosen]
        for path in chosen:
            base, _, flags = path.name.partition(":2,")
            path.rename(self.folder / "cur" / f"{base}:2,{''.join(sorted({*flags, 'S', 'T'}))}")
        return contents

    def remove(self, count: int) -> None:
        for path in self.files()[:count]:
            path.unlink()


def _without_own_fields(content: bytes) -> bytes:
    """Both clients mark what they store with a header field of their own."""
    return re.sub(rb"(?m)\A((?:.+\n)*?)X-(?:TUID|OfflineIMAP): .*\n", rb"\1", content, count=1)


# --- mbsync ---


class Mbsync:
    """One channel that carries deletions in both directions."""

    def __init__(self, mail: DeliveredMail, folder: Path, form: str = "IMAPS") -> None:
        practice, self._folder = mail.practice, folder
        self._program = need("mbsync")
        (folder / "mail").mkdir(parents=True)
        self._rc = folder / "rc"
        port = practice.imaps_port if form == "IMAPS" else practice.imap_port
        self._rc.write_text(
            f"IMAPAccount gw\nHost localhost\nPort {port}\nUser {practice.login}\nPass {practice.password}\n"
            f"SSLType {form}\nCertificateFile {practice.tls_ca}\nAuthMechs LOGIN\n\n"
            "IMAPStore far\nAccount gw\n\n"
            f"MaildirStore near\nPath {folder}/mail/\nInbox {folder}/mail/INBOX\nSubFolders Verbatim\n\n"
            "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nExpunge Both\nSync All\nSyncState *\n"
        )
        self.maildir = Maildir(folder / "mail" / "INBOX")

    def run(self) -> subprocess.CompletedProcess[bytes]:
        done = run([self._program, "-c", str(self._rc), "-a"], self._folder)
        assert done.returncode == 0, done.stderr.decode()
        return done


@pytest.mark.parametrize("form", ["IMAPS", "STARTTLS"])
def test_mbsync(mail: DeliveredMail, tmp_path: Path, form: str) -> None:
    client = Mbsync(mail, tmp_path, form)
    with mail.loses_nothing():
        client.run()
        assert folded(client.maildir.contents()) == folded(mail.inners)
        first = client.maildir.files()
        client.run()
        assert client.maildir.files() == first, "a second run downloads nothing twice and loses nothing"
    fresh = mail.deliver(2)
    client.run()
    assert set(client.maildir.files()) > set(first)
    assert folded(client.maildir.contents()) == folded(mail.inners)

    attempts = mail.attempts()
    kept = folded(client.maildir.contents())
    marked = folded(client.maildir.mark_deleted(DELETED))
    with mail.loses_nothing():
        done = client.run()
        assert done.stderr == b"", "silent, as nothing was refused"
        assert mail.attempts() > attempts, "mbsync did ask for the deletion"
        # It takes its own copies for deleted; all others stay.
        assert folded(client.maildir.contents()) == sorted(set(kept) - set(marked))
    fresh += mail.deliver(1)
    for _ in range(2):
        client.run()
        assert folded(client.maildir.contents()) == sorted({*kept, *folded(fresh)} - set(marked))

    elsewhere = Mbsync(mail, tmp_path / "elsewhere", form)
    elsewhere.run()
    assert folded(elsewhere.maildir.contents()) == folded(mail.inners), "another machine gets everything"


# --- offlineimap ---


class Offlineimap:
    """One account, both ways. With TLS from the start: after STARTTLS its library (imaplib2) reads and writes on one
    TLS object in two threads at once, and now and then breaks down, whatever the server."""

    def __init__(self, mail: DeliveredMail, folder: Path) -> None:
        practice, self._folder = mail.practice, folder
        self._program = need("offlineimap")
        folder.mkdir(parents=True, exist_ok=True)
        self._rc = folder / "rc"
        self._rc.write_text(
            f"[general]\naccounts = gw\nmetadatadir = {folder}/state\nui = basic\n\n"
            "[Account gw]\nlocalrepository = near\nremoterepository = far\n\n"
            f"[Repository near]\ntype = Maildir\nlocalfolders = {folder}/mail\n\n"
            "[Repository far]\ntype = IMAP\nremotehost = localhost\n"
            f"remoteport = {practice.imaps_port}\n"
            f"remoteuser = {practice.login}\nremotepass = {practice.password}\n"
            f"ssl = yes\nstarttls = no\nsslcacertfile = {practice.tls_ca}\n"
            "folderfilter = lambda name: name == 'INBOX'\ncreatefolders = False\n"
        )
        self.maildir = Maildir(folder / "mail" / "INBOX")

    def run(self) -> subprocess.CompletedProcess[bytes]:
        done = run([self._program, "-o", "-c", str(self._rc)], self._folder, seconds=120)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        assert b"Traceback" not in done.stdout + done.stderr
        return done


def test_offlineimap(mail: DeliveredMail, tmp_path: Path) -> None:
    client = Offlineimap(mail, tmp_path)
    with mail.loses_nothing():
        client.run()
        assert rewritten(client.maildir.contents()) == rewritten(mail.inners)
        first = client.maildir.files()
        client.run()
        assert client.maildir.files() == first, "a second run downloads nothing twice and loses nothing"
    mail.deliver(2)
    client.run()
    assert set(client.maildir.files()) > set(first)
    assert rewritten(client.maildir.contents()) == rewritten(mail.inners)

    attempts = mail.attempts()
    with mail.loses_nothing():
        client.maildir.remove(DELETED)
        client.run()
        assert mail.attempts() > attempts, "offlineimap did ask for the deletion"
        client.run()
        assert rewritten(client.maildir.contents()) == rewritten(mail.inners), "what was deleted here is here again"
        client.maildir.mark_deleted(DELETED)
        client.run()
        client.run()
        assert rewritten(client.maildir.contents()) == rewritten(mail.inners)


# --- over a restart, and with deletions refused ---


def test_uids_and_local_copies_outlive_a_restart(mail: DeliveredMail, tmp_path: Path) -> None:
    client = Mbsync(mail, tmp_path)
    client.run()
    before, files = _numbers(mail), client.maildir.files()
    with mail.loses_nothing():
        mail.restart()
    assert _numbers(mail) == before
    client.run()
    assert client.maildir.files() == files


def test_refuse_shows_the_error_and_loses_nothing(mail: DeliveredMail, tmp_path: Path) -> None:
    """``deleted_flag = "refuse"``: mbsync prints it and goes on, imaplib gets NO."""
    client = Mbsync(mail, tmp_path)
    client.run()
    before, everything = _numbers(mail), folded(mail.inners)
    with mail.refusing():
        assert _numbers(mail) == before
        attempts = mail.attempts()
        with mail.loses_nothing():
            client.maildir.mark_deleted(DELETED)
            assert b"NOPERM" in client.run().stderr
            client.run()
            # Which of its own copies it keeps is its affair; it has none twice.
            left = folded(client.maildir.contents())
            assert len(left) >= len(everything) - DELETED
            assert sorted(set(left)) == left
            assert set(left) <= set(everything)
        assert mail.attempts() > attempts
        with mail.loses_nothing(), mail.practice.imap() as session:
            session.select("INBOX")
            status, [told] = session.store("1:3", "+FLAGS", "(\\Deleted)")
            assert status == "NO"
            assert b"NOPERM" in told
            status, shown = session.store("1", "+FLAGS", "(\\Deleted \\Flagged)")
            assert status == "OK", "refused only when it is all that is asked for"
            assert b"\\Flagged" in shown[0]
            assert b"\\Deleted" not in shown[0]
            assert session.expunge() == ("OK", [None])
    assert _numbers(mail) == before


def _numbers(mail: DeliveredMail) -> tuple[bytes | None, dict[int, bytes]]:
    """UIDVALIDITY, and what stands under each UID."""
    with mail.practice.imap() as session:
        session.select("INBOX", readonly=True)
        validity = session.response("UIDVALIDITY")[1][0]
    return validity, mail.by_uid()
