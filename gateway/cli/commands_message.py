"""``message list | show | export | verify | retry``.

Whatever is shown is written to the audit log first: who cannot be recorded sees nothing. ``export`` gives the
verified bytes exactly as the inbox has them; the raw message, which nobody has verified, only when it is asked
for by name (``--raw``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli import verify as verify_command
from gateway.cli.message_report import print_message, repair_of
from gateway.cli.output import note, out, print_json, print_table, when
from gateway.cli.session import OK, SubCommands, actor, audit, with_services
from gateway.core.errors import ConflictError, InputError, NotFoundError
from gateway.core.lifecycle import State
from gateway.ports import MessageSummary, UnitOfWork

if TYPE_CHECKING:
    from gateway.daemon import Services

MIN_PREFIX_CHARS = 4
MAX_LIST = 10_000


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
        "Judge messages by the same code as the daemon, with the keys and anchors that you give.",
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


def _register_list(group: SubCommands) -> None:
    listing = group.add(
        "list",
        "list messages, newest first",
        "FROM is the verified sender. Where nobody was verified (a refused message, one that waits to be judged) it\n"
        "says (claims) and what the envelope gave as its sender, which anybody may write.",
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
    listing.add_argument("--limit", type=_count, default=50, metavar="N", help="at most N messages (default 50)")
    listing.add_argument("--before", metavar="ID", help="continue a list: only messages older than this one")
    listing.add_argument("--json", action="store_true", help="print as JSON")


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_LIST:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_LIST}")
    return value


def find_message(tx: UnitOfWork, text: str) -> str:
    """Return the whole id of the message whose id is, or begins with, the text.

    Raises:
        NotFoundError: there is none.
        ConflictError: several begin so.
    """
    wanted = text.strip().upper()
    with contextlib.suppress(NotFoundError):
        tx.messages.state(wanted)
        return wanted
    if len(wanted) >= MIN_PREFIX_CHARS:
        # Ids are compared as text, newest first: every id that begins with the prefix stands directly before the
        # first one that is greater than the prefix followed by the greatest character.
        found = [m.id for m in tx.messages.newest(limit=2, before=wanted + "\uffff") if m.id.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConflictError("several messages begin with this id; give more of it")
    raise NotFoundError("no message has this id; list them with: direct-gateway message list")


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
        document, body = await services.store.read(lambda tx: _describe(tx, args.id, with_body=args.body))
        await audit(services, "message.show", document["id"], {"body": args.body})
        if args.json:
            if body is not None:
                document["body"] = body.decode("utf-8", "replace")
            print_json(document)
            return OK
        print_message(document)
        if body is not None:
            out()
            for line in body.decode("utf-8", "replace").splitlines():
                out("".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in line))
        return OK

    return with_services(args, work)


def _describe(tx: UnitOfWork, wanted: str, *, with_body: bool) -> tuple[dict[str, Any], bytes | None]:
    message_id = find_message(tx, wanted)
    raw = tx.messages.raw(message_id)
    verdict = tx.messages.verdict(message_id) or {}
    links = tx.links.for_message(message_id)
    document: dict[str, Any] = {
        "id": raw.id,
        "state": str(tx.messages.state(message_id)),
        "received_at": raw.received_at,
        "source": str(raw.source),
        "peer": raw.peer,
        "mail_from": raw.mail_from,
        "recipients": list(raw.recipients),
        "raw_size_bytes": len(raw.body),
        "raw_sha256": raw.sha256,
        "verdict": verdict,
        "repair": repair_of(verdict),
        "links": [asdict(link) for link in links],
    }
    body: bytes | None = None
    if with_body:
        body = tx.messages.content(message_id).content
    return document, body


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
                note("note: new keys, anchors and revocation lists count after a restart or kill -HUP of the gateway")
        return OK

    return with_services(args, work)
