"""What an operator reads about one refused message: a plain text mail that the gateway makes.

It says when the message came, from which envelope, to whom, why it was refused, what mends that, and how to try it
again. It holds nothing of the message itself: not the raw bytes, which nobody has verified, and never anything that was
decrypted, not even the subject. The same entry gives the same bytes whenever it is asked for.

Failure modes: none; what a stranger wrote into an envelope is shown without control characters and in one line.
"""

from __future__ import annotations

from email.utils import format_datetime
from textwrap import wrap

from gateway.core.verdict import REPAIRS, Reason, is_repaired_here
from gateway.ports import RefusedMessage

MAX_SHOWN_RECIPIENTS = 100
MAX_SHOWN_CHARS = 320
_WIDTH = 78
_HOST = "quarantine.direct-gateway.invalid"
"""Of no domain that anybody can have (RFC 2606): nobody can answer, and no address is claimed."""


def make_report(uid: int, refused: RefusedMessage) -> bytes:
    """Return the report of an entry as a message with CRLF line ends."""
    reason = _one_line(refused.reason)
    head = [
        f"From: direct-gateway quarantine <quarantine@{_HOST}>",
        "To: operators:;",
        f"Subject: Refused: {_ascii(reason) or 'not judged'} ({refused.id})",
        f"Date: {format_datetime(refused.refused_at)}",
        f"Message-ID: <{refused.id}.{uid}@{_HOST}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]
    return "\r\n".join([*head, "", *_body(refused), ""]).encode("utf-8")


def _body(refused: RefusedMessage) -> list[str]:
    lines = [
        "A message was refused. It is kept as it came, and nobody has read it.",
        "",
        f"Message:        {refused.id}",
        f"Received:       {_moment(refused.received_at.isoformat())}",
        f"Refused:        {_moment(refused.refused_at.isoformat())}",
        f"Size:           {refused.size_bytes} bytes",
        f"Envelope from:  {_sender(refused.claimed_sender)}",
    ]
    shown = refused.recipients[:MAX_SHOWN_RECIPIENTS]
    lines += [f"Envelope to:    {_one_line(recipient)}" for recipient in shown]
    if len(refused.recipients) > len(shown):
        lines.append(f"                and {len(refused.recipients) - len(shown)} more")
    lines += ["", *_paragraph(f"Reason: {_one_line(refused.reason)}. {_one_line(refused.detail)}".rstrip())]
    if refused.hint:
        lines += ["", "In particular (what is named was named by whoever made the certificates):", ""]
        # A name is as long as its maker likes: he could place the break, and begin a line as this report begins one.
        lines += [f"> {line}" for line in _paragraph(_one_line(refused.hint), _WIDTH - 2)]
    lines += ["", *_paragraph(f"What to do: {_repair(refused.reason)}"), "", *_retry(refused)]
    return lines


def _retry(refused: RefusedMessage) -> list[str]:
    if is_repaired_here(refused.reason, refused.detail):
        first = "After the repair, have it judged again; this report is then gone:"
    else:
        first = "No repair here can mend that. Should it be judged again all the same:"
    return [
        first,
        "",
        f"    direct-gateway quarantine retry {refused.id}",
        "",
        "All that is known of it:",
        "",
        f"    direct-gateway quarantine show {refused.id}",
    ]


def _repair(reason: str) -> str:
    try:
        return REPAIRS[Reason(reason)]
    except (ValueError, KeyError):
        return "Look at the message with the command below."


def _sender(mail_from: str | None) -> str:
    if mail_from is None:
        return "none: the message was fetched"
    return f"{_one_line(mail_from)} (whoever sent it wrote that)" if mail_from else "<> (a notification)"


def _moment(text: str) -> str:
    return text.replace("T", " ").replace("+00:00", " UTC")


def _one_line(text: str) -> str:
    """Text of a stranger in one line of printable characters."""
    clean = "".join(char if char.isprintable() else "\ufffd" for char in text[:MAX_SHOWN_CHARS])
    return clean.encode("utf-8", "replace").decode("utf-8")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def _paragraph(text: str, width: int = _WIDTH) -> list[str]:
    return wrap(text, width, break_on_hyphens=False) or [""]
