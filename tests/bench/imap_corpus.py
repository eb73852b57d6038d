"""The mail of the IMAP benchmark: the same bytes for the same number, every time and for both servers.

A message has about 3.5 kB; every fourth is a multipart with an attachment in base64. After the small ones come some of
65 kB. What the searches look for stands in every hundredth message, in words that no attachment can hold: base64 has no
hyphen.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

SMALL_BYTES = 3_500
LARGE_BYTES = 65_000
LARGE_MESSAGES = 200
RARE_SUBJECT = "re-referral"
RARE_SENDER = "nora.quill-harte"
RARE_FIELD = ("X-Referral-Id", "ward-99-")
RARE_WORD = "xantho-chromia"
_EVERY = 100
_FIRST = datetime(2024, 1, 1, 8, tzinfo=UTC)
_VOCABULARY = (
    "patient clinic admitted discharged follow up visit blood pressure glucose normal elevated reported denies pain "
    "chest abdomen history medication allergies none known daily oral tablet dose increased reduced referral requested "
    "cardiology imaging attached summary results laboratory pending reviewed contact office question regards the and "
    "with for since last week month year left right upper lower mild severe acute chronic stable improved worse plan"
)
_WORDS = _VOCABULARY.split()


def corpus(small: int, large: int = LARGE_MESSAGES) -> Iterator[bytes]:
    """The small messages, then the large ones."""
    for number in range(small + large):
        yield message(number, large=number >= small)


def message(number: int, *, large: bool = False) -> bytes:
    """One of them, with CRLF line ends."""
    chance = random.Random(number)
    boundary = f"=_part-{number:08d}"
    has_attachment = large or number % 4 == 3
    head = _head(number, chance, boundary if has_attachment else "")
    room = (LARGE_BYTES if large else SMALL_BYTES) - len(head)
    if not has_attachment:
        return (head + "\r\n" + _text(number, chance, room)).encode("ascii")
    text = _text(number, chance, 900)
    opening = (
        f"\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n{text}"
        f"\r\n--{boundary}\r\nContent-Type: application/pdf; name=summary-{number}.pdf\r\n"
        f"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=summary-{number}.pdf\r\n\r\n"
    )
    noise = chance.randbytes((room - len(opening) - 40) * 57 // 78)
    encoded = base64.encodebytes(noise).replace(b"\n", b"\r\n")
    return b"".join((head.encode("ascii"), opening.encode("ascii"), encoded, f"--{boundary}--\r\n".encode("ascii")))


def _head(number: int, chance: random.Random, boundary: str) -> str:
    rare = number % _EVERY == 7
    sent = format_datetime(_FIRST + timedelta(minutes=7 * number))
    sender = RARE_SENDER if rare else f"{chance.choice(_WORDS)}.{chance.choice(_WORDS)}{chance.randrange(400)}"
    subject = f"{RARE_SUBJECT if rare else chance.choice(_WORDS).title()} {_phrase(chance, 5)} {number}"
    field, value = RARE_FIELD
    referral = f"{value if rare else 'ward-12-'}{chance.randrange(10**6)}"
    kind = f'multipart/mixed; boundary="{boundary}"' if boundary else "text/plain; charset=utf-8"
    hops = "".join(
        f"Received: from mta{hop}.sender{number % 50}.example (mta{hop}.sender{number % 50}.example [192.0.2.{hop}])"
        "\r\n"
        f"\tby relay{hop}.hisp.example with ESMTPS id {chance.randrange(16**12):012x}\r\n\tfor <inbox@clinic.example>; "
        f"{sent}\r\n"
        for hop in range(1, 3)
    )
    return (
        f"{hops}From: {_phrase(chance, 2).title()} <{sender}@direct.sender{number % 50}.example>\r\n"
        f"To: Clinic Inbox <inbox@clinic.example>\r\nCc: records@direct.sender{number % 50}.example\r\n"
        f"Subject: {subject}\r\nDate: {sent}\r\nMessage-ID: <bench-{number:09d}@direct.sender{number % 50}.example>\r\n"
        f"References: <thread-{number // 3:09d}@direct.sender{number % 50}.example>\r\n"
        f"{field}: {referral}\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n"
    )


def _phrase(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _text(number: int, chance: random.Random, size: int) -> str:
    lines = [f"Note {number}: {RARE_WORD} seen." if number % _EVERY == 3 else f"Note {number}."]
    length = len(lines[0]) + 2
    while length < size:
        lines.append(_phrase(chance, 11))
        length += len(lines[-1]) + 2
    return "\r\n".join(lines) + "\r\n"
