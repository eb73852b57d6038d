r"""IMAP's spelling of values: strings, address lists and parameter lists (RFC 3501 4.3, 7.4.2, 9).

Guarantees: what is returned is a complete, valid IMAP value that can be sent as it is, whatever the message holds.

How a value is spelt, and why:

* ASCII goes out as a quoted string with ``\`` and ``"`` escaped. CR, LF and NUL, which a quoted string cannot hold,
  become spaces (the value was unfolded before, so only malformed ones are touched).
* A string beyond MAX_QUOTED_BYTES is a literal (``{n}``), because clients limit the length of a line.
* Text with 8-bit bytes (a subject, a display name, a description) becomes UTF-8 encoded words (RFC 2047). A raw
  8-bit byte is not allowed in a quoted string, and in a literal clients guess its charset: JavaMail reads it as
  Latin-1. All clients decode encoded words there. The header itself is untouched in BODY[HEADER].
* A parameter with 8-bit bytes becomes an extended one (``filename*`` ``utf-8''...``, RFC 2231), which JavaMail,
  Thunderbird, mutt and Apple Mail decode; parameters that the sender wrote in that form pass through as written.
* An 8-bit mailbox or host is a literal of its UTF-8 bytes: encoded words are forbidden there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gateway.core.mime.addresses import Group, Mailbox
from gateway.core.mime.encoding import encode_words

MAX_QUOTED_BYTES = 1_000
NIL = b"NIL"
_FORBIDDEN = re.compile(r"[\r\n\0]")
_SPECIAL = re.compile(r'["\\]')
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_~!#$&+^`|")


def string(text: str) -> bytes:
    """An IMAP string. Text beyond ASCII is sent as a literal of UTF-8."""
    if _FORBIDDEN.search(text):
        text = _FORBIDDEN.sub(" ", text)
    if text.isascii() and len(text) <= MAX_QUOTED_BYTES:
        if _SPECIAL.search(text):
            text = _SPECIAL.sub(r"\\\g<0>", text)
        return b'"%b"' % text.encode("ascii")
    raw = text.encode("utf-8", "replace")
    return b"{%d}\r\n%b" % (len(raw), raw)


def nstring(text: str | None) -> bytes:
    """An IMAP string, or NIL for None."""
    return NIL if text is None else string(text)


def text_nstring(text: str | None) -> bytes:
    """A string that a person reads; beyond ASCII as encoded words. NIL for None."""
    return NIL if text is None else string(encode_words(text))


def addresses(entries: Sequence[Mailbox | Group]) -> bytes:
    """An address list: ``(name route mailbox host)`` each, NIL when empty; groups as RFC 3501 7.4.2 brackets them."""
    spelt: list[bytes] = []
    for entry in entries:
        if isinstance(entry, Group):
            spelt.append(b"(NIL NIL %b NIL)" % text_nstring(entry.name))
            spelt.extend(_address(member) for member in entry.members)
            spelt.append(b"(NIL NIL NIL NIL)")
        else:
            spelt.append(_address(entry))
    return b"(%b)" % b"".join(spelt) if spelt else NIL


def _address(entry: Mailbox) -> bytes:
    # A NIL host would announce a group: a mailbox without a host has an empty one.
    name = text_nstring(entry.name or None)
    return b"(%b %b %b %b)" % (name, nstring(entry.route or None), string(entry.mailbox), string(entry.host))


def parameters(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A parenthesised list of names and values, NIL when empty."""
    spelt: list[bytes] = []
    for name, content in pairs:
        if content.isascii():
            spelt.append(b"%b %b" % (string(name), string(content)))
        else:
            starred = name if name.endswith("*") else name + "*"
            spelt.append(b"%b %b" % (string(starred), string("utf-8''" + _percent(content))))
    return b"(%b)" % b" ".join(spelt) if spelt else NIL


def _percent(content: str) -> str:
    return "".join(chr(b) if b in _UNRESERVED else f"%{b:02X}" for b in content.encode("utf-8", "replace"))
