"""Fetching from upstream mailboxes: its words, its values and its rules, without any network.

A message of an upstream mailbox is one *item*: an account, a *place* and an id there. The place is one life of one
mailbox (the server, the login, the folder, and its UIDVALIDITY): ids mean nothing beyond it (RFC 3501 section 2.3.1.1).

=========  ==================================================================  ========================================
item       meaning                                                             a crash here
=========  ==================================================================  ========================================
(none)     not looked at                                                       it is found again at the next look
trying     could not be had; it is tried again, after all others               it is tried again
taken      committed, in one transaction with the message itself               the upstream mark is set at the next look
marked     committed, and the upstream mailbox says so                         nothing is left to do
aside      given up by name until a person says ``fetch retry``                it stays aside
gone       it is not in the mailbox any more                                   listed again, it is fetched (again)
=========  ==================================================================  ========================================
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from gateway.core.errors import GatewayError, InputError

SYSTEM_FLAGS = {"\\flagged": "\\Flagged", "\\answered": "\\Answered"}
_ACCOUNT_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}\Z")
_KEYWORD = re.compile(r"[A-Za-z0-9$_.+-]{1,64}\Z")
_FIRST_RETRY_SECONDS = 2.0
_LAST_RETRY_SECONDS = 900.0
_REFUSED_SECONDS = (300.0, 1800.0, 3600.0)
_MAX_DOUBLINGS = 16


class FetchState(StrEnum):
    """What an account does now. docs/fetch.md says of each what the operator does about it."""

    NEW = "new"
    CONNECTING = "connecting"
    FETCHING = "fetching"
    LISTENING = "listening"
    """Connected; the server tells of new mail at once (IDLE)."""
    WAITING = "waiting"
    """Until the next look."""
    RETRYING = "retrying"
    """The last attempt failed; another one follows."""
    LOGIN_REFUSED = "login-refused"
    """The server does not take the login; a person must look, and meanwhile it is asked rarely."""


class ItemState(StrEnum):
    """See the table above."""

    TRYING = "trying"
    TAKEN = "taken"
    MARKED = "marked"
    ASIDE = "aside"
    GONE = "gone"


class ItemTrouble(StrEnum):
    """Why one message could not be had."""

    TOO_LARGE = "too-large"
    UNREADABLE = "unreadable"
    """The server does not give it, or not whole, while it answers other questions."""
    REFUSED = "refused"
    """The gateway cannot take it in as a message."""
    CONNECTION = "connection"
    """The connection ended each time at this message."""
    FAULT = "fault"
    """The gateway failed at it."""


ASIDE_WORDS = {
    ItemTrouble.TOO_LARGE: "larger than max_message_mib; raise it, then: fetch retry",
    ItemTrouble.UNREADABLE: "the server does not hand it out; look at it in its webmail, then: fetch retry",
    ItemTrouble.REFUSED: "it cannot be taken in as a message; look at it in the upstream webmail",
    ItemTrouble.CONNECTION: "the connection ended each time at this message; look at it there, then: fetch retry",
    ItemTrouble.FAULT: "the gateway failed at it, and its log says where; after the mend: fetch retry",
}

TRIES = {
    ItemTrouble.TOO_LARGE: 1,
    ItemTrouble.REFUSED: 1,
    ItemTrouble.UNREADABLE: 3,
    ItemTrouble.CONNECTION: 5,
    ItemTrouble.FAULT: 5,
}
"""After so many attempts a message is set aside."""


class UpstreamError(GatewayError):
    """An upstream mailbox cannot be used now. The text is for the operator; nothing that the server said is in it."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause
        """One word, for logs."""


class LoginRefusedError(UpstreamError):
    """The server does not take this login. It must not be asked often: accounts get locked."""

    def __init__(self, text: str) -> None:
        super().__init__("login_refused", text)


class ItemError(GatewayError):
    """One message cannot be had; the connection is sound."""

    def __init__(self, trouble: ItemTrouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class ItemGoneError(GatewayError):
    """The message is not in the mailbox any more."""


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """How an account stands, as every process sees it."""

    account: str
    state: FetchState = FetchState.NEW
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    error: str = ""
    """In plain words, with what to do; empty when the last attempt succeeded."""
    waiting: int = 0
    """Messages seen upstream and not taken yet."""
    next_attempt: datetime | None = None
    asked: int = 0
    """How many times somebody asked to fetch at once ..."""
    answered: int = 0
    """... and up to which of these it was done."""
    new: int = 0
    """Messages that the last finished look brought."""
    place: str = ""
    """The place that was looked at last."""
    owned: bool = False
    """Some process works on the account: its lease has not run out, by the clock that leases are kept in."""
    taken: int = 0
    """Messages of the account that were ever taken."""
    aside: int = 0


@dataclass(frozen=True, slots=True)
class FetchPlace:
    """What is remembered of one life of one upstream mailbox."""

    account: str
    key: str
    mark: int
    """Every id up to this one was dealt with. 0: the mailbox was not yet gone through."""
    since: date
    """When the account was first fetched from, whatever place it had then."""
    first: bool
    """Whether the account had no place before: what bears the mark then was taken by somebody before us."""


@dataclass(frozen=True, slots=True)
class FetchItem:
    """One message that made trouble."""

    account: str
    place: str
    uid: str
    state: ItemState
    trouble: ItemTrouble
    attempts: int
    size_bytes: int | None
    at: datetime


def check_name(name: str) -> str:
    """The account's name. It stands in logs, so nothing in it may look like an address.

    Raises:
        InputError: it is none.
    """
    if not _ACCOUNT_NAME.match(name):
        raise InputError("name must be 1 to 40 of a-z, 0-9, dot, dash and underscore, beginning with a letter or digit")
    return name


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_after(protocol: str, after: str) -> str:
    """What is done upstream with a message that was taken, in its one spelling; empty means the usual.

    Returns:
        ``seen``, ``flag:NAME`` or ``move:FOLDER`` for IMAP; ``leave`` or ``delete`` for POP3.

    Raises:
        InputError: it is none of these.
    """
    if protocol == "pop3":
        if after in {"", "leave", "delete"}:
            return after or "leave"
        raise InputError('after must be "leave" or "delete" with pop3, which knows no flags and no folders')
    kind, separator, name = after.partition(":")
    if after in {"", "seen"}:
        return "seen"
    if kind == "move" and name and name.isprintable() and len(name) <= 200:
        return after
    if kind == "flag" and separator:
        if name.lower() in SYSTEM_FLAGS:
            return f"flag:{SYSTEM_FLAGS[name.lower()]}"
        if _KEYWORD.match(name):
            return after
        raise InputError("after: a flag is \\Flagged, \\Answered or a word of letters, digits and $ _ . + -")
    raise InputError('after must be "seen", "flag:NAME" or "move:FOLDER" with imap')


def retry_delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row; without jitter, which is the caller's."""
    return min(_FIRST_RETRY_SECONDS * 2.0 ** min(max(failures - 1, 0), _MAX_DOUBLINGS), _LAST_RETRY_SECONDS)


def refused_delay(refusals: int) -> float:
    """Seconds to wait after a login was refused so many times in a row."""
    return _REFUSED_SECONDS[min(max(refusals, 1), len(_REFUSED_SECONDS)) - 1]
