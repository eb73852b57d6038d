"""``audit list`` and ``audit export``: the log itself, for people and for programs. Both are in the log first."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gateway.cli.audit_proofs import event_document
from gateway.cli.moments import parse_moment
from gateway.cli.output import counted, note, out, print_json, print_table, when
from gateway.cli.session import OK, audit, with_services
from gateway.core.audit import AuditEvent, AuditQuery
from gateway.observability.folders import new_file

if TYPE_CHECKING:
    from gateway.ports import UnitOfWork
    from gateway.services import Services

_HIDDEN = frozenset({"settings"})
"""Parts of a detail that a line has no room for; ``--json`` shows them, and the rest of what is cut."""


def listing(args: argparse.Namespace) -> int:
    """List events (ON-18)."""
    query = AuditQuery(
        actor=args.who,
        action=args.action,
        subject=args.subject,
        node=args.node,
        since=parse_moment("--since", args.since) if args.since else None,
        until=parse_moment("--until", args.until) if args.until else None,
        sort=args.sort,
        ascending=args.ascending,
        limit=args.limit,
        offset=(args.page - 1) * args.limit,
    )

    async def work(services: Services) -> int:
        found = await services.store.read(lambda rows: rows.audit.find(query))
        filters = [name for name in ("who", "action", "subject", "node", "since", "until") if getattr(args, name)]
        await audit(services, "audit.list", "", {"shown": len(found), "filters": filters, "page": args.page})
        if args.json:
            print_json([_line_document(event) for event in found])
        elif found:
            headings = ("EVENT", "TIME", "WHO", "ACTION", "SUBJECT", "DETAIL")
            print_table(headings, [_line(event) for event in found], whole_last=True, fit=True)
            if len(found) == args.limit:
                note(f"note: there may be more: --page {args.page + 1}")
        else:
            out("no event matches")
        return OK

    return with_services(args, work)


def _line(event: AuditEvent) -> tuple[str, ...]:
    shown = {name: value for name, value in json.loads(event.detail).items() if name not in _HIDDEN}
    detail = json.dumps(shown, separators=(",", ":")) if shown else ""
    return f"{event.node}/{event.seq}", when(event.at), event.actor, event.action, event.subject, detail


def _line_document(event: AuditEvent) -> dict[str, Any]:
    return event_document(event) | {
        "detail": json.loads(event.detail),
        "rows": json.loads(event.rows) if event.rows else {},
    }


def export(args: argparse.Namespace) -> int:
    """Write the whole log as JSON Lines."""

    async def work(services: Services) -> int:
        await audit(services, "audit.export", "")
        count = await services.store.read(lambda rows: _export(rows, args.out))
        note(f"{counted(count, 'event')} exported")
        return OK

    return with_services(args, work)


def _export(rows: UnitOfWork, path: Path | None) -> int:
    if path is None:
        return _write(rows, sys.stdout)
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with os.fdopen(new_file(staged, 0o600), "w", encoding="ascii") as file:
            count = _write(rows, file)
            file.flush()
            os.fsync(file.fileno())
        staged.rename(path)
    finally:
        staged.unlink(missing_ok=True)
    return count


def _write(rows: UnitOfWork, file: IO[str]) -> int:
    count = 0
    for leaf, event in rows.audit_tree.events():
        json.dump(event_document(event) | {"leaf": leaf}, file, separators=(",", ":"))
        file.write("\n")
        count += 1
    return count
