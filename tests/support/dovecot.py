"""A real Dovecot in a temporary folder, with TLS from a throw-away authority: an upstream HISP mailbox for tests.

Skips by name when Dovecot is not installed. Started as root it uses the users of the Debian package; otherwise
everything runs as the current user.
"""

from __future__ import annotations

import contextlib
import getpass
import imaplib
import os
import pwd
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.gateway_process import Practice, free_ports, wait_for

PROGRAM = shutil.which("dovecot") or "/usr/sbin/dovecot"
USER = "clinic"
PASSWORD = "upstream pass {word}"
_MAIL_USER = "nobody"

CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap pop3
listen = 127.0.0.1
{users}
ssl = required
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = yes
auth_mechanisms = {mechanisms}
auth_failure_delay = 0
mail_location = maildir:~/Maildir
mail_fsync = never
imap_idle_notify_interval = 2 mins
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
"""


@dataclass
class Dovecot:
    """One server with one user."""

    folder: Path
    imap: int
    imaps: int
    pop3: int
    pop3s: int
    tls_ca: Path
    mechanisms: str = "plain login"
    process: subprocess.Popen[bytes] | None = field(default=None)

    @classmethod
    def make(cls, practice: Practice, mechanisms: str = "plain login", settings: str = "") -> Dovecot:
        """Set up, with the TLS certificate of the practice (``localhost``), whose authority is ``practice.tls_ca``.

        ``settings``: more lines for its file; of two lines for one setting the later counts.
        """
        if not Path(PROGRAM).exists():
            pytest.skip("dovecot is not installed")
        # Not pytest's folder: the mail user must be able to get there.
        folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
        folder.chmod(0o755)
        imap, imaps, pop3, pop3s = free_ports(4)
        made = cls(folder, imap, imaps, pop3, pop3s, practice.tls_ca, mechanisms)
        for name, source in (("cert.pem", "server.cert.pem"), ("key.pem", "server.key.pem")):
            (folder / name).write_bytes((practice.directory / "certs" / "tls" / source).read_bytes())
        (folder / "home").mkdir()
        made.set_password(PASSWORD)
        found = pwd.getpwnam(_MAIL_USER if os.getuid() == 0 else getpass.getuser())
        os.chown(folder / "home", found.pw_uid, found.pw_gid)
        (folder / "dovecot.conf").write_text(
            CONFIG.format(
                folder=folder, imap=made.imap, imaps=made.imaps, pop3=made.pop3, pop3s=made.pop3s,
                uid=found.pw_uid, gid=found.pw_gid, users=made._users(), mechanisms=mechanisms,
            )
            + settings
        )  # fmt: skip
        return made

    @staticmethod
    def _users() -> str:
        if os.getuid() == 0:
            return "first_valid_uid = 1"
        me = getpass.getuser()
        return f"default_internal_user = {me}\ndefault_internal_group = {me}\ndefault_login_user = {me}"

    def set_password(self, password: str) -> None:
        (self.folder / "users").write_text(f"{USER}:{{PLAIN}}{password}\n")
        (self.folder / "users").chmod(0o644)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "-F", "-c", str(self.folder / "dovecot.conf")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        wait_for(self._answers, what=f"Dovecot's start ({self.folder}/log)")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, imaplib.IMAP4.error), self.session():
            return True
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def session(self, password: str | None = None) -> Iterator[imaplib.IMAP4_SSL]:
        """A logged-in client; INBOX is selected."""
        context = ssl.create_default_context(cafile=str(self.tls_ca))
        client = imaplib.IMAP4_SSL("localhost", self.imaps, ssl_context=context, timeout=10)
        try:
            client.login(USER, password or self.password)
            client.select("INBOX")
            yield client
        finally:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                client.logout()

    @property
    def password(self) -> str:
        return (self.folder / "users").read_text().removeprefix(f"{USER}:{{PLAIN}}").rstrip("\n")

    def put(self, *messages: bytes, flags: str = "") -> None:
        with self.session() as client:
            for message in messages:
                status, answer = client.append("INBOX", flags, None, message)
                assert status == "OK", answer

    def flags(self) -> dict[int, str]:
        """Flags by UID."""
        with self.session() as client:
            _, lines = client.uid("FETCH", "1:*", "(FLAGS)")
        found = {}
        for line in lines:
            if line:
                words = line.decode()
                found[int(words.partition("UID ")[2].split()[0].rstrip(")"))] = words
        return found

    def unseen(self) -> list[bytes]:
        with self.session() as client:
            return list(client.uid("SEARCH", "UNSEEN")[1][0].split())

    def new_uid_validity(self) -> None:
        """Give the mailbox a new life, with the same messages and flags."""
        for path in (self.folder / "home" / USER / "Maildir").glob("dovecot*"):
            if path.is_file():
                path.unlink()
