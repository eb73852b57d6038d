"""From the bytes of one command to values: tag, name, typed arguments.

A command is parsed in two steps, so that nothing but tag and name of a command is looked at before the session
knows that the command is allowed in its state. Guarantees and limits: see :mod:`gateway.imap.scanner`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.imap.fetch_items import FetchArguments, parse_fetch
from gateway.imap.scanner import MAX_MODSEQ, ParseError, Ranges, Scanner
from gateway.imap.search_keys import BadCharsetError, SearchArguments, parse_search
from gateway.inbox.flags import FlagAction

__all__ = [
    "BadCharsetError",
    "FetchArguments",
    "Head",
    "ListArguments",
    "ParseError",
    "SearchArguments",
    "SelectArguments",
    "StatusArguments",
    "StoreArguments",
    "guess_tag",
    "parse_arguments",
    "parse_head",
]

STATUS_ITEMS = frozenset({"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "SIZE", "DELETED"})
MAX_PATTERNS = 20
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
class SelectArguments:
    mailbox: str
    condstore: bool


@dataclass(frozen=True, slots=True)
class StatusArguments:
    mailbox: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListArguments:
    """``selection`` and ``returns`` are the options of RFC 5258; ``status`` the items of RFC 5819.

    ``extended`` when the client used any of the syntax of RFC 5258.
    """

    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    extended: bool = False


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


def _mailbox_and_more(scanner: Scanner) -> str:
    """A mailbox followed by what does not matter: the command is refused whatever it says."""
    scanner.space()
    return scanner.mailbox()


def _select(scanner: Scanner) -> SelectArguments:
    scanner.space()
    name = scanner.mailbox()
    condstore = False
    if scanner.accept(b" "):
        parameters = scanner.keywords_in_parentheses()
        if set(parameters) != {"CONDSTORE"}:
            raise ParseError("Unknown parameter")
        condstore = True
    scanner.end()
    return SelectArguments(name, condstore)


def _status(scanner: Scanner) -> StatusArguments:
    scanner.space()
    name = scanner.mailbox()
    scanner.space()
    items = _status_items(scanner)
    scanner.end()
    return StatusArguments(name, items)


def _status_items(scanner: Scanner) -> tuple[str, ...]:
    items = scanner.keywords_in_parentheses()
    if not items or not STATUS_ITEMS.issuperset(items):
        raise ParseError("Unknown status item")
    return tuple(dict.fromkeys(items))


def _list(scanner: Scanner) -> ListArguments:
    scanner.space()
    selection: tuple[str, ...] = ()
    extended = scanner.next == b"("
    if extended:
        selection = scanner.keywords_in_parentheses()
        scanner.space()
    reference = scanner.mailbox()
    scanner.space()
    extended = extended or scanner.next == b"("
    patterns = _patterns(scanner)
    returns: set[str] = set()
    status: tuple[str, ...] = ()
    if scanner.accept(b" "):
        extended = True
        if scanner.keyword() != "RETURN":
            raise ParseError("Expected RETURN")
        scanner.space()
        returns, status = _list_returns(scanner)
    scanner.end()
    chosen = frozenset(selection)
    if not chosen <= {"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"}:
        raise ParseError("Unknown selection option")
    if "RECURSIVEMATCH" in chosen and not chosen & {"SUBSCRIBED", "SPECIAL-USE"}:
        raise ParseError("RECURSIVEMATCH needs another option")
    joined = tuple(reference + pattern if pattern else "" for pattern in patterns)
    return ListArguments(joined, chosen, frozenset(returns), status, extended)


def _patterns(scanner: Scanner) -> list[str]:
    if not scanner.accept(b"("):
        return [scanner.list_pattern()]
    patterns = [scanner.list_pattern()]
    while not scanner.accept(b")"):
        scanner.space()
        patterns.append(scanner.list_pattern())
        if len(patterns) > MAX_PATTERNS:
            raise ParseError("Too many patterns")
    return patterns


def _list_returns(scanner: Scanner) -> tuple[set[str], tuple[str, ...]]:
    scanner.expect(b"(")
    returns: set[str] = set()
    status: tuple[str, ...] = ()
    first = True
    while not scanner.accept(b")"):
        if not first:
            scanner.space()
        first = False
        word = scanner.keyword()
        if word not in {"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"}:
            raise ParseError("Unknown return option")
        if word == "STATUS":
            scanner.space()
            status = _status_items(scanner)
        returns.add(word)
    return returns, status


def _lsub(scanner: Scanner) -> ListArguments:
    scanner.space()
    reference = scanner.mailbox()
    scanner.space()
    pattern = scanner.list_pattern()
    scanner.end()
    return ListArguments((reference + pattern if pattern else "",))


def _identification(scanner: Scanner) -> None:
    """RFC 2971: NIL or at most 30 pairs of strings. What a client says of itself is read and not used."""
    scanner.space()
    if not scanner.accept(b"("):
        if scanner.keyword() != "NIL":
            raise ParseError("Expected a list or NIL")
        scanner.end()
        return
    count = 0
    while not scanner.accept(b")"):
        if count:
            scanner.space()
        scanner.string()
        scanner.space()
        scanner.nstring()
        count += 1
        if count > 30:
            raise ParseError("Too many fields")
    scanner.end()


def _enable(scanner: Scanner) -> tuple[str, ...]:
    names: list[str] = []
    while scanner.accept(b" "):
        names.append(scanner.keyword())
        scanner.check_items(len(names))
    if not names:
        raise ParseError("Missing argument")
    scanner.end()
    return tuple(names)


def _set_and_mailbox(scanner: Scanner) -> Ranges:
    scanner.space()
    ranges = scanner.sequence_set()
    scanner.space()
    scanner.mailbox()
    scanner.end()
    return ranges


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
    "ID": _identification,
    "LOGIN": _login,
    "AUTHENTICATE": _authenticate,
    "ENABLE": _enable,
    "SELECT": _select,
    "EXAMINE": _select,
    "STATUS": _status,
    "LIST": _list,
    "LSUB": _lsub,
    **dict.fromkeys(("SUBSCRIBE", "UNSUBSCRIBE", "DELETE", "MYRIGHTS", "GETACL"), _mailbox),
    "RENAME": _two_mailboxes,
    **dict.fromkeys(("CREATE", "APPEND", "LISTRIGHTS", "SETACL", "DELETEACL"), _mailbox_and_more),
    **dict.fromkeys(("FETCH", "UID FETCH"), parse_fetch),
    **dict.fromkeys(("SEARCH", "UID SEARCH"), parse_search),
    **dict.fromkeys(("STORE", "UID STORE"), _store),
    **dict.fromkeys(("COPY", "UID COPY", "MOVE", "UID MOVE"), _set_and_mailbox),
    "UID EXPUNGE": _only_set,
}
"""Every command there is, with the reader of its arguments."""
