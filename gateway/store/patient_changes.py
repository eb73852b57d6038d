"""Which patients changed: told by the audit log, which lists every row that was written (:mod:`gateway.store.facts`).

So it costs what was written since, not what there is: no table of patients is walked over, and no column is needed
that says when. Whoever keeps something of the patients in memory follows by it.

Guarantees: a mark holds for the snapshot in which it was asked. What is committed after it is found by the next
question, also what another process or another node wrote. A mark that was asked within a unit that writes must not be
kept: the unit may be undone, and other events then get the numbers of its own.

Failure modes: those of the statements. ValueError for an event whose list of rows cannot be read: it was tampered with.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, bindparam, select

from gateway.core.audit import rows_of
from gateway.ports import PatientMark
from gateway.store.prepared import Prepared
from gateway.store.tables import audit_event, patient_address, patient_detail, patient_merge, patient_version

_TABLES = frozenset(table.name for table in (patient_version, patient_address, patient_detail, patient_merge))
"""In each the first column of the key is the id of the patient."""
_PAGE = 200
"""Events at a time; one of an import lists some 500 patients."""

_NEXT_NODE = Prepared(
    select(audit_event.c.node).where(audit_event.c.node > bindparam("after")).order_by(audit_event.c.node).limit(1)
)
_NEWEST = Prepared(
    select(audit_event.c.seq)
    .where(audit_event.c.node == bindparam("of_node"))
    .order_by(audit_event.c.seq.desc())
    .limit(1)
)
_SINCE = Prepared(
    select(audit_event.c.seq, audit_event.c.rows)
    .where(
        audit_event.c.node == bindparam("of_node"),
        audit_event.c.seq > bindparam("after"),
        audit_event.c.seq <= bindparam("until"),
        audit_event.c.rows.contains('"patient_'),
    )
    .order_by(audit_event.c.seq)
    .limit(_PAGE)
)


class PatientChanges:
    """The patients as far as they were written since a mark."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def mark(self) -> PatientMark:
        """How far the log of each node goes now."""
        return {node: self._newest(node) for node in self._nodes()}

    def since(self, mark: PatientMark) -> tuple[set[str], PatientMark]:
        """The ids of the patients of whom anything was written after the mark, and the mark of now."""
        now = self.mark()
        changed: set[str] = set()
        for node, until in now.items():
            after = mark.get(node, 0)
            while after < until:
                rows = _SINCE.rows(self._connection, of_node=node, after=after, until=until)
                for row in rows:
                    changed.update(str(key[0]) for table, key, _ in rows_of(row.rows) if table in _TABLES)
                after = rows[-1].seq if len(rows) == _PAGE else until
        return changed, now

    def _nodes(self) -> Iterator[str]:
        # There are few: each is found by a step in the index, where DISTINCT would read all of it.
        node = ""
        while (found := _NEXT_NODE.scalar(self._connection, after=node)) is not None:
            node = found
            yield node

    def _newest(self, node: str) -> int:
        seq: int = _NEWEST.scalar(self._connection, of_node=node) or 0
        return seq
