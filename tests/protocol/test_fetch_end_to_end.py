"""Fetching through the real daemon from a real Dovecot: verified, filed and visible here, and marked there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dovecot import Dovecot
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority
from tests.support.upstream import SENDER, in_state, message, status, subscribe


@pytest.fixture
def clinic(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    """A practice that is not running yet."""
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    yield made
    made.stop()


@pytest.fixture
def upstream(clinic: Practice) -> Iterator[Dovecot]:
    server = Dovecot.make(clinic)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def shown(practice: Practice, *inner: bytes) -> None:
    """Wait until each of the messages is in the inbox; and then, that each is there once."""
    wait_for(lambda: set(inner) <= set(practice.inbox()), what="the messages in the inbox")
    assert [practice.inbox().count(one) for one in inner] == [1] * len(inner)


@pytest.mark.parametrize(
    ("port", "options"),
    [("imaps", {}), ("imap", {"tls": "starttls"}), ("imaps", {"idle": False, "poll_seconds": 1})],
    ids=["implicit-idle", "starttls-idle", "polling"],
)
def test_a_message_is_fetched_verified_filed_and_marked(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority, port: str, options: dict[str, object]
) -> None:
    signer = partner_ca.issue(address=SENDER)
    before, later = message(clinic, signer, 1), message(clinic, signer, 2)
    subscribe(clinic, port=getattr(upstream, port), **options)
    upstream.put(before[1])
    clinic.start()
    shown(clinic, before[0])
    wait_for(lambda: not upstream.unseen(), what="\\Seen upstream")

    in_state(clinic, "listening", "waiting")
    begun = time.monotonic()
    upstream.put(later[1])
    wait_for(lambda: len(clinic.inbox()) == 2, what="the second message")
    assert time.monotonic() - begun < 5
    shown(clinic, before[0], later[0])
    [first, _] = sorted(clinic.settled(2), key=lambda found: found["received_at"])
    assert first["claimed_sender"] == ""
    found = in_state(clinic, "listening", "waiting")
    assert (found["taken"], found["error"], found["set_aside"]) == (2, "", [])
    log = clinic.log.read_text()
    assert "Result" not in log
    assert SENDER not in log
    assert clinic.addresses[0] not in log


@pytest.mark.slow
def test_new_mail_is_here_within_a_second_under_idle(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority
) -> None:
    signer = partner_ca.issue(address=SENDER)
    messages = [message(clinic, signer, number) for number in range(4)]
    subscribe(clinic, port=upstream.imaps)
    clinic.start()
    in_state(clinic, "listening")
    took = []
    with clinic.imap() as client:
        for count, (_, raw) in enumerate(messages, 1):
            upstream.put(raw)
            begun = time.monotonic()
            wait_for(lambda: client.select("INBOX")[1] == [b"%d" % count], what="the message")  # noqa: B023
            took.append(time.monotonic() - begun)
            in_state(clinic, "listening")
    assert sorted(took)[1] < 1.0, took


def test_fetch_now_asks_the_daemon_and_waits(clinic: Practice, upstream: Dovecot, partner_ca: Authority) -> None:
    """S19: the Send/Receive button."""
    inner, raw = message(clinic, partner_ca.issue(address=SENDER), 1)
    subscribe(clinic, port=upstream.imaps, idle=False, poll_seconds=3600)
    clinic.start()
    in_state(clinic, "waiting")
    assert clinic.json("fetch", "now") == [{"account": "upstream", "new": 0, "error": "", "done": True}]
    upstream.put(raw)
    done = clinic.run("fetch", "now", "upstream")
    assert b"checked" in done.stdout
    assert b", 1 new" in done.stdout
    shown(clinic, inner)


@pytest.mark.slow
def test_fetch_now_without_a_daemon_fetches_by_itself(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority
) -> None:
    signer = partner_ca.issue(address=SENDER)
    inner, raw = message(clinic, signer, 1)
    subscribe(clinic, port=upstream.imaps)
    clinic.start()
    in_state(clinic, "listening")
    clinic.stop()
    upstream.put(raw)
    assert status(clinic)["state"] == "not running"
    assert clinic.json("fetch", "now")[0]["new"] == 1
    assert upstream.unseen() == []
    assert clinic.messages()[0]["state"] == "received"
    clinic.start()
    shown(clinic, inner)


@pytest.mark.slow
def test_a_changed_uidvalidity_reads_again_without_duplicates(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority
) -> None:
    signer = partner_ca.issue(address=SENDER)
    messages = [message(clinic, signer, number) for number in range(4)]
    subscribe(clinic, port=upstream.imaps, poll_seconds=1)
    upstream.put(*(raw for _, raw in messages[:3]))
    clinic.start()
    shown(clinic, *(inner for inner, _ in messages[:3]))
    wait_for(lambda: not upstream.unseen(), what="\\Seen upstream")
    upstream.stop()
    time.sleep(1.1)  # Dovecot makes UIDVALIDITY out of the time
    upstream.new_uid_validity()
    upstream.start()
    upstream.put(messages[3][1])
    shown(clinic, *(inner for inner, _ in messages))
    wait_for(lambda: status(clinic)["taken"] == 7, what="all of it seen again under new ids")
    assert len(clinic.messages()) == 4
    assert len(clinic.inbox()) == 4


@pytest.mark.slow
def test_the_server_restarts_while_it_is_listened_to(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority
) -> None:
    inner, raw = message(clinic, partner_ca.issue(address=SENDER), 1)
    subscribe(clinic, port=upstream.imaps)
    clinic.start()
    in_state(clinic, "listening")
    upstream.stop()
    found = in_state(clinic, "retrying")
    assert "cannot connect" in found["error"] or "ended the connection" in found["error"]
    upstream.start()
    upstream.put(raw)
    shown(clinic, inner)
    assert in_state(clinic, "listening")["error"] == ""


@pytest.mark.slow
def test_a_wrong_password_is_not_hammered_and_mended_at_once(clinic: Practice, upstream: Dovecot) -> None:
    secret = subscribe(clinic, port=upstream.imaps, poll_seconds=1)
    secret.write_text("wrong canary-secret\n")
    clinic.start()
    found = in_state(clinic, "login-refused")
    assert "password_file" in found["error"]
    time.sleep(4)
    assert (upstream.folder / "log").read_text().count("auth failed") == 1
    health = clinic.run("health", check=False)
    assert b"degraded" in health.stdout
    assert b"refuses the login" in health.stdout
    assert clinic.run("health", "--ready", check=False).returncode == 0
    assert clinic.run("fetch", "now", check=False).returncode == 1
    assert (upstream.folder / "log").read_text().count("auth failed") == 2
    secret.write_text(upstream.password + "\n")
    in_state(clinic, "listening")
    everything = clinic.log.read_text() + json.dumps(status(clinic))
    assert "canary-secret" not in everything
    assert upstream.password not in everything


def test_an_untrusted_or_wrong_certificate_gets_no_password(clinic: Practice, upstream: Dovecot) -> None:
    subscribe(clinic, name="by-number", host="127.0.0.2", port=upstream.imaps)
    subscribe(clinic, name="by-system", port=upstream.imaps, ca_file="", mailbox="Other")
    listening = upstream.folder / "dovecot.conf"
    listening.write_text(listening.read_text().replace("listen = 127.0.0.1", "listen = 127.0.0.1, 127.0.0.2"))
    upstream.stop()
    upstream.start()
    clinic.start()
    for name in ("by-number", "by-system"):
        assert "certificate" in in_state(clinic, "retrying", name=name)["error"]
    after_start = (upstream.folder / "log").read_text().rpartition("starting up")[2]
    # The session that waits for Dovecot's start logs in once; nobody else does.
    assert after_start.count("imap-login: Info: Login") == 1


@pytest.mark.parametrize(
    ("after", "elsewhere"),
    [("flag:$Fetched", ""), ("move:Fetched", "Fetched")],
)
def test_other_marks_than_seen(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority, after: str, elsewhere: str
) -> None:
    signer = partner_ca.issue(address=SENDER)
    messages = [message(clinic, signer, number) for number in range(2)]
    subscribe(clinic, port=upstream.imaps, after=after)
    upstream.put(*(raw for _, raw in messages))
    clinic.start()
    shown(clinic, *(inner for inner, _ in messages))
    in_state(clinic, "listening")
    flags = upstream.flags()
    assert len(flags) == (0 if elsewhere else 2)
    assert all("$Fetched" in found and "Seen" not in found for found in flags.values())
    if elsewhere:
        with upstream.session() as client:
            assert client.select(f'"{elsewhere}"')[1] == [b"2"]


@pytest.mark.slow
def test_a_message_read_in_the_webmail_first_is_fetched_all_the_same(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority
) -> None:
    signer = partner_ca.issue(address=SENDER)
    old, first, read = (message(clinic, signer, number) for number in range(3))
    upstream.put(old[1], flags="\\Seen")
    subscribe(clinic, port=upstream.imaps)
    upstream.put(first[1])
    clinic.start()
    shown(clinic, first[0])
    upstream.put(read[1], flags="\\Seen")
    shown(clinic, first[0], read[0])
    assert old[0] not in clinic.inbox(), "what was read before we came is not ours to fetch"


@pytest.mark.slow
def test_pop3_leaves_or_deletes(clinic: Practice, upstream: Dovecot, partner_ca: Authority) -> None:
    signer = partner_ca.issue(address=SENDER)
    messages = [message(clinic, signer, number) for number in range(3)]
    subscribe(clinic, protocol="pop3", tls="starttls", port=upstream.pop3, poll_seconds=1)
    upstream.put(*(raw for _, raw in messages[:2]))
    clinic.start()
    shown(clinic, *(inner for inner, _ in messages[:2]))
    time.sleep(2.5)
    assert len(upstream.flags()) == 2
    clinic.stop()
    text = clinic.config.read_text().replace('tls = "starttls"', 'tls = "implicit"\nafter = "delete"')
    clinic.config.write_text(text.replace(f"port = {upstream.pop3}\n", f"port = {upstream.pop3s}\n"))
    upstream.put(messages[2][1])
    clinic.start()
    shown(clinic, *(inner for inner, _ in messages))
    wait_for(lambda: len(upstream.flags()) == 2, what="the deletion of what was taken under the new rule")
    assert len(clinic.messages()) == 3


@pytest.mark.slow
def test_five_hundred_messages_with_poison_in_the_middle(
    clinic: Practice, upstream: Dovecot, partner_ca: Authority
) -> None:
    signer = partner_ca.issue(address=SENDER)
    inner, raw = message(clinic, signer, 0)
    plain = [b"From: x@y.example\r\nSubject: no secret\r\nX-Number: %d\r\n\r\nhello\r\n" % n for n in range(500)]
    poison = b"Subject: large\r\n\r\n" + b"x" * 78 + b"\r\n" + (b"x" * 78 + b"\r\n") * 14_000
    with upstream.session() as client:
        for one in [*plain[:250], poison, *plain[250:], raw]:
            client.append("INBOX", "", None, one)
    subscribe(clinic, port=upstream.imaps, max_message_mib=1)
    clinic.start()
    wait_for(lambda: inner in clinic.inbox(), timeout=60, what="the last message")
    found = in_state(clinic, "listening")
    assert found["taken"] == 501
    assert [(one["uid"], one["reason"]) for one in found["set_aside"]] == [("251", "too-large")]
    assert upstream.unseen() == [b"251"]
    shown_status = clinic.run("fetch", "status", check=False)
    assert shown_status.returncode == 1
    assert b"251 was set aside" in shown_status.stderr

    clinic.stop()
    clinic.config.write_text(clinic.config.read_text().replace("max_message_mib = 1\n", "max_message_mib = 2\n"))
    clinic.start()
    in_state(clinic, "listening")
    assert clinic.json("fetch", "retry", "upstream", "251") == {"account": "upstream", "uids": ["251"]}
    assert clinic.json("fetch", "now")[0]["new"] == 1
    assert status(clinic)["set_aside"] == []
    assert upstream.unseen() == []


def test_our_own_imap_server_serves_as_upstream(clinic: Practice, partner_ca: Authority, tmp_path: Path) -> None:
    """Always there, whatever is installed. What lies in it is decrypted already, so here it ends in the quarantine."""
    other = Practice.make(tmp_path / "other", domain="hisp.example")
    other.trust(partner_ca.pem)
    secret = subscribe(
        clinic, port=other.imaps_port, username=other.login, ca_file=str(other.tls_ca), addresses=clinic.addresses
    )
    secret.write_text(other.password)
    other.start()
    try:
        inner, raw = message(other, partner_ca.issue(address=SENDER), 1)
        assert other.send(raw, SENDER, other.addresses)[0] == 250
        shown(other, inner)
        clinic.start()
        found = in_state(clinic, "listening")
        assert (found["taken"], found["error"]) == (1, "")
        assert clinic.settled(1)[0]["state"] == "refused"
        with other.imap() as client:
            client.select("INBOX", readonly=True)
            assert client.search(None, "UNSEEN")[1] == [b""]
    finally:
        other.stop()
