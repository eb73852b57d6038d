"""What the readers of one message have found, and how much they may still read.

Guarantees: the work on one message is bounded by the numbers below, whatever it holds; what a bound leaves out is a
problem that hides claims, so that nobody takes the rest for all. A problem's text is fixed words and numbers.

Failure modes: none of its own. :func:`guarded` turns a reader's failure into a problem: the evidence of one part must
not be lost because of another part, and mail must not wait for a fault of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace

from gateway.core.claims import Claim, Document, Evidence, Problem, Source, Strength
from gateway.core.hl7_patient import plain

MAX_PARTS = 256
"""Leaf parts of a message that are looked into."""
MAX_BYTES = 64 * 1024 * 1024
"""Decoded and unpacked, over all parts of a message that hold something that is read."""
MAX_CLAIMS = 64
MAX_PROBLEMS = 64
MAX_PID_CHARS = 1024 * 1024
"""Of all PID segments of a message, and what XDM metadata says in their form: undoing escape sequences takes time."""
MAX_DOCUMENTS = 256
MAX_CLAIM_CHARS = 32_768
"""Of one claim, all values together: honest ones have a few hundred."""
_VALUE_CHARS = 64
"""What a name, a number or an address counts besides its texts."""

_STRENGTHS = list(Strength)


@dataclass(frozen=True, slots=True)
class Piece:
    """Something to read: a part of the message, or an entry of a package in it."""

    path: str
    data: bytes
    content_type: str = ""
    filename: str = ""
    """As its sender wrote it: for recognising only, never shown and never a path."""
    is_doubtful: bool = False
    """Its package describes other bytes."""


@dataclass(slots=True)
class Collector:
    """Gathers the evidence of one message."""

    claims: list[Claim] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    bytes_left: int = MAX_BYTES
    pid_chars_left: int = MAX_PID_CHARS
    _is_problem_lost: bool = False

    def add(self, claim: Claim) -> None:
        """Keep a claim that says something and is not there yet."""
        if claim.is_empty or claim in self.claims:
            return
        if len(self.claims) >= MAX_CLAIMS:
            self.problem(claim.source, claim.path, "too_many_claims", f"more than {MAX_CLAIMS} claims in one message")
        elif _is_too_large(claim):
            self.problem(claim.source, claim.path, "claim_too_large", f"more than {MAX_CLAIM_CHARS} characters")
        else:
            self.claims.append(claim)

    def add_patients(self, claims: Iterable[Claim]) -> None:
        """Keep the claims of one source, numbered: those that say the same are one patient."""
        number = 0
        seen: set[Claim] = set()
        for claim in claims:
            first = replace(claim, ordinal=1)
            if first not in seen and not first.is_empty:
                seen.add(first)
                number += 1
                self.add(replace(claim, ordinal=number))

    def problem(self, source: Source | None, path: str, code: str, detail: str, *, hides: bool = True) -> None:
        """Tell what could not be read."""
        found = Problem(source, path, code, detail, hides)
        if found in self.problems:
            return
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(found)
        elif hides and not self._is_problem_lost:
            self._is_problem_lost = True
            self.problems.append(Problem(source, "", "too_many_problems", f"more than {MAX_PROBLEMS} problems"))

    def document(self, document: Document) -> None:
        """Keep what a document can be known by."""
        if len(self.documents) < MAX_DOCUMENTS:
            self.documents.append(document)

    def may_read(self, size: int, source: Source | None, path: str) -> bool:
        """Take ``size`` bytes from what may still be read; a problem when they are too many."""
        if size > self.bytes_left:
            limit = MAX_BYTES // 1024 // 1024
            self.problem(source, path, "message_too_large", f"more than {limit} MiB to read in one message")
            return False
        self.bytes_left -= size
        return True

    def may_read_pid(self, chars: int, source: Source, path: str) -> bool:
        """Take ``chars`` from those of PID segments that may still be read; a problem when they are too many."""
        if chars > self.pid_chars_left:
            self.problem(source, path, "too_many_patients", f"more than {MAX_PID_CHARS} characters of patients")
            return False
        self.pid_chars_left -= chars
        return True

    def evidence(self) -> Evidence:
        """All that was found; the strongest source first, else in the order of the message."""
        ordered = sorted(self.claims, key=lambda claim: _STRENGTHS.index(claim.strength))
        return Evidence(tuple(ordered), tuple(self.problems), tuple(self.documents))


def guarded(found: Collector, source: Source | None, path: str, work: Callable[[], None]) -> None:
    """Run a reader; a failure that it did not foresee becomes a problem."""
    try:
        work()
    except Exception as exc:  # noqa: BLE001 - see the module: a fault in a reader may not hold mail up
        found.problem(source, path, "reader_failed", f"the reader failed ({type(exc).__name__}); please report it")


def _is_too_large(claim: Claim) -> bool:
    """Whether the values of a claim are beyond the limit.

    Counted and never written out: a few long texts can stand in it hundreds of times (a family name in each alias).
    """
    left = MAX_CLAIM_CHARS
    for length in _lengths(claim):
        left -= length
        if left < 0:
            return True
    return False


def _lengths(said: object) -> Iterator[int]:
    """The characters of every text in a value, and some for each value: even empty ones take room."""
    if isinstance(said, str):
        yield len(said)
    elif isinstance(said, tuple):
        for one in said:
            yield from _lengths(one)
    elif is_dataclass(said):
        yield _VALUE_CHARS
        for name in fields(said):
            yield from _lengths(getattr(said, name.name))


_IN_NUMBER = re.compile(r"\s+")


def value(text: str | None) -> str:
    """A value of a source as it is kept: white space made single, control characters removed."""
    return plain(text) if text else ""


def unspaced(text: str) -> str:
    """A value that has no spaces (a date, an address) although a line was folded within it."""
    return _IN_NUMBER.sub("", text)
