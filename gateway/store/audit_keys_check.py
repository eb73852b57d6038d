"""``audit verify``: whether new mail is sealed under the key that the log says, and not under an older one.

Which key-encryption key new mail is sealed under is the row of ``key_encryption_key`` with the greatest number, and
that table is mutable. Who raises the number of an older key, or puts a retired one back, has new mail sealed under a
key that he may know. The log has an event for each key that was taken into use after the first one
(``keys.rotation_begun``) and for each that was retired (``keys.retired``): the table has to agree with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, select

from gateway.core.audit import AuditEvent
from gateway.store.tables import key_encryption_key

BEGUN = "keys.rotation_begun"
RETIRED = "keys.retired"
KEY_EVENTS = frozenset({BEGUN, RETIRED})


class KeyUseCheck:
    """Give it the events of :data:`KEY_EVENTS` in the order in which the log is walked.

    That is the order of their writing, but for nodes that wrote after the last head; their times tell that, but for a
    clock that was set back. A key is the newest when either says so: an older one that was raised is in neither.
    """

    def __init__(self) -> None:
        self._begun: dict[str, datetime] = {}
        self._retired: set[str] = set()

    def note(self, event: AuditEvent) -> None:
        """Remember what the log says of a key."""
        if event.action == RETIRED:
            self._retired.add(event.subject)
        else:
            self._begun[event.subject] = event.at

    def found(self, connection: Connection) -> Iterator[str]:
        """What does not agree, in words."""
        rows = connection.execute(select(key_encryption_key).order_by(key_encryption_key.c.seq)).all()
        in_use = [row.kek_id for row in rows]
        for kek_id in in_use:
            if kek_id in self._retired:
                # An id is never used again: it has the time and random digits in it.
                yield f"the key {kek_id} was retired, and was put back past the gateway: change the key (keys rotate)"
        without_event = [kek_id for kek_id in in_use if kek_id not in self._begun]
        for kek_id in without_event[1:]:
            yield f"the key {kek_id} was put into use past the gateway: no event says so"
        # The first key of a store has no event; all others came in the order of theirs.
        later = [kek_id for kek_id in self._begun if kek_id in in_use]
        newest = {later[-1], max(later, key=lambda one: self._begun[one])} if later else set(in_use)
        if in_use and in_use[-1] not in newest:
            yield (
                f"new mail is sealed under the key {in_use[-1]}, and the log says that {later[-1]} came after it: "
                f"somebody changed their order past the gateway"
            )
