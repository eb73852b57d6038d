"""A practice in a folder of its own: run the command on it, and put messages into its store."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from gateway.cli.main import main
from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.standing import Standing
from gateway.core.verdict import Check, Judgement, Reason, Signer
from gateway.inbox.indexer import Indexer
from gateway.ports import UnitOfWork
from gateway.services import open_services
from gateway.settings import load
from gateway.store.ids import new_id

DOMAIN = "direct.clinic.test"
FRONT = f"front-desk@{DOMAIN}"
LAB = f"lab@{DOMAIN}"
SENDER = "ada@direct.phr.test"
PATIENTS = (
    '{"resourceType":"Patient","id":"p1","name":[{"family":"Quimby","given":["Ada"]}],"birthDate":"1961-03-14"}\n'
    '{"resourceType":"Patient","id":"p2","name":[{"family":"Okafor","given":["Ben"]}],"birthDate":"1985-11-02"}\n'
)
T = TypeVar("T")
_START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@dataclass
class Clinic:
    """A practice in a folder of its own."""

    directory: Path
    count: int = 0

    @property
    def config(self) -> str:
        return str(self.directory / "gateway.toml")

    def run(self, *words: str) -> int:
        return main(["--config", self.config, *words])

    def write(self, work: Callable[[UnitOfWork], T]) -> T:
        async def go() -> T:
            async with open_services(load(Path(self.config), {})) as services:
                return await services.store.write(work)

        return asyncio.run(go())

    def add_message(
        self,
        state: State,
        *,
        to: tuple[str, ...] = (FRONT,),
        subject: str = "Lab result",
        reason: Reason = Reason.UNTRUSTED,
        certificates: tuple[bytes, ...] = (),
        mail_from: str | None = SENDER,
        detail: str = "no anchor",
        content: bytes = b"",
    ) -> str:
        """Put a message into the store in the given state, by the moves that the pipeline makes.

        ``reason``, ``detail`` and ``certificates`` are those of a refused one; ``content`` is what was verified.
        """
        self.count += 1
        at = _START + timedelta(minutes=self.count)
        message_id = new_id(at)
        content = content or f"From: {SENDER}\r\nSubject: {subject}\r\n\r\nbody {self.count}\r\n".encode()
        inbound = Inbound(MemoryBody(b"sealed " + content), Envelope(mail_from, to), Source.SMTP, "192.0.2.7")
        verdict = _judgement(content, subject, to)

        def work(tx: UnitOfWork) -> None:
            tx.messages.add_raw(message_id, at, inbound)
            tx.messages.set_state(message_id, State.RECEIVED, at)
            if state is State.RECEIVED:
                tx.jobs.enqueue(JobKind.UNWRAP, message_id)
                return
            if state is State.REFUSED:
                refused = replace(
                    verdict,
                    reason=reason,
                    detail=detail,
                    hint="The chain ends at CN=Partner CA.",
                    content=None,
                    delivered_to=(),
                    sender="",
                    certificates=certificates,
                )
                tx.messages.add_verdict(message_id, at, refused)
                tx.messages.set_state(message_id, State.REFUSED, at)
                return
            tx.messages.add_verdict(message_id, at, verdict)
            tx.messages.add_content(message_id, verdict)
            tx.messages.set_state(message_id, State.UNWRAPPED, at)
            if state is State.FILED:
                indexed = Indexer().index(content)
                digest = hashlib.sha256(content).hexdigest()
                for mailbox in sorted({m for a in to for m in tx.mailboxes.for_recipient(a)}):
                    tx.mailboxes.add(mailbox, message_id, digest, indexed, at, standing=Standing(decided=True))
                tx.messages.set_state(message_id, State.FILED, at)

        self.write(work)
        return message_id


def _judgement(content: bytes, subject: str, to: tuple[str, ...]) -> Judgement:
    return Judgement(
        reason=Reason.OK,
        detail="",
        delivered_to=to,
        sender=SENDER,
        signer=Signer("CN=ada", "CN=ca", "0a", "ab" * 32, SENDER, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        algorithms={"digest": "sha256"},
        wrapped=True,
        message_id="<1@direct.phr.test>",
        subject=subject,
        inner_sha256=hashlib.sha256(content).hexdigest(),
        content=content,
        checks=(Check("signature", "passed"),),
        policy_version="direct-1.3/0",
    )
