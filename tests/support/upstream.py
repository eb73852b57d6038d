"""A practice whose mail lies in an upstream mailbox, and the messages that lie there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.dovecot import PASSWORD, USER
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Identity

SENDER = "lab@partner.example"
STACK = CryptographyStack()


def subscribe(practice: Practice, **options: Any) -> Path:
    """Add a ``[[fetch]]`` to the settings; returns the file with the password."""
    secret = practice.directory / f"{options.get('name', 'upstream')}.password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    table: dict[str, Any] = {
        "name": "upstream", "host": "localhost", "username": USER, "ca_file": str(practice.tls_ca),
        "password_file": secret.name, "addresses": practice.addresses, "poll_seconds": 60, **options,
    }  # fmt: skip
    lines = [f"{key} = {_toml(value)}" for key, value in table.items()]
    with practice.config.open("a") as file:
        file.write("\n[[fetch]]\n" + "\n".join(lines) + "\n")
    return secret


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, int) else '"' + str(value).replace("\\", "\\\\") + '"'


def message(practice: Practice, signer: Identity, number: int, *, to: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """The inner message, and the wrapped and encrypted one."""
    recipients = list(to) or practice.addresses
    message_id = f"<{number}@partner.example>"
    inner = inner_message(SENDER, recipients, subject=f"Result {number}", message_id=message_id)
    raw = direct_message(
        STACK, inner, sender=SENDER, recipients=recipients, signer=signer,
        to=[practice.identity(address) for address in recipients], message_id=message_id,
    )  # fmt: skip
    return inner, raw


def status(practice: Practice, name: str = "upstream") -> dict[str, Any]:
    """``fetch status --json`` of one account."""
    import json

    done = practice.run("fetch", "status", "--json", check=False)
    [found] = [row for row in json.loads(done.stdout) if row["account"] == name]
    return dict(found)


def in_state(practice: Practice, *states: str, name: str = "upstream", timeout: float = 20) -> dict[str, Any]:
    """Wait for a state and return the status."""
    seen: list[dict[str, Any]] = []

    def there() -> bool:
        seen[:] = [status(practice, name)]
        return seen[0]["state"] in states

    wait_for(there, timeout=timeout, what=f"one of the states {states}, not {seen}")
    return seen[0]
