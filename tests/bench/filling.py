"""Fills a store with messages, quickly and honestly: the rows that the pipeline makes, through the store's own rows.

What takes the time of a real delivery is left out: SMTP, decryption, a transaction for a few messages only. What is
stored is the same: the sealed raw bytes under a key of their own, envelope, states, verdict with its evidence, sealed
content and search text, the index, UIDs and flags, and the audit events with the facts that they answer for. A test
compares a message that was filled in with one that was delivered, table by table.

The raw bytes are random ones of the right number: nobody opens them any more.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path

from gateway.agents import ReloadableAgent
from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.standing import Standing
from gateway.core.verdict import Judgement
from gateway.inbox.indexer import Indexer
from gateway.keys.body_keys import body_sealer
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import ACTOR
from gateway.ports import IndexedMessage, UnitOfWork
from gateway.settings import load
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.bench.mail_pool import MailPool, inner_of
from tests.bench.world import SENDER, SIZES, BenchError

UNIT = 20
"""Messages in one transaction. With hundreds, each statement of SQLite walks through all that their savepoint keeps."""
_NUMBER = "fill-{:09}@bench.example"
_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*(\S+)")


@dataclass(frozen=True)
class Made:
    """A message that was not sent."""

    inbound: Inbound
    judgement: Judgement
    indexed: IndexedMessage


@dataclass(frozen=True)
class Pattern:
    """One real message and what the gateway makes of it; the others differ in what tells messages apart."""

    raw_bytes: int
    envelope: Envelope
    judgement: Judgement
    indexed: IndexedMessage
    content: bytes
    attachment: bytes
    """As it stands in the content, and is another one in each message."""
    name: str
    """The Message-ID in it, without its brackets."""

    @classmethod
    def of(cls, config: Path, pool: MailPool, address: str) -> Pattern:
        """Judge and index the first message of the pool as the daemon would. Raises BenchError: it is refused."""
        [raw] = pool.messages(1)
        envelope = Envelope(SENDER, (address,))
        judgement = ReloadableAgent(load(config).trust, ()).judge(raw, envelope, SystemClock().now())
        if not judgement.accepted or judgement.content is None:
            raise BenchError(f"the message to fill with is refused: {judgement.reason.value}: {judgement.detail}")
        content = judgement.content
        if content != inner_of(pool.size, 0, address):
            raise BenchError("the message to fill with is not what was sent")
        longest = max(content.split(b"\r\n\r\n"), key=len)
        attachment = longest[: longest.rindex(b"\r\n--")] if b"\r\n--" in longest else longest
        name = judgement.message_id.strip("<>")
        return cls(len(raw), envelope, judgement, Indexer().index(content), content, attachment, name)

    def number(self, number: int, size: str) -> Made:
        """Another message like it."""
        name = _NUMBER.format(number)
        encoded = base64.encodebytes(os.urandom(SIZES[size])).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
        content = self.content.replace(self.attachment, encoded).replace(self.name.encode(), name.encode())
        judgement = replace(
            self.judgement,
            content=content,
            content_sha256="",
            inner_sha256=os.urandom(32).hex(),
            message_id=f"<{name}>",
        )
        indexed = replace(
            self.indexed,
            size_bytes=len(content),
            search_headers=self.indexed.search_headers.replace(self.name, name),
            envelope=self.indexed.envelope.replace(self.name.encode(), name.encode()),
        )
        raw = MemoryBody(os.urandom(self.raw_bytes))
        return Made(Inbound(raw, self.envelope, Source.SMTP, "127.0.0.1"), judgement, indexed)

    def around(self, content: bytes) -> Made:
        """A message of that content, with what its raw bytes would take beside this one's."""
        indexed = Indexer().index(content)
        name = _MESSAGE_ID.search(content)
        judgement = replace(
            self.judgement,
            content=content,
            content_sha256="",
            inner_sha256=os.urandom(32).hex(),
            message_id="" if name is None else name[1].decode("ascii"),
        )
        raw = MemoryBody(os.urandom(self.raw_bytes - len(self.content) + 2 * len(content)))
        return Made(Inbound(raw, self.envelope, Source.SMTP, "127.0.0.1"), judgement, indexed)


def fill(config: Path, pool: MailPool, address: str, numbers: range, tell: Callable[[int], None]) -> None:
    """Store the messages of those numbers; no daemon runs. ``tell`` hears how many are there.

    What the pool's first message is made into by the daemon, they are made into as well.
    """
    pattern = Pattern.of(config, pool, address)
    made = (pattern.number(number, pool.size) for number in numbers)
    keep_made(config, made, lambda count: tell(numbers[count - 1] + 1))


def fill_with(
    config: Path, pool: MailPool, address: str, contents: Iterable[bytes], tell: Callable[[int], None]
) -> None:
    """Store these messages, as if each had been delivered; no daemon runs. ``tell`` hears how many are there."""
    pattern = Pattern.of(config, pool, address)
    keep_made(config, map(pattern.around, contents), tell)


def keep_made(config: Path, messages: Iterable[Made], tell: Callable[[int], None]) -> None:
    """Store them, a few in a transaction. ``tell`` hears how many are there."""
    settings = load(config)
    clock = SystemClock()
    rest = iter(messages)
    count = 0
    with SQLStore.open(settings.store, body_sealer(settings)) as store:
        while made := list(islice(rest, UNIT)):
            store.write_blocking(partial(_keep_all, made=made, at=clock.now()))
            count += len(made)
            tell(count)


def _keep_all(rows: UnitOfWork, made: Sequence[Made], at: datetime) -> None:
    for message in made:
        keep(rows, new_id(at), message, at)


def keep(rows: UnitOfWork, message_id: str, made: Made, at: datetime) -> None:
    """All that the pipeline keeps of one accepted message without a patient."""
    inbound, judgement = made.inbound, made.judgement
    rows.messages.add_raw(message_id, at, inbound)
    rows.messages.set_state(message_id, State.RECEIVED, at)
    received = {
        "sha256": inbound.raw.sha256,
        "size_bytes": inbound.raw.size_bytes,
        "source": inbound.source.value,
        "recipients": 1,
        "seen_before": [],
    }
    rows.audit.add(at, ACTOR, "message.received", message_id, received)
    rows.messages.add_verdict(message_id, at, judgement)
    rows.messages.add_content(message_id, judgement)
    rows.messages.set_state(message_id, State.UNWRAPPED, at)
    digest = judgement.content_sha256
    accepted = {"recipients": 1, "content_sha256": digest, "policy": judgement.policy_version}
    rows.audit.add(at, ACTOR, "message.accepted", message_id, accepted)
    uids = [
        [mailbox, rows.mailboxes.add(mailbox, message_id, digest, made.indexed, at, standing=Standing(decided=True))]
        for mailbox in rows.mailboxes.for_recipient(inbound.envelope.recipients[0])
    ]
    rows.messages.set_state(message_id, State.FILED, at)
    rows.audit.add(at, ACTOR, "message.filed", message_id, {"uids": uids, "present": 0})
    unlinked: dict[str, object] = {
        "decision": "unlinked",
        "rule": "unknown sender",
        "entries": 0,
        "automatic": True,
    }
    # As for a document that says nothing of a patient.
    unlinked |= {
        "claims": {"signed_from": 1},
        "problems": ["cda_patient_missing"],
        "contradictions": [],
        "between": [],
        "points": None,
        "compared": 0,
        "candidates": [],
    }
    rows.audit.add(at, ACTOR, "message.unlinked", message_id, unlinked)
