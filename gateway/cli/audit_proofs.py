"""``audit head``, ``audit prove``, ``audit key``: what somebody outside needs to know that the log was not changed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.audit_verify import read_head
from gateway.cli.output import note, out, print_json
from gateway.cli.session import OK, audit, settings_of, with_services
from gateway.core import merkle
from gateway.core.audit import AuditEvent
from gateway.core.errors import ConflictError, InputError, NotFoundError
from gateway.core.tree_head import TreeHead, from_text, to_document

if TYPE_CHECKING:
    from gateway.ports import UnitOfWork
    from gateway.services import Services


def head(args: argparse.Namespace) -> int:
    """Make a head, keep it, and give it out."""
    if args.out is not None and not args.out.parent.is_dir():
        # A stick that is not mounted: a head in a folder of that name would stay on this very machine.
        raise InputError(f"--out: there is no folder {args.out.parent}; mount it or make it first")

    async def work(services: Services) -> int:
        from gateway.auditing.heads import TreeHeads, write_head  # noqa: PLC0415 - see gateway.cli.session
        from gateway.auditing.room import signing_key  # noqa: PLC0415 - the same

        settings = services.settings.audit
        signer = await signing_key(settings, services.store)
        # Before the head, so that the head covers it.
        await audit(services, "audit.head", "")
        heads = TreeHeads(services.store, services.clock, signer, settings.heads_dir)
        made = await heads.make()
        try:
            await heads.export(made)
        except OSError as exc:
            note(f"warning: audit.heads_dir: the head could not be written there ({exc.strerror})")
        if args.out is None:
            print_json(to_document(made))
        else:
            write_head(args.out, made)
            note(f"a head of {made.size} events is in {args.out}")
        return OK

    return with_services(args, work)


def prove(args: argparse.Namespace) -> int:
    """Give out a proof that holds against the newest head."""
    if (args.seq is None) == (args.since is None):
        raise InputError("name either the number of an event, or an older head with --since")
    older = None if args.since is None else read_head(args.since)

    async def work(services: Services) -> int:
        node = args.node or services.settings.store.node
        subject = f"{node}/{args.seq}" if older is None else ""
        await audit(services, "audit.proof", subject)
        if older is None:
            document = await services.store.read(lambda rows: _inclusion(rows, node, args.seq))
        else:
            document = await services.store.read(lambda rows: _consistency(rows, older))
        if args.json:
            print_json(document)
        else:
            _print(document)
        return OK

    return with_services(args, work)


def _newest(rows: UnitOfWork) -> TreeHead:
    text = rows.audit_tree.newest_head()
    if text is None:
        raise NotFoundError("there is no signed head yet; make one: direct-gateway audit head")
    return from_text(text)


def _inclusion(rows: UnitOfWork, node: str, seq: int) -> dict[str, Any]:
    event, newest = rows.audit.get(node, seq), _newest(rows)
    leaf = rows.audit_tree.leaf_of(node, seq)
    if leaf >= newest.size:
        raise NotFoundError(f"event {node}/{seq} came after the newest head; make one: direct-gateway audit head")
    proof = merkle.inclusion_proof(leaf, newest.size, rows.audit_tree.node)
    # What is given out is checked first: a proof that does not hold is a finding, not a proof.
    merkle.verify_inclusion(merkle.leaf_hash(event.hash), leaf, newest.size, proof, newest.root)
    return {
        "proves": f"event {node}/{seq} is in the head of {newest.size} events",
        "event": event_document(event),
        "leaf": leaf,
        "leaf_hash": merkle.leaf_hash(event.hash).hex(),
        "proof": [step.hex() for step in proof],
        "head": to_document(newest),
    }


def _consistency(rows: UnitOfWork, older: TreeHead) -> dict[str, Any]:
    newest = _newest(rows)
    if older.size > newest.size:
        raise ConflictError(
            f"the head is of {older.size} events, and the newest one of this log of {newest.size}: the end was cut off,"
            f" or an older copy of the database was put in place; see: direct-gateway audit verify --against"
        )
    proof = merkle.consistency_proof(older.size, newest.size, rows.audit_tree.node)
    merkle.verify_consistency(older.size, newest.size, older.root, newest.root, proof)
    return {
        "proves": f"the head of {newest.size} events extends the one of {older.size}",
        "older": to_document(older),
        "proof": [step.hex() for step in proof],
        "head": to_document(newest),
    }


def event_document(event: AuditEvent) -> dict[str, Any]:
    """An event with everything that its hash is made of."""
    return {
        "node": event.node,
        "seq": event.seq,
        "at": event.at.isoformat(timespec="microseconds"),
        "actor": event.actor,
        "action": event.action,
        "subject": event.subject,
        "detail": event.detail,
        "rows": event.rows,
        "hash": event.hash.hex(),
    }


def _print(document: dict[str, Any]) -> None:
    out(f"proved: {document['proves']}")
    out(f"head:   {document['head']['root']} of {document['head']['at']}")
    for step in document["proof"]:
        out(f"  {step}")
    if "event" in document:
        event = document["event"]
        out(f"event:  {event['at']} {event['actor']} {event['action']} {event['subject']}")


def key(args: argparse.Namespace) -> int:
    """Print the public key, or write it to a file. The database is not opened."""
    from gateway.keys.head_signing import load_signing_key  # noqa: PLC0415 - see gateway.cli.session

    signer = load_signing_key(settings_of(args).audit.signing_key_file)
    if args.out is None:
        out(signer.pem.decode("ascii").rstrip("\n"))
    else:
        Path(args.out).write_bytes(signer.pem)
    note(f"key id: {signer.key_id}")
    return OK
