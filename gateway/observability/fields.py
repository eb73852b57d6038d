"""The allow-list: which fields a log line may have, and what each may look like.

An allow-list and not a list of forbidden words, because PHI has no pattern: a name is a word like any other. A
field stands here only when its value is made by the gateway (an id, a count, a reason out of an enumeration, a
duration) or is a network address. There is no field for a mail address, a subject, a file name, a host name that
a client gave, a patient, a login or a free text, and there must never be one.

Guarantees: :func:`clean` lets nothing else through. A name that is not listed raises in tests and is dropped in
production, where the line says how many fields were dropped. A value that does not look as it should is
replaced by ``withheld`` in both: that depends on the data, and a log line must never stop the mail.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import Enum

Value = str | int | float | bool | None
WITHHELD = "withheld"
_NO_AT_NO_SPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,127}\Z")
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,63}\Z")
_LOCATIONS = re.compile(r"[A-Za-z0-9_./<>:, -]{1,2000}\Z")


class UnknownFieldError(Exception):
    """A log call names a field that is not on the allow-list: a mistake in the program, caught by its tests."""


def _number(value: object) -> Value:
    if value is None or isinstance(value, bool | int):
        return value
    return round(value, 3) if isinstance(value, float) else WITHHELD


def _matching(pattern: re.Pattern[str]) -> Callable[[object], Value]:
    def check(value: object) -> Value:
        if value is None or isinstance(value, bool):
            return value
        text = str(value.value) if isinstance(value, Enum) else str(value)
        return text if pattern.match(text) else WITHHELD

    return check


def _network_address(value: object) -> Value:
    """Only the address: what may follow it (a port, the name of a HELO) is dropped."""
    if not isinstance(value, str):
        return WITHHELD
    first = value.partition(" ")[0]
    bracketed = first.startswith("[")
    host = first[1:].partition("]")[0] if bracketed else first
    for candidate in (host, host.rpartition(":")[0]):
        try:
            return str(ipaddress.ip_address(candidate.partition("%")[0]))
        except ValueError:
            continue
    return WITHHELD


_token = _matching(_NO_AT_NO_SPACE)
_word = _matching(_WORD)

_NUMBERS = """
    account_id anchors attempt attempts backlog bytes commits connections count delay_seconds dropped duration_ms
    duration_seconds exit_code folders grace_seconds identities job_id jobs lag_ms lease_seconds limit links mailbox_id
    mailboxes messages modseq parts patients pid port queue recipients retry_seconds rows sessions size_bytes tls_port
    total uid uids units workers
"""
_TOKENS = """
    account algorithm bundle cipher fingerprint importer kek_id link_id message_id serial session_id sha256 tls_version
    version
"""
_WORDS = """
    action check client code command component from_state job kind listener mode outcome phase protocol reason result
    rule setting signal source state status step to_state verdict
"""

ALLOWED: Mapping[str, Callable[[object], Value]] = {
    **dict.fromkeys(_NUMBERS.split(), _number),
    **dict.fromkeys(_TOKENS.split(), _token),
    **dict.fromkeys(_WORDS.split(), _word),
    "peer": _network_address,
    "host": _network_address,
    # Written by log.py only: the class of an exception and the places in the program it went through.
    "exception": _matching(_LOCATIONS),
    "where": _matching(_LOCATIONS),
    "logger": _token,
}


def clean(fields: Mapping[str, object], *, strict: bool) -> dict[str, Value]:
    """Return what may be written.

    Raises:
        UnknownFieldError: a field is not on the list, and ``strict``.
    """
    kept: dict[str, Value] = {}
    dropped = 0
    for name, value in fields.items():
        check = ALLOWED.get(name)
        if check is None:
            if strict:
                raise UnknownFieldError(f"{name!r} is not on the allow-list of gateway.observability.fields")
            dropped += 1
            continue
        kept[name] = check(value)
    if dropped:
        kept["dropped"] = dropped
    return kept
