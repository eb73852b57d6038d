"""The settings of upstream mailboxes, and the rules of fetching."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError
from gateway.core.fetching import refused_delay, retry_delay
from gateway.settings import Settings, from_document, load

GOOD = {
    "name": "upstream",
    "host": "imap.hisp.example",
    "username": "clinic",
    "password_file": "secret",
    "addresses": ["Front-Desk@direct.clinic.example"],
}


def built(*tables: dict[str, Any]) -> Settings:
    practice = {"domains": ["direct.clinic.example"], "addresses": ["front-desk@direct.clinic.example"]}
    return from_document({"practice": practice, "fetch": [*tables]}, Path("/etc/gateway"))


def test_what_is_left_out_is_filled_in() -> None:
    [account] = built(GOOD).fetch
    assert (account.port, account.after, account.mailbox, account.poll_seconds) == (993, "seen", "INBOX", 120)
    assert account.addresses == ("front-desk@direct.clinic.example",)
    assert account.secret_file == Path("/etc/gateway/secret")
    ports = {
        built({**GOOD, "protocol": protocol, "tls": tls}).fetch[0].port
        for protocol in ("imap", "pop3")
        for tls in ("implicit", "starttls")
    }
    assert ports == {993, 143, 995, 110}
    assert built({**GOOD, "protocol": "pop3"}).fetch[0].after == "leave"
    assert built({**GOOD, "after": "flag:\\flagged"}).fetch[0].after == "flag:\\Flagged"
    assert from_document({}, Path()).fetch == ()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "name must be"),
        ({"name": "someone@clinic.example"}, "name must be"),
        ({"host": ""}, "host must be set"),
        ({"host": "a b"}, "one name"),
        ({"username": "a\r\nb"}, "username must be set"),
        ({"password_file": ""}, "password_file or oauth_token_file"),
        ({"oauth_token_file": "token"}, "not both"),
        ({"tls": "none"}, "in the clear"),
        ({"tls": "none", "host": "10.0.0.1"}, "in the clear"),
        ({"tls": "off"}, "must be one of"),
        ({"protocol": "smtp"}, "must be one of imap, pop3"),
        ({"protocol": "pop3", "mailbox": "Other"}, "INBOX only"),
        ({"protocol": "pop3", "after": "seen"}, '"leave" or "delete"'),
        ({"after": "delete"}, '"seen", "flag:NAME"'),
        ({"after": "move:"}, '"seen", "flag:NAME"'),
        ({"after": "flag:\\Deleted"}, "a flag is"),
        ({"after": "flag:two words"}, "a flag is"),
        ({"addresses": []}, "addresses is empty"),
        ({"addresses": ["x@other.example"]}, "not in practice.domains"),
        ({"addresses": ["x@direct.clinic.example"]}, "no inbox here"),
        ({"poll_seconds": 0}, "between 1"),
        ({"max_message_mib": 100_000}, "between 1"),
        ({"pasword": "x"}, "did you mean password_file"),
        ({"password": "hunter2"}, "unknown key fetch.password"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[\[fetch\]\]") as caught:
        built({**GOOD, **change})
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_no_tls_is_for_this_machine_only(host: str) -> None:
    assert built({**GOOD, "tls": "none", "host": host}).fetch[0].tls == "none"


def test_names_and_mailboxes_are_used_once() -> None:
    with pytest.raises(ConfigurationError, match="two"):
        built(GOOD, {**GOOD, "host": "other.example"})
    with pytest.raises(ConfigurationError, match="same mailbox"):
        built(GOOD, {**GOOD, "name": "again", "host": "IMAP.hisp.example", "port": 993})
    assert len(built(GOOD, {**GOOD, "name": "again", "mailbox": "Other"}).fetch) == 2


def test_a_single_table_and_the_environment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="array of tables"):
        from_document({"fetch": GOOD}, tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean fetch"):
        from_document({"fetsh": []}, tmp_path)
    (tmp_path / "gateway.toml").write_text("")
    with pytest.raises(ConfigurationError, match="from the environment"):
        load(tmp_path / "gateway.toml", {"DIRECTGW__FETCH__NAME": "x"})


def test_the_commented_block_of_the_template_works_when_the_comments_are_taken_away(tmp_path: Path) -> None:
    from gateway.cli.config_template import EXAMPLE_OVERRIDES, render

    text = render(EXAMPLE_OVERRIDES)
    head, _, rest = text.partition("# [[fetch]]\n")
    block = rest.partition("\n\n")[0]
    lines = [line.removeprefix("# ") for line in block.splitlines() if not line.startswith("#   ")]
    settings = from_document(tomllib.loads(head + "[[fetch]]\n" + "\n".join(lines)), tmp_path)
    assert [account.name for account in settings.fetch] == ["upstream"]


def test_a_server_is_asked_ever_more_rarely() -> None:
    delays = [retry_delay(failures) for failures in range(1, 200)]
    assert delays[:4] == [2, 4, 8, 16]
    assert delays == sorted(delays)
    assert delays[-1] == 900
    assert [refused_delay(refusals) for refusals in (1, 2, 3, 4, 400)] == [300, 1800, 3600, 3600, 3600]
