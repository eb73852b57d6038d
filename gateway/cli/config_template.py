"""The commented configuration file, made from the settings themselves.

``init`` writes it for a new practice and ``config/gateway.toml`` is the same text with the defaults; a test keeps
the two and ``gateway/settings.py`` in step, so that no key is without a sentence and no sentence without a key.
Run ``python -m gateway.cli.config_template > config/gateway.toml`` after a change of the settings.

Only values that TOML and the settings share are written: strings, whole numbers, booleans and lists of strings.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from gateway.settings import Settings

Overrides = Mapping[tuple[str, str], Any]
"""Values by (section, key) that differ from the defaults."""

HEADER = """\
# direct-gateway: the settings of one gateway. This is TOML.
#
# A relative path begins at the folder of this file. A misspelt key is an error that names the nearest known key.
# DIRECTGW__SECTION__KEY=value in the environment overrides a key: DIRECTGW__SMTP__PORT=25.
# Check the file without touching anything:   direct-gateway config check --config FILE
"""

SECTIONS: dict[str, str] = {
    "practice": "Who we are. Mail is accepted for these domains and addresses, and for no other.",
    "store": "Where everything is kept: one SQLite database. Back up this file and the keys.",
    "tls": "The certificate that the SMTP and IMAP listeners show.",
    "smtp": "Mail from other HISPs. Port 25 needs a privilege: forward it here, or grant CAP_NET_BIND_SERVICE.",
    "imap": "The inbox for mail clients. No login travels in clear text: TLS or STARTTLS comes first.",
    "http": "Health and readiness for the operator (/healthz, /readyz). Keep it on a private address.",
    "submission": "Kept for mail clients that send. Sending is not part of this release: nothing listens yet.",
    "trust": "Private keys, trust anchors and the rules of the Security/Trust Agent.",
    "charts": "Linking to patients, and the import hook that puts a linked message on a chart.",
    "jobs": "The workers that judge, file, link and import. The defaults suit a practice.",
    "log": "Logs go to standard error. They hold no addresses, subjects or names.",
}

COMMENTS: dict[str, dict[str, str]] = {
    "practice": {
        "name": "Shown to people; not used to decide anything.",
        "domains": "Health domains that are local.",
        "addresses": "Direct addresses that have an inbox here.",
    },
    "store": {
        "url": "sqlite:/// and a path.",
        "group_commit_units": "At most this many units of work share one commit to disk ...",
        "group_commit_wait_ms": "... and none waits longer than this for company. 0 = no waiting.",
        "free_space_floor_mib": "Below this much free disk new mail is put off (452) before the disk is full.",
    },
    "tls": {
        "certificate_file": "PEM, the server's certificate first, then its chain.",
        "key_file": "PEM, readable by this program alone.",
    },
    "smtp": {
        "host": "Address to listen on. 0.0.0.0 or :: = every interface.",
        "port": "Port to listen on.",
        "hostname": "The name in the greeting: what other systems know this server by.",
        "max_message_mib": "A larger message is refused (552).",
        "max_recipients": "Recipients of one message.",
        "max_connections": "Connections in all ...",
        "max_connections_per_peer": "... and from one network address.",
        "max_messages_per_connection": "Then the client must connect again.",
        "max_buffered_mib": "Memory for all messages that are arriving at this moment, together.",
        "max_commands_without_mail": "A client that only talks is sent away.",
        "command_timeout_seconds": "Waiting for a command (RFC 5321 4.5.3.2 asks for five minutes).",
        "data_timeout_seconds": "Waiting for the end of a message.",
        "min_data_rate_bytes_per_second": "A client that is slower than this is sent away.",
    },
    "imap": {
        "host": "Address to listen on. 0.0.0.0 or :: = every interface.",
        "port": "Port with STARTTLS. 0 = off.",
        "tls_port": "Port with TLS from the first byte. 0 = off.",
        "max_connections": "Connections in all ...",
        "max_connections_per_peer": "... and from one network address.",
        "login_timeout_seconds": "A client must log in within this time.",
        "idle_timeout_minutes": "A silent session ends after this (RFC 9051 5.4 asks for 30 minutes).",
        "max_line_kib": "Longest command line.",
        "max_literal_before_login_kib": "Longest literal that a stranger may send.",
        "failed_login_delay_seconds": "Waiting before a wrong password is answered. 0 = none.",
        "deleted_flag": 'Nothing can be deleted. "ignore" answers OK and keeps it; "refuse" answers NO.',
    },
    "http": {
        "host": "Address to listen on.",
        "port": "Port to listen on. 0 = off.",
    },
    "submission": {
        "host": "Address to listen on.",
        "port": "Port to listen on. 0 = off.",
    },
    "trust": {
        "identities_dir": "NAME.cert.pem with NAME.key.pem beside it, or NAME.p12: our addresses and domains.",
        "key_password_file": "A file with the password of encrypted keys and of .p12 files. Empty = no password.",
        "anchors_dir": "Anchors that every local domain trusts; DIR/DOMAIN/ and DIR/ADDRESS/ hold those of one alone.",
        "crls_dir": "Certificate revocation lists, as files. Empty = none.",
        "allow_fetch_cidrs": "Networks from which a URL in a certificate may be fetched. Empty = nothing is fetched.",
        "revocation": '"soft": an unknown status is noted and passes; "hard": it refuses the message.',
        "workers": "Processors that may judge messages at the same time.",
    },
    "charts": {
        "automatic_links": "false = even an exact match waits for a person.",
        "folder_importer_dir": "A folder per patient gets the message, its parts and a record. Empty = off.",
    },
    "jobs": {
        "poll_interval_ms": "How often the queue is looked at when nobody says that there is work.",
        "lease_seconds": "A worker that is silent for this long has lost its job to another.",
        "batch": "Jobs taken at once.",
    },
    "log": {
        "level": "debug, info, warning or error.",
        "format": "text or json.",
    },
}

EXAMPLE_OVERRIDES: Overrides = {
    ("practice", "name"): "try-out",
    ("practice", "domains"): ["direct.example.org"],
    ("practice", "addresses"): ["front-desk@direct.example.org"],
    ("store", "url"): "sqlite:///../practice/data/gateway.db",
    ("tls", "certificate_file"): "../practice/certs/tls/server.cert.pem",
    ("tls", "key_file"): "../practice/certs/tls/server.key.pem",
    ("trust", "identities_dir"): "../practice/certs/identities",
    ("trust", "anchors_dir"): "../practice/certs/anchors",
    ("trust", "crls_dir"): "../practice/certs/crls",
    ("charts", "folder_importer_dir"): "../practice/charts",
}
"""What differs in ``config/gateway.toml``: an example practice in ``practice/``, beside the folder ``config/``."""

EXAMPLE_HEADER = (
    HEADER
    + """\
