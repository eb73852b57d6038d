"""Values and stand-ins for tests of the store, the pipeline and the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.verdict import (
    AnchorSet,
    Check,
    Judgement,
    Reason,
    RecipientTrust,
    RevocationAnswer,
    Signer,
    anchor_set_name,
)
from gateway.ports import Clock, IndexedMessage, Patient, SecurityAgent, UnitOfWork
from gateway.settings import StoreSettings
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALICE = "alice@direct.practice.example"
BOB = "bob@direct.practice.example"
SENDER = "drsender@direct.partner.example"
ANCHORS = AnchorSet((b"anchor certificate", b"another anchor"), (("folder",), ("bundle partners version 3",)))
ANCHOR_SET = anchor_set_name(
    (hashlib.sha256(der).hexdigest(), sources) for der, sources in zip(ANCHORS.anchors, ANCHORS.sources, strict=True)
)
CRL = b"revocation list"
_CRL = hashlib.sha256(CRL).hexdigest()


@dataclass
class SteadyClock:
    """A clock that only the test moves."""

    time: datetime = NOW

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def settings_for(folder: Path) -> StoreSettings:
    return StoreSettings(url=f"sqlite:///{folder}/gateway.db", group_commit_wait_ms=1)


def open_store(folder: Path, *, daemon: bool = False, clock: Clock | None = None) -> SQLStore:
    """``clock``: of leases and schedules, for a test that moves it."""
    return SQLStore.open(settings_for(folder), sealer_in(folder), daemon=daemon, clock=clock)


def inbound(raw: bytes = b"From: x\r\n\r\nsealed", *recipients: str, mail_from: str | None = SENDER) -> Inbound:
    return Inbound(MemoryBody(raw), Envelope(mail_from, recipients or (ALICE,)), Source.SMTP, "192.0.2.7")


def accepted(*recipients: str, content: bytes = b"Subject: Referral\r\n\r\nHello\r\n") -> Judgement:
    to = recipients or (ALICE,)
    signer = Signer("CN=x", "CN=ca", "01", "ab" * 32, SENDER, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
    return Judgement(
        reason=Reason.OK,
        detail="",
        delivered_to=to,
        trust=tuple(
            RecipientTrust(recipient, Reason.OK, "", "cd" * 32, ("folder",), ("ab" * 32, "cd" * 32), ANCHOR_SET)
            for recipient in to
        ),
        sender=SENDER,
        signer=signer,
        algorithms={"digest": "sha256"},
        wrapped=True,
        message_id="<1@partner.example>",
        subject="Referral",
        inner_sha256=hashlib.sha256(content).hexdigest(),
        content=content,
        checks=(Check("signature", "passed"),),
        certificates=(b"signer certificate", b"anchor certificate"),
        revocation=(
            RevocationAnswer(
                "ab" * 32, "good", "not on it", "crl", "operator", "2026-02-28T00:00:00+00:00", "", "", _CRL
            ),
        ),
        revocation_data=(CRL,),
        anchor_sets={ANCHOR_SET: ANCHORS},
        policy_version="1",
    )


def rejected(reason: Reason = Reason.UNTRUSTED) -> Judgement:
    checks = (Check("path", "failed"),)
    return Judgement(reason=reason, detail="no anchor", checks=checks, policy_version="1", hint="CN=issuer is unknown")


def indexed(content: bytes = b"Subject: Referral\r\n\r\nHello\r\n") -> IndexedMessage:
    head, _, body = content.partition(b"\r\n\r\n")
    return IndexedMessage(
        size_bytes=len(content),
        header_end=len(head) + 4,
        envelope=b"(NIL)",
        body=b"(BODY)",
        bodystructure=b"(BODYSTRUCTURE)",
        sections=b"\x01",
        search_headers=head.decode().replace("\r\n", "\n").casefold(),
        search_text=body.decode().casefold(),
        sent_at=NOW,
    )


def patient(number: int = 1, **changes: object) -> Patient:
    made = Patient(id=f"P{number}", mrn=f"MRN{number}", family="Müller", given="Ada", direct_addresses=(SENDER,))
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class ScriptedAgent:
    """A Security/Trust Agent that says what the test wants."""

    answer: Callable[[bytes, Envelope], Judgement] = field(default=lambda _, envelope: accepted(*envelope.recipients))
    judged: list[bytes] = field(default_factory=list)

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        self.judged.append(raw)
        return self.answer(raw, envelope)


class PlainIndexer:
    """Indexes as :func:`indexed` does."""

    def index(self, content: bytes) -> IndexedMessage:
        return indexed(content)

    def with_fields(self, indexed: IndexedMessage, fields: bytes) -> IndexedMessage:
        return replace(
            indexed,
            size_bytes=indexed.size_bytes + len(fields),
            header_end=indexed.header_end + len(fields),
            search_headers=fields.decode("ascii").replace("\r\n", "\n").casefold() + indexed.search_headers,
        )


@dataclass
class RecordingFeed:
    """Remembers the hints."""

    mailboxes: list[int] = field(default_factory=list)

    def changed(self, mailbox_id: int) -> None:
        self.mailboxes.append(mailbox_id)


class InProcess:
    """Stands where the daemon has an agent in a child process; counts how often it was asked."""

    def __init__(self, agent: SecurityAgent) -> None:
        self._agent = agent
        self.asked = 0

    async def __call__(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        self.asked += 1
        return self._agent.judge(raw, envelope, at)


async def keep_raw(store: SQLStore, raw: bytes) -> str:
    """Keep a message that has just come, its body in its place, and return its id."""
    message_id = new_id(NOW)
    placed = await store.place_raw(message_id, MemoryBody(raw))

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_raw(message_id, NOW, inbound(raw), placed)
        tx.messages.set_state(message_id, State.RECEIVED, NOW)

    await store.write(work)
    return message_id
