"""F40: each key of the settings made wrong in turn: no port opens, the exit status is 2, and the text names the key."""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from gateway.settings import Settings, load
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority

SENDER = "lab@partner.example"
WRONG: dict[type, object] = {int: '"many"', str: "7", bool: '"perhaps"', list: "7"}


def keys(document: dict[str, object]) -> list[tuple[str, str, object]]:
    return [
        (section, key, value)
        for section, table in document.items()
        if isinstance(table, dict)
        for key, value in table.items()
    ]


def test_f40_every_wrong_key_is_named(tmp_path: Path, report: Callable[[str], None]) -> None:
    practice = Practice.make(tmp_path / "practice")
    text = practice.config.read_text()
    document = tomllib.loads(text)
    found = keys(document)
    assert {section for section, _, _ in found} <= {one.name for one in fields(Settings)}
    tried, unnamed = 0, []
    for section, key, value in found:
        lines, within = [], ""
        for line in text.splitlines():
            within = line.strip("[]") if line.startswith("[") else within
            wrong = WRONG[type(value)]
            lines.append(f"{key} = {wrong}" if within == section and line.startswith(f"{key} =") else line)
        bad = tmp_path / "bad.toml"
        bad.write_text("\n".join(lines))
        tried += 1
        try:
            load(bad, {})
            unnamed.append(f"{section}.{key}")
        except ConfigurationError as exc:
            if key not in str(exc):
                unnamed.append(f"{section}.{key}: {exc}")
    report(f"F40: points={tried} not-named={len(unnamed)}")
    assert tried > 50
    assert unnamed == []


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    [
        ("port", "prot = 25", "prot"),
        ("certificate_file", 'certificate_file = "gone.pem"', "gone.pem"),
        pytest.param("identities_dir", 'identities_dir = "nowhere"', "nowhere", marks=pytest.mark.slow),
        pytest.param("spool_dir", 'spool_dir = "gateway.toml"', "smtp.spool_dir", marks=pytest.mark.slow),
    ],
)
def test_f40_no_port_opens(tmp_path: Path, line: str, instead: str, named: str) -> None:
    practice = Practice.make(tmp_path / "practice")
    lines = practice.config.read_text().splitlines()
    place = next(number for number, one in enumerate(lines) if one.startswith(f"{line} ="))
    lines[place] = instead
    practice.config.write_text("\n".join(lines) + "\n")
    done = practice.run("serve", check=False)
    assert done.returncode == 2, done
    assert named in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert b"smtp_listening" not in done.stderr


def test_f40_a_reload_of_something_wrong_keeps_what_was(
    practice: Practice, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    """A key that cannot be read: mail is judged by the keys and anchors that were in force, and the log says so."""
    place = next((practice.directory / "certs" / "identities").glob("*.key.pem"))
    good, us, signer = place.read_bytes(), practice.identity(), partner_ca.issue(address=SENDER)
    place.write_bytes(b"-----BEGIN PRIVATE KEY-----\nnonsense\n")
    assert practice.process is not None
    states = []
    for number, told in enumerate(("trust_reload_failed", "trust_reloaded")):
        practice.process.send_signal(signal.SIGHUP)
        wait_for(lambda told=told: told in practice.log.read_text(), what=told)  # type: ignore[misc]
        assert practice.process.poll() is None
        inner = inner_message(SENDER, practice.addresses, message_id=f"<{number}@partner.example>")
        raw = direct_message(
            CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses, signer=signer, to=[us],
            message_id=f"<{number}@partner.example>",
        )  # fmt: skip
        assert practice.send(raw, SENDER, practice.addresses)[0] == 250
        states.append(practice.settled(number + 1)[0]["state"])
        place.write_bytes(good)
    report(f"F40 (reload): points=1 lost={states.count('refused')} duplicated=0")
    assert states == ["filed", "filed"]
