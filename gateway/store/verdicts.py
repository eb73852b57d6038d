"""Verdicts with all that they rest on, and what later judgements of the same messages said. Append-only.

What many messages share is stored once: certificates, revocation lists and responses, and sets of anchors each stand
in a table of their own under their digest. A large list that is known already costs one look by its digest; its bytes
are neither hashed nor sent to the database again.

Failure modes: NotFoundError for what is not there, StoreError for what was damaged on the disk.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from gateway.core.errors import ConflictError, NotFoundError, StoreError
from gateway.core.verdict import AnchorSet, Judgement, anchor_set_name, anchor_set_text
from gateway.store.blobs import absent, fetch, fetch_many, keep, sha256_hex
from gateway.store.engines import insert_absent
from gateway.store.evidence import from_json, to_json
from gateway.store.group_memory import memory_of
from gateway.store.message_stand import Stands
from gateway.store.prepared import Prepared
from gateway.store.tables import anchor_set, certificate, recheck, revocation_data, verdict

_ADD = Prepared.into(verdict)
_ADD_RECHECK = Prepared.into(recheck)
_LAST_RECHECK = Prepared(select(func.max(recheck.c.seq)).where(recheck.c.message_id == bindparam("message")))
_NEWEST = Prepared(
    select(verdict.c.judgement, verdict.c.at)
    .where(verdict.c.message_id == bindparam("message"))
    .order_by(verdict.c.seq.desc())
    .limit(1)
)
_ANCHORS = Prepared(select(anchor_set.c.name).where(anchor_set.c.name == bindparam("named")))


class Verdicts:
    """The evidence part of :class:`gateway.ports.MessageRows`."""

    def __init__(self, connection: Connection, stands: Stands) -> None:
        self._connection = connection
        self._stands = stands

    def add_verdict(self, message_id: str, at: datetime, judgement: Judgement) -> None:
        """Keep a judgement as the newest verdict, with everything that it rests on."""
        seq = self._stands.of(message_id).verdict + 1
        _ADD.later(
            self._connection,
            message_id=message_id,
            seq=seq,
            at=at,
            reason=judgement.reason.value,
            sender=judgement.sender,
            judgement=self._keep(judgement),
        )
        self._stands.judged(message_id, seq)

    def verdict(self, message_id: str) -> dict[str, Any] | None:
        """The newest verdict as stored (see :mod:`gateway.store.evidence`), or None."""
        text = _NEWEST.scalar(self._connection, message=message_id)
        return None if text is None else from_json(text)

    def judged_at(self, message_id: str) -> datetime:
        """The moment of the newest verdict. Raises NotFoundError."""
        newest = _NEWEST.first(self._connection, message=message_id)
        if newest is None:
            raise NotFoundError("the message has not been judged yet")
        at: datetime = newest.at
        return at

    def verdicts(self, message_id: str) -> list[dict[str, Any]]:
        """Every verdict as stored, oldest first, each with ``at``; the last one is in force."""
        rows = self._connection.execute(
            select(verdict.c.at, verdict.c.judgement).where(verdict.c.message_id == message_id).order_by(verdict.c.seq)
        )
        return [from_json(row.judgement) | {"at": row.at} for row in rows]

    def certificate(self, sha256: str) -> bytes:
        """DER of a certificate of the evidence. Raises NotFoundError; StoreError when it is damaged."""
        return fetch(self._connection, certificate, sha256)

    def revocation_data(self, sha256: str) -> bytes:
        """DER of a CRL or OCSP response of the evidence. Raises NotFoundError; StoreError when it is damaged."""
        return fetch(self._connection, revocation_data, sha256)

    def anchor_set(self, name: str) -> AnchorSet:
        """A set of anchors of the evidence. Raises NotFoundError; StoreError when it is damaged."""
        text = self._connection.scalar(select(anchor_set.c.members).where(anchor_set.c.name == name))
        if text is None:
            raise NotFoundError("there is no such set of anchors")
        if sha256_hex(text.encode("utf-8")) != name:
            raise StoreError("a stored set of anchors does not match its digest")
        members = json.loads(text)
        ders = fetch_many(self._connection, certificate, [member["sha256"] for member in members])
        return AnchorSet(
            tuple(ders[member["sha256"]] for member in members),
            tuple(tuple(member["sources"]) for member in members),
        )

    def add_recheck(self, message_id: str, at: datetime, as_of: datetime, judgement: Judgement) -> None:
        """Keep what a later judgement said; the verdict in force stays.

        Args:
            message_id: of the message that was judged again.
            at: when that was done.
            as_of: the moment that was judged for.
            judgement: the outcome.
        """
        _ADD_RECHECK.later(
            self._connection,
            message_id=message_id,
            seq=(_LAST_RECHECK.scalar(self._connection, message=message_id) or 0) + 1,
            at=at,
            as_of=as_of,
            reason=judgement.reason.value,
            judgement=self._keep(judgement),
        )

    def rechecks(self, message_id: str) -> list[dict[str, Any]]:
        """Every later judgement as stored, oldest first, each with ``at`` and ``as_of``."""
        rows = self._connection.execute(
            select(recheck).where(recheck.c.message_id == message_id).order_by(recheck.c.seq)
        )
        return [from_json(row.judgement) | {"at": row.at, "as_of": row.as_of} for row in rows]

    def _keep(self, judgement: Judgement) -> str:
        """Store what the judgement rests on, and return the judgement as it is stored."""
        ders = {sha256_hex(der): der for der in judgement.certificates}
        keep(self._connection, certificate, ders)
        for name, anchors in judgement.anchor_sets.items():
            self._keep_anchors(name, anchors)
        return to_json(judgement, list(ders), self._keep_revocation_data(judgement))

    def _keep_revocation_data(self, judgement: Judgement) -> list[str]:
        """Store lists and responses; returns their digests.

        The answers name the data that they rest on, so as a rule it is known by name that all of it is here already.
        """
        if not judgement.revocation_data:
            return []
        named = list(dict.fromkeys(answer.data_sha256 for answer in judgement.revocation if answer.data_sha256))
        if len(named) == len(judgement.revocation_data) and not absent(self._connection, revocation_data, named):
            return named
        ders = {sha256_hex(der): der for der in judgement.revocation_data}
        keep(self._connection, revocation_data, ders)
        return list(ders)

    def _keep_anchors(self, name: str, anchors: AnchorSet) -> None:
        memory = memory_of(self._connection)
        if memory is not None and memory.knows(anchor_set, name):
            return
        if _ANCHORS.scalar(self._connection, named=name) is not None:
            if memory is not None:
                memory.saw(anchor_set, [name])
            return
        digests = [sha256_hex(der) for der in anchors.anchors]
        members = list(zip(digests, anchors.sources, strict=True))
        if anchor_set_name(members) != name:
            raise ConflictError("a set of anchors is not what its name says")
        keep(self._connection, certificate, dict(zip(digests, anchors.anchors, strict=True)))
        self._connection.execute(
            insert_absent(self._connection, anchor_set), {"name": name, "members": anchor_set_text(members)}
        )
