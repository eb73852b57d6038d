"""curl, imaplib and aioimaplib against the real daemon: every byte, new mail, deletion that deletes nothing.

EP-18, EP-22, EP-24, EP-28, EP-29. The clients that take longer are in test_imap_clients_syncing.py and its neighbours.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aioimaplib import aioimaplib

from tests.support.delivered_mail import MESSAGES, DeliveredMail, delivered_mail, need, run
from tests.support.gateway_process import wait_for
from tests.support.pki import Authority


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[DeliveredMail]:
    with delivered_mail(tmp_path_factory.mktemp("imap"), partner_ca) as made:
        yield made


# --- curl ---


class Curl:
    """curl with the login of the practice."""

    def __init__(self, mail: DeliveredMail, folder: Path, form: str) -> None:
        practice = mail.practice
        self.folder = folder
        implicit = form == "imaps"
        self.base = f"imap{'s' * implicit}://localhost:{practice.imaps_port if implicit else practice.imap_port}"
        self._common = [need("curl"), "-sS", "--ssl-reqd", "--cacert", str(practice.tls_ca)]
        self._common += ["-u", f"{practice.login}:{practice.password}"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run([*self._common, *arguments], self.folder)

    def command(self, command: str) -> bytes:
        done = self.run(f"{self.base}/INBOX", "-X", command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def uids(self) -> list[str]:
        return [uid.decode() for uid in re.findall(rb"\d+", self.command("UID SEARCH ALL").partition(b"SEARCH")[2])]

    def fetch(self, uids: list[str]) -> list[bytes]:
        """All over one connection."""
        targets = [self.folder / uid for uid in uids]
        pairs = [(f"{self.base}/INBOX;UID={uid}", "-o", str(path)) for uid, path in zip(uids, targets, strict=True)]
        done = self.run(*(word for pair in pairs for word in pair))
        assert done.returncode == 0, done.stderr
        return [path.read_bytes() for path in targets]


@pytest.mark.parametrize("form", ["imaps", "starttls"])
def test_curl_fetches_everything_and_deletes_nothing(mail: DeliveredMail, tmp_path: Path, form: str) -> None:
    curl = Curl(mail, tmp_path, form)
    uids = curl.uids()
    assert sorted(curl.fetch(uids)) == sorted(mail.inners)
    attempts = mail.attempts()
    with mail.loses_nothing():
        answer = curl.command("UID STORE 1:* +FLAGS (\\Deleted)")
        assert answer.count(b"FETCH") == len(mail.inners), "the true flags are always shown"
        assert b"\\Deleted" not in answer
        assert curl.command("EXPUNGE") == b""
        assert curl.command(f"UID EXPUNGE {uids[0]}") == b""
    assert curl.uids() == uids
    assert mail.attempts() > attempts


def test_curl_sees_new_mail(mail: DeliveredMail, tmp_path: Path) -> None:
    curl = Curl(mail, tmp_path, "imaps")
    known = curl.uids()
    fresh = mail.deliver(2)
    later = curl.uids()
    assert later[: len(known)] == known
    assert sorted(curl.fetch(later[len(known) :])) == sorted(fresh)


def test_curl_is_refused_without_the_practices_authority(mail: DeliveredMail, tmp_path: Path) -> None:
    """The trust in these tests comes from the certificate, not from a client that looks away."""
    done = run([need("curl"), "-sS", f"imaps://localhost:{mail.practice.imaps_port}/INBOX", "-u", "a:b"], tmp_path)
    assert done.returncode == 60
    assert b"certificate" in done.stderr


# --- imaplib ---


def test_imaplib_deletes_nothing(mail: DeliveredMail) -> None:
    attempts = mail.attempts()
    with mail.loses_nothing(), mail.practice.imap() as client:
        assert client.select("INBOX")[0] == "OK"
        assert client.response("READ-WRITE")[1] == [b""]
        _, [permanent] = client.response("PERMANENTFLAGS")
        assert permanent is not None
        assert b"\\Deleted" not in permanent
        assert b"\\*" in permanent
        status, shown = client.store("1", "+FLAGS.SILENT", "(\\Deleted \\Seen)")
        assert status == "OK"
        assert re.fullmatch(rb"1 \(.*FLAGS \(.*\\Seen.*\).*\)", shown[0]), "shown for .SILENT as well"
        assert b"\\Deleted" not in shown[0]
        status, shown = client.uid("STORE", "1:*", "FLAGS", "(\\Deleted \\Flagged)")
        assert status == "OK"
        assert len(shown) == len(mail.inners)
        assert all(b"\\Flagged" in line and b"\\Deleted" not in line for line in shown)
        assert client.expunge() == ("OK", [None])
        assert client.uid("EXPUNGE", "1:*") == ("OK", [None])
        assert client.search(None, "DELETED") == ("OK", [b""])
        assert client.close()[0] == "OK"
        assert client.select("INBOX") == ("OK", [b"%d" % len(mail.inners)])
        assert b"NOPERM" in _refused(client.copy("1:*", "Trash"))
        assert b"NOPERM" in _refused(client.create("Trash"))
        assert b"NOPERM" in _refused(client.delete("INBOX"))
        assert b"NOPERM" in _refused(client.rename("INBOX", "Old"))
        assert b"NOPERM" in _refused(client.append("INBOX", "", "", b"From: a@b\r\n\r\nx"))
        client.store("1:*", "FLAGS", "()")
    assert mail.attempts() > attempts


def _refused(answer: tuple[str, list[bytes]]) -> bytes:
    assert answer[0] == "NO", answer
    return answer[1][0]


def test_imaplib_is_told_of_new_mail_in_its_session(mail: DeliveredMail) -> None:
    with mail.practice.imap() as client:
        _, [count] = client.select("INBOX")
        uid_next = int(client.response("UIDNEXT")[1][0] or b"0")
        [fresh] = mail.deliver(1)
        wait_for(lambda: client.noop()[0] == "OK" and client.untagged_responses.get("EXISTS"), what="EXISTS")
        assert client.response("EXISTS")[1][-1] == b"%d" % (int(count or b"0") + 1)
        _, answer = client.uid("FETCH", f"{uid_next}:*", "(BODY.PEEK[])")
        assert [item[1] for item in answer if isinstance(item, tuple)] == [fresh]


# --- aioimaplib ---


async def test_aioimaplib_fetches_idles_and_deletes_nothing(mail: DeliveredMail) -> None:
    practice = mail.practice
    known = await asyncio.to_thread(mail.by_uid)
    client = aioimaplib.IMAP4_SSL("localhost", practice.imaps_port, timeout=30, ssl_context=practice.tls())
    await client.wait_hello_from_server()
    assert (await client.login(practice.login, practice.password)).result == "OK"
    assert (await client.select("INBOX")).result == "OK"
    assert await _fetched(client, "1:*") == known

    idle = await client.idle_start(timeout=60)
    [fresh] = await asyncio.to_thread(mail.deliver, 1)
    told: list[bytes] = []
    while not any(line.endswith(b"EXISTS") for line in told):
        told += await client.wait_server_push(timeout=30)
    client.idle_done()
    await asyncio.wait_for(idle, 30)
    later = await _fetched(client, f"{max(known) + 1}:*")
    assert list(later.values()) == [fresh]

    attempts = await asyncio.to_thread(mail.attempts)
    stored = await client.uid("store", "1:*", "+FLAGS (\\Deleted)")
    assert stored.result == "OK"
    assert not any(b"\\Deleted" in line for line in stored.lines)
    assert (await client.expunge()).result == "OK"
    assert (await client.close()).result == "OK"
    await client.logout()
    assert await asyncio.to_thread(mail.by_uid) == known | later
    assert await asyncio.to_thread(mail.attempts) > attempts


async def _fetched(client: aioimaplib.IMAP4_SSL, uids: str) -> dict[int, bytes]:
    answer = await client.uid("fetch", uids, "(UID BODY.PEEK[])")
    assert answer.result == "OK", answer
    found = {}
    for head, content in zip(answer.lines, answer.lines[1:], strict=False):
        uid = re.search(rb"UID (\d+)", head)
        if uid and isinstance(content, bytearray):
            found[int(uid[1])] = bytes(content)
    return found


def test_there_was_something_to_lose(mail: DeliveredMail) -> None:
    assert len(mail.inners) >= MESSAGES
    assert len(set(mail.inners)) == len(mail.inners)
