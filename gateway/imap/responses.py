"""How values look on the wire (RFC 3501 section 9). Pure functions from values to bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from gateway.imap.mailbox_names import encode_mailbox_name
from gateway.imap.scanner import MONTHS
from gateway.inbox.flags import RECENT, SYSTEM_FLAGS
from gateway.ports import Folder

_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
_NO_LINE_END = re.compile(rb"[^\x00\r\n]*")

CAPABILITIES_ALWAYS = ("IMAP4rev1", "LITERAL-", "SASL-IR", "ID", "ENABLE")
CAPABILITIES_OF_MAILBOXES = (
    "IDLE",
    "NAMESPACE",
    "UIDPLUS",
    "UNSELECT",
    "CHILDREN",
    "SPECIAL-USE",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "STATUS=SIZE",
    "ESEARCH",
    "SEARCHRES",
    "CONDSTORE",
    "QRESYNC",
    "OBJECTID",
    "ACL",
    "RIGHTS=texk",
)


def capabilities(
    *, encrypted: bool, authenticated: bool, takes_tokens: bool = False, further: tuple[str, ...] = ()
) -> bytes:
    """The capability list. Before TLS it offers STARTTLS and no way to log in (EP-20); ``further`` of mailboxes."""
    of_mailboxes = (*CAPABILITIES_OF_MAILBOXES, *further)
    if not encrypted:
        names: tuple[str, ...] = (*CAPABILITIES_ALWAYS, "STARTTLS", "LOGINDISABLED")
    elif authenticated:
        names = (*CAPABILITIES_ALWAYS, *of_mailboxes)
    else:
        ways = ("AUTH=PLAIN", "AUTH=OAUTHBEARER") if takes_tokens else ("AUTH=PLAIN",)
        names = (*CAPABILITIES_ALWAYS, *ways, *of_mailboxes)
    return " ".join(names).encode("ascii")


def mailbox_name(name: str) -> bytes:
    """A mailbox name as an astring; INBOX in capitals."""
    return _atom_or_quoted(b"INBOX" if name.upper() == "INBOX" else encode_mailbox_name(name))


def astring(text: str) -> bytes:
    """Any text as an astring: what a quoted string cannot hold goes as a literal."""
    encoded = text.encode("utf-8")
    if encoded.isascii() and _NO_LINE_END.fullmatch(encoded):
        return _atom_or_quoted(encoded)
    return b"{%d}\r\n" % len(encoded) + encoded


def _atom_or_quoted(text: bytes) -> bytes:
    if _ATOM.fullmatch(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def mailbox_id(folder: Folder) -> bytes:
    """The object id of a mailbox (RFC 8474): the same for everybody who sees it, whatever its name is."""
    found = f"F{folder.mailbox_id}-{folder.view}" if folder.view else f"F{folder.mailbox_id}"
    return found.encode("ascii")


@lru_cache(maxsize=4096)
def flag_list(flags: frozenset[str]) -> bytes:
    r"""``(\Seen keyword)``: system flags first, in a stable order."""
    system = [flag for flag in (*SYSTEM_FLAGS, RECENT) if flag in flags]
    keywords = sorted(flag for flag in flags if not flag.startswith("\\"))
    return ("(" + " ".join([*system, *keywords]) + ")").encode("ascii")


def applicable_flags(keywords: Iterable[str]) -> bytes:
    """The value of the FLAGS response: every system flag and the keywords in use."""
    return ("(" + " ".join([*SYSTEM_FLAGS, *sorted(keywords)]) + ")").encode("ascii")


def internal_date(moment: datetime) -> bytes:
    """A quoted date-time in UTC, in exactly the form of RFC 3501 (the day padded with a space)."""
    utc = moment.astimezone(UTC)
    clock = f"{utc.hour:02d}:{utc.minute:02d}:{utc.second:02d}"
    return f'"{utc.day:2d}-{MONTHS[utc.month - 1]}-{utc.year:04d} {clock} +0000"'.encode("ascii")


def compact_set(numbers: Sequence[int]) -> bytes:
    """Ascending numbers as a sequence set: ``1:3,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return b",".join(b"%d" % first if first == last else b"%d:%d" % (first, last) for first, last in runs)
