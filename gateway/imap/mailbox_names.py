"""Mailbox names on the wire: modified UTF-7 (RFC 3501 section 5.1.3) and LIST patterns (6.3.8).

Guarantees: ``decode(encode(name)) == name``; only the one canonical encoding of a name is accepted, so that two
spellings never mean one mailbox; matching takes time proportional to pattern times name, whatever the wildcards.
"""

from __future__ import annotations

import binascii
import re

SEPARATOR = "/"
MAX_NAME_BYTES = 1_000
NO_NAME = "\udcff"
"""Stands for what no mailbox can be called: half of a surrogate pair. No encoding yields it, no pattern reaches it."""
_RUN = re.compile(r"[^\x20-\x7e]+|&")


def encode_mailbox_name(name: str) -> bytes:
    """The name in modified UTF-7. A lone surrogate cannot be encoded and raises UnicodeEncodeError."""

    def shift(match: re.Match[str]) -> str:
        run = match.group()
        if run == "&":
            return "&-"
        packed = binascii.b2a_base64(run.encode("utf-16-be"), newline=False).rstrip(b"=")
        return "&" + packed.replace(b"/", b",").decode("ascii") + "-"

    return _RUN.sub(shift, name).encode("ascii")


def decode_mailbox_name(name: bytes) -> str:
    """The name that the wire form stands for.

    Raises:
        ValueError: longer than MAX_NAME_BYTES, not ASCII, or not the canonical modified UTF-7.
    """
    if len(name) > MAX_NAME_BYTES:
        raise ValueError("mailbox name too long")
    text = name.decode("ascii")
    out: list[str] = []
    position = 0
    while (start := text.find("&", position)) >= 0:
        out.append(text[position:start])
        stop = text.find("-", start)
        if stop < 0:
            raise ValueError("unfinished shift")
        out.append(_unshift(text[start + 1 : stop]))
        position = stop + 1
    out.append(text[position:])
    decoded = "".join(out)
    if encode_mailbox_name(decoded) != name:
        raise ValueError("not the canonical encoding")
    return decoded


def _unshift(packed: str) -> str:
    if not packed:
        return "&"
    standard = packed.replace(",", "/")
    raw = binascii.a2b_base64(standard + "=" * (-len(standard) % 4))
    return raw.decode("utf-16-be")


def matches(pattern: str, name: str) -> bool:
    """Whether a LIST pattern matches: ``*`` any text, ``%`` any text without the separator."""
    if name.upper() == "INBOX":
        pattern, name = pattern.upper(), "INBOX"
    reachable = {0}
    for char in pattern:
        if char == "*":
            reachable = set(range(min(reachable), len(name) + 1))
        elif char == "%":
            reachable = _within_level(name, reachable)
        else:
            reachable = {at + 1 for at in reachable if at < len(name) and name[at] == char}
        if not reachable:
            return False
    return len(name) in reachable


def _within_level(name: str, starts: set[int]) -> set[int]:
    """Every position that can be reached from a start without passing a separator."""
    reached: set[int] = set()
    alive = False
    for position in range(len(name) + 1):
        alive = alive or position in starts
        if alive:
            reached.add(position)
        if name[position : position + 1] == SEPARATOR:
            alive = False
    return reached


def parents(name: str) -> list[str]:
    """Every name above it in the hierarchy, the topmost first."""
    pieces = name.split(SEPARATOR)
    return [SEPARATOR.join(pieces[:depth]) for depth in range(1, len(pieces))]
