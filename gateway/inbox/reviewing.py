"""A review is a keyword that a mail client sets, and a row that stays: who has looked at a message, and when (S53).

``$DirectReviewed`` set on a message says that a person has looked at it; taken away again by name, that this no longer
holds. Each of the two is a row of the message's history and an event of the audit log (``message.reviewed``), written
in the transaction that changes the keyword. All mailboxes that hold the message show it, and ``$DirectNeedsReview`` is
gone or back with it (:mod:`gateway.core.standing`). Whether the message is on a chart is another matter: one that was
looked at stays in the unlinked queue.

Crash story: keyword, row and event are there together or not at all. Failure modes: those of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gateway.core.errors import NotFoundError
from gateway.core.standing import REVIEWED, ReviewState
from gateway.ports import UnitOfWork

MESSAGE_REVIEWED = "message.reviewed"

FlagsByUID = Mapping[int, frozenset[str]]


def record_reviews(
    unit: UnitOfWork, mailbox_id: int, login: str, at: datetime, *, before: FlagsByUID, after: FlagsByUID
) -> list[int]:
    """Keep what a change of flags says of reviews; returns the mailboxes in which something changed by it.

    Args:
        unit: the one that has written the flags ``after``.
        mailbox_id: where the client changed them.
        login: who did.
        at: when.
        before: the flags of the same messages before, by UID.
        after: by UID.
    """
    said = {uid: REVIEWED in flags for uid, flags in after.items()}
    wanted = {uid: reviewed for uid, reviewed in said.items() if reviewed != (REVIEWED in before[uid])}
    ids = unit.mailboxes.message_ids(mailbox_id, list(wanted)) if wanted else {}
    changed = []
    for uid, message_id in ids.items():
        state = ReviewState.REVIEWED if wanted[uid] else ReviewState.WITHDRAWN
        try:
            added = unit.reviews.add(message_id, at, login, state)
        except NotFoundError:
            # Somebody's own copy of what he sent: there it is a keyword as any other.
            continue
        if added:
            where = {"mailbox": mailbox_id, "uid": uid, "state": state.value}
            unit.audit.add(at, login, MESSAGE_REVIEWED, message_id, where)
            changed.append(message_id)
    return unit.standings.settle(changed)
