"""Where a PostgreSQL is, and how a connection to it is made so that a dead peer is noticed.

The URL is libpq's own, with all of its parameters; what it says wins over what is filled in here. The password never
stands in it: it is read from ``store.password_file`` at every connection, so that it may be replaced without a restart,
or found by libpq (PGPASSFILE, a client certificate, peer authentication).

TLS: to a host that is not this machine a connection is made with ``sslmode=verify-full`` unless the URL says
``require``, ``verify-ca`` or, in plain words, ``disable``. ``prefer`` and ``allow`` fall back to clear text without a
word, so they are refused.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core.errors import ConfigurationError, StoreUnavailableError
from gateway.settings import StoreSettings

CONNECT_SECONDS = 5
"""For one host of the URL. A server that takes longer is not there."""
KEEPALIVE_COUNT = 3
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}\Z")
"""Short enough that names made from it fit into the 63 bytes of an identifier, and in no need of quotes."""
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class PostgreSQLAddress:
    """A database, the schema in it, and the name that this node has there."""

    conninfo: str
    given: frozenset[str]
    """The parameters that the URL has."""
    hosts: tuple[str, ...]
    password_file: Path | None
    schema: str
    node: str
    frozen_after_seconds: int

    @classmethod
    def parse(cls, settings: StoreSettings, url: str | None = None) -> PostgreSQLAddress:
        """Read ``store.url`` and its companions; ``url`` takes its place (another role for the same database).

        Raises:
            ConfigurationError: not a URL that libpq takes, or one that is not safe. The URL is not repeated.
        """
        from psycopg import ProgrammingError  # noqa: PLC0415 - the driver is an extra
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

        conninfo = url or settings.url
        try:
            found = conninfo_to_dict(conninfo)
        except (ProgrammingError, UnicodeError) as exc:
            why = _misspelt(str(exc)) or "postgresql://user@host/database"
            raise ConfigurationError(f"store.url is not a URL of PostgreSQL: {why}") from None
        if "password" in found:
            raise ConfigurationError("store.url must not hold a password: set store.password_file")
        if not _SCHEMA.match(settings.schema):
            raise ConfigurationError("store.schema must be lower-case letters, digits and _, at most 41 characters")
        if not _NODE.match(settings.node):
            raise ConfigurationError("store.node must be letters, digits, dots, - and _, at most 63 characters")
        hosts = _hosts(found)
        address = cls(
            conninfo,
            frozenset(found),
            hosts,
            settings.password_file if url is None else None,
            settings.schema,
            settings.node,
            settings.frozen_after_seconds,
        )
        mode = found.get("sslmode")
        if mode in {"allow", "prefer"} and not address.is_here:
            raise ConfigurationError(
                f"store.url: sslmode={mode} would send mail in clear text when the server offers no TLS; "
                f"use verify-full, verify-ca or require"
            )
        return address

    @property
    def is_here(self) -> bool:
        """Whether every host is this machine: a socket in the file system, or loopback."""
        return all(_is_here(host) for host in self.hosts)

    def arguments(self, role: str) -> dict[str, Any]:
        """Return what the driver's ``connect`` needs; ``role`` says in the server's lists what the session is for.

        Raises:
            StoreUnavailableError: the password cannot be read now.
        """
        seconds = self.frozen_after_seconds
        filled: dict[str, Any] = {
            "application_name": f"direct-gateway {self.node} {role}"[:63],
            "client_encoding": "UTF8",
            "connect_timeout": CONNECT_SECONDS,
            # Of several hosts the one that takes writes: a standby would answer with what was true a moment ago.
            "target_session_attrs": "primary",
            # Whether the peer is there while we wait for an answer, and while it does not take what we send.
            "keepalives": 1,
            "keepalives_idle": max(1, seconds // 2),
            "keepalives_interval": max(1, seconds // (2 * KEEPALIVE_COUNT)),
            "keepalives_count": KEEPALIVE_COUNT,
            "tcp_user_timeout": seconds * 1000,
        }
        if not self.is_here:
            filled["sslmode"] = "verify-full"
        arguments = {name: value for name, value in filled.items() if name not in self.given}
        if self.password_file is not None:
            arguments["password"] = self._password(self.password_file)
        return {"conninfo": self.conninfo, **arguments}

    @staticmethod
    def _password(path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise StoreUnavailableError(f"store.password_file: {path} cannot be read") from None


def _hosts(found: dict[str, Any]) -> tuple[str, ...]:
    """Where libpq will connect to: an address before a name, the URL before the environment.

    A service stands in a file of libpq's own, which may name any machine: it is taken for another one, so that mail
    never goes there in the clear because nobody looked.
    """
    address = found.get("hostaddr") or ("" if found.get("host") else os.environ.get("PGHOSTADDR"))
    named = str(address or found.get("host") or os.environ.get("PGHOST") or "")
    service = found.get("service") or os.environ.get("PGSERVICE")
    return tuple(host for host in named.split(",") if host) or ((f"service {service}",) if service else ())


def _is_here(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _misspelt(told: str) -> str:
    """What is wrong with a parameter of the URL, from libpq's words; empty when it is something else.

    Only a name that is close to one of libpq's own is repeated: anything else may be a part of a password.
    """
    from psycopg.pq import Conninfo  # noqa: PLC0415 - the driver is an extra

    found = re.search(r'invalid URI query parameter: "([A-Za-z_]{1,40})"', told)
    if found is None:
        return ""
    known = [option.keyword.decode() for option in Conninfo.get_defaults()]
    close = difflib.get_close_matches(found[1].lower(), known, n=1, cutoff=0.75)
    if not close:
        return "it has a parameter that PostgreSQL does not know (after the ?)"
    return f"it has a parameter {found[1]} that PostgreSQL does not know; did you mean {close[0]}?"
