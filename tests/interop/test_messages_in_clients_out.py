"""Messages of independent S/MIME stacks in, real mail clients out: the bytes are those that were signed.

curl and imaplib give the bytes as served. mbsync and mutt keep mail on disk with LF line ends, which is their
own storage format; there, and only there, CRLF is folded to LF before comparing, and the header fields that the
client adds itself are removed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import bouncy_castle
from tests.support.bouncy_castle import BouncyCastleStack
from tests.support.direct_messages import CryptographyStack, OpenSSLStack, Stack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority, ec_key

SENDER = "dr.ok@partner.example"

OPENSSL = {
    "openssl der detached": OpenSSLStack(),
    "openssl ber detached": OpenSSLStack(ber=True),
    "openssl der opaque": OpenSSLStack(opaque=True),
    "openssl ber opaque sha512 aes128": OpenSSLStack(ber=True, opaque=True, digest="sha512", cipher="-aes128"),
    "openssl oaep": OpenSSLStack(oaep=True),
    "openssl gcm pss keyid": OpenSSLStack(cipher="-aes-256-gcm", pss=True, keyid=True),
}
BOUNCY_CASTLE = {
    "bouncycastle ber detached": BouncyCastleStack(),
    "bouncycastle der detached": BouncyCastleStack(encoding="der"),
    "bouncycastle ber opaque": BouncyCastleStack(opaque=True, signature="SHA384withRSA"),
    "bouncycastle der opaque oaep aes128": BouncyCastleStack(
        encoding="der", opaque=True, transport="oaep256", cipher="aes128-cbc"
    ),
    "bouncycastle ber gcm pss": BouncyCastleStack(cipher="aes256-gcm", signature="SHA256withRSAandMGF1"),
}


def stacks() -> dict[str, Stack]:
    """Every stack that this machine has."""
    found: dict[str, Stack] = {"cryptography": CryptographyStack()}
    if OpenSSLStack.available():
        found |= OPENSSL
    if bouncy_castle.missing() is None:
        found |= BOUNCY_CASTLE
    return found


class Delivered:
    """A practice with one message of every stack in its inbox."""

    def __init__(self, practice: Practice, partner: Authority) -> None:
        self.practice = practice
        self.inners: dict[str, bytes] = {}
        signer = partner.issue(address=SENDER)
        by_domain = partner.issue(domain="partner.example", key=ec_key(1))
        for number, (name, stack) in enumerate(stacks().items()):
            inner = inner_message(
                SENDER, practice.addresses, subject=f"{name} é", message_id=f"<{number}@partner.example>",
                text=f"Sent by {name}.\r\n.\r\n..dots\r\nFrom the start\r\n",
            )  # fmt: skip
            raw = direct_message(
                stack,
                inner,
                sender=SENDER,
                recipients=practice.addresses,
                to=[practice.identity()],
                signer=by_domain if name == "openssl der detached" else signer,
                message_id=f"<{number}@partner.example>",
            )
            assert practice.send(raw, SENDER, practice.addresses)[0] == 250
            self.inners[name] = inner
        listed = practice.settled(len(self.inners))
        refused = [(m["subject"], m["reason"]) for m in listed if m["state"] == "refused"]
        assert not refused, refused


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[Delivered]:
    practice = Practice.make(tmp_path_factory.mktemp("interop") / "practice")
    practice.trust(partner_ca.pem)
    practice.start()
    try:
        yield Delivered(practice, partner_ca)
    finally:
        practice.stop()


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def test_optional_stacks_are_named() -> None:
    """A missing stack is visible in the report, not silent."""
    absent = [] if OpenSSLStack.available() else ["the openssl command"]
    if reason := bouncy_castle.missing():
        absent.append(f"Bouncy Castle ({reason})")
    if absent:
        pytest.skip(f"not covered here: {', '.join(absent)}")


def test_imaplib_fetches_identical_bytes(delivered: Delivered) -> None:
    fetched = delivered.practice.inbox()
    for name, inner in delivered.inners.items():
        assert fetched.count(inner) == 1, name


def test_imaplib_over_starttls(delivered: Delivered) -> None:
    import imaplib

    practice = delivered.practice
    with imaplib.IMAP4("localhost", practice.imap_port, timeout=20) as client:
        assert "LOGINDISABLED" in client.capabilities
        with pytest.raises(imaplib.IMAP4.error):
            client.login(practice.login, practice.password)
        client.starttls(practice.tls())
        client.login(practice.login, practice.password)
        _, count = client.select("INBOX", readonly=True)
        assert int(count[0] or b"0") >= len(delivered.inners)


@pytest.mark.parametrize("form", ["imaps", "starttls"])
def test_curl_fetches_identical_bytes(delivered: Delivered, form: str, tmp_path: Path) -> None:
    curl = need("curl")
    practice = delivered.practice
    base = f"imaps://localhost:{practice.imaps_port}" if form == "imaps" else f"imap://localhost:{practice.imap_port}"
    common = [
        curl,
        "-s",
        "-S",
        "--ssl-reqd",
        "--cacert",
        str(practice.tls_ca),
        "-u",
        f"{practice.login}:{practice.password}",
    ]
    listed = subprocess.run(
        [*common, f"{base}/INBOX", "-X", "UID SEARCH ALL"], capture_output=True, check=True, timeout=30
    )
    uids = re.findall(rb"\d+", listed.stdout.split(b"SEARCH", 1)[1])
    fetched = []
    for uid in uids:
        target = tmp_path / uid.decode()
        subprocess.run([*common, f"{base}/INBOX;UID={uid.decode()}", "-o", str(target)], check=True, timeout=30)
        fetched.append(target.read_bytes())
    for name, inner in delivered.inners.items():
        assert fetched.count(inner) == 1, name


def test_mbsync_fetches_every_message_and_cannot_expunge(delivered: Delivered, tmp_path: Path) -> None:
    mbsync = need("mbsync")
    practice = delivered.practice
    maildir = tmp_path / "mail"
    maildir.mkdir()
    rc = tmp_path / "rc"
    rc.write_text(
        f"IMAPAccount gw\nHost localhost\nPort {practice.imaps_port}\nUser {practice.login}\nPass {practice.password}\n"
        f"SSLType IMAPS\nCertificateFile {practice.tls_ca}\nAuthMechs LOGIN\n\n"
        "IMAPStore far\nAccount gw\n\n"
        f"MaildirStore near\nPath {maildir}/\nInbox {maildir}/INBOX\nSubFolders Verbatim\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nExpunge Both\nSyncState *\n"
    )
    command = [mbsync, "-c", str(rc), "-a"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    files = [p for sub in ("cur", "new") for p in (maildir / "INBOX" / sub).iterdir()]
    # mbsync marks what it has just copied with a header field of its own.
    texts = [re.sub(rb"(?m)^X-TUID: .*\n", b"", p.read_bytes(), count=1) for p in files]
    for name, inner in delivered.inners.items():
        assert texts.count(inner.replace(b"\r\n", b"\n")) == 1, name
    before = practice.inbox()
    for path in files:
        trashed = path.parent.parent / "cur" / (path.name.split(":")[0] + ":2,ST")
        path.rename(trashed)
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert practice.inbox() == before, "a client that deletes and expunges loses nothing on the server"


def test_mutt_copies_every_message(delivered: Delivered, tmp_path: Path) -> None:
    mutt = need("mutt")
    script = need("script")
    practice = delivered.practice
    rc = tmp_path / "rc"
    rc.write_text(
        f'set folder="imaps://{practice.login}@localhost:{practice.imaps_port}"\nset spoolfile="+INBOX"\n'
        f'set imap_pass="{practice.password}"\nset certificate_file="{practice.tls_ca}"\n'
        "set confirmappend=no\nset confirmcreate=no\nset quit=yes\nset ssl_starttls=no\nset ssl_verify_host=yes\n"
        f'set mbox_type=mbox\nset header_cache=""\nset copy=no\nset record=""\nset sleep_time=0\n'
        f'set tmpdir="{tmp_path}"\n'
    )
    target = tmp_path / "copied"
    keys = f"<tag-pattern>~A<enter><tag-prefix><copy-message>{target}<enter><quit>"
    subprocess.run(
        [script, "-qfc", f"{mutt} -F {rc} -e 'push {keys}'", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=90,
        env={"TERM": "xterm", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert target.exists(), "mutt wrote nothing"
    # mutt counts lengths instead of quoting "From " lines, so only a whole postmark separates messages.
    found = re.split(rb"(?m)^From \S+@\S+ \w{3} \w{3} [ \d]{2} [\d:]{8} \d{4}\n", target.read_bytes())[1:]
    copied = [_without_mutts_own_headers(message).rstrip(b"\n") for message in found]
    for name, inner in delivered.inners.items():
        # The last line end is followed by the empty line that ends every message of an mbox.
        assert copied.count(inner.replace(b"\r\n", b"\n").rstrip(b"\n")) == 1, name


def _without_mutts_own_headers(message: bytes) -> bytes:
    head, _, body = message.partition(b"\n\n")
    kept = [line for line in head.split(b"\n") if not line.startswith((b"Status:", b"Content-Length:", b"Lines:"))]
    return b"\n".join(kept) + b"\n\n" + body
