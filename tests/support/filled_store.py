"""A row in every append-only table, with ``fill_rest``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from gateway.core.document_marks import DocumentMark, MarkKind
from gateway.core.lifecycle import State
from gateway.core.standing import ReviewState, Standing
from gateway.core.trust import BundleSetting, Direction
from gateway.core.verdict_fields import verdict_fields
from gateway.ports import ClientSession, Delivery, DeliveryAction, FeedEntry, FeedOutcome, Link, LinkUndo, UnitOfWork
from gateway.ports.patient_feed import PatientDetail
from gateway.store.ids import new_id
from gateway.store.tables import body_object
from tests.support.store_samples import ALICE, NOW, PlainIndexer, accepted, inbound, indexed, patient, rejected


def fill(tx: UnitOfWork) -> None:
    """At least one row in every table that a practice of one message has."""
    message_id = new_id(NOW)
    tx.messages.add_raw(message_id, NOW, inbound())
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    judgement = accepted(ALICE)
    tx.messages.add_verdict(message_id, NOW, judgement)
    tx.messages.add_recheck(message_id, NOW, NOW, rejected())
    tx.messages.add_content(message_id, judgement)
    mailbox = tx.mailboxes.create("alice", NOW, [ALICE])
    sha256 = tx.messages.content(message_id).content_sha256
    evidence = tx.messages.verdict(message_id)
    assert evidence is not None
    fields = verdict_fields(evidence, message_id=message_id, verified_at=NOW, link="unlinked")
    shown = PlainIndexer().with_fields(indexed(), fields.encode())
    tx.mailboxes.add(mailbox, message_id, sha256, shown, NOW, standing=Standing(decided=True))
    tx.shown.add(message_id, NOW, fields, shown.size_bytes)
    tx.accounts.grant(tx.accounts.add("alice", "hash", NOW), "INBOX", mailbox, "lrs")
    alice = tx.accounts.by_login("alice")
    assert alice is not None
    tx.logins.add_app_password(alice.id, "telephone", b"salt", b"digest", NOW)
    tx.logins.end_app_password(alice.id, 1, "user", NOW)
    tx.logins.set_enabled(alice.id, "user", "left", NOW, enabled=False)
    tx.logins.note_use(alice.id, 0, NOW)
    tx.sessions.add(ClientSession("1", "main", alice.id, "imap", "192.0.2.7", "password", 0, NOW))
    tx.pop3.hide(alice.id, mailbox, [1], NOW)
    tx.pop3.restore(alice.id, NOW, "user")
    tx.patients.upsert([patient()], "csv", NOW)
    assert tx.patient_feed.record(FeedEntry("ADT|CLINIC", "1", "ab" * 32, FeedOutcome.APPLIED, NOW, "A08", "P1", ""))
    tx.patient_feed.add_event("P1", NOW, NOW, "adt")
    assert tx.patient_feed.merge("P2", "P1", NOW, NOW, "adt")
    assert tx.patient_feed.set_detail("P1", PatientDetail(phones=("5551234567",)), NOW, "adt")
    mark = DocumentMark(MarkKind.DOCUMENT, "ab" * 32, "2")
    tx.links.add(Link("L0", message_id, "P1", "manual", "user", "by hand", NOW, "2"), [mark])
    tx.links.undo(LinkUndo("L0", NOW, "user", "wrong chart"))
    tx.links.add(Link("L1", message_id, "P1", "manual", "user", "by hand", NOW))
    tx.links.add_receipt("L1", "folder", "there", NOW)
    tx.deliveries.order("L1", ["ehr", "gone"])
    tx.deliveries.stop("gone", "http_410", NOW)
    taken_back = Delivery(0, "L1", "folder", DeliveryAction.RETRACT, 1, 0, 0, NOW, "user", "wrong chart")
    tx.deliveries.add_retraction(taken_back, "taken back", NOW)
    tx.reviews.add(message_id, NOW, "user", ReviewState.REVIEWED)
    tx.standings.settle([message_id])
    both = frozenset(Direction)
    tx.bundles.set(BundleSetting("partners", "https://bundles.example/p.p7b", None, (), both, 24), NOW)
    tx.bundles.add_version("partners", NOW, b"bundle", [b"anchor"])
    held: Any = tx.audit
    # What a store with its bodies in S3 writes: nothing of it is in a store that has none.
    where = {"message_id": message_id, "kind": "raw", "name": "sha256/x", "version": "1", "sha256": "x"}
    held._connection.execute(insert(body_object).values(where | {"size_bytes": 1, "retain_until": NOW}))
    for _ in range(256):
        # A whole block of the tree.
        tx.audit.add(NOW, "user", "test", message_id)
    tx.audit_tree.add_head(tx.audit_tree.grow(1_000), "{}")


def fill_rest(tx: UnitOfWork) -> None:
    """A row in what a practice has that keeps Sent mail and looks into its quarantine."""
    alice = tx.accounts.by_login("alice")
    assert alice is not None
    [mailbox] = tx.mailboxes.for_recipient(ALICE)
    sent = tx.kept.make_sent(mailbox, NOW)
    copy_id = new_id(NOW)
    tx.messages.add_raw(copy_id, NOW, inbound(b"a copy"))
    tx.messages.set_state(copy_id, State.KEPT, NOW)
    tx.kept.add(copy_id, alice.id, sender=ALICE, subject="copy", rfc822_message_id="<copy@clinic>")
    tx.mailboxes.add(sent, copy_id, "0" * 64, indexed(), NOW)
    tx.mailboxes.use_seen("per_user", NOW)
    tx.quarantine_folder.make(NOW)
    refused_id = new_id(NOW)
    tx.messages.add_raw(refused_id, NOW, inbound(b"refused"))
    tx.messages.set_state(refused_id, State.RECEIVED, NOW)
    tx.messages.add_verdict(refused_id, NOW, rejected())
    for state in (State.REFUSED, State.RECEIVED):
        tx.messages.set_state(refused_id, state, NOW)
