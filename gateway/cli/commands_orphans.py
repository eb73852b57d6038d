"""``store orphans``: what lies in the bucket and belongs to no message, and what a message names and is not there."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from gateway.cli.output import out, print_json, warn
from gateway.cli.session import FINDINGS, OK, SubCommands, with_services

if TYPE_CHECKING:
    from gateway.services import Services
    from gateway.store.s3_orphans import Page


def add_to(group: SubCommands) -> None:
    """Add the command to the group ``store``."""
    orphans = group.add(
        "orphans",
        "compare the bucket of [s3] with the messages",
        "Lists objects that no message names: left behind by a process that was killed, or a commit that failed,\n"
        "between the put and the commit. They hold nothing that was ever acknowledged, and go when their retention\n"
        "ends. Objects of the last hour may belong to a commit on its way and are not listed.\n"
        "A message whose object is missing is a finding (status 1).",
        "store orphans --config clinic/gateway.toml\nstore orphans --json",
        run=_orphans,
    )
    orphans.add_argument("--json", action="store_true", help="print the result as JSON")


def _orphans(args: argparse.Namespace) -> int:
    async def run(services: Services) -> int:
        now = services.clock.now()
        pages = await asyncio.to_thread(lambda: list(services.store.bucket_pages(now)))
        return _json(pages) if args.json else _text(pages)

    return with_services(args, run)


def _json(pages: list[Page]) -> int:
    missing = [
        {"message_id": one.message_id, "kind": one.kind, "name": one.name} for page in pages for one in page.missing
    ]
    orphans = [
        {
            "name": one.name,
            "version": one.version,
            "size_bytes": one.size_bytes,
            "modified_at": one.modified_at.isoformat(),
        }
        for page in pages
        for one in page.orphans
    ]
    print_json({"objects": sum(page.seen for page in pages), "orphans": orphans, "missing": missing})
    return FINDINGS if missing else OK


def _text(pages: list[Page]) -> int:
    orphans = [one for page in pages for one in page.orphans]
    missing = [one for page in pages for one in page.missing]
    for one in orphans:
        out(f"{one.name}  {one.size_bytes} bytes  {one.modified_at.isoformat(timespec='seconds')}")
    for lost in missing:
        warn(f"the {lost.kind} of the message {lost.message_id} is missing in the bucket: restore {lost.name}")
    seen = sum(page.seen for page in pages)
    out(f"{seen} objects, {len(orphans)} that no message names, {len(missing)} missing")
    return FINDINGS if missing else OK
