"""The arguments of LIST, LSUB and STATUS: RFC 3501, extended by RFC 5258, 5819, 6154, 8438 and 8474."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.imap.scanner import ParseError, Scanner

STATUS_ITEMS = frozenset(
    {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "SIZE", "MAILBOXID"}
)
SELECTION_OPTIONS = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
RETURN_OPTIONS = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"})
MAX_PATTERNS = 20


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
    lsub: bool = False


def parse_status(scanner: Scanner) -> StatusArguments:
    """Parse what follows the word STATUS. Raises ParseError."""
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


def parse_list(scanner: Scanner) -> ListArguments:
    """Parse what follows the word LIST. Raises ParseError."""
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
        returns, status = _returns(scanner)
    scanner.end()
    chosen = frozenset(selection)
    if not chosen <= SELECTION_OPTIONS:
        raise ParseError("Unknown selection option")
    if "RECURSIVEMATCH" in chosen and not chosen & {"SUBSCRIBED", "SPECIAL-USE"}:
        raise ParseError("RECURSIVEMATCH needs another option")
    return ListArguments(_joined(reference, patterns), chosen, frozenset(returns), status, extended)


def parse_lsub(scanner: Scanner) -> ListArguments:
    """Parse what follows the word LSUB. Raises ParseError."""
    scanner.space()
    reference = scanner.mailbox()
    scanner.space()
    pattern = scanner.list_pattern()
    scanner.end()
    return ListArguments(_joined(reference, [pattern]), frozenset({"SUBSCRIBED"}), lsub=True)


def _joined(reference: str, patterns: list[str]) -> tuple[str, ...]:
    return tuple(reference + pattern if pattern else "" for pattern in patterns)


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


def _returns(scanner: Scanner) -> tuple[set[str], tuple[str, ...]]:
    scanner.expect(b"(")
    returns: set[str] = set()
    status: tuple[str, ...] = ()
    count = 0
    while not scanner.accept(b")"):
        if count:
            scanner.space()
        count += 1
        scanner.check_items(count)
        word = scanner.keyword()
        if word not in RETURN_OPTIONS:
            raise ParseError("Unknown return option")
        if word == "STATUS":
            scanner.space()
            status = _status_items(scanner)
        returns.add(word)
    return returns, status
