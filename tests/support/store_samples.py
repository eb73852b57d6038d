"""Values and stand-ins for tests of the store, the pipeline and the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.core.message import Envelope, Inbound, Source
from gateway.core.verdict import Check, Judgement, Reason, RecipientTrust, Signer
from gateway.ports import IndexedMessage, Patient, SecurityAgent
from gateway.settings import StoreSettings
from gateway.store.sql_store import SQLStore

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALICE = "alice@direct.practice.example"
BOB = "bob@direct.practice.example"
SENDER = "drsender@direct.partner.example"


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


def open_store(folder: Path, *, daemon: bool = False) -> SQLStore:
    return SQLStore.open(settings_for(folder), daemon=daemon)


def inbound(raw: bytes = b"From: x\r\n\r\nsealed", *recipients: str, mail_from: str | None = SENDER) -> Inbound:
    return Inbound(raw, Envelope(mail_from, recipients or (ALICE,)), Source.SMTP, "192.0.2.7")


def accepted(*recipients: str, content: bytes = b"Subject: Referral\r\n\r\nHello\r\n") -> Judgement:
    to = recipients or (ALICE,)
    signer = Signer("CN=x", "CN=ca", "01", "ab" * 32, SENDER, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
    return Judgement(
        reason=Reason.OK,
        detail="",
        delivered_to=to,
        trust=tuple(RecipientTrust(recipient, Reason.OK, "", "cd" * 32, ("ab" * 32, "cd" * 32)) for recipient in to),
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
        policy_version="1",
    )


def rejected(reason: Reason = Reason.UNTRUSTED) -> Judgement:
    return Judgement(reason=reason, detail="no anchor", checks=(Check("path", "failed"),), policy_version="1")


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
