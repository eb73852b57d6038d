"""``message list | show | export | verify | retry`` (and ``evidence`` and ``recheck``, in modules of their own).

Whatever is shown is written to the audit log first: who cannot be recorded sees nothing. ``export`` gives the
verified bytes exactly as the inbox has them; the raw message, which nobody has verified, only when it is asked
for by name (``--raw``).
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli import commands_evidence, commands_recheck
from gateway.cli import verify as verify_command
from gateway.cli.message_lookup import describe, find_message, list_size, seen_elsewhere
from gateway.cli.message_report import print_message
from gateway.cli.output import note, out, print_json, print_table, when
from gateway.cli.running_gateway import how_to_reload
from gateway.cli.session import OK, SubCommands, actor, audit, with_services
from gateway.core.errors import InputError, NotFoundError
from gateway.core.lifecycle import State
from gateway.ports import MessageSummary, UnitOfWork

if TYPE_CHECKING:
    from gateway.services import Services


def register(commands: SubCommands) -> None:
    """Add the commands."""
    group = commands.group("message", "look at, export, verify and retry messages")
    _register_list(group)
    show = group.add(
        "show",
        "tell all about one message",
        "Verdict and reason with the repair it needs, signer, recipients, every check, and the charts it is on.\n"
        "ID may be shortened to any beginning that is unique.",
        "message show 01J9\nmessage show 01J9 --body",
        run=_show,
    )
    show.add_argument("id", metavar="ID")
    show.add_argument("--body", action="store_true", help="print the verified message as well")
    show.add_argument("--json", action="store_true", help="print as JSON")
    export = group.add(
        "export",
        "write the verified message to a file",
        "Write exactly the bytes that were verified and filed. FILE is '-' or left out for standard output.",
        "message export 01J9 visit.eml\nmessage export 01J9 --raw evidence.eml",
        run=_export,
    )
    export.add_argument("id", metavar="ID")
    export.add_argument("file", metavar="FILE", nargs="?")
    export.add_argument("--raw", action="store_true", help="the encrypted message as it was received; not verified")
    export.add_argument("--json", action="store_true", help="report id, bytes and digest as JSON (needs a FILE)")
    verify = group.add(
        "verify",
        "judge message files offline, without a database",
        "Judge messages by the same code as the daemon, with the keys and anchors that you give. No configuration is\n"
        "read: neither --config nor $DIRECTGW_CONFIG.",
        "message verify mail.eml --credentials certs/identities --anchors certs/anchors --json",
    )
    verify_command.add_arguments(verify)
    verify.set_defaults(run=verify_command.run)
    retry = group.add(
        "retry",
        "try a message again, after a repair",
        "Judge a refused message again, after a missing key, anchor or revocation list was added; or file an accepted\n"
        "one again, after a missing mailbox was made. The running gateway does the work, with the keys and anchors\n"
        "that it has read: restart it or send it SIGHUP (kill -HUP) first. What was recorded before is kept.",
        "message retry 01J9ABCD",
        run=_retry,
    )
    retry.add_argument("id", metavar="ID")
    retry.add_argument("--json", action="store_true", help="print as JSON")
    commands_evidence.register(group)
    commands_recheck.register(group)


def _register_list(group: SubCommands) -> None:
    listing = group.add(
        "list",
        "list messages, newest first",
        "FROM is the verified sender. Where nobody was verified (a refused message, one that waits to be judged) it\n"
        "says (claims) and what the envelope gave as its sender, which anybody may write; of a copy of what was sent,\n"
        "which a mail client put into Sent (kept), what the copy itself says.",
        examples="message list\nmessage list --unlinked\nmessage list --quarantine --json",
        run=_list,
    )
    chosen = listing.add_mutually_exclusive_group()
    chosen.add_argument(
        "--state",
        action="append",
        choices=[state.value for state in State],
        help="only messages in this state; may be repeated",
    )
    chosen.add_argument("--unlinked", action="store_true", help="only messages that are on no chart yet")
    chosen.add_argument("--quarantine", action="store_true", help="only messages that were refused")
    listing.add_argument("--limit", type=list_size, default=50, metavar="N", help="at most N messages (default 50)")
    listing.add_argument("--before", metavar="ID", help="continue a list: only messages older than this one")
    listing.add_argument("--json", action="store_true", help="print as JSON")


def _list(args: argparse.Namespace) -> int:
    states = [State(value) for value in args.state or ()]
    if args.unlinked:
        states = [State.FILED]
    if args.quarantine:
        states = [State.REFUSED]

    async def work(services: Services) -> int:
        def read(tx: UnitOfWork) -> list[MessageSummary]:
            before = find_message(tx, args.before) if args.before else None
            found: list[MessageSummary] = []
            # The store gives pages of its own size.
            while len(found) < args.limit:
                last = found[-1].id if found else before
                page = tx.messages.newest(
                    states=states, limit=args.limit - len(found), before=last, duplicates=not args.unlinked
                )
                if not page:
                    break
                found += page
            return found

        found = await services.store.read(read)
        await audit(services, "message.list", "", {"shown": len(found), "states": [str(state) for state in states]})
        if args.json:
            print_json([asdict(summary) for summary in found])
        else:
            _print_list(found, args.limit)
        return OK

    return with_services(args, work)


def _print_list(found: list[MessageSummary], limit: int) -> None:
    if not found:
        out("no messages")
        return
    print_table(
        ("ID", "RECEIVED", "STATE", "REASON", "FROM", "SUBJECT", "PATIENT"),
        [(m.id, when(m.received_at), m.state, m.reason, _from(m), m.subject, ", ".join(m.patient_ids)) for m in found],
    )
    if len(found) == limit:
        note(f"{limit} shown; if there are older ones: --before {found[-1].id}")


def _from(summary: MessageSummary) -> str:
    """The verified sender; else what the envelope says, which must not look like one: anybody may write it."""
    return summary.sender or (f"(claims) {summary.claimed_sender}" if summary.claimed_sender else "")


def _show(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        from gateway.charts.linking import seen_again  # noqa: PLC0415 - see gateway.cli.session

        document, body = await services.store.read(lambda tx: _show_of(tx, args.id, with_body=args.body))
        await audit(services, "message.show", document["id"], {"body": args.body})
        same = await seen_elsewhere(services, str(document["id"]))
        document["same_elsewhere"] = [asdict(one) for one in same]
        if args.json:
            if body is not None:
                document["body"] = body.decode("utf-8", "replace")
            print_json(document)
            return OK
        print_message(document)
        for line in seen_again(same):
            note(f"note: {line}")
        if body is not None:
            out()
            for line in body.decode("utf-8", "replace").splitlines():
                out("".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line))
        return OK

    return with_services(args, work)


def _show_of(tx: UnitOfWork, wanted: str, *, with_body: bool) -> tuple[dict[str, Any], bytes | None]:
    message_id = find_message(tx, wanted)
    document = describe(tx, message_id)
    if not with_body:
        return document, None
    # What a mail client put here was never judged: there is no other content than what came.
    is_kept = document["kept"] is not None
    return document, tx.messages.raw(message_id).body if is_kept else tx.messages.content(message_id).content


def _export(args: argparse.Namespace) -> int:
    target = args.file or "-"
    if args.json and target == "-":
        raise InputError("--json needs a FILE: standard output carries the message itself")
    if target != "-":
        _check_target(Path(target))

    async def work(services: Services) -> int:
        message_id, data, digest = await services.store.read(lambda tx: _bytes_of(tx, args.id, raw=args.raw))
        await audit(services, "message.export", message_id, {"bytes": len(data), "raw": args.raw, "sha256": digest})
        if target == "-":
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return OK
        write_private(Path(target), data)
        if args.json:
            print_json({"id": message_id, "file": target, "size_bytes": len(data), "sha256": digest, "raw": args.raw})
        else:
            note(f"wrote {len(data)} bytes to {target}")
        return OK

    return with_services(args, work)


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; make it first, or name another file")


def _bytes_of(tx: UnitOfWork, wanted: str, *, raw: bool) -> tuple[str, bytes, str]:
    message_id = find_message(tx, wanted)
    if raw:
        row = tx.messages.raw(message_id)
        return message_id, row.body, row.sha256
    try:
        content = tx.messages.content(message_id)
    except NotFoundError:
        state = tx.messages.state(message_id)
        if state is State.KEPT:
            raise NotFoundError(
                "the message is a mail client's copy of what was sent, which was never judged; --raw gives its bytes"
            ) from None
        raise NotFoundError(
            f"the message is {state}: there is no verified content to export "
            "(--raw gives it as it was received, unverified)"
        ) from None
    return message_id, content.content, content.content_sha256


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only this user may read. A regular file appears whole or not at all."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".export-")
    except OSError as exc:
        # The person asked for this file; the temporary name beside it would only puzzle.
        raise type(exc)(exc.errno, exc.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as temporary:
            temporary.write(data)
            temporary.flush()
            os.fsync(temporary.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _retry(args: argparse.Namespace) -> int:
    from gateway.pipeline.file import refile  # noqa: PLC0415 - see gateway.cli.session
    from gateway.pipeline.unwrap import requeue_refused  # noqa: PLC0415

    async def work(services: Services) -> int:
        store, clock = services.store, services.clock

        def find(tx: UnitOfWork) -> tuple[str, State]:
            message_id = find_message(tx, args.id)
            return message_id, tx.messages.state(message_id)

        message_id, state = await store.read(find)
        if state is State.UNWRAPPED:
            await refile(store, clock, message_id, actor())
        else:
            await requeue_refused(store, clock, message_id, actor())
        if args.json:
            print_json({"id": message_id, "state": await store.read(lambda tx: tx.messages.state(message_id))})
        else:
            out(f"{message_id} will be tried again by the running gateway")
            note(f"see: direct-gateway message show {message_id}")
            if state is State.REFUSED:
                note(how_to_reload(services))
        return OK

    return with_services(args, work)
