"""Sessions, app passwords, disabled logins and tokens through the real daemon, on one node and on two."""

from __future__ import annotations

import base64
import imaplib
import json
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.idling import Idling
from tests.support.pki import Authority
from tests.support.tokens import AUDIENCE, ISSUER, key_of, key_set, public_jwk, token

pytestmark = pytest.mark.timeout(240)
SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()
END_SECONDS = 15.0
"""The promise is about two seconds, which a machine that does much else besides does not keep."""
ENDED = b"* BYE The session was ended by an operator"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[Practice]:
    folder = tmp_path_factory.mktemp("clinic")
    made = Practice.make(folder / "practice")
    made.trust(partner_ca.pem)
    keys = folder / "keys.json"
    keys.write_bytes(key_set(public_jwk(key_of("ES256"), "ES256")))
    made.set("oauth", issuer=ISSUER, audience=AUDIENCE, jwks_file=str(keys))
    made.set("imap", max_sessions_per_account=3, failed_login_delay_seconds=0)
    made.start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def quiet(clinic: Practice) -> Practice:
    """Nobody is logged in."""
    wait_for(lambda: not count(clinic), what="the end of the sessions of before")
    return clinic


def count(practice: Practice) -> int:
    """Rows of sessions in the file, which is quicker asked than the command."""
    path = practice.directory / "data" / "gateway.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM client_session").fetchone()[0])


def sessions(practice: Practice) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = practice.json("session", "list")
    return found


def actions(practice: Practice, *wanted: str) -> list[dict[str, Any]]:
    """Events of those names, the oldest first."""
    events = practice.json("audit", "list", "--limit", "500")
    return [event for event in reversed(events) if event["action"] in wanted]


@contextmanager
def connected(practice: Practice) -> Iterator[imaplib.IMAP4_SSL]:
    """A connection before the login."""
    client = imaplib.IMAP4_SSL("localhost", practice.imaps_port, ssl_context=practice.tls(), timeout=30)
    try:
        yield client
    finally:
        with suppress(OSError):
            client.shutdown()


def refused(practice: Practice, login: str, password: str) -> str:
    """What the server says to a login that it refuses."""
    with connected(practice) as client, pytest.raises(imaplib.IMAP4.error) as caught:
        client.login(login, password)
    return str(caught.value)


def test_a_session_is_listed_and_ended_while_it_idles(quiet: Practice) -> None:
    with Idling(quiet) as idle:
        [one] = sessions(quiet)
        expected = {"user": quiet.login, "protocol": "imap", "peer": "127.0.0.1", "method": "password", "state": "open"}
        assert expected.items() <= one.items()
        assert quiet.json("user", "list")[0]["sessions"] == 1
        quiet.run("session", "end", one["id"], "--reason", "lost telephone")
        assert idle.wait_for(b"BYE", timeout=END_SECONDS).rstrip() == ENDED
    wait_for(lambda: not count(quiet), what="the end of its row")
    asked = actions(quiet, "session.end_asked")[-1]
    assert asked["detail"] == {"account": 1, "reason": "lost telephone", "session": one["id"]}
    assert asked["actor"].startswith("cli:")
    assert quiet.run("session", "end", one["id"], check=False).returncode == 1
    assert quiet.run("session", "end", check=False).returncode == 2
    assert quiet.run("session", "end", one["id"], "--user", quiet.login, check=False).returncode == 2
    assert b"lost telephone" not in quiet.log.read_bytes()


def test_a_session_ends_that_waits_for_a_command(quiet: Practice) -> None:
    with connected(quiet) as client:
        client.login(quiet.login, quiet.password)
        quiet.run("session", "end", "--user", quiet.login.upper())
        client.sock.settimeout(END_SECONDS)
        assert client.readline().rstrip() == ENDED
        assert client.readline() == b""


def test_a_session_ends_in_the_middle_of_an_answer_that_nobody_reads(quiet: Practice, partner_ca: Authority) -> None:
    inner = inner_message(SENDER, quiet.addresses, attachment=b"x" * 4_000_000)
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=quiet.addresses, signer=partner_ca.issue(address=SENDER),
        to=[quiet.identity()],
    )  # fmt: skip
    assert quiet.send(raw, SENDER, quiet.addresses)[0] == 250
    quiet.settled(1)
    with connected(quiet) as client:
        client.login(quiet.login, quiet.password)
        client.select("INBOX")
        for number in range(20):
            client.send(b"f%d FETCH 1 BODY.PEEK[]\r\n" % number)
        time.sleep(1)
        [one] = sessions(quiet)
        quiet.run("session", "end", one["id"])
        wait_for(lambda: not count(quiet), timeout=END_SECONDS, what="the end of the session")
        got = b""
        with suppress(OSError, ssl.SSLError):
            while part := client.sock.recv(1 << 20):
                got += part
        # The answer is broken off: nothing was put into the middle of a message.
        assert len(got) < 20 * len(inner)
        assert ENDED not in got
    quiet.run("audit", "verify")


