"""The proof of a copy: both stores are read from the beginning and compared, and the audit log is verified.

Failure modes: DifferenceError names the first row that differs; TamperedError the first thing that does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Table

from gateway.core.errors import TamperedError
from gateway.store.audit_verify import LogReport, Witnesses, verify_snapshot
from gateway.store.copying_report import Progress, TableCopy
from gateway.store.copying_rows import DifferenceError, copied_tables, rows_of_store, what_is_missing
from gateway.store.id_counters import counters, standing
from gateway.store.table_rows import Row, RowsDigest


def compare(source: Connection, copy: Connection, reports: Sequence[TableCopy], progress: Progress) -> None:
    """Count and digest every table on both sides, and note the digests.

    Raises:
        DifferenceError: the two are not the same.
    """
    done, total = 0, sum(report.rows for report in reports)
    for table, report in zip(copied_tables(), reports, strict=True):
        ours = _digest(rows_of_store(source, table))
        theirs = _digest(rows_of_store(copy, table))
        if (ours.rows, ours.hexdigest()) != (theirs.rows, theirs.hexdigest()):
            _name_difference(source, copy, table)
        report.sha256 = ours.hexdigest()
        done += ours.rows
        progress("compared", report.name, done, total)
    found = standing(copy)
    for name, number in counters(source).items():
        if found[name] < number:
            raise DifferenceError(f"--to: the counter of {name} stands at {found[name]} and not at {number}")


def _name_difference(source: Connection, copy: Connection, table: Table) -> None:
    missing = what_is_missing(table, rows_of_store(source, table), rows_of_store(copy, table))
    if next(missing, None) is not None:
        raise DifferenceError(f"--to: rows of {table.name} are missing; run copy-store again")
    raise DifferenceError(f"--to: the rows of {table.name} differ from the source's")


def _digest(rows: Iterator[Row]) -> RowsDigest:
    digest = RowsDigest()
    for row in rows:
        digest.add(row)
    return digest


def verify_log(rows: Connection, witnesses: Witnesses, which: str, progress: Progress) -> LogReport:
    """Verify the audit log of a snapshot, and every row that it answers for.

    Raises:
        TamperedError: something does not hold.
    """
    report = verify_snapshot(
        rows, witnesses, lambda done, total: progress("proved", f"events of the {which}", done, total)
    )
    if report.findings:
        more = len(report.findings) + report.more_findings - 1
        raise TamperedError(
            f"the audit log of the {which} does not hold: {report.findings[0]}"
            + (f", and {more} more" if more else "")
            + "; a store that somebody may have altered is not copied: see direct-gateway audit verify"
        )
    return report
