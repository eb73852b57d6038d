"""Content transfer encodings, charsets and encoded words, decoded for reading.

Guarantees: nothing here raises for what a message holds, everything is linear in the input, and text that is
returned can always be stored as UTF-8 (no lone surrogates). What is decoded is for display, search and the import
of attachments; the bytes of the message itself are never replaced by it.

Failure modes: what cannot be decoded comes back as near to the original as possible (the undecoded bytes, U+FFFD
for a byte that has no meaning in the charset).
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode

IDENTITY_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_PADDING = re.compile(rb"=+")
_TRAILING_WHITE = re.compile(rb"[ \t]\r?\n|[ \t]\Z")


def decode_transfer(data: bytes, encoding: str) -> bytes:
    """Undo a content transfer encoding (RFC 2045 6). An unknown one is left as it is."""
    name = encoding.strip().lower()
    if name == "base64":
        return decode_base64(data)
    if name == "quoted-printable":
        return decode_quoted_printable(data)
    return data


def decode_base64(data: bytes) -> bytes:
    """Decode base64; foreign characters are skipped and several padded runs are joined (RFC 2045 6.8)."""
    clean = data.translate(None, _NOT_BASE64)
    return b"".join(_base64_run(run) for run in _PADDING.split(clean))


def _base64_run(run: bytes) -> bytes:
    if len(run) % 4 == 1:
        run = run[:-1]  # Six bits make no byte.
    return binascii.a2b_base64(run + b"=" * (-len(run) % 4))


def decode_quoted_printable(data: bytes) -> bytes:
    """Decode quoted-printable; white space before a line end is dropped (RFC 2045 6.7, rule 3)."""
    if _TRAILING_WHITE.search(data):
        lines = data.split(b"\n")
        data = b"\n".join(
            line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t") for line in lines
        )
    return binascii.a2b_qp(data)


# --- charsets ---

_ALIASES = {
    "unicode-1-1-utf-8": "utf-8",
    "utf8": "utf-8",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8",
    "x-sjis": "shift_jis",
    "x-gbk": "gb18030",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
}
_WINDOWS_1252 = frozenset({"iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "latin-1", "windows-1252", "cp1252"})
_GUESS = frozenset({"", "us-ascii", "ascii", "unknown-8bit", "x-unknown", "unknown", "default", "ansi_x3.4-1968"})
# These Python codecs are no charsets of mail: some raise what no caller expects, some run escapes.
_NO_CHARSETS = re.compile(r"idna|punycode|undefined|mbcs|oem|unicode|raw|escape|_codec|rot|hex|base|uu|zlib|bz2|quopri")
MAX_CHARSET_CHARS = 40


def decode_text(data: bytes, charset: str) -> str:
    """Decode text in the charset that its sender names, or in the likeliest one when the name is useless.

    ASCII and unknown names mean UTF-8 when the bytes are valid UTF-8, and windows-1252 otherwise: that is what
    mislabelled mail holds in practice. ISO-8859-1 is read as windows-1252 (its C1 controls are never meant).
    """
    name = charset.strip().strip("\"'").lower()
    name = _ALIASES.get(name, name)
    if name in _WINDOWS_1252:
        return decode_windows_1252(data)
    if name == "utf-8":
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    if name in _GUESS or len(name) > MAX_CHARSET_CHARS or not name.isascii() or _NO_CHARSETS.search(name):
        return decode_guessed(data)
    try:
        text = data.decode(name, "replace")
        return text.encode("utf-8", "replace").decode("utf-8")
    except (LookupError, ValueError):
        return decode_guessed(data)


def decode_guessed(data: bytes) -> str:
    """Decode bytes of unknown charset: UTF-8 when valid, else windows-1252."""
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return decode_windows_1252(data)


def decode_windows_1252(data: bytes) -> str:
    """Decode every byte string: the five bytes that windows-1252 lacks keep their Latin-1 meaning."""
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


# --- encoded words (RFC 2047) ---

# The pieces are bounded and exclude "?", so that a search from each "=?" ends at the next one: linear time.
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,80})\?([BbQq])\?([^?\r\n]{0,4000})\?=")
_BETWEEN_WORDS = re.compile(r"[ \t\r\n]*\Z")
_HEX = re.compile(rb"=([0-9A-Fa-f]{2})")


def decode_encoded_words(text: str) -> str:
    """Decode every encoded word in a header value; white space between two of them is dropped (RFC 2047 6.2).

    Neighbours of one charset are joined before decoding, because many senders split a character between them.
    """
    if "=?" not in text:
        return text
    out: list[str] = []
    pending: list[bytes] = []
    charset = ""
    position = 0
    for word in _ENCODED_WORD.finditer(text):
        between = text[position : word.start()]
        name = word.group(1).partition("*")[0].lower()  # RFC 2231 5: the language follows a star.
        if pending and (name != charset or not _BETWEEN_WORDS.match(between)):
            out.append(decode_text(b"".join(pending), charset))
            pending = []
            if _BETWEEN_WORDS.match(between):
                between = ""
        elif pending:
            between = ""
        out.append(between)
        pending.append(_word_bytes(word.group(2), word.group(3)))
        charset = name
        position = word.end()
    if pending:
        out.append(decode_text(b"".join(pending), charset))
    out.append(text[position:])
    return "".join(out)


def _word_bytes(kind: str, content: str) -> bytes:
    raw = content.encode("utf-8", "replace")
    if kind in "Bb":
        return decode_base64(raw)
    return _HEX.sub(lambda match: bytes([int(match.group(1), 16)]), raw.replace(b"_", b" "))


_WORD_BYTES = 45
"""Bytes of text in one encoded word: 60 base64 characters and the frame stay below the 75 of RFC 2047 2."""


def encode_words(text: str) -> str:
    """Return ``text`` as ASCII: unchanged when it is ASCII, else all of it as UTF-8 encoded words.

    Encoded words that are in the text already are decoded first, so that nothing is encoded twice.
    """
    if text.isascii():
        return text
    words: list[str] = []
    chunk = b""
    for char in decode_encoded_words(text):
        raw = char.encode("utf-8", "replace")
        if len(chunk) + len(raw) > _WORD_BYTES:
            words.append(_word(chunk))
            chunk = b""
        chunk += raw
    words.append(_word(chunk))
    return " ".join(words)


def _word(raw: bytes) -> str:
    return f"=?utf-8?B?{b64encode(raw).decode('ascii')}?="


def header_text(value: bytes) -> str:
    """A raw header value as text: unfolded, stripped, UTF-8 when valid and windows-1252 otherwise.

    Encoded words stay as they are. Other line ends and NUL, which no header may hold, become spaces.
    """
    flat = value.replace(b"\r\n", b"").replace(b"\n", b"").strip(b" \t\r")
    if b"\r" in flat or b"\0" in flat:
        flat = flat.replace(b"\r", b" ").replace(b"\0", b" ")
    try:
        return flat.decode("ascii")
    except UnicodeDecodeError:
        return decode_guessed(flat)