def test_a_disabled_login_is_out_and_stays_out(quiet: Practice) -> None:
    wrong = refused(quiet, quiet.login, "a wrong password")
    with Idling(quiet) as idle:
        quiet.run("user", "disable", quiet.login, "--reason", "left the practice")
        assert idle.wait_for(b"BYE", timeout=END_SECONDS).rstrip() == ENDED
    try:
        assert refused(quiet, quiet.login, quiet.password) == wrong
        [user] = quiet.json("user", "list")
        assert (user["enabled"], user["disabled_reason"]) == (False, "left the practice")
        assert quiet.run("user", "disable", quiet.login, "--reason", "again", check=False).returncode == 1
    finally:
        quiet.run("user", "enable", quiet.login)
    with quiet.imap():
        pass
    found = [event["action"] for event in actions(quiet, "account.disabled", "account.enabled")]
    assert found == ["account.disabled", "account.enabled"]


def test_an_app_password_is_one_way_in_and_can_be_taken_away_alone(quiet: Practice) -> None:
    made = quiet.json("user", "app-password", "add", quiet.login, "--name", "Outlook in room 2")
    with Idling(quiet) as own, connected(quiet) as app:
        app.login(quiet.login, made["password"])
        assert {one["method"]: one["app_password"] for one in sessions(quiet)} == {"password": None, "app-password": 1}
        [listed] = quiet.json("user", "app-password", "list", quiet.login)
        assert listed["name"] == "Outlook in room 2"
        assert listed["used_at"]
        quiet.run("user", "app-password", "revoke", quiet.login, "outlook in room 2")
        app.sock.settimeout(END_SECONDS)
        assert app.readline().rstrip() == ENDED
        assert refused(quiet, quiet.login, made["password"])
        wait_for(lambda: count(quiet) == 1, what="one session")
        quiet.run("user", "password", quiet.login, "--keep-sessions", "--password-file", str(password_file(quiet)))
        assert [one["state"] for one in sessions(quiet)] == ["open"]
        quiet.run("user", "password", quiet.login, "--password-file", str(password_file(quiet)))
        assert own.wait_for(b"BYE", timeout=END_SECONDS).rstrip() == ENDED
    for kept in (quiet.log, quiet.directory / "data" / "gateway.db"):
        assert made["password"].encode() not in kept.read_bytes()


def password_file(practice: Practice) -> Path:
    path = practice.directory / "login-password"
    path.write_text(practice.password)
    return path


def test_an_account_has_so_many_sessions(quiet: Practice) -> None:
    with Idling(quiet), Idling(quiet), Idling(quiet):
        assert "[LIMIT]" in refused(quiet, quiet.login, quiet.password)
        assert "[AUTHENTICATIONFAILED]" in refused(quiet, quiet.login, "a wrong password")
        assert len(sessions(quiet)) == 3
    wait_for(lambda: not count(quiet), what="their end")
    with quiet.imap():
        pass
    assert len(actions(quiet, "login.limited")) == 1


def bearer(given: str, login: str = "") -> bytes:
    text = f"n,{'a=' + login if login else ''},\1host=localhost\1port=993\1auth=Bearer {given}\1\1"
    return base64.b64encode(text.encode())


def test_a_token_of_the_authority_logs_in(quiet: Practice) -> None:
    with connected(quiet) as client:
        assert "AUTH=OAUTHBEARER" in client.capabilities
        assert "XOAUTH2" not in str(client.capabilities)
        client.send(b"t AUTHENTICATE OAUTHBEARER " + bearer(token(quiet.login, "ES256"), quiet.login) + b"\r\n")
        assert client.readline().startswith(b"t OK ")
        assert [one["method"] for one in sessions(quiet)] == ["token"]
    with connected(quiet) as client:
        client.send(b"t AUTHENTICATE OAUTHBEARER\r\n")
        assert client.readline() == b"+ \r\n"
        client.send(bearer(token(quiet.login, "ES256")) + b"\r\n")
        assert client.readline().startswith(b"t OK ")


