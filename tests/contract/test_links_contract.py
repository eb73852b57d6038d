"""Links that people make, undo and make again, of messages and of single parts, on every store (S36, S46 to S49)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from gateway.charts.bulk import BulkReport, BulkWish
from gateway.charts.linking import LinkOutcome
from gateway.charts.service import Charts
from gateway.core.audit import AuditQuery
from gateway.core.claims import Claim, Document, Evidence, PersonName, Problem, Source, Strength
from gateway.core.document_marks import MarkKind
from gateway.core.errors import ConflictError, NotFoundError, RefusedError, StoreError
from gateway.core.lifecycle import State
from gateway.core.standing import LINKED, NEEDS_REVIEW, VERIFIED, Standing, View
from gateway.ports import DeliveryAction, DeliveryState, Link, LinkUndo, UnitOfWork
from gateway.store.audit_verify import Witnesses, verify_store
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.store_samples import ALICE, BOB, NOW, SENDER, SteadyClock, accepted, inbound, indexed, patient
from tests.support.stores import SETTINGS, STORES

ONE_PART = b"Subject: s\r\n\r\none"
TWO_PARTS = (
    b"Subject: Referral\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nsee both\r\n"
    b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n"
    b"--c\r\nContent-Type: text/xml; name=one.xml\r\n\r\n<one/>\r\n"
    b"--c\r\nContent-Type: text/xml; name=two.xml\r\n\r\n<two/>\r\n--c--\r\n--b--\r\n"
)
"""Its parts are 1, 2.1 and 2.2."""
WHY = "other Ann"
_ARRIVALS = itertools.count()


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    with STORES[request.param](tmp_path) as opened:
        opened.write_blocking(lambda tx: tx.patients.upsert([patient(n) for n in (1, 2, 3)], "test", NOW))
        opened.write_blocking(lambda tx: tx.mailboxes.create("desk", NOW, [ALICE]))
        yield opened


@pytest.fixture
def charts(store: SQLStore) -> Charts:
    numbers = itertools.count(1)
    return Charts(store, SteadyClock(NOW), lambda: f"LINK{next(numbers):04d}", says)


def put(store: SQLStore, content: bytes = ONE_PART, recipient: str = ALICE, *, file: bool = True) -> str:
    """Receive a message and file it for the recipient; returns its id."""
    message_id = new_id(NOW + timedelta(seconds=next(_ARRIVALS)))

    def work(tx: UnitOfWork) -> None:
        judgement = accepted(recipient, content=content)
        tx.messages.add_raw(message_id, NOW, inbound(b"raw " + message_id.encode(), recipient))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        tx.messages.add_content(message_id, judgement)
        tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
        if file:
            for mailbox_id in tx.mailboxes.for_recipient(recipient):
                tx.mailboxes.add(
                    mailbox_id, message_id, judgement.content_sha256, indexed(content), NOW,
                    standing=Standing(decided=True),
                )  # fmt: skip
            tx.messages.set_state(message_id, State.FILED, NOW)
        tx.audit.add(NOW, "test", "message.filed", message_id)

    store.write_blocking(work)
    return message_id


def says(content: bytes, _sender: str) -> Evidence:
    """A stand-in for the reader of evidence: a family name, or a document, when the body says that it is one."""
    body = content.partition(b"\r\n\r\n")[2].decode()
    if body.startswith("broken"):
        return Evidence(problems=(Problem(None, "1", "odd", "odd"),))
    documents = tuple(
        Document(part, hashlib.sha256(body.encode()).hexdigest(), "1.2", body) for part in ("1",) if "document" in body
    )
    names = (PersonName(body.removeprefix("of "), ("Ada",)),) if body.startswith("of ") else ()
    return Evidence((Claim(Source.CDA_HEADER, Strength.AUTHOR, names=names),), documents=documents)


def state(store: SQLStore, message_id: str) -> State:
    return store.read_blocking(lambda tx: tx.messages.state(message_id))


def keywords(store: SQLStore) -> list[set[str]]:
    return [set(entry.flags) for entry in store.read_blocking(lambda tx: tx.mailboxes.entries(1))]


def viewed(store: SQLStore, view: View) -> list[int]:
    """UIDs of the mailbox that the view holds."""

    def work(tx: UnitOfWork) -> list[int]:
        until = tx.mailboxes.get(1).highest_modseq
        return list(tx.views.standing(1, view, until=until).of_uids)

    return store.read_blocking(work)


def modseq(store: SQLStore) -> int:
    return store.read_blocking(lambda tx: tx.mailboxes.get(1).highest_modseq)


def events(store: SQLStore, action: str) -> list[dict[str, Any]]:
    """Details of the events with that action, the oldest first."""
    found = store.read_blocking(lambda tx: tx.audit.find(AuditQuery(action=action, limit=1_000)))
    return [json.loads(one.detail) for one in sorted(found, key=lambda one: one.seq)]


def open_jobs(store: SQLStore) -> int:
    return len(store.write_blocking(lambda tx: tx.jobs.claim(60, 100)))


async def ordered(store: SQLStore, link_id: str, *targets: str) -> None:
    """The import job of a link has run."""

    def work(tx: UnitOfWork) -> None:
        for job in tx.jobs.claim(60, 100):
            tx.jobs.finish(job)
        tx.deliveries.order(link_id, list(targets))

    await store.write(work)


# --- undo ---


async def test_an_undo_is_one_commit_with_all_that_follows(charts: Charts, store: SQLStore) -> None:
    message = put(store)
    link = (await charts.link(message, "P1", actor="olga")).link
    before = modseq(store)
    assert keywords(store) == [{VERIFIED, LINKED}]
    outcome = await charts.unlink(link.id, actor="paul", reason=" other\nAnn ")
    assert (outcome.changed, outcome.link, outcome.undone) == (True, link, LinkUndo(link.id, NOW, "paul", WHY))
    assert outcome.importers == (), "nobody had been asked"
    assert state(store, message) is State.FILED
    assert keywords(store) == [{VERIFIED, NEEDS_REVIEW}]
    assert (viewed(store, View.UNLINKED), viewed(store, View.LINKED)) == ([1], [])
    assert modseq(store) == before + 1
    assert open_jobs(store) == 0, "the import that was ordered is not made any more"
    assert await charts.links_of_message(message) == await charts.links_of_patient("P1") == []
    [record] = await charts.history_of_message(message)
    assert (record.link, record.undone) == (link, outcome.undone)
    assert await charts.history_of_patient("P1") == [record]
    [detail] = events(store, "message.link_undone")
    assert detail == {"link": link.id, "patient": "P1", "reason": WHY, "importers": []}
    [summary] = store.read_blocking(lambda tx: tx.messages.newest())
    assert (summary.state, summary.patient_ids) == (State.FILED, ())


async def test_an_undo_needs_a_reason_and_a_link(charts: Charts, store: SQLStore) -> None:
    message = put(store)
    link = (await charts.link(message, "P1", actor="olga")).link
    for reason in ("", " \n"):
        with pytest.raises(RefusedError, match="reason"):
            await charts.unlink(link.id, actor="paul", reason=reason)
        with pytest.raises(RefusedError, match="reason"):
            await charts.unlink_message(message, "P1", actor="paul", reason=reason)
    with pytest.raises(NotFoundError):
        await charts.unlink("absent", actor="paul", reason=WHY)
    with pytest.raises(NotFoundError):
        await charts.unlink_message(message, "P2", actor="paul", reason=WHY)
    with pytest.raises(NotFoundError):
        await charts.unlink_message("absent", "P1", actor="paul", reason=WHY)
    assert await charts.links_of_message(message) == [link]
    assert events(store, "message.link_undone") == []


async def test_undoing_twice_changes_nothing_and_says_who_was_first(charts: Charts, store: SQLStore) -> None:
    message = put(store)
    link = (await charts.link(message, "P1", actor="olga")).link
    first = await charts.unlink(link.id, actor="paul", reason=WHY)
    again = await charts.unlink(link.id, actor="rosa", reason="me too")
    assert (again.changed, again.undone) == (False, first.undone)
    assert "paul" in again.notice
    [by_message] = await charts.unlink_message(message, "P1", actor="rosa", reason="me too")
    assert by_message == again
    assert len(events(store, "message.link_undone")) == 1


async def test_every_target_that_has_it_is_told_and_nobody_gets_it_any_more(charts: Charts, store: SQLStore) -> None:
    message = put(store)
    link = (await charts.link(message, "P1", actor="olga")).link
    await ordered(store, link.id, "has", "may-have", "dead", "waits")
    await store.write(lambda tx: tx.deliveries.claim("may-have", 60, 1))
    [held] = await store.write(lambda tx: tx.deliveries.claim("has", 60, 1))

    def acknowledged(tx: UnitOfWork) -> None:
        tx.links.add_receipt(link.id, "has", "record 7", NOW)
        tx.deliveries.finish(held)

    await store.write(acknowledged)
    [failing] = await store.write(lambda tx: tx.deliveries.claim("dead", 60, 1))
    await store.write(lambda tx: tx.deliveries.fail(failing, "refused", None))
    outcome = await charts.unlink(link.id, actor="paul", reason=WHY)
    assert outcome.importers == ("dead", "has", "may-have")
    [detail] = events(store, "message.link_undone")
    assert detail["importers"] == ["dead", "has", "may-have"]
    found = await store.read(lambda tx: tx.deliveries.listed(link_id=link.id, limit=100))
    retractions = {one.target for one in found if one.action is DeliveryAction.RETRACT}
    assert retractions == {"dead", "has", "may-have"}
    assert "waits" not in {one.target for one in found}, "what was never attempted is not made"
    assert DeliveryState.DEAD not in {one.state for one in found}, "what nobody is to get is no dead letter"
    assert await store.write(lambda tx: tx.deliveries.retry_dead("dead")) == 0
    assert await store.write(lambda tx: tx.deliveries.order(link.id, ["waits", "new"])) == []
    assert await store.write(lambda tx: tx.deliveries.order_missing("new", None, None, 10)) == (0, None)


async def test_a_link_that_nobody_had_is_not_replayed_either(charts: Charts, store: SQLStore) -> None:
    link = (await charts.link(put(store), "P1", actor="olga")).link
    await charts.unlink(link.id, actor="paul", reason=WHY)
    assert await store.write(lambda tx: tx.deliveries.order_missing("new", None, None, 10)) == (0, None)
    assert await store.write(lambda tx: tx.deliveries.order(link.id, ["new"])) == []


@pytest.mark.parametrize("patient_id", ["P1", "P2"])
async def test_a_later_link_is_a_new_one(charts: Charts, store: SQLStore, patient_id: str) -> None:
    message = put(store)
    made = []
    for round_ in range(3):
        outcome = await charts.link(message, patient_id if round_ else "P1", actor="olga")
        assert outcome.created
        made.append(outcome.link.id)
        assert state(store, message) is State.LINKED
        assert keywords(store) == [{VERIFIED, LINKED}]
        again = await charts.link(message, outcome.link.patient_id, actor="rosa")
        assert (again.created, again.link) == (False, outcome.link)
        assert (await charts.unlink(outcome.link.id, actor="paul", reason=f"round {round_}")).changed
    assert len(set(made)) == 3
    history = await charts.history_of_message(message)
    assert sorted(one.link.id for one in history) == sorted(made)
    assert {one.undone.reason for one in history if one.undone} == {"round 0", "round 1", "round 2"}
    await charts.link(message, patient_id, actor="olga")
    assert await store.write(lambda tx: tx.deliveries.order_missing("new", None, None, 10)) == (1, None)


async def test_of_two_charts_the_other_one_stays(charts: Charts, store: SQLStore) -> None:
    message = put(store)
    await charts.link(message, "P1", actor="olga")
    other = (await charts.link(message, "P2", actor="olga", override=True, reason="both")).link
    before = modseq(store)
    [outcome] = await charts.unlink_message(message, "P1", actor="paul", reason=WHY)
    assert outcome.changed
    assert state(store, message) is State.LINKED
    assert keywords(store) == [{VERIFIED, LINKED}]
    assert modseq(store) == before, "no mail client is told of what it does not see"
    assert await charts.links_of_message(message) == [other]


async def test_a_copy_for_another_recipient_is_one_history(charts: Charts, store: SQLStore) -> None:
    store.write_blocking(lambda tx: tx.mailboxes.create("bob", NOW, [BOB]))
    first, copy = put(store), put(store, recipient=BOB)
    link = (await charts.link(first, "P1", actor="olga")).link
    assert [one.link for one in await charts.history_of_message(copy)] == [link]
    [outcome] = await charts.unlink_message(copy, "P1", actor="paul", reason=WHY)
    assert outcome.link == link
    assert state(store, first) is state(store, copy) is State.FILED
    assert keywords(store) == [{VERIFIED, NEEDS_REVIEW}]
    relinked = await charts.link(copy, "P2", actor="olga")
    assert relinked.created
    assert keywords(store) == [{VERIFIED, LINKED}], "it is the same content"


@pytest.mark.parametrize("engine", sorted(STORES))
async def test_the_audit_log_answers_for_links_and_undos(engine: str, tmp_path: Path) -> None:
    settings = SETTINGS[engine](tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as store:
        store.write_blocking(lambda tx: tx.patients.upsert([patient(n) for n in (1, 2)], "test", NOW))
        store.write_blocking(lambda tx: tx.mailboxes.create("desk", NOW, [ALICE]))
        store.write_blocking(lambda tx: tx.audit.add(NOW, "test", "prepared", ""))
        charts = Charts(store, SteadyClock(NOW), (f"L{n}" for n in itertools.count()).__next__)
        message = put(store, TWO_PARTS)
        for part in ("", "2.1"):
            link = (await charts.link(message, "P1", actor="olga", part=part)).link
            await charts.unlink(link.id, actor="paul", reason=WHY)
            await charts.link(message, "P1", actor="olga", part=part)
            await charts.unlink_message(message, "P1", actor="paul", reason=WHY)
        await charts.link(message, "P2", actor="olga", part="2.2")
    report = verify_store(settings, Witnesses(check_signature=lambda _head: None))
    assert [str(finding) for finding in report.findings] == []


@pytest.mark.parametrize("statement", ["DELETE FROM link_undo", "UPDATE link_undo SET reason = 'x'"])
async def test_an_undo_is_for_ever(charts: Charts, store: SQLStore, statement: str) -> None:
    link = (await charts.link(put(store), "P1", actor="olga")).link
    await charts.unlink(link.id, actor="paul", reason=WHY)
    with (
        pytest.raises(DBAPIError, match=r"append-only|IntegrityConstraintViolation"),
        store._database.writer.connect() as connection,
        connection.begin(),
    ):
        connection.exec_driver_sql(statement)


async def test_a_failure_inside_the_commit_leaves_the_link_in_force(
    charts: Charts, store: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = put(store)
    link = (await charts.link(message, "P1", actor="olga")).link
    before = modseq(store)

    def fail(*_: Any) -> None:
        raise StoreError("no")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.store.audit_log.AuditLog.add", fail)
        with pytest.raises(StoreError):
            await charts.unlink(link.id, actor="paul", reason=WHY)
    assert await charts.links_of_message(message) == [link]
    assert state(store, message) is State.LINKED
    assert (modseq(store), keywords(store)) == (before, [{VERIFIED, LINKED}])
    assert open_jobs(store) == 1


# --- races ---


async def test_twenty_parallel_links_after_an_undo_make_one(charts: Charts, store: SQLStore) -> None:
    message = put(store)
    link = (await charts.link(message, "P1", actor="olga")).link
    await charts.unlink(link.id, actor="paul", reason=WHY)
    outcomes = await asyncio.gather(*(charts.link(message, "P1", actor=f"user{n}") for n in range(20)))
    assert [one.created for one in outcomes].count(True) == 1
    assert len(await charts.links_of_message(message)) == 1


async def test_twenty_parallel_undos_make_one(charts: Charts, store: SQLStore) -> None:
    link = (await charts.link(put(store), "P1", actor="olga")).link
    undos = [charts.unlink(link.id, actor=f"user{n}", reason=WHY) for n in range(20)]
    outcomes = await asyncio.gather(*undos)
    assert [one.changed for one in outcomes].count(True) == 1
    assert len({one.undone for one in outcomes}) == 1
    assert len(events(store, "message.link_undone")) == 1


@pytest.mark.parametrize("engine", sorted(STORES))
async def test_two_processes_on_one_database_make_one_link_and_one_undo(engine: str, tmp_path: Path) -> None:
    """Each with a writer of its own, as the command line beside the daemon, or two nodes."""
    settings = SETTINGS[engine](tmp_path)
    with SQLStore.open(settings, sealer_in(tmp_path)) as one, SQLStore.open(settings, sealer_in(tmp_path)) as two:
        one.write_blocking(lambda tx: tx.patients.upsert([patient(n) for n in (1, 2)], "test", NOW))
        one.write_blocking(lambda tx: tx.mailboxes.create("desk", NOW, [ALICE]))
        message = put(one)
        here = Charts(one, SteadyClock(NOW), (f"H{n}" for n in itertools.count()).__next__)
        there = Charts(two, SteadyClock(NOW), (f"T{n}" for n in itertools.count()).__next__)
        for round_ in range(3):
            results = await asyncio.gather(
                *(here.link(message, "P1", actor="here") for _ in range(5)),
                *(there.link(message, "P2", actor="there") for _ in range(5)),
                return_exceptions=True,
            )
            [made] = [one for one in results if isinstance(one, LinkOutcome) and one.created]
            assert sum(isinstance(one, ConflictError) for one in results) == 5, results
            assert await here.links_of_message(message) == [made.link]
            undos = await asyncio.gather(
                *(who.unlink(made.link.id, actor="x", reason=f"round {round_}") for who in (here, there) * 5)
            )
            assert [one.changed for one in undos].count(True) == 1
        assert len(await here.history_of_message(message)) == 3


async def test_the_database_itself_refuses_two_links_that_did_not_see_each_other(store: SQLStore) -> None:
    message = put(store)
    await store.write(lambda tx: tx.links.add(Link("A", message, "P1", "manual", "x", "manual", NOW)))
    columns = "id, message_id, patient_id, mode, actor, rule, linked_at, part, seq"
    row = f"'B', '{message}', 'P1', 'manual', 'x', 'manual', '2026-01-01T00:00:00.000000Z', NULL, 0"
    with pytest.raises(DBAPIError), store._database.writer.connect() as connection, connection.begin():
        connection.exec_driver_sql(f"INSERT INTO link ({columns}) VALUES ({row})")  # noqa: S608 - our own names


# --- parts ---


async def test_parts_of_one_message_go_to_different_charts(charts: Charts, store: SQLStore) -> None:
    message = put(store, TWO_PARTS)
    one = await charts.link(message, "P1", actor="olga", part="2.1")
    two = await charts.link(message, "P2", actor="olga", part="2.2")
    assert (one.created, two.created, two.notice) == (True, True, "")
    assert (one.link.part, two.link.part) == ("2.1", "2.2")
    assert await charts.links_of_message(message) == [one.link, two.link]
    assert [detail["part"] for detail in events(store, "message.linked")] == ["2.1", "2.2"]
    assert keywords(store) == [{VERIFIED, LINKED}]
    [first] = await charts.unlink_message(message, "P1", actor="paul", reason=WHY, part="2.1")
    assert (first.changed, state(store, message)) == (True, State.LINKED)
    await charts.unlink(two.link.id, actor="paul", reason=WHY)
    assert state(store, message) is State.FILED
    assert keywords(store) == [{VERIFIED, NEEDS_REVIEW}]


@pytest.mark.parametrize("part", ["2", "3", "2.3", "1.1", "02", "x"])
async def test_a_part_that_is_not_there_is_refused(charts: Charts, store: SQLStore, part: str) -> None:
    message = put(store, TWO_PARTS)
    with pytest.raises(NotFoundError, match=r"it has: 1, 2\.1, 2\.2"):
        await charts.link(message, "P1", actor="olga", part=part)
    unfiled = put(store, TWO_PARTS + b"\r\n", file=False)
    with pytest.raises(RefusedError):
        await charts.link(unfiled, "P1", actor="olga", part="1")


async def test_a_part_and_its_message_are_the_same_content(charts: Charts, store: SQLStore) -> None:
    message = put(store, TWO_PARTS)
    part = (await charts.link(message, "P1", actor="olga", part="2.1")).link
    again = await charts.link(message, "P1", actor="rosa", part="2.1")
    assert (again.created, again.link) == (False, part)
    assert again.notice.startswith("Part 2.1 of the message is on this chart already")
    with pytest.raises(ConflictError, match=r"P1 \(part 2\.1, linked .* by olga"):
        await charts.link(message, "P2", actor="rosa")
    with pytest.raises(ConflictError):
        await charts.link(message, "P2", actor="rosa", part="2.1")
    forced = await charts.link(message, "P2", actor="rosa", part="2.1", override=True, reason="twins")
    assert (forced.created, forced.link.rule) == (True, "manual-override")
    whole = await charts.link(message, "P1", actor="olga", override=True, reason="all of it")
    assert whole.created
    assert "2.1" in whole.notice
    other = await charts.link(message, "P1", actor="olga", part="2.2")
    assert (other.created, other.link) == (False, whole.link)
    assert other.notice.startswith("The whole message is on this chart already")
    with pytest.raises(ConflictError):
        await charts.link(message, "P3", actor="olga", part="2.2")
    undone = await charts.unlink_message(message, "P1", actor="paul", reason=WHY)
    assert [one.link.part for one in undone] == ["2.1", ""]
    assert await charts.links_of_message(message) == [forced.link]


async def test_a_message_with_one_part_has_part_1(charts: Charts, store: SQLStore) -> None:
    assert (await charts.link(put(store), "P1", actor="olga", part="1")).link.part == "1"


async def test_a_race_for_a_part_and_its_message_has_one_winner(charts: Charts, store: SQLStore) -> None:
    message = put(store, TWO_PARTS)
    wishes = [("P1", "2.1"), ("P2", ""), ("P3", "2.1")]
    results = await asyncio.gather(
        *(charts.link(message, who, actor=who, part=part) for who, part in wishes), return_exceptions=True
    )
    assert sum(isinstance(one, LinkOutcome) for one in results) == 1
    assert sum(isinstance(one, ConflictError) for one in results) == 2


# --- bulk ---


async def test_the_messages_of_a_sender_go_onto_one_chart(charts: Charts, store: SQLStore) -> None:
    store.write_blocking(lambda tx: tx.mailboxes.create("bob", NOW, [BOB]))
    bodies = ("nothing", "of Müller", "of Okafor", "broken", "elsewhere", "here", "off", "part")
    ids = {body: put(store, b"Subject: s\r\n\r\n" + body.encode()) for body in bodies}
    copy = put(store, b"Subject: s\r\n\r\nnothing", BOB)
    unfiled = put(store, b"Subject: s\r\n\r\nunfiled", file=False)
    await charts.link(ids["elsewhere"], "P2", actor="olga")
    await charts.link(ids["part"], "P2", actor="olga", part="1")
    await charts.link(ids["here"], "P1", actor="olga")
    await charts.link(ids["off"], "P1", actor="olga")
    await charts.unlink_message(ids["off"], "P1", actor="paul", reason=WHY)
    count = len(events(store, "message.linked"))
    tried = await charts.link_sender(BulkWish(SENDER, "P1", "rosa", dry_run=True))
    assert len(events(store, "message.linked")) == count
    told: list[BulkReport] = []
    report = await charts.link_sender(BulkWish(SENDER, "P1", "rosa"), told.append)
    assert tried == report
    assert report.linked == (ids["nothing"], ids["of Müller"])
    assert report.already == 2, "the one that was there, and the copy of one that is there now"
    assert {one.message_id: one.why.partition(":")[0].partition(" 20")[0] for one in report.left} == {
        ids["of Okafor"]: "what it says of its patient contradicts",
        ids["broken"]: "what it says of its patient could not be read to the end",
        ids["elsewhere"]: "it is on the chart of patient P2 (linked",
        ids["part"]: "it is on the chart of patient P2 (part 1, linked",
        ids["off"]: "it was taken off this chart",
        unfiled: "it is not filed yet",
    }
    assert [len(one.linked) + one.already + len(one.left) for one in told] == list(range(1, len(ids) + 3))
    made = [detail for detail in events(store, "message.linked") if detail["rule"] == "manual-bulk"]
    assert len(made) == 2
    assert state(store, copy) is State.FILED
    again = await charts.link_sender(BulkWish(SENDER, "P1", "rosa"))
    assert (again.linked, again.already, again.left) == ((), 4, report.left)
    assert len(events(store, "message.linked")) == count + 2


async def test_another_sender_and_an_unknown_patient(charts: Charts, store: SQLStore) -> None:
    put(store)
    assert await charts.link_sender(BulkWish("who@else.example", "P1", "rosa")) == BulkReport()
    with pytest.raises(NotFoundError):
        await charts.link_sender(BulkWish(SENDER, "absent", "rosa"))


async def test_two_at_once_link_each_message_once(charts: Charts, store: SQLStore) -> None:
    for number in range(6):
        put(store, b"Subject: s\r\n\r\n%d" % number)
    wish = BulkWish(SENDER, "P1", "rosa")
    one, two = await asyncio.gather(charts.link_sender(wish), charts.link_sender(wish))
    assert len(one.linked) + len(two.linked) == 6
    assert one.already + two.already == 6
    assert len(await charts.links_of_patient("P1")) == 6


# --- the same again ---


async def test_a_document_that_comes_again_is_told(charts: Charts, store: SQLStore) -> None:
    first = put(store, b"Subject: s\r\n\r\nthe document")
    again = put(store, b"Subject: another mail\r\n\r\nthe document")
    other = put(store, b"Subject: s\r\n\r\nsomething else")
    assert await charts.seen_elsewhere(again) == []
    link = (await charts.link(first, "P1", actor="olga")).link
    seen = await charts.seen_elsewhere(again)
    assert [(one.mark.kind, one.mark.path, one.path, one.link) for one in seen] == [
        (MarkKind.MESSAGE, "", "", link),
        (MarkKind.DOCUMENT, "1", "1", link),
        (MarkKind.DOCUMENT_ID, "1", "1", link),
    ]
    assert await charts.seen_elsewhere(first) == [], "a message is not told of itself"
    assert {one.mark.kind for one in await charts.seen_elsewhere(other)} == {MarkKind.MESSAGE}
    part = await charts.link(again, "P2", actor="rosa", part="1")
    assert part.notice.startswith("The same document (part 1) is on the chart of patient P1 already, by message ")
    assert first in part.notice
    assert "olga" in part.notice
    await charts.unlink(link.id, actor="paul", reason=WHY)
    assert [one.link for one in await charts.seen_elsewhere(first)] == [part.link] * 2
    await charts.unlink(part.link.id, actor="paul", reason=WHY)
    assert await charts.seen_elsewhere(first) == [], "what was taken off a chart is not there"


async def test_a_copy_for_another_recipient_is_not_told_as_the_same(charts: Charts, store: SQLStore) -> None:
    store.write_blocking(lambda tx: tx.mailboxes.create("bob", NOW, [BOB]))
    first, copy = put(store), put(store, recipient=BOB)
    await charts.link(first, "P1", actor="olga")
    assert await charts.seen_elsewhere(copy) == []


async def test_what_was_linked_in_bulk_is_known_too(charts: Charts, store: SQLStore) -> None:
    first = put(store, b"Subject: s\r\n\r\nthe document")
    await charts.link_sender(BulkWish(SENDER, "P1", "rosa"))
    again = put(store, b"Subject: x\r\n\r\nthe document")
    assert {(one.mark.kind, one.link.message_id) for one in await charts.seen_elsewhere(again)} == {
        (kind, first) for kind in MarkKind
    }
