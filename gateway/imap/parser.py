"""From the bytes of one command to values: tag, name, typed arguments.

A command is parsed in two steps, so that nothing but tag and name of a command is looked at before the session
knows that the command is allowed in its state. Guarantees and limits: see :mod:`gateway.imap.scanner`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.imap.change_arguments import (
    AppendArguments,
    CopyArguments,
    CreateArguments,
    parse_append,
    parse_copy,
    parse_create,
)
from gateway.imap.fetch_items import FetchArguments, parse_fetch
from gateway.imap.identification import parse_identification
from gateway.imap.list_arguments import ListArguments, StatusArguments, parse_list, parse_lsub, parse_status
from gateway.imap.scanner import MAX_MODSEQ, ParseError, Ranges, Scanner
from gateway.imap.search_keys import BadCharsetError, SearchArguments, parse_search
from gateway.imap.select_arguments import Resync, SelectArguments, parse_select
from gateway.inbox.flags import FlagAction

__all__ = [
    "BadCharsetError",
    "FetchArguments",
    "Head",
    "ListArguments",
    "MailboxAndIdentifier",
    "ParseError",
    "Resync",
    "SearchArguments",
    "SelectArguments",
    "StatusArguments",
    "StoreArguments",
    "guess_tag",
    "parse_arguments",
    "parse_head",
]

_RIGHTS = re.compile(rb"[+-]?[a-z0-9]*")
_TAG_AT_START = re.compile(rb'[^\x00-\x20(){%*"\\+\x7f-\xff]{1,200}(?= |$)')


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a command. ``name`` is upper case; ``UID FETCH`` and the like are one name."""

    tag: bytes
    name: str
    rest: Scanner


@dataclass(frozen=True, slots=True)
class LoginArguments:
    login: bytes = field(repr=False)
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthenticateArguments:
    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailboxAndIdentifier:
    """Of LISTRIGHTS: an identifier is the login of somebody."""

    mailbox: str
    identifier: str


@dataclass(frozen=True, slots=True)
class StoreArguments:
    ranges: Ranges
    action: FlagAction
    silent: bool
    flags: frozenset[str]
    unchanged_since: int | None


Arguments = (
    None
    | str
    | Ranges
    | tuple[str, ...]
    | LoginArguments
    | AuthenticateArguments
    | SelectArguments
    | StatusArguments
    | ListArguments
    | StoreArguments
    | FetchArguments
    | SearchArguments
    | MailboxAndIdentifier
    | AppendArguments
    | CopyArguments
    | CreateArguments
)


def guess_tag(raw: bytes) -> bytes:
    """The tag of a command that cannot be parsed, for its BAD answer; ``*`` when there is none."""
    match = _TAG_AT_START.match(raw)
    return match.group() if match else b"*"


def parse_head(raw: bytes) -> Head:
    """Read tag and name. Raises ParseError."""
    scanner = Scanner(raw)
    tag = scanner.tag()
    scanner.space()
    name = scanner.keyword()
    if name == "UID":
        scanner.space()
        name = "UID " + scanner.keyword()
    return Head(tag, name, scanner)


def parse_arguments(head: Head) -> Arguments:
    """Read the arguments of a known command.

    Raises:
        ParseError: bad syntax, or a name that is in no table.
        BadCharsetError: SEARCH in an unsupported charset.
    """
    reader = _READERS.get(head.name)
    if reader is None:
        raise ParseError("Unknown command")
    return reader(head.rest)


def _nothing(scanner: Scanner) -> None:
    scanner.end()


def _login(scanner: Scanner) -> LoginArguments:
    scanner.space()
    login = scanner.astring()
    scanner.space()
    password = scanner.astring()
    scanner.end()
    return LoginArguments(login, password)


def _authenticate(scanner: Scanner) -> AuthenticateArguments:
    scanner.space()
    mechanism = scanner.keyword()
    initial = None
    if scanner.accept(b" "):
        initial = scanner.data[scanner.position :]
        scanner.position = len(scanner.data)
        if not initial:
            raise ParseError("Missing initial response")
    return AuthenticateArguments(mechanism, initial)


def _mailbox(scanner: Scanner) -> str:
    scanner.space()
    name = scanner.mailbox()
    scanner.end()
    return name


