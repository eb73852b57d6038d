"""Real POP3 clients against the real daemon: poplib, curl, fetchmail, getmail6 (EP-28, EP-29, EP-30).

curl gives the bytes as served. poplib and getmail see lines; fetchmail hands them on with LF. There, and only there,
line ends are folded before comparing.
"""

from __future__ import annotations

import os
import poplib
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, free_ports
from tests.support.pki import Authority

SENDER = "dr.pop@partner.example"
TEXTS = [
    "First.\r\n.\r\n..two dots\r\n.one\r\n",
    "Second, with an é and a long line: " + "x" * 900 + "\r\n",
    "Third\r\n" * 2_000,
]


class Mail:
    """A practice that speaks POP3, with messages in its inbox."""

    def __init__(self, practice: Practice, partner: Authority) -> None:
        self.practice = practice
        self.stls_port, self.tls_port = free_ports(2)
        practice.set("pop3", port=self.stls_port, tls_port=self.tls_port, failed_login_delay_seconds=0)
        practice.start()
        signer = partner.issue(address=SENDER)
        self.inners: list[bytes] = []
        for number, text in enumerate(TEXTS):
            inner = inner_message(
                SENDER, practice.addresses, subject=f"message {number}", message_id=f"<p{number}@partner.example>",
                text=text,
            )  # fmt: skip
            raw = direct_message(
                CryptographyStack(),
                inner,
                sender=SENDER,
                recipients=practice.addresses,
                to=[practice.identity()],
                signer=signer,
                message_id=f"<p{number}@partner.example>",
            )
            assert practice.send(raw, SENDER, practice.addresses)[0] == 250
            practice.settled(number + 1)
            self.inners.append(inner)

    def served(self) -> list[bytes]:
        """The messages as IMAP gives them: what POP3 must give, too."""
        return self.practice.inbox()

    @contextmanager
    def session(self) -> Iterator[poplib.POP3_SSL]:
        client = poplib.POP3_SSL("localhost", self.tls_port, context=self.practice.tls(), timeout=30)
        client.user(self.practice.login)
        client.pass_(self.practice.password)
        try:
            yield client
        finally:
            client.close()

    def uidls(self) -> list[bytes]:
        with self.session() as client:
            return list(client.uidl()[1])

    def restore(self) -> None:
        """What the other tests deleted is listed again."""
        self.practice.run("pop3", "restore", self.practice.login)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[Mail]:
    practice = Practice.make(tmp_path_factory.mktemp("pop3") / "practice")
    practice.trust(partner_ca.pem)
    try:
        yield Mail(practice, partner_ca)
    finally:
        practice.stop()


@pytest.fixture
def mail(shared: Mail) -> Mail:
    if len(shared.uidls()) < len(TEXTS):
        shared.restore()
    assert len(shared.uidls()) == len(TEXTS)
    return shared


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def lines(content: bytes) -> list[bytes]:
    return content.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")


def test_what_is_served_holds_what_was_signed(mail: Mail) -> None:
    for inner, served in zip(mail.inners, mail.served(), strict=True):
        assert inner.partition(b"\r\n\r\n")[2] == served.partition(b"\r\n\r\n")[2]


def test_poplib_over_tls(mail: Mail) -> None:
    served = mail.served()
    with mail.session() as client:
        assert client.stat() == (len(served), sum(map(len, served)))
        assert client.list()[1] == [b"%d %d" % (number, len(content)) for number, content in enumerate(served, 1)]
        assert {"UIDL", "TOP", "PIPELINING", "USER"} <= set(client.capa())
        for number, content in enumerate(served, 1):
            assert client.retr(number)[1] == content.removesuffix(b"\r\n").split(b"\r\n")
            head = content.partition(b"\r\n\r\n")[0]
            assert client.top(number, 0)[1] == [*head.split(b"\r\n"), b""]
        client.dele(1)
        client.dele(2)
        client.rset()
        client.dele(3)
        client.quit()
    assert len(mail.uidls()) == len(TEXTS) - 1
    assert mail.served() == served, "IMAP shows everything all the same"


def test_poplib_over_stls(mail: Mail) -> None:
    practice = mail.practice
    client = poplib.POP3("localhost", mail.stls_port, timeout=30)
    with pytest.raises(poplib.error_proto, match="STLS"):
        client.user(practice.login)
    client.stls(practice.tls())
    client.user(practice.login)
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.user(practice.login)
    client.pass_(practice.password)
    assert client.stat()[0] == len(TEXTS)
    client.quit()


def test_nothing_older_than_tls_1_2(mail: Mail) -> None:
    """EP-27."""
    context = mail.practice.tls()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        poplib.POP3_SSL("localhost", mail.tls_port, context=context, timeout=30)


