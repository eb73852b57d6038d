"""Real clients: Python's imaplib, curl, mbsync. EP-18 to EP-24."""

from __future__ import annotations

import asyncio
import imaplib
import shutil
from pathlib import Path

import pytest

from tests.unit.imap.imap_harness import LOGIN, MULTIPART, PASSWORD, bench, plain_message, tls_contexts

CONTENTS = [MULTIPART, plain_message(2, b"\xff\x00\n8-bit and NUL\r\n")]


def _with_imaplib(client: imaplib.IMAP4) -> None:
    assert client.login("simple", "simple")[0] == "OK"
    assert client.select("inbox") == ("OK", [b"2"])
    assert client.search(None, "SUBJECT", "referral") == ("OK", [b"1"])
    status, data = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
    assert status == "OK"
    assert [item[1] for item in data if isinstance(item, tuple)] == CONTENTS
    assert client.store("1", "+FLAGS", "(\\Deleted)") == ("OK", [b"1 (UID 1 FLAGS ())"])
    assert client.expunge() == ("OK", [None])
    assert client.status("INBOX", "(MESSAGES UNSEEN)") == ("OK", [b"INBOX (MESSAGES 2 UNSEEN 2)"])
    assert client.append("INBOX", "", "", b"x: y\r\n\r\nz")[0] == "NO"
    assert client.create("Trash")[0] == "NO"
    assert client.copy("1", "INBOX")[0] == "NO"
    assert client.namespace() == ("OK", [b'(("" "/")) NIL NIL'])
    assert client.myrights("INBOX") == ("OK", [b"INBOX lrsw"])
    assert client.close()[0] == "OK"
    assert client.logout()[0] == "BYE"


async def test_imaplib(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here:
        # imaplib sends no password beyond ASCII.
        here.authenticator.accounts["simple", "simple"] = here.practice.account

        def implicit() -> None:
            _with_imaplib(imaplib.IMAP4_SSL("localhost", here.tls_port, ssl_context=tls_contexts()[1], timeout=20))

        def explicit() -> None:
            client = imaplib.IMAP4("localhost", here.starttls_port, timeout=20)
            with pytest.raises(imaplib.IMAP4.error):
                client.login("simple", "simple")
            client.starttls(tls_contexts()[1])
            _with_imaplib(client)

        await asyncio.to_thread(implicit)
        await asyncio.to_thread(explicit)


async def _run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors
    return output


def _authority(folder: Path) -> Path:
    path = folder / "ca.pem"
    path.write_bytes(tls_contexts()[2])
    return path


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
async def test_curl(tmp_path: Path) -> None:
    async with bench(tmp_path, contents=CONTENTS) as here:
        authority = _authority(tmp_path)
        base = ["curl", "-sS", "--cacert", str(authority), "-u", f"{LOGIN}:{PASSWORD}"]
        for url, extra in (
            (f"imaps://localhost:{here.tls_port}", []),
            (f"imap://localhost:{here.starttls_port}", ["--ssl-reqd"]),
            (f"imaps://localhost:{here.tls_port}", ["--login-options", "AUTH=PLAIN"]),
        ):
            assert await _run(*base, *extra, f"{url}/INBOX;MAILINDEX=1") == MULTIPART
            assert await _run(*base, *extra, f"{url}/INBOX;UID=1;SECTION=2") == b"PGE+PC9hPg=="
            assert await _run(*base, *extra, f"{url}/INBOX", "-X", "UID SEARCH ALL") == b"* SEARCH 1 2\r\n"
            assert b"INBOX" in await _run(*base, *extra, url)


@pytest.mark.skipif(shutil.which("mbsync") is None, reason="mbsync is not here")
async def test_mbsync(tmp_path: Path) -> None:
    contents = [plain_message(number, b"line %d\r\n" % number * number) for number in range(1, 40)]
    async with bench(tmp_path, contents=contents) as here:
        authority = _authority(tmp_path)
        here.authenticator.accounts["simple", "simple"] = here.practice.account
        local = tmp_path / "mail"
        local.mkdir()
        config = tmp_path / "mbsyncrc"
        config.write_text(
            f"IMAPAccount a\nHost localhost\nPort {here.tls_port}\nUser simple\nPass simple\nSSLType IMAPS\n"
            f"CertificateFile {authority}\nAuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\n"
            f"MaildirStore near\nPath {local}/\nInbox {local}/INBOX\nSubFolders Verbatim\n\n"
            "Channel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSyncState *\n"
        )
        await _run("mbsync", "-c", str(config), "-a")
        files = [path for path in (local / "INBOX").rglob("*") if path.is_file() and path.parent.name in {"new", "cur"}]
        # mbsync adds an X-TUID field and stores LF line ends; the content is otherwise the same.
        synced = {
            b"".join(line for line in path.read_bytes().splitlines(keepends=True) if not line.startswith(b"X-TUID"))
            for path in files
        }
        assert synced == {content.replace(b"\r\n", b"\n") for content in contents}
