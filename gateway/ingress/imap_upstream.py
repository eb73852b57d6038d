"""An upstream mailbox over IMAP (:class:`gateway.ingress.upstream.Upstream`).

What is taken is decided by what we remember and not by flags: a message that somebody has read in a webmail before it
was fetched is fetched all the same. Flags count once, when an account is fetched from for the first time: what bears
our mark then was dealt with by somebody before us. After a change of UIDVALIDITY everything is found again that came
since that first time, whatever its flags; whoever calls recognises what he has.

The search is for ids beyond the mark, so that old messages cost nothing. A thorough look asks as well for messages
below it without our mark: a server that shows a lower id late (which it must not) loses us nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta

from gateway.core.fetch_settings import FetchSettings
from gateway.core.fetching import (
    FetchPlace,
    ItemError,
    ItemGoneError,
    ItemTrouble,
    LoginRefusedError,
    UpstreamError,
)
from gateway.core.message import Source
from gateway.ingress.imap_fetch import Answer, IMAPConnection, connect
from gateway.ingress.imap_words import (
    code_of,
    fetched_items,
    mailbox_name,
    may_keep,
    number_set,
    quoted,
    searched_uids,
    selected_number,
)
from gateway.ingress.upstream import LISTING_BYTES, LISTING_SECONDS, Found, download_seconds
from gateway.ingress.upstream_login import plain_response, read_secret, tls_context, xoauth2_response

_PASSING = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG"})
"""Codes of RFC 5530 that say nothing about what was asked: it is to be asked again later."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SLACK_BYTES = 65_536
_ONE_DAY = timedelta(days=1)
"""SEARCH knows days only, and those of the server's own time zone."""


class IMAPUpstream:
    """A session over IMAP. Made by :func:`open_imap`."""

    source = Source.IMAP
    deletes = False

    def __init__(self, account: FetchSettings, connection: IMAPConnection) -> None:
        self._account = account
        self._connection = connection
        self._kind, _, self._target = account.after.partition(":")
        self._cannot_mark = ""
        self._uid_next: int | None = None
        self._idles = account.idle and "IDLE" in connection.capabilities
        self.peer = connection.peer

    # --- the mailbox ---

    async def open(self) -> tuple[str, int | None]:
        """SELECT. See :class:`gateway.ingress.upstream.Upstream`."""
        answer = await self._connection.select(mailbox_name(self._account.mailbox))
        if not answer.ok:
            _refuse_passing(answer)
            raise UpstreamError("mailbox", f"there is no mailbox {self._account.mailbox!r} to open; see mailbox")
        validity = selected_number(answer.lines, b"UIDVALIDITY")
        if validity is None:
            raise UpstreamError("mailbox", "the server gives no UIDVALIDITY: messages could not be told apart")
        self._uid_next = selected_number(answer.lines, b"UIDNEXT")
        self._cannot_mark = self._why_no_mark(answer)
        return str(validity), self._uid_next

    def _why_no_mark(self, answer: Answer) -> str:
        if b"READ-ONLY" in answer.text.upper():
            return "the mailbox is read-only for this login, so messages cannot be marked upstream"
        flag = {"seen": "\\Seen", "flag": self._target}.get(self._kind)
        if flag and not may_keep(answer.lines, flag):
            return f"the server does not keep the flag {flag} here; see after"
        if self._kind == "move" and not {"MOVE", "UIDPLUS"} & self._connection.capabilities:
            return "the server can neither MOVE nor UIDPLUS; see after"
        return ""

    async def look(self, place: FetchPlace, *, thorough: bool) -> Found:
        """UID SEARCH. See :class:`gateway.ingress.upstream.Upstream`."""
        self._connection.news.clear()
        if place.mark == 0:
            return await self._first_look(place)
        beyond = await self._search(f"UID {place.mark + 1}:*")
        # The range ends at the last message even when that lies below its beginning (RFC 3501 section 6.4.8).
        uids = [uid for uid in beyond if uid > place.mark]
        if thorough:
            uids = await self._search(f"UID 1:{place.mark} {self._unmarked}".rstrip()) + uids
        return Found(tuple(map(str, uids)), uids[-1] if uids else place.mark, rising=True)

    async def _first_look(self, place: FetchPlace) -> Found:
        """The mailbox as it is, gone through as a whole; what comes meanwhile lies beyond the mark."""
        mark = (self._uid_next or 1) - 1
        if self._uid_next is None:
            everything = await self._search("ALL")
            mark = everything[-1] if everything else 0
        if place.first or not self._unmarked:
            uids = await self._search(self._unmarked or "ALL")
        else:
            uids = await self._search(f"OR {self._unmarked} SINCE {_imap_date(place.since - _ONE_DAY)}")
        return Found(tuple(map(str, uids)), max([mark, *uids]), rising=False)

    @property
    def _unmarked(self) -> str:
        """The search key of messages that do not bear our mark; empty when all that lie here do not."""
        if self._kind == "seen":
            return "UNSEEN"
        if self._kind == "flag":
            return {"\\Flagged": "UNFLAGGED", "\\Answered": "UNANSWERED"}.get(self._target, f"UNKEYWORD {self._target}")
        return ""

    async def _search(self, criteria: str) -> list[int]:
        answer = await self._connection.command(
            "SEARCH", criteria, uid=True, total=LISTING_BYTES, line=LISTING_BYTES, seconds=LISTING_SECONDS
        )
        uids = searched_uids(answer.lines)
        if not answer.ok or uids is None:
            raise UpstreamError("search", "the server cannot search its mailbox now")
        return uids

    # --- messages ---

    async def sizes(self, uids: Sequence[str]) -> dict[str, int]:
        """RFC822.SIZE of each. See :class:`gateway.ingress.upstream.Upstream`."""
        answer = await self._connection.command("FETCH", number_set(uids), "(UID RFC822.SIZE)", uid=True)
        wanted = set(uids)
        return {
            str(item.uid): item.size
            for item in fetched_items(answer.lines)
            if item.size is not None and str(item.uid) in wanted
        }

    async def download(self, uid: str, limit: int) -> bytes:
        """BODY.PEEK[]: nothing changes upstream. See :class:`gateway.ingress.upstream.Upstream`."""
        answer = await self._connection.command(
            "FETCH",
            uid,
            "(UID BODY.PEEK[])",
            uid=True,
            total=limit + _SLACK_BYTES,
            literal=limit,
            seconds=download_seconds(limit),
        )
        for item in fetched_items(answer.lines):
            if item.uid == int(uid) and len(item.bodies) == 1 and item.bodies[0]:
                return bytes(item.bodies[0])
        if not answer.ok:
            _refuse_passing(answer)
        if not await self._search(f"UID {uid}"):
            raise ItemGoneError("the message is not there any more")
        raise ItemError(ItemTrouble.UNREADABLE, "the server does not hand out this message")

    # --- the mark ---

    async def mark(self, uids: Sequence[str]) -> Sequence[str]:
        """Flag or move. See :class:`gateway.ingress.upstream.Upstream`."""
        if self._cannot_mark:
            raise UpstreamError("mark", self._cannot_mark)
        if self._kind == "move":
            await self._move(number_set(uids))
            return uids
        flag = "\\Seen" if self._kind == "seen" else self._target
        answer = await self._connection.command("STORE", number_set(uids), "+FLAGS.SILENT", f"({flag})", uid=True)
        if not answer.ok:
            raise UpstreamError("mark", f"the server does not set the flag {flag}; see after")
        return uids

    async def _move(self, numbers: str) -> None:
        folder = mailbox_name(self._target)
        verb = "MOVE" if "MOVE" in self._connection.capabilities else "COPY"
        answer = await self._connection.command(verb, numbers, folder, uid=True)
        if not answer.ok and code_of(answer.text) == "TRYCREATE":
            await self._connection.command("CREATE", folder)
            answer = await self._connection.command(verb, numbers, folder, uid=True)
        if answer.ok and verb == "COPY":
            answer = await self._connection.command("STORE", numbers, "+FLAGS.SILENT", "(\\Deleted)", uid=True)
            if answer.ok:
                answer = await self._connection.command("EXPUNGE", numbers, uid=True)
        if not answer.ok:
            raise UpstreamError("mark", "the server does not move messages to the folder of after; does it exist?")

    # --- waiting and the end ---

    @property
    def listens(self) -> bool:
        """Whether the server can IDLE, and may."""
        return self._idles

    async def wait(self, seconds: float, wake: asyncio.Event) -> None:
        """IDLE. What came between the last look and now was noticed, and needs no waiting."""
        if not self._connection.news.is_set() and not wake.is_set():
            self._idles = await self._connection.idle(seconds, wake)

    async def close(self) -> None:
        """LOGOUT."""
        await self._connection.close()