@pytest.mark.parametrize("form", ["implicit", "stls", "auth plain"])
def test_curl(mail: Mail, form: str) -> None:
    curl = need("curl")
    practice = mail.practice
    base = f"pop3://localhost:{mail.stls_port}" if form == "stls" else f"pop3s://localhost:{mail.tls_port}"
    common = [
        curl,
        "-sS",
        "--ssl-reqd",
        "--cacert",
        str(practice.tls_ca),
        "-u",
        f"{practice.login}:{practice.password}",
    ]
    if form == "auth plain":
        common += ["--login-options", "AUTH=PLAIN", "--sasl-ir"]

    def run(*arguments: str) -> bytes:
        done = subprocess.run([*common, *arguments], capture_output=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    served = mail.served()
    listed = run(f"{base}/").split(b"\r\n")
    assert listed[: len(served)] == [b"%d %d" % (number, len(content)) for number, content in enumerate(served, 1)]
    for number, content in enumerate(served, 1):
        assert run(f"{base}/{number}") == content
    run(f"{base}/2", "-X", "DELE", "--head")
    assert len(mail.uidls()) == len(served) - 1
    assert mail.served() == served


def test_a_daemon_that_is_killed_has_hidden_all_or_nothing(mail: Mail) -> None:
    """Only what QUIT was answered for is hidden; unique-ids are the same after the start."""
    before = mail.uidls()
    with mail.session() as client:
        client.dele(1)
        client.quit()
    with mail.session() as client:
        client.dele(1)
        mail.practice.kill()
    mail.practice.start()
    assert [line.split()[1] for line in mail.uidls()] == [line.split()[1] for line in before[1:]]


FETCHMAIL_EMPTY = 1
"""Exit status of fetchmail when there was nothing new."""


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("form", ["implicit", "stls"])
def test_fetchmail(mail: Mail, tmp_path: Path, form: str, *, keeps: bool) -> None:
    fetchmail = need("fetchmail")
    practice, served = mail.practice, mail.served()
    folder = tmp_path / "mail"
    folder.mkdir()
    rc = tmp_path / "fetchmailrc"
    tls = f"ssl sslcertck sslcertfile {practice.tls_ca}"
    port = mail.tls_port
    if form == "stls":
        tls, port = f"sslproto tls1.2+ sslcertck sslcertfile {practice.tls_ca}", mail.stls_port
    rc.write_text(
        "set no syslog\nset invisible\n"
        f'poll localhost protocol pop3 port {port} uidl username "{practice.login}" password "{practice.password}" '
        f"{tls} {'keep' if keeps else 'nokeep'} no rewrite "
        f"mda \"sh -c 'cat > $(mktemp {folder}/m.XXXXXX)'\"\n"
    )
    rc.chmod(0o600)
    command = [fetchmail, "-f", str(rc), "--idfile", str(tmp_path / "ids"), "--pidfile", str(tmp_path / "pid")]
    environment = {**os.environ, "FETCHMAILHOME": str(tmp_path), "HOME": str(tmp_path)}

    def fetch() -> int:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment)
        assert done.returncode in {0, FETCHMAIL_EMPTY}, (done.stdout, done.stderr)
        return done.returncode

    assert fetch() == 0
    found = [path.read_bytes() for path in folder.iterdir()]
    assert sorted(map(lines, found)) == sorted(map(lines, served))
    assert len(mail.uidls()) == (len(served) if keeps else 0)
    assert mail.served() == served
    assert fetch() == FETCHMAIL_EMPTY, "nothing is fetched twice"


@pytest.mark.slow
@pytest.mark.parametrize("deletes", [False, True])
def test_getmail6(mail: Mail, tmp_path: Path, *, deletes: bool) -> None:
    getmail = need("getmail")
    practice, served = mail.practice, mail.served()
    folder = tmp_path / "mail"
    folder.mkdir()
    rc = tmp_path / "getmailrc"
    rc.write_text(
        f"[retriever]\ntype = SimplePOP3SSLRetriever\nserver = localhost\nport = {mail.tls_port}\n"
        f"username = {practice.login}\npassword = {practice.password}\nca_certs = {practice.tls_ca}\n"
        # Its own maildir delivery refuses to work for root, as whom continuous integration runs.
        "[destination]\ntype = MDA_external\npath = /bin/sh\nallow_root_commands = true\n"
        f"arguments = ('-c', 'cat > $(mktemp {folder}/m.XXXXXX)')\n"
        f"[options]\ndelete = {'true' if deletes else 'false'}\nread_all = false\n"
        "delivered_to = false\nreceived = false\nverbose = 1\n"
    )
    command = [getmail, "--getmaildir", str(tmp_path), "--rcfile", str(rc)]

    def fetch() -> list[list[bytes]]:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, (done.stdout, done.stderr)
        # It writes down that it saw no reverse path.
        found = [path.read_bytes().removeprefix(b"Return-Path: <unknown>\n") for path in folder.iterdir()]
        return sorted(map(lines, found))

    assert fetch() == sorted(map(lines, served))
    assert len(mail.uidls()) == (0 if deletes else len(served))
    assert mail.served() == served
    assert len(fetch()) == len(served), "nothing is fetched twice"
