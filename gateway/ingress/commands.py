"""Parses what stands behind a MAIL or RCPT command (RFC 5321 section 4.1.2): pure functions.

Guarantees: the address comes out as it was written, without angle brackets and source route; lengths are those
of RFC 5321 section 4.5.3.1 (EP-8). Failure mode: :class:`SyntaxFault`, which carries the fixed reply to give.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.ingress import replies

MAX_LOCAL_PART_BYTES = 64
MAX_DOMAIN_BYTES = 255
MAX_PATH_BYTES = 256

_ATOM = r"[^\s<>()\[\]\\,:;\"@\x00-\x1f\x7f]+"
_PATH = re.compile(
    rf"<(?:@{_ATOM}(?:,@{_ATOM})*:)?"
    rf"(?P<mailbox>(?P<local>\"(?:[^\"\\]|\\.)*\"|{_ATOM})(?:@(?P<domain>\[[A-Za-z0-9.:-]+\]|{_ATOM}))?)?>"
    r"(?P<rest>| .*)\Z"
)
_PARAMETER = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[^\s=\x00-\x1f\x7f]+))?\Z")
_SIZE = re.compile(r"[0-9]{1,20}\Z", re.ASCII)


class SyntaxFault(Exception):  # noqa: N818 - the client's fault, told to it as a reply
    """The command cannot be read; ``reply`` is the whole fixed answer."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class MailCommand:
    """MAIL FROM. ``address`` is empty for the null reverse path."""

    address: str
    size_bytes: int
    """As declared by SIZE=, else 0."""
    smtputf8: bool


def parse_mail(argument: str) -> MailCommand:
    """Read ``FROM:<reverse-path> [SIZE=n] [BODY=7BIT|8BITMIME] [SMTPUTF8]``.

    Raises:
        SyntaxFault: with reply 501, 553 or 555.
    """
    address, parameters = _path(argument, "FROM:", replies.BAD_SENDER)
    size, utf8 = 0, False
    for key, value in parameters.items():
        if key == "SIZE":
            if value is None or not _SIZE.match(value):
                raise SyntaxFault(replies.BAD_ARGUMENT)
            size = int(value)
        elif key == "BODY":
            if value is None or value.upper() not in {"7BIT", "8BITMIME"}:
                raise SyntaxFault(replies.BAD_ARGUMENT)
        elif key == "SMTPUTF8":
            if value is not None:
                raise SyntaxFault(replies.BAD_ARGUMENT)
            utf8 = True
        else:
            raise SyntaxFault(replies.UNKNOWN_PARAMETER)
    if not utf8 and not address.isascii():
        raise SyntaxFault(replies.NEEDS_SMTPUTF8)
    return MailCommand(address, size, utf8)


def parse_rcpt(argument: str, *, smtputf8: bool) -> str:
    """Read ``TO:<forward-path>`` and return the address. No parameters are known here.

    Raises:
        SyntaxFault: with reply 501, 553 or 555.
    """
    address, parameters = _path(argument, "TO:", replies.BAD_RECIPIENT)
    if not address:
        raise SyntaxFault(replies.BAD_RECIPIENT)
    if parameters:
        raise SyntaxFault(replies.UNKNOWN_PARAMETER)
    if not smtputf8 and not address.isascii():
        raise SyntaxFault(replies.NEEDS_SMTPUTF8)
    return address


def _path(argument: str, keyword: str, bad: str) -> tuple[str, dict[str, str | None]]:
    if argument[: len(keyword)].upper() != keyword:
        raise SyntaxFault(replies.BAD_ARGUMENT)
    # "FROM: <a@b>" with a space is not in the grammar, but much software sends it and it can mean one thing only.
    match = _PATH.match(argument[len(keyword) :].lstrip(" "))
    if match is None:
        raise SyntaxFault(bad)
    mailbox, local, domain = match["mailbox"] or "", match["local"] or "", match["domain"]
    if mailbox and domain is None and mailbox.lower() != "postmaster":
        # Only <postmaster> may stand without a domain (RFC 5321 section 4.5.1).
        raise SyntaxFault(bad)
    if (
        len(local.encode()) > MAX_LOCAL_PART_BYTES
        or len((domain or "").encode()) > MAX_DOMAIN_BYTES
        or len(mailbox.encode()) + 2 > MAX_PATH_BYTES
    ):
        raise SyntaxFault(bad)
    return mailbox, _parameters(match["rest"])


def _parameters(text: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in text.split():
        match = _PARAMETER.match(word)
        if match is None or match["key"].upper() in found:
            raise SyntaxFault(replies.BAD_ARGUMENT)
        found[match["key"].upper()] = match["value"]
    return found
