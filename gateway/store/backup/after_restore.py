"""What must be changed in a store that was restored, because it goes on from a moment that others have left behind.

* **UIDs.** Between the backup and the loss the mailboxes gave out more UIDs, and mail clients keep bodies under them. A
  UID that came again for another message would show the wrong body in a chart or a mail client for ever. So each
  mailbox leaves out the next UIDs: gaps are allowed, a UID that means something else is not (RFC 9051 2.3.1.1). The
  older the backup, the more of them (:func:`skipped_uids`): when it is restored a second time, or an older one is after
  it, the mailboxes begin behind what the first restored store gave out as well. UIDVALIDITY stays, which it may as long
  as no UID changes its meaning (EP-23): it is an append-only row that the audit log answers for, and a new one would
  make every client fetch all mail of all time again.
* **MODSEQ.** A client that asks for what changed since a number of the lost time must be told of everything: the flags
  are those of the backup. So the numbers skip as well, and every message gets the new one (RFC 7162 3.1).
* **Leases** of jobs, of deliveries to importers and of upstream mailboxes: whoever held them works on a store that is
  gone. What such a job had done outside may be done again; importers know it again by its id.
* **Counters** of ids go on after the highest that was ever given out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, select, update

from gateway.store.id_counters import raise_counters
from gateway.store.jobs_due import LEASED, READY
from gateway.store.tables import fetch_status, import_delivery, job, mailbox_counter, mailbox_flag

UIDS_SKIPPED: Final = 1 << 24
"""At least, whatever the clock says."""
_YOUNG: Final = timedelta(days=2)
_UIDS_A_SECOND: Final = 256
"""While a backup is young: more than the gateway takes in, also when all that waited for it comes at once. A backup
from last night takes 22 million of the 4295 million UIDs that there are."""
_UIDS_A_SECOND_LATER: Final = 16
"""Of an older one: more than a mailbox receives in the long run. A year takes 550 million."""
MODSEQS_SKIPPED: Final = 1 << 40
"""At least; and one for each microsecond of the backup's age. Of 63 bits (RFC 7162)."""
_MAX_UID: Final = 0xFFFF_FFFF


def skipped_uids(age: timedelta) -> int:
    """How many UIDs a mailbox leaves out when the backup is that old: more than it can have given out since."""
    age = max(age, timedelta(0))
    young = min(age, _YOUNG)
    later = age - young
    return UIDS_SKIPPED + int(young.total_seconds() * _UIDS_A_SECOND + later.total_seconds() * _UIDS_A_SECOND_LATER)


def go_on(connection: Connection, given_out: Mapping[str, int], age: timedelta) -> None:
    """Change what must be changed, within the transaction that restores.

    Args:
        connection: the transaction.
        given_out: the highest id that each counter had given out when the backup was made.
        age: of the backup; below zero when this machine's clock is behind the one of then.
    """
    _skip_uids(connection, age)
    connection.execute(update(job).where(job.c.state == LEASED).values(state=READY, lease_until=None, node=None))
    freed = {"state": READY, "lease_until": None, "node": None}
    connection.execute(update(import_delivery).where(import_delivery.c.state == LEASED).values(freed))
    connection.execute(update(fetch_status).values(owner="", lease_until=None))
    raise_counters(connection, given_out)


def _skip_uids(connection: Connection, age: timedelta) -> None:
    uids, modseqs = skipped_uids(age), MODSEQS_SKIPPED + max(age, timedelta(0)) // timedelta(microseconds=1)
    for row in connection.execute(select(mailbox_counter)).all():
        # Never over the end, where the mailbox could take no message more.
        skipped = min(uids, (_MAX_UID - row.uid_next) // 2)
        modseq = row.highest_modseq + modseqs
        connection.execute(
            update(mailbox_counter)
            .where(mailbox_counter.c.mailbox_id == row.mailbox_id)
            .values(uid_next=row.uid_next + max(0, skipped), highest_modseq=modseq)
        )
        connection.execute(
            update(mailbox_flag).where(mailbox_flag.c.mailbox_id == row.mailbox_id).values(modseq=modseq)
        )
