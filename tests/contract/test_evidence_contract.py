"""What every Store promises of evidence and quarantine, through the ports alone."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConflictError, NotFoundError
from gateway.core.lifecycle import State
from gateway.core.verdict import Reason, RevocationAnswer, anchor_set_name
from gateway.ports import Store, UnitOfWork
from gateway.store.ids import new_id
from tests.support.store_samples import (
    ALICE,
    ANCHOR_SET,
    ANCHORS,
    BOB,
    CRL,
    NOW,
    SENDER,
    accepted,
    inbound,
    rejected,
)
from tests.support.stores import STORES


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with STORES[request.param](tmp_path) as opened:
        yield opened


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def received(tx: UnitOfWork, number: int = 0, *recipients: str, mail_from: str | None = SENDER) -> str:
    at = NOW + timedelta(seconds=number)
    message_id = new_id(at)
    tx.messages.add_raw(message_id, at, inbound(b"raw %d" % number, *recipients, mail_from=mail_from))
    tx.messages.set_state(message_id, State.RECEIVED, at)
    return message_id


def refused(
    tx: UnitOfWork, number: int = 0, reason: Reason = Reason.UNTRUSTED, *, mail_from: str | None = SENDER
) -> str:
    message_id = received(tx, number, ALICE, BOB, mail_from=mail_from)
    tx.messages.add_verdict(message_id, NOW, rejected(reason))
    tx.messages.set_state(message_id, State.REFUSED, NOW + timedelta(seconds=number + 1))
    return message_id


# --- evidence ---


async def test_everything_that_a_verdict_rests_on_comes_back(store: Store) -> None:
    message_id = await store.write(received)
    at = NOW + timedelta(minutes=5)
    await store.write(lambda tx: tx.messages.add_verdict(message_id, at, accepted(ALICE)))

    def look(tx: UnitOfWork) -> None:
        verdict = tx.messages.verdict(message_id)
        assert verdict is not None
        assert tx.messages.judged_at(message_id) == at
        assert [tx.messages.certificate(sha256) for sha256 in verdict["certificates"]] == [
            b"signer certificate",
            b"anchor certificate",
        ]
        assert [tx.messages.revocation_data(sha256) for sha256 in verdict["revocation_data"]] == [CRL]
        assert verdict["revocation"][0]["data_sha256"] == digest(CRL)
        assert verdict["revocation"][0]["status"] == "good"
        assert verdict["trust"][0]["anchor_sources"] == ["folder"]
        assert verdict["trust"][0]["anchor_set"] == ANCHOR_SET
        assert verdict["anchor_sets"] == [ANCHOR_SET]
        kept = tx.messages.anchor_set(ANCHOR_SET)
        assert dict(zip(kept.anchors, kept.sources, strict=True)) == dict(
            zip(ANCHORS.anchors, ANCHORS.sources, strict=True)
        )

    await store.read(look)


async def test_the_hint_of_a_rejection_is_kept(store: Store) -> None:
    message_id = await store.write(refused)
    verdict = await store.read(lambda tx: tx.messages.verdict(message_id))
    assert verdict is not None
    assert verdict["hint"] == "CN=issuer is unknown"


async def test_what_many_messages_share_is_added_again_without_a_fault(store: Store) -> None:
    first, second = await store.write(received), await store.write(lambda tx: received(tx, 1))
    for message_id in (first, second):
        await store.write(lambda tx, m=message_id: tx.messages.add_verdict(m, NOW, accepted(ALICE)))  # type: ignore[misc]
    other = replace(accepted(ALICE), certificates=(b"signer certificate", b"a new one"))
    await store.write(lambda tx: tx.messages.add_verdict(first, NOW, other))
    assert await store.read(lambda tx: tx.messages.certificate(digest(b"a new one"))) == b"a new one"
    assert await store.read(lambda tx: tx.messages.certificate(digest(b"signer certificate"))) == b"signer certificate"


async def test_data_that_no_answer_names_is_kept_too(store: Store) -> None:
    """A decision may rest on a base list and its delta; only the first of them is named."""
    answers = accepted(ALICE).revocation
    message_id = await store.write(received)
    judgement = replace(accepted(ALICE), revocation=answers, revocation_data=(CRL, b"delta"))
    await store.write(lambda tx: tx.messages.add_verdict(message_id, NOW, judgement))
    verdict = await store.read(lambda tx: tx.messages.verdict(message_id))
    assert verdict is not None
    assert verdict["revocation_data"] == [digest(CRL), digest(b"delta")]
    assert await store.read(lambda tx: tx.messages.revocation_data(digest(b"delta"))) == b"delta"


async def test_an_answer_that_names_data_of_before_is_not_taken_for_new_data(store: Store) -> None:
    message_id = await store.write(received)
    await store.write(lambda tx: tx.messages.add_verdict(message_id, NOW, accepted(ALICE)))
    answer = RevocationAnswer("ab" * 32, "good", "", "ocsp", "message", "", "", "", digest(b"response"))
    judgement = replace(accepted(ALICE), revocation=(answer,), revocation_data=(b"response",))
    await store.write(lambda tx: tx.messages.add_verdict(message_id, NOW, judgement))
    verdict = await store.read(lambda tx: tx.messages.verdict(message_id))
    assert verdict is not None
    assert verdict["revocation_data"] == [digest(b"response")]
    assert await store.read(lambda tx: tx.messages.revocation_data(digest(b"response"))) == b"response"


async def test_equal_sets_of_anchors_have_one_name_and_others_another() -> None:
    a, b = digest(b"a"), digest(b"b")
    assert anchor_set_name([(a, ("folder",)), (b, ("x", "y"))]) == anchor_set_name([(b, ("y", "x")), (a, ("folder",))])
    assert anchor_set_name([(a, ("folder",))]) != anchor_set_name([(a, ("bundle b version 2",))])
    assert anchor_set_name([(a, ("folder",))]) != anchor_set_name([(b, ("folder",))])
    assert anchor_set_name([]) != anchor_set_name([(a, ())])


async def test_a_set_of_anchors_under_a_wrong_name_is_refused(store: Store) -> None:
    message_id = await store.write(received)
    judgement = replace(accepted(ALICE), anchor_sets={"ab" * 32: ANCHORS})
    with pytest.raises(ConflictError):
        await store.write(lambda tx: tx.messages.add_verdict(message_id, NOW, judgement))


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    message_id = await store.write(received)
    for look in (
        lambda tx: tx.messages.certificate("ab" * 32),
        lambda tx: tx.messages.revocation_data("ab" * 32),
        lambda tx: tx.messages.anchor_set("ab" * 32),
        lambda tx: tx.messages.judged_at(message_id),
        lambda tx: tx.messages.judged_at("nobody"),
    ):
        with pytest.raises(NotFoundError):
            await store.read(look)


async def test_every_verdict_is_told_oldest_first(store: Store) -> None:
    message_id = await store.write(received)
    later = NOW + timedelta(days=1)
    await store.write(lambda tx: tx.messages.add_verdict(message_id, NOW, rejected(Reason.UNTRUSTED)))
    await store.write(lambda tx: tx.messages.add_verdict(message_id, later, accepted(ALICE)))

    def look(tx: UnitOfWork) -> None:
        verdicts = tx.messages.verdicts(message_id)
        assert [(v["at"], v["reason"]) for v in verdicts] == [(NOW, "untrusted"), (later, "ok")]
        assert {k: v for k, v in verdicts[-1].items() if k != "at"} == tx.messages.verdict(message_id)
        assert tx.messages.verdicts("nobody") == []

    await store.read(look)


# --- later judgements ---


async def test_a_recheck_is_kept_and_changes_nothing_that_is_in_force(store: Store) -> None:
    message_id = await store.write(received)
    await store.write(lambda tx: tx.messages.add_verdict(message_id, NOW, accepted(ALICE)))
    later, as_of = NOW + timedelta(days=400), NOW + timedelta(days=300)
    again = replace(rejected(Reason.EXPIRED), certificates=(b"seen only later",))
    await store.write(lambda tx: tx.messages.add_recheck(message_id, later, NOW, accepted(ALICE)))
    await store.write(lambda tx: tx.messages.add_recheck(message_id, later, as_of, again))

    def look(tx: UnitOfWork) -> None:
        rechecks = tx.messages.rechecks(message_id)
        assert [(r["at"], r["as_of"], r["reason"]) for r in rechecks] == [(later, NOW, "ok"), (later, as_of, "expired")]
        assert tx.messages.certificate(digest(b"seen only later")) == b"seen only later"
        verdict = tx.messages.verdict(message_id)
        assert verdict is not None
        assert (verdict["reason"], tx.messages.judged_at(message_id)) == ("ok", NOW)
        assert tx.messages.state(message_id) is State.RECEIVED
        assert tx.messages.rechecks("nobody") == []

    await store.read(look)


# --- quarantine ---


async def test_the_quarantine_holds_what_is_refused_now(store: Store) -> None:
    first = await store.write(refused)
    second = await store.write(lambda tx: refused(tx, 1, Reason.EXPIRED, mail_from=None))
    await store.write(lambda tx: received(tx, 2))
    lines = await store.read(lambda tx: tx.quarantine.refused())
    assert [(line.id, line.reason, line.claimed_sender) for line in lines] == [
        (second, "expired", None),
        (first, "untrusted", SENDER),
    ]
    line = lines[1]
    assert (line.detail, line.hint, line.recipients) == ("no anchor", "CN=issuer is unknown", (ALICE, BOB))
    assert (line.received_at, line.refused_at) == (NOW, NOW + timedelta(seconds=1))
    await store.write(lambda tx: tx.messages.set_state(first, State.RECEIVED, NOW))
    assert [line.id for line in await store.read(lambda tx: tx.quarantine.refused())] == [second]
    await store.write(lambda tx: tx.messages.add_verdict(first, NOW, rejected(Reason.REVOKED)))
    await store.write(lambda tx: tx.messages.set_state(first, State.REFUSED, NOW))
    lines = await store.read(lambda tx: tx.quarantine.refused())
    assert [(line.id, line.reason) for line in lines] == [(second, "expired"), (first, "revoked")]


async def test_a_unit_that_fails_puts_nobody_into_quarantine(store: Store) -> None:
    def fails(tx: UnitOfWork) -> None:
        refused(tx)
        raise LookupError

    with pytest.raises(LookupError):
        await store.write(fails)
    assert await store.read(lambda tx: tx.quarantine.refused()) == []
    assert await store.read(lambda tx: tx.quarantine.counts()) == []


async def test_the_quarantine_is_paged_and_filtered(store: Store) -> None:
    def fill(tx: UnitOfWork) -> list[str]:
        return [refused(tx, n, Reason.EXPIRED if n % 3 == 0 else Reason.UNTRUSTED) for n in range(7)]

    ids = await store.write(fill)
    page = await store.read(lambda tx: tx.quarantine.refused(limit=3))
    assert [line.id for line in page] == ids[:3:-1]
    rest = await store.read(lambda tx: tx.quarantine.refused(before=page[-1].id))
    assert [line.id for line in rest] == ids[3::-1]
    expired = await store.read(lambda tx: tx.quarantine.refused(reason="expired"))
    assert [line.id for line in expired] == ids[::-3]
    since = await store.read(lambda tx: tx.quarantine.refused(since=NOW + timedelta(seconds=5)))
    assert [line.id for line in since] == ids[:4:-1]
    oldest = await store.read(lambda tx: tx.quarantine.ids(reason="untrusted", limit=2))
    assert oldest == [ids[1], ids[2]]
    assert await store.read(lambda tx: tx.quarantine.ids(reason="untrusted", after=oldest[-1])) == [ids[4], ids[5]]
    counts = await store.read(lambda tx: tx.quarantine.counts())
    assert [(c.reason, c.count) for c in counts] == [("untrusted", 4), ("expired", 3)]
    assert (counts[0].oldest, counts[0].newest) == (NOW + timedelta(seconds=2), NOW + timedelta(seconds=6))


async def test_the_list_of_refused_messages_is_the_quarantine(store: Store) -> None:
    ids = [await store.write(lambda tx, n=n: refused(tx, n)) for n in range(3)]  # type: ignore[misc]
    await store.write(lambda tx: tx.messages.set_state(ids[1], State.RECEIVED, NOW))
    listed = await store.read(lambda tx: tx.messages.newest(states=[State.REFUSED]))
    assert [m.id for m in listed] == [ids[2], ids[0]]
    both = await store.read(lambda tx: tx.messages.newest(states=[State.REFUSED, State.RECEIVED]))
    assert [m.id for m in both] == ids[::-1]
