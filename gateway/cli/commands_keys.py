"""``keys``: the key-encryption keys that the stored messages rest on.

Everything that looks at them or changes them is in the audit log, before anything is shown. How a rotation survives
being killed stands in :mod:`gateway.pipeline.body_keys`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.output import counted, note, out, print_json, print_table, warn
from gateway.cli.session import FINDINGS, OK, SubCommands, actor, audit, settings_of, with_services
from gateway.core.errors import ConfigurationError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.pipeline.body_keys import KeyLine, Rotation
    from gateway.services import Services

KEEP_A_COPY = "keep a copy of {place} apart from the database and its backups: without it no stored message can be read"
_TOLD_EVERY = 2_000
_SQLITE = "sqlite:///"


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("keys", "the keys that stored messages are sealed under")
    listing = group.add(
        "list",
        "list the keys, since when each is used, and how many messages rest on it",
        examples="keys list\nkeys list --json",
        run=_list,
    )
    listing.add_argument("--json", action="store_true", help="print as JSON")
    rotate = group.add(
        "rotate",
        "seal new mail under a new key, and bring all stored messages under it",
        "Make a new key, use it for new mail, and wrap the key of every stored message anew. The bodies stay as they\n"
        "are. The gateway may run meanwhile and takes up the new key by itself. When this is killed, run it again:\n"
        "it goes on. The old key stays in the ring until 'keys retire'. Copy the key file away afterwards.\n"
        "While other nodes run on the database no key is made here: give it to all of them first (docs/storage.md).",
        "keys rotate\nkeys rotate --json",
        run=_rotate,
    )
    rotate.add_argument(
        "--shared-ring", action="store_true", help="go on while other nodes run: all read this very file or token"
    )
    rotate.add_argument("--json", action="store_true", help="print the result as JSON")
    retire = group.add(
        "retire",
        "throw away a key on which no message rests any more",
        "Refused while a message rests on the key. Backups from before the rotation still need it: keep your copy of\n"
        "the key file as long as you keep them.",
        "keys retire 20260101T000000Z-1f3a2b",
        run=_retire,
    )
    retire.add_argument("id", metavar="ID", help="as in 'keys list'")
    retire.add_argument("--json", action="store_true", help="print as JSON")
    make = group.add(
        "make",
        "make the first key of a new gateway",
        "init has done that already. Refused when there is a key, or when stored messages rest on one that is\n"
        "missing: then put the key file back from your copy.",
        "keys make\nkeys make --print",
        run=_make,
    )
    make.add_argument(
        "--print", action="store_true", help="print a key file with a new key instead, to be kept as a credential"
    )


def _list(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.keys.body_keys import body_keys  # noqa: PLC0415 - the command line is parsed without it
        from gateway.pipeline.body_keys import keys_in_order  # noqa: PLC0415 - the same

        ring = body_keys(services.settings)
        lines = await keys_in_order(services.store, ring)
        await audit(services, "keys.listed", "", {"keys": len(lines)})
        if args.json:
            print_json([asdict(line) | {"state": state} for line, state in zip(lines, states(lines), strict=True)])
        else:
            rows = [(*_row(line), state) for line, state in zip(lines, states(lines), strict=True)]
            print_table(("ID", "SINCE", "MESSAGES", "STATE"), rows, whole_last=True)
            note(f"note: {KEEP_A_COPY.format(place=ring.place)}")
        return FINDINGS if any(line.messages and not line.at_hand for line in lines) else OK

    return with_services(args, work)


def _row(line: KeyLine) -> tuple[str, ...]:
    return line.kek_id, line.since[:19] + "Z" if line.since else "-", str(line.messages)


def states(lines: Sequence[KeyLine]) -> list[str]:
    """What each key is for, in the words of the table and of the JSON alike."""
    found = [_state(line) for line in lines]
    if lines and not any(line.since for line in lines):
        # Nothing was sealed yet: the first key of the ring is the one that the first message will rest on.
        found[0] = "will seal new mail"
    return found


def _state(line: KeyLine) -> str:
    if not line.at_hand:
        return "MISSING: put it back from your copy" if line.messages else "not at hand, and not needed"
    if line.current:
        return "seals new mail"
    if not line.since:
        return "not in use"
    return "opens older mail" if line.messages else "can be retired"


def _rotate(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.keys.body_keys import body_keys  # noqa: PLC0415 - see _list
        from gateway.pipeline.body_keys import rotate  # noqa: PLC0415 - see _list

        ring = body_keys(services.settings)
        told = -_TOLD_EVERY

        def progress(rotation: Rotation) -> None:
            nonlocal told
            if rotation.rewrapped - told >= _TOLD_EVERY:
                told = rotation.rewrapped
                note(f"{rotation.rewrapped} of {counted(rotation.total, 'message')} under the key {rotation.kek_id}")

        others = [] if args.shared_ring else _other_nodes(services)
        done = await rotate(services.store, services.clock, ring, actor(), progress=progress, others=others)
        if args.json:
            print_json(asdict(done))
        else:
            began = "new mail is sealed under the new key" if done.made else "finished the rotation to the key"
            out(f"{began} {done.kek_id}; {counted(done.rewrapped, 'message')} brought under it")
            out("the old key stays until: direct-gateway keys retire ID    (see: direct-gateway keys list)")
        for message_id in done.damaged:
            warn(f"the key of message {message_id} does not open: the message is damaged; docs/backup.md helps")
        if services.store.shared and not args.shared_ring:
            running = f" (running now: {', '.join(others)})" if others else ""
            warn(f"every other node{running} needs the key {done.kek_id} in its key file: it cannot read without")
        note(f"note: {KEEP_A_COPY.format(place=ring.place)}")
        return FINDINGS if done.damaged else OK

    return with_services(args, work)


def _other_nodes(services: Services) -> list[str]:
    """The other nodes that run on the database now."""
    if not services.store.shared:
        return []
    # The database cuts long names off.
    own = services.settings.store.node
    return [name for name in services.store.gateways() if name != own and not (len(name) > 40 and own.startswith(name))]


def _retire(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.keys.body_keys import body_keys  # noqa: PLC0415 - see _list
        from gateway.pipeline.body_keys import retire  # noqa: PLC0415 - see _list

        ring = body_keys(services.settings)
        removed = await retire(services.store, services.clock, ring, actor(), args.id)
        if args.json:
            print_json({"id": args.id, "removed": removed})
        else:
            out(f"no message rests on the key {args.id} any more, and none will")
            if not removed:
                out(f"take it out of {ring.place} yourself: this program does not")
        note("note: backups that were made before the rotation can be read with this key only; keep a copy for them")
        return OK

    return with_services(args, work)


def _make(args: argparse.Namespace) -> int:
    from gateway.keys.body_key_file import new_key, ring_text  # noqa: PLC0415 - see _list
    from gateway.observability.clock import SystemClock  # noqa: PLC0415 - see _list

    if args.print:
        out(ring_text([new_key(SystemClock().now())]).rstrip("\n"))
        return OK
    settings = settings_of(args)
    url = settings.store.url
    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).is_file():
        # Nothing was ever sealed, and the first serve, which makes the database, needs the key.
        made, place = _made(settings, SystemClock().now())
        return _told(made, place)
    return with_services(args, _make_first)


async def _make_first(services: Services) -> int:
    settings = services.settings
    known = await services.store.read(lambda rows: rows.body_keys.keks())
    if known and not settings.store.key_token_label:
        raise ConfigurationError(
            f"stored messages rest on the key {known[0].kek_id}: a new key file would not open them; put the file back "
            f"from your copy. To change the key run: direct-gateway keys rotate"
        )
    made, place = await asyncio.to_thread(_made, settings, services.clock.now())
    await audit(services, "keys.made", made, {"kek": made})
    return _told(made, place)


def _made(settings: Settings, at: datetime) -> tuple[str, str]:
    """Make the first key; returns its id and where it is. Raises ConfigurationError when there is one."""
    from gateway.keys.body_keys import body_keys, key_file  # noqa: PLC0415 - see _list

    if not settings.store.key_token_label:
        return key_file(settings).create(at), settings.store.key_file
    ring = body_keys(settings)
    if ring.ids():
        raise ConfigurationError(f"there is a key already in {ring.place}; to change it: direct-gateway keys rotate")
    return ring.make_key(at), ring.place


def _told(made: str, place: str) -> int:
    out(f"made the key {made} in {place}")
    note(f"note: {KEEP_A_COPY.format(place=place)}")
    return OK
