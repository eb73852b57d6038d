"""Makes mail clients see how a message stands: its keywords and its view, in every mailbox that holds it.

What a message is, links and reviews say; this module writes down what follows from that
(:class:`gateway.core.standing.Standing`), for the message and for every copy of the same content. It is called in the
transaction that links, undoes a link, decides or reviews, after those rows are written. It may be called any number of
times: where all is as it should be, nothing is written and no MODSEQ rises.

Crash story: part of the caller's transaction. Failure modes: NotFoundError for a message that was not accepted.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select, update

from gateway.core.errors import NotFoundError
from gateway.core.standing import ReviewState, Standing
from gateway.store.links import IN_FORCE
from gateway.store.prepared import Prepared
from gateway.store.tables import link, mailbox, mailbox_counter, mailbox_flag, mailbox_message, message_content, review
from gateway.store.views import Views

_CONTENT = Prepared(
    select(message_content.c.content_sha256).where(message_content.c.message_id == bindparam("message"))
)
_HAS_LINK = Prepared(
    select(link.c.id)
    .join(message_content, message_content.c.message_id == link.c.message_id)
    .where(message_content.c.content_sha256 == bindparam("sha256"), IN_FORCE)
    .limit(1)
)
_NEWEST_REVIEW = Prepared(
    select(review.c.state)
    .join(message_content, message_content.c.message_id == review.c.message_id)
    .where(message_content.c.content_sha256 == bindparam("sha256"))
    .order_by(review.c.seq.desc())
    .limit(1)
)
_PLACES = Prepared(
    # By the unique key of mailbox and content, one look for each mailbox.
    select(mailbox_message.c.mailbox_id, mailbox_message.c.uid, mailbox_flag.c.flags)
    .join(
        mailbox_flag,
        (mailbox_flag.c.mailbox_id == mailbox_message.c.mailbox_id) & (mailbox_flag.c.uid == mailbox_message.c.uid),
    )
    .where(
        mailbox_message.c.mailbox_id.in_(select(mailbox.c.id)),
        mailbox_message.c.content_sha256 == bindparam("sha256"),
    )
    .order_by(mailbox_message.c.mailbox_id)
)
_MODSEQ = Prepared(select(mailbox_counter.c.highest_modseq).where(mailbox_counter.c.mailbox_id == bindparam("mailbox")))
_COUNT = Prepared(
    update(mailbox_counter)
    .where(mailbox_counter.c.mailbox_id == bindparam("mailbox"))
    .values(highest_modseq=bindparam("modseq"))
)
_FLAG = Prepared(
    update(mailbox_flag)
    .where(mailbox_flag.c.mailbox_id == bindparam("mailbox"), mailbox_flag.c.uid == bindparam("of_uid"))
    .values(flags=bindparam("text"), modseq=bindparam("to_modseq"))
)


class Standings:
    """See :class:`gateway.ports.StandingRows`."""

    def __init__(self, connection: Connection, views: Views) -> None:
        self._connection = connection
        self._views = views

    def of(self, message_id: str) -> Standing:
        """How a message stands that the link step has looked at, with its copies. Raises NotFoundError."""
        return self._of_content(self._content(message_id))

    def _content(self, message_id: str) -> str:
        found: str | None = _CONTENT.scalar(self._connection, message=message_id)
        if found is None:
            raise NotFoundError("there is no accepted message with that id")
        return found

    def _of_content(self, sha256: str) -> Standing:
        newest = _NEWEST_REVIEW.scalar(self._connection, sha256=sha256)
        return Standing(
            linked=_HAS_LINK.scalar(self._connection, sha256=sha256) is not None,
            decided=True,
            reviewed=newest == ReviewState.REVIEWED.value,
        )

    def settle(self, message_ids: Iterable[str]) -> list[int]:
        """Bring keywords and views of these messages, and of their copies, to how they stand now.

        Returns:
            The mailboxes in which something changed, ascending. Each has one new MODSEQ for all of it.

        Raises:
            NotFoundError: one of them was not accepted.
        """
        modseqs: dict[int, int] = {}
        for sha256 in dict.fromkeys(map(self._content, message_ids)):
            standing = self._of_content(sha256)
            for place in _PLACES.rows(self._connection, sha256=sha256):
                self._settle(place.mailbox_id, place.uid, place.flags, standing, modseqs)
        for mailbox_id, modseq in modseqs.items():
            _COUNT.run(self._connection, mailbox=mailbox_id, modseq=modseq)
        return sorted(modseqs)

    def _settle(self, mailbox_id: int, uid: int, flags: str, standing: Standing, modseqs: dict[int, int]) -> None:
        here = self._views.stands_in(mailbox_id, uid)
        if here is None:
            # Nobody received it here: somebody's own copy of what was sent.
            return
        view, view_uid = here
        text = " ".join(sorted(standing.flags(frozenset(flags.split()))))
        if text == flags and view is standing.view:
            return
        modseq = modseqs.get(mailbox_id)
        if modseq is None:
            modseq = modseqs[mailbox_id] = _MODSEQ.scalar(self._connection, mailbox=mailbox_id) + 1
        _FLAG.run(self._connection, mailbox=mailbox_id, of_uid=uid, text=text, to_modseq=modseq)
        if view is not standing.view:
            self._views.leave(mailbox_id, view, view_uid, modseq)
            self._views.enter(mailbox_id, standing.view, uid, modseq)