#
# This file works as it is:   direct-gateway serve --config config/gateway.toml
# The first start makes a try-out practice in the folder practice/, its login in practice/imap-login.txt.
# For a practice of your own, with settings of its own:   direct-gateway init DIR --domain D --address A
"""
)


def sections() -> dict[str, tuple[Field[Any], ...]]:
    """Every section with its keys, in the order of the settings."""
    defaults = Settings()
    return {f.name: fields(getattr(defaults, f.name)) for f in fields(Settings) if f.name != "base_dir"}


def toml_value(value: Any) -> str:
    """Write a value as TOML. ``None`` is the empty string: the settings read it as "off"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    text = "" if value is None else str(value)
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def render(overrides: Overrides, header: str = HEADER) -> str:
    """Return the whole commented file: every key, with the default or the given value."""
    defaults = Settings()
    lines = [header.rstrip("\n")]
    for section, keys in sections().items():
        lines += ["", f"# {SECTIONS[section]}", f"[{section}]"]
        for key in keys:
            value = overrides.get((section, key.name), getattr(getattr(defaults, section), key.name))
            lines += [f"# {COMMENTS[section][key.name]}", f"{key.name} = {toml_value(_plain(value))}"]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    return value.as_posix() if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.stdout.write(render(EXAMPLE_OVERRIDES, EXAMPLE_HEADER))
