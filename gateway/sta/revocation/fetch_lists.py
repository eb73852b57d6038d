"""The revocation lists that one inquiry fetches from distribution points, and what is kept of them (AS-69, AS-70).

Guarantees: a reply is kept for others under the URL and the issuer that was asked about (an authority that changes its
key serves old and new certificates from one URL), and only when the issuer signed all lists in it, or the library
relied on them: a forgery put in their place on the way would else hide the real lists until a nextUpdate of its own.
An older list never takes the place of a later one. A list that was kept is handed out beside whatever can be had now,
also past its nextUpdate, because it may still prove a revocation; what it proves is for ``list_status`` to say.

Failure modes: none; what was not fetched is told in ``causes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.core.errors import InputError
from gateway.sta.fetching.fetcher import FetchError, FetchSession
from gateway.sta.fetching.reply_cache import LISTS, Key, Reply, ReplyCache
from gateway.sta.revocation.crls import RevocationList, crl_ders
from gateway.sta.revocation.findings import Finding
from gateway.sta.revocation.list_status import Question, is_rollback, of_issuer

MAX_LISTS_IN_REPLY = 8

Lists = tuple[RevocationList, ...]


@dataclass
class ListFetch:
    """Fetches for one question, each URL once."""

    question: Question
    session: FetchSession
    cache: ReplyCache
    causes: list[str]
    """Where the inquiry notes what was not to be had."""
    _fetched: dict[str, Lists] = field(default_factory=dict)

    def at(self, url: str) -> Lists:
        """The lists of that URL, with those that are still held from before; empty when there are none."""
        key = self._key(url)
        if url not in self._fetched:
            try:
                self._fetched[url] = self.cache.obtain(
                    key, self.question.at, self.session.remaining, lambda: self._load(url)
                )
            except FetchError as exc:
                self.causes.append(f"a CRL was not fetched: {exc}")
                self._fetched[url] = ()
        return tuple(dict.fromkeys((*self._fetched[url], *(self.cache.held(key) or ()))))

    def keep(self, found: Finding) -> None:
        """Keep fetched lists that the library relied on: now their signatures are known to be right."""
        for url, lists in self._fetched.items():
            if lists and all(one.der in found.data for one in lists):
                self.cache.keep(self._key(url), self._reply(lists, _earliest(lists)))

    def _key(self, url: str) -> Key:
        return (LISTS, url, self.question.issuer_digest)

    def _load(self, url: str) -> Reply:
        try:
            ders = crl_ders(self.session.get(url))[:MAX_LISTS_IN_REPLY]
            lists = tuple(RevocationList(der, url) for der in ders)
        except (InputError, ValueError):
            lists = ()
        if not lists:
            raise FetchError("what was fetched is no CRL")
        trusted = len(of_issuer(self.question, lists)) == len(lists)
        return self._reply(lists, _earliest(lists) if trusted else None)

    def _reply(self, lists: Lists, keep_until: datetime | None) -> Reply:
        size = sum(len(c.der) for c in lists)
        return Reply(lists, keep_until, size, lambda kept: is_rollback(lists, kept, self.question.at))


def _earliest(lists: Sequence[RevocationList]) -> datetime | None:
    """Until when all of them are in force; None when one does not say."""
    ends = [one.next_update for one in lists]
    return None if None in ends else min(end for end in ends if end is not None)
