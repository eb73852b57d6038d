"""The arguments of SELECT and EXAMINE: RFC 3501, with the parameters of RFC 7162."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.imap.scanner import MAX_MODSEQ, ParseError, Ranges, Scanner


@dataclass(frozen=True, slots=True)
class Resync:
    """What a client that comes back knows of the mailbox (RFC 7162 3.2.5)."""

    uid_validity: int
    modseq: int
    known_uids: Ranges | None = None


@dataclass(frozen=True, slots=True)
class SelectArguments:
    mailbox: str
    condstore: bool = False
    resync: Resync | None = None


def parse_select(scanner: Scanner) -> SelectArguments:
    """Parse what follows the word SELECT or EXAMINE. Raises ParseError."""
    scanner.space()
    name = scanner.mailbox()
    condstore, resync = False, None
    if scanner.accept(b" "):
        scanner.expect(b"(")
        while True:
            word = scanner.keyword()
            if word == "CONDSTORE" and not condstore:
                condstore = True
            elif word == "QRESYNC" and resync is None:
                scanner.space()
                resync = _resync(scanner)
            else:
                raise ParseError("Unknown or repeated parameter")
            if scanner.accept(b")"):
                break
            scanner.space()
    scanner.end()
    return SelectArguments(name, condstore, resync)


def _resync(scanner: Scanner) -> Resync:
    """The numbers that go with some UIDs are checked and not used: the store knows what left without them."""
    scanner.expect(b"(")
    uid_validity = scanner.number(1)
    scanner.space()
    modseq = scanner.number(1, MAX_MODSEQ)
    known: Ranges | None = None
    if scanner.accept(b" "):
        if scanner.next != b"(":
            known = scanner.known_set()
        if known is None or scanner.accept(b" "):
            _check_match(scanner)
    scanner.expect(b")")
    return Resync(uid_validity, modseq, known)


def _check_match(scanner: Scanner) -> None:
    """Message numbers and their UIDs, one for one."""
    scanner.expect(b"(")
    numbers = scanner.known_set()
    scanner.space()
    uids = scanner.known_set()
    scanner.expect(b")")
    if _count(numbers) != _count(uids):
        raise ParseError("Message numbers and UIDs do not match")


def _count(ranges: Ranges) -> int:
    return sum(abs(last - first) + 1 for first, last in ranges)