def test_a_token_that_is_none_gets_the_challenge_and_then_no(quiet: Practice) -> None:
    wrong = [
        bearer(token(quiet.login, "ES256", aud="another"), quiet.login),
        bearer(token("nobody", "ES256")),
        bearer(token(quiet.login, "ES256"), "nobody"),
    ]
    for response in wrong:
        with connected(quiet) as client:
            client.send(b"t AUTHENTICATE OAUTHBEARER " + response + b"\r\n")
            challenge = client.readline()
            assert challenge.startswith(b"+ ")
            assert json.loads(base64.b64decode(challenge[2:])) == {"status": "invalid_token", "schemes": "bearer"}
            client.send(b"AQ==\r\n")
            assert client.readline() == b"t NO [AUTHENTICATIONFAILED] Wrong login or password\r\n"
            assert client.login(quiet.login, quiet.password)[0] == "OK"
            client.logout()
    reasons = [e["detail"].get("reason") for e in actions(quiet, "login.failed") if e["detail"]["method"] == "token"]
    assert reasons[-3:] == ["audience", "unknown_login", "other_login"]
    with connected(quiet) as client:
        client.send(b"x AUTHENTICATE XOAUTH2 " + bearer(token(quiet.login, "ES256")) + b"\r\n")
        assert client.readline().startswith(b"x NO ")
        client.send(b"y AUTHENTICATE OAUTHBEARER rubbish\r\n")
        assert client.readline().startswith(b"y BAD ")


def test_no_token_and_no_own_password_where_the_settings_say_so(tmp_path: Path, partner_ca: Authority) -> None:
    """A crash leaves the rows of its sessions: they are shown as such, and the next start removes them."""
    practice = Practice.make(tmp_path / "strict")
    practice.trust(partner_ca.pem)
    practice.set("accounts", imap_password="app_only")
    practice.start()
    try:
        made = practice.json("user", "app-password", "add", practice.login, "--name", "telephone")
        with connected(practice) as client:
            assert "AUTH=OAUTHBEARER" not in client.capabilities
            client.send(b"t AUTHENTICATE OAUTHBEARER " + bearer(token(practice.login, "ES256")) + b"\r\n")
            assert client.readline().startswith(b"t NO ")
        assert "[AUTHENTICATIONFAILED]" in refused(practice, practice.login, practice.password)
        with connected(practice) as client:
            client.login(practice.login, made["password"])
            practice.kill()
            assert [one["state"] for one in sessions(practice)] == ["node not heard of"]
        practice.start()
        wait_for(lambda: not count(practice), what="the removal of the row")
    finally:
        practice.stop()


@pytest.mark.slow
def test_a_session_of_another_node_is_ended(two: list[Practice]) -> None:
    first, second = two
    with Idling(second) as there, Idling(first) as here:
        assert {one["node"]: one["state"] for one in sessions(first)} == {"n1": "open", "n2": "open"}
        [theirs] = [one["id"] for one in sessions(first) if one["node"] == "n2"]
        first.run("session", "end", theirs)
        assert there.wait_for(b"BYE", timeout=END_SECONDS).rstrip() == ENDED
        wait_for(lambda: [one["node"] for one in sessions(first)] == ["n1"], what="one session")
        # What one node decides, both keep to.
        second.run("user", "disable", first.login, "--reason", "left the practice")
        assert here.wait_for(b"BYE", timeout=END_SECONDS).rstrip() == ENDED
    for node in two:
        assert "[AUTHENTICATIONFAILED]" in refused(node, node.login, node.password)
    first.run("user", "enable", first.login)
    wait_for(lambda: not sessions(second), what="the end of the sessions")


@pytest.mark.slow
def test_the_sessions_of_a_node_that_died_are_shown_as_such(two: list[Practice]) -> None:
    first, second = two
    with connected(second) as client:
        client.login(second.login, second.password)
        second.kill()
        wait_for(
            lambda: [one["state"] for one in sessions(first)] == ["node not heard of"], what="the silence of the node"
        )
        [one] = sessions(first)
        told = first.run("session", "end", one["id"]).stderr
        assert b"node n2 does not run" in told
    second.start()
    wait_for(lambda: not sessions(first), what="the removal of the row")
    first.run("audit", "verify")