def _two_mailboxes(scanner: Scanner) -> tuple[str, ...]:
    scanner.space()
    first = scanner.mailbox()
    scanner.space()
    second = scanner.mailbox()
    scanner.end()
    return first, second


def _mailbox_and_identifier(scanner: Scanner) -> MailboxAndIdentifier:
    """Of LISTRIGHTS and DELETEACL."""
    found = _acl_subject(scanner)
    scanner.end()
    return found


def _set_acl(scanner: Scanner) -> MailboxAndIdentifier:
    """The rights are looked at for their form only: they are granted by the operator."""
    found = _acl_subject(scanner)
    scanner.space()
    if not _RIGHTS.fullmatch(scanner.astring()):
        raise ParseError("Expected rights")
    scanner.end()
    return found


def _acl_subject(scanner: Scanner) -> MailboxAndIdentifier:
    scanner.space()
    mailbox = scanner.mailbox()
    scanner.space()
    try:
        return MailboxAndIdentifier(mailbox, scanner.astring().decode("utf-8"))
    except UnicodeDecodeError:
        raise ParseError("Identifier is not valid UTF-8") from None


def _enable(scanner: Scanner) -> tuple[str, ...]:
    names: list[str] = []
    while scanner.accept(b" "):
        names.append(scanner.keyword())
        scanner.check_items(len(names))
    if not names:
        raise ParseError("Missing argument")
    scanner.end()
    return tuple(names)


def _only_set(scanner: Scanner) -> Ranges:
    scanner.space()
    ranges = scanner.sequence_set()
    scanner.end()
    return ranges


def _store(scanner: Scanner) -> StoreArguments:
    scanner.space()
    ranges = scanner.sequence_set()
    scanner.space()
    unchanged_since = None
    if scanner.accept(b"("):
        if scanner.keyword() != "UNCHANGEDSINCE":
            raise ParseError("Unknown store modifier")
        scanner.space()
        unchanged_since = scanner.number(0, MAX_MODSEQ)
        scanner.expect(b")")
        scanner.space()
    sign = scanner.next
    action = {b"+": FlagAction.ADD, b"-": FlagAction.REMOVE}.get(sign, FlagAction.REPLACE)
    if action is not FlagAction.REPLACE:
        scanner.expect(sign)
    word = scanner.keyword()
    if word not in {"FLAGS", "FLAGS.SILENT"}:
        raise ParseError("Unknown store item")
    scanner.space()
    flags = scanner.flags()
    scanner.end()
    return StoreArguments(ranges, action, word == "FLAGS.SILENT", flags, unchanged_since)


_READERS: dict[str, Callable[[Scanner], Arguments]] = {
    **dict.fromkeys(
        (
            "CAPABILITY",
            "NOOP",
            "LOGOUT",
            "STARTTLS",
            "CHECK",
            "CLOSE",
            "UNSELECT",
            "EXPUNGE",
            "IDLE",
            "NAMESPACE",
        ),
        _nothing,
    ),
    "ID": parse_identification,
    "LOGIN": _login,
    "AUTHENTICATE": _authenticate,
    "ENABLE": _enable,
    "SELECT": parse_select,
    "EXAMINE": parse_select,
    "STATUS": parse_status,
    "LIST": parse_list,
    "LSUB": parse_lsub,
    **dict.fromkeys(("SUBSCRIBE", "UNSUBSCRIBE", "DELETE", "MYRIGHTS", "GETACL"), _mailbox),
    "RENAME": _two_mailboxes,
    "CREATE": parse_create,
    "APPEND": parse_append,
    **dict.fromkeys(("LISTRIGHTS", "DELETEACL"), _mailbox_and_identifier),
    "SETACL": _set_acl,
    **dict.fromkeys(("FETCH", "UID FETCH"), parse_fetch),
    **dict.fromkeys(("SEARCH", "UID SEARCH"), parse_search),
    **dict.fromkeys(("STORE", "UID STORE"), _store),
    **dict.fromkeys(("COPY", "UID COPY", "MOVE", "UID MOVE"), parse_copy),
    "UID EXPUNGE": _only_set,
}
"""Every command there is, with the reader of its arguments."""
