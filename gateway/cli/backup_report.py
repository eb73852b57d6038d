"""What the commands of ``backup`` say at their end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.cli.output import clean, counted, note, out, print_json, print_record, print_table, warn, when

if TYPE_CHECKING:
    from gateway.store.backup.checking import BackupReport
    from gateway.store.backup.making import Made
    from gateway.store.backup.manifest import Manifest


def print_made(made: Made, keys_at_hand: Sequence[str], *, json: bool) -> None:
    """A backup that was made, and what must be kept besides it."""
    manifest = made.manifest
    if json:
        document = {"path": str(made.path), "manifest_sha256": made.manifest_sha256, **_document(manifest)}
        print_json(document | {"keys_at_hand": [key.id for key in manifest.keys if key.id in keys_at_hand]})
    else:
        out(f"the backup is in {made.path}")
        print_record([*_record(manifest), ("manifest", f"SHA-256 {made.manifest_sha256}, also in the audit log")])
    _missing(manifest, keys_at_hand)
    if not json:
        _keep_apart(manifest)


def _missing(manifest: Manifest, keys_at_hand: Sequence[str]) -> None:
    for key in manifest.keys:
        if key.messages and key.id not in keys_at_hand:
            warn(f"the key {key.id} is not at hand: without it {counted(key.messages, 'message')} cannot be read")


def _keep_apart(manifest: Manifest) -> None:
    if manifest.keys:
        names = ", ".join(key.id for key in manifest.keys)
        note(f"note: no message in it can be read without these keys, which are NOT in it: {names}")
    for name in manifest.left_out:
        note(f"note: not in it, keep it apart: {name}")
    if manifest.objects:
        bodies = counted(manifest.objects, "body", "bodies")
        note(f"note: {bodies} ({manifest.objects_bytes >> 20} MiB) stay in the bucket; backup verify --bucket looks")


def print_checked(report: BackupReport, notes: Sequence[str], *, json: bool) -> None:
    """What a check found."""
    if json:
        print_json(_checked(report, notes))
        return
    for finding in report.findings:
        out(clean(finding))
    if report.more_findings:
        out(f"... and {report.more_findings} more")
    if report.manifest is not None:
        print_record([*_record(report.manifest), ("manifest", f"SHA-256 {_digest(report.manifest)}")])
    out(f"the backup {'does NOT hold' if report.findings else 'holds'} ({_looked(report)})")
    if report.findings:
        note("use another backup; if there is none, keep this one as it is: what is not named above may be whole")
    for text in notes:
        note(f"note: {text}")


def print_restored(
    report: BackupReport, place: str, notes: Sequence[str], keys_at_hand: Sequence[str], *, done: bool, json: bool
) -> None:
    """What was restored, or would be; loudly when the keys are not where the gateway will look for them."""
    manifest = report.manifest
    assert manifest is not None  # noqa: S101 - a backup without one has findings
    if json:
        at_hand = [key.id for key in manifest.keys if key.id in keys_at_hand]
        outcome = {"restored": done, "dry_run": not done, "place": place, "keys_at_hand": at_hand}
        print_json(outcome | _checked(report, notes))
        _missing(manifest, keys_at_hand)
        return
    if not done:
        print_table(
            ("TABLE", "ROWS", "BYTES"), [(t.name, str(t.rows), str(t.bytes)) for t in manifest.tables if t.rows]
        )
    print_record([*_record(manifest), ("manifest", f"SHA-256 {_digest(manifest)}")])
    out(f"the backup holds ({_looked(report)})")
    where = f"{counted(manifest.rows, 'row')} to {place}"
    if not done:
        out(f"would restore {where}; nothing was written")
        note("then: UIDs given out after the backup are skipped, leases are freed, the log goes on with store.restored")
    else:
        out(f"restored {where}")
        note("next: direct-gateway config check; direct-gateway serve; direct-gateway audit verify")
        note("note: mail that came after the backup is not in it; what was not answered yet comes again")
    for text in notes:
        note(f"note: {text}")
    # Last, where it is seen: the gateway would not start.
    _missing(manifest, keys_at_hand)
    if any(key.messages and key.id not in keys_at_hand for key in manifest.keys):
        note("put the file of these keys back from your safe before the gateway starts: store.key_file")


def _record(manifest: Manifest) -> list[tuple[str, str]]:
    tree = f"{counted(manifest.tree_size, 'event')}, root {manifest.tree_root.hex()}"
    head = "none" if manifest.head is None else f"of {manifest.head.size} events, {when(manifest.head.at)}"
    return [
        ("id", manifest.id),
        ("taken", f"{when(manifest.at)} from {manifest.database}, node {manifest.node}"),
        ("made by", f"direct-gateway {manifest.program}, schema {manifest.schema}"),
        ("messages", str(manifest.messages)),
        ("rows", f"{manifest.rows} in {len(manifest.tables)} tables"),
        ("size", f"{manifest.bytes} bytes"),
        ("log", tree),
        ("signed head", head),
        ("keys", ", ".join(f"{key.id} ({counted(key.messages, 'message')})" for key in manifest.keys)),
    ]


def _digest(manifest: Manifest) -> str:
    from gateway.store.backup.manifest import manifest_digest, manifest_text  # noqa: PLC0415 - see gateway.cli.session

    return manifest_digest(manifest_text(manifest))


def _looked(report: BackupReport) -> str:
    parts = (
        counted(report.rows, "row"),
        counted(report.events, "event"),
        counted(report.heads, "signed head"),
        counted(report.messages_opened, "message") + " opened",
    )
    return ", ".join(parts)


def _checked(report: BackupReport, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "holds": not report.findings,
        "findings": report.findings,
        "more_findings": report.more_findings,
        "rows": report.rows,
        "events": report.events,
        "heads": report.heads,
        "messages_opened": report.messages_opened,
        "missing_keys": report.missing_keys,
        "notes": list(notes),
        "manifest_sha256": None if report.manifest is None else _digest(report.manifest),
        "backup": None if report.manifest is None else _document(report.manifest),
    }


def _document(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "at": manifest.at,
        "program": manifest.program,
        "schema": manifest.schema,
        "database": manifest.database,
        "node": manifest.node,
        "messages": manifest.messages,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "tables": {table.name: table.rows for table in manifest.tables},
        "tree": {"size": manifest.tree_size, "root": manifest.tree_root.hex()},
        "signed_head": None if manifest.head is None else {"size": manifest.head.size, "at": manifest.head.at},
        "keys": {key.id: key.messages for key in manifest.keys},
        "objects": manifest.objects,
        "left_out": list(manifest.left_out),
    }