async def open_imap(account: FetchSettings) -> IMAPUpstream:
    """Connect and log in.

    Raises:
        UpstreamError: it cannot be done; LoginRefusedError when the server does not take the login.
    """
    context = await asyncio.to_thread(tls_context, account)
    secret = await asyncio.to_thread(read_secret, account)
    connection = await connect(account, context)
    try:
        if not connection.preauthenticated:
            await _log_in(account, connection, secret)
            await connection.ask_capabilities()
    except BaseException:
        await connection.close()
        raise
    return IMAPUpstream(account, connection)


async def _log_in(account: FetchSettings, connection: IMAPConnection, secret: str) -> None:
    capabilities = connection.capabilities
    if account.oauth_token_file is not None:
        if "AUTH=XOAUTH2" not in capabilities:
            raise UpstreamError("login", "the server does not offer XOAUTH2; use password_file")
        answer = await connection.authenticate("XOAUTH2", xoauth2_response(account.username, secret))
    elif "AUTH=PLAIN" in capabilities:
        answer = await connection.authenticate("PLAIN", plain_response(account.username, secret))
    elif "LOGINDISABLED" in capabilities:
        raise UpstreamError("login", "the server offers no login with a password here; see tls and oauth_token_file")
    elif not (account.username + secret).isascii():
        raise UpstreamError("login", "this server takes login names and passwords in ASCII only")
    else:
        answer = connection.logged_in(await connection.command("LOGIN", quoted(account.username), quoted(secret)))
    if not answer.ok:
        _refuse_passing(answer)
        key = "password_file" if account.password_file is not None else "oauth_token_file"
        raise LoginRefusedError(f"the server refuses the login; see username and {key}, then: fetch now {account.name}")


def _refuse_passing(answer: Answer) -> None:
    """Raise when the answer is no word about what was asked, but about the server's state."""
    if code_of(answer.text) in _PASSING:
        raise UpstreamError("unavailable", "the server says that it cannot do this now")


def _imap_date(day: date) -> str:
    """A date as SEARCH has it, in every locale."""
    return f"{day.day}-{_MONTHS[day.month - 1]}-{day.year:04d}"
