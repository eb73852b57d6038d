"""Headers of messages in memory, packed, so that a mailbox need not be opened message by message to list or search it.

A header never changes once its message is filed, and a mailbox only grows. So what was opened and checked once is kept:
runs of CHUNK_UIDS messages by their UIDs, compressed, the longest unused forgotten beyond MEMORY_BYTES. Two kinds are
kept: the header as it stands in the message, for FETCH, and its decoded text, for SEARCH.

Guarantees: a run holds every message of the mailbox with a UID in it up to ``upto``, or it is not kept. Nothing is kept
of a run in which one message is damaged: that is an error, now and at the next look. Nothing reaches the disk.

Failure modes: those of reading (:mod:`gateway.store.sealed_bodies`). What was opened and checked stays right when its
row is damaged later, or its key is taken away: such damage is noticed by the next who reads the message or its text,
and here after the next start. Texts stay in the memory of the process after they were read, as contents do that mail
clients fetch piece by piece; they are gone with the process, so whoever destroys a key starts the gateway anew.
"""

from __future__ import annotations

import re
import threading
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import Enum

CHUNK_UIDS = 256
MEMORY_BYTES = 128 * 1024 * 1024
"""Packed: headers of a kilobyte take about a fifth of it, those that programs write in one form less."""
_LEVEL = 1
_CONTINUED = re.compile(rb"\n(?=[ \t])")


class Form(Enum):
    """What of a header is kept."""

    RAW = "raw"
    SEARCH = "search"


class HeaderRun:
    """The headers of the messages of one run, by ascending UID."""

    __slots__ = ("_packed", "_starts", "_uids", "size_bytes", "upto")

    def __init__(self, rows: Iterable[tuple[int, bytes]], upto: int) -> None:
        """``upto``: the highest UID that the mailbox had used when the rows were read, or the last of the run."""
        ordered = sorted(rows)
        self.upto = upto
        self._uids = array("I", [uid for uid, _ in ordered])
        self._starts = array("I", [0])
        for _, header in ordered:
            # A line feed before each lets a field be found by one.
            self._starts.append(self._starts[-1] + 1 + len(header))
        self._packed = zlib.compress(b"".join(b"\n" + header for _, header in ordered), _LEVEL)
        self.size_bytes = len(self._packed) + 4 * (len(self._uids) + len(self._starts))

    def headers(self, uids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Those of these messages that are here."""
        text, starts, known = zlib.decompress(self._packed), self._starts, self._uids
        for uid in uids:
            place = bisect_left(known, uid)
            if place < len(known) and known[place] == uid:
                yield uid, text[starts[place] + 1 : starts[place + 1]]

    def having(self, name: bytes, wanted: bytes, field: re.Pattern[bytes]) -> Iterator[int]:
        """The UIDs of those that ``field`` is found in; ``name`` and ``wanted`` stand in whatever it finds."""
        text = zlib.decompress(self._packed)
        if wanted not in text or name not in text:
            return
        place = 0
        while (found := field.search(text, place)) is not None:
            index = bisect_right(self._starts, found.start()) - 1
            yield self._uids[index]
            place = self._starts[index + 1]


def field_pattern(name: bytes, wanted: bytes) -> re.Pattern[bytes]:
    """A pattern that finds a field of that name (with its colon) whose text holds what is wanted, in a run."""
    return re.compile(b"\n" + re.escape(name) + b"[^\n]*?" + re.escape(wanted))


def searchable(header: bytes) -> bytes:
    """The text of a header with each field on one line."""
    return _CONTINUED.sub(b"", header) if b"\n " in header or b"\n\t" in header else header


def run_of(uid: int) -> int:
    """The number of the run that a UID is in."""
    return (uid - 1) // CHUNK_UIDS


def span_of(run: int) -> tuple[int, int]:
    """The first and the last UID of a run."""
    return run * CHUNK_UIDS + 1, (run + 1) * CHUNK_UIDS


class HeaderMemory:
    """The runs that the units of one store share. Safe to use from several threads."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._used = 0
        self._runs: OrderedDict[tuple[int, Form, int], HeaderRun] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, mailbox_id: int, form: Form, run: int, upto: int) -> HeaderRun | None:
        """The run, when it holds every message of it up to that UID."""
        key = (mailbox_id, form, run)
        with self._lock:
            found = self._runs.get(key)
            if found is None or found.upto < min(upto, span_of(run)[1]):
                return None
            self._runs.move_to_end(key)
            return found

    def put(self, mailbox_id: int, form: Form, run: int, made: HeaderRun) -> None:
        """Keep a run, in the place of an older look at it."""
        key = (mailbox_id, form, run)
        with self._lock:
            before = self._runs.pop(key, None)
            self._used += made.size_bytes - (0 if before is None else before.size_bytes)
            self._runs[key] = made
            while self._used > self._memory_bytes and self._runs:
                _, forgotten = self._runs.popitem(last=False)
                self._used -= forgotten.size_bytes
