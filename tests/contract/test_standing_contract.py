"""Keywords, views and reviews on every store: what follows from a filing, a link, a decision and a review."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import NotFoundError
from gateway.core.lifecycle import State
from gateway.core.standing import LINKED, NEEDS_REVIEW, REVIEWED, VERIFIED, ReviewState, Standing, View
from gateway.ports import Link, UnitOfWork
from gateway.store import views as views_module
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import ALICE, NOW, accepted, inbound, indexed, patient
from tests.support.stores import STORES

UNLINKED = Standing(decided=True)
ON_CHART = Standing(linked=True, decided=True)


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    with STORES[request.param](tmp_path) as opened:
        opened.write_blocking(lambda tx: tx.patients.upsert([patient(1), patient(2)], "test", NOW))
        yield opened


def box(store: SQLStore, name: str = "desk") -> int:
    return store.write_blocking(lambda tx: tx.mailboxes.create(name, NOW, [ALICE]))


def put(tx: UnitOfWork, *mailboxes: int, standing: Standing | None = UNLINKED, content: bytes = b"a") -> str:
    """File a message as it stands, and return its id."""
    body = b"Subject: s\r\n\r\n" + content
    message_id = new_id(NOW)
    judgement = accepted(ALICE, content=body)
    tx.messages.add_raw(message_id, NOW, inbound(b"raw " + message_id.encode(), ALICE))
    tx.messages.set_state(message_id, State.RECEIVED, NOW)
    tx.messages.add_content(message_id, judgement)
    tx.messages.set_state(message_id, State.UNWRAPPED, NOW)
    for mailbox_id in mailboxes:
        tx.mailboxes.add(mailbox_id, message_id, judgement.content_sha256, indexed(body), NOW, standing=standing)
    tx.messages.set_state(message_id, State.FILED, NOW)
    return message_id


def link(tx: UnitOfWork, message_id: str, patient_id: str = "P1") -> list[int]:
    tx.links.add(Link(new_id(NOW), message_id, patient_id, "manual", "jane", "manual", NOW))
    return tx.standings.settle([message_id])


def flags(store: SQLStore, mailbox_id: int) -> dict[int, set[str]]:
    return {e.uid: set(e.flags) for e in store.read_blocking(lambda tx: tx.mailboxes.entries(mailbox_id))}


def modseq(store: SQLStore, mailbox_id: int) -> int:
    return store.read_blocking(lambda tx: tx.mailboxes.get(mailbox_id)).highest_modseq


def seen(store: SQLStore, mailbox_id: int, view: View, until: int | None = None) -> list[tuple[int, int]]:
    """UID in the view and in the mailbox."""
    upto = modseq(store, mailbox_id) if until is None else until
    columns = store.read_blocking(lambda tx: tx.views.standing(mailbox_id, view, until=upto))
    return list(zip(columns.uids, columns.of_uids, strict=True))


def test_a_message_is_filed_with_its_keywords_and_into_one_view(store: SQLStore) -> None:
    desk = box(store)
    store.write_blocking(lambda tx: put(tx, desk, content=b"1"))
    store.write_blocking(lambda tx: put(tx, desk, content=b"2", standing=ON_CHART))
    store.write_blocking(lambda tx: put(tx, desk, content=b"3", standing=Standing()))
    store.write_blocking(lambda tx: put(tx, desk, content=b"4", standing=None))
    assert flags(store, desk) == {1: {VERIFIED, NEEDS_REVIEW}, 2: {VERIFIED, LINKED}, 3: {VERIFIED}, 4: set()}
    assert seen(store, desk, View.UNLINKED) == [(1, 1), (2, 3)]
    assert seen(store, desk, View.LINKED) == [(1, 2)]
    assert modseq(store, desk) == 5, "what a filing says costs no change of its own"


def test_a_link_moves_a_message_once_and_gives_it_a_new_uid_there(store: SQLStore) -> None:
    desk = box(store)
    first = store.write_blocking(lambda tx: put(tx, desk, content=b"1"))
    store.write_blocking(lambda tx: put(tx, desk, content=b"2", standing=ON_CHART))
    store.write_blocking(lambda tx: put(tx, desk, content=b"3"))
    store.write_blocking(lambda tx: tx.mailboxes.set_flags(desk, {1: frozenset({"\\Seen", "mine", VERIFIED})}))
    before = modseq(store, desk)
    assert store.write_blocking(lambda tx: link(tx, first)) == [desk]
    assert modseq(store, desk) == before + 1
    assert flags(store, desk)[1] == {"\\Seen", "mine", VERIFIED, LINKED}
    assert seen(store, desk, View.UNLINKED) == [(2, 3)]
    assert seen(store, desk, View.LINKED) == [(1, 2), (2, 1)], "it came later, so its UID is the highest"
    assert seen(store, desk, View.UNLINKED, before) == [(1, 1), (2, 3)], "as it was, for who knows it so"
    assert seen(store, desk, View.LINKED, before) == [(1, 2)]

    def asked(tx: UnitOfWork) -> object:
        return (
            tx.views.left(desk, View.UNLINKED, since=before, until=before + 1),
            tx.views.left(desk, View.UNLINKED, since=before + 1, until=before + 9),
            tx.views.left(desk, View.UNLINKED, since=0, until=before),
            tx.views.vanished(desk, View.UNLINKED, since=before, until=before + 1),
            tx.views.vanished(desk, View.LINKED, since=0, until=before + 1),
            list(tx.views.entered(desk, View.LINKED, after_uid=1, until=before + 1).of_uids),
            tx.views.last_uid(desk, View.LINKED, until=before),
            tx.views.last_uid(desk, View.LINKED, until=before + 1),
            tx.views.last_uid(desk, View.UNLINKED, until=1),
        )

    assert store.read_blocking(asked) == ([(before + 1, 1)], [], [], [1], [], [1], 1, 2, 0)
    assert store.write_blocking(lambda tx: link(tx, first, "P2")) == [], "on two charts it stands as on one"
    assert store.write_blocking(lambda tx: tx.standings.settle([first, first])) == []
    assert modseq(store, desk) == before + 1, "and where nothing changes no client is told anything"


def test_every_mailbox_and_every_copy_of_the_content_shows_it(store: SQLStore) -> None:
    desk, lab, other = box(store), box(store, "lab"), box(store, "other")
    original = store.write_blocking(lambda tx: put(tx, desk, lab))
    copy = store.write_blocking(lambda tx: put(tx, other))
    stranger = store.write_blocking(lambda tx: put(tx, lab, content=b"another"))
    assert store.write_blocking(lambda tx: link(tx, copy)) == [desk, lab, other]
    for mailbox_id in (desk, lab, other):
        assert flags(store, mailbox_id)[1] == {VERIFIED, LINKED}
        assert seen(store, mailbox_id, View.LINKED) == [(1, 1)]
    assert flags(store, lab)[2] == {VERIFIED, NEEDS_REVIEW}
    assert store.read_blocking(lambda tx: tx.standings.of(original)) == ON_CHART
    assert store.read_blocking(lambda tx: tx.standings.of(stranger)) == UNLINKED


def test_a_review_is_one_history_for_all_copies(store: SQLStore) -> None:
    desk, other = box(store), box(store, "other")
    original = store.write_blocking(lambda tx: put(tx, desk))
    copy = store.write_blocking(lambda tx: put(tx, other))

    def say(message_id: str, state: ReviewState, minutes: int) -> tuple[bool, list[int]]:
        at = NOW + timedelta(minutes=minutes)
        return store.write_blocking(
            lambda tx: (tx.reviews.add(message_id, at, "jane", state), tx.standings.settle([message_id]))
        )

    assert say(original, ReviewState.WITHDRAWN, 0) == (False, []), "there was nothing to take back"
    assert say(original, ReviewState.REVIEWED, 3) == (True, [desk, other])
    assert flags(store, other)[1] == {VERIFIED, REVIEWED}
    assert seen(store, desk, View.UNLINKED) == [(1, 1)], "to have looked at it puts it on no chart"
    assert say(copy, ReviewState.REVIEWED, 4) == (False, [])
    # Taken back by a node whose clock is behind: what came last counts, not what says the later time.
    assert say(copy, ReviewState.WITHDRAWN, 1) == (True, [desk, other])
    assert flags(store, desk)[1] == {VERIFIED, NEEDS_REVIEW}
    found = store.read_blocking(lambda tx: tx.reviews.for_message(original))
    assert [(r.message_id, r.seq, r.state) for r in found] == [
        (original, 1, ReviewState.REVIEWED),
        (copy, 2, ReviewState.WITHDRAWN),
    ]
    assert [r.at - NOW for r in found] == [timedelta(minutes=3), timedelta(minutes=1)]


def test_what_was_not_accepted_has_no_standing_and_no_review(store: SQLStore) -> None:
    def work(tx: UnitOfWork) -> str:
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound())
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        return message_id

    message_id = store.write_blocking(work)
    with pytest.raises(NotFoundError):
        store.write_blocking(lambda tx: tx.reviews.add(message_id, NOW, "jane", ReviewState.REVIEWED))
    with pytest.raises(NotFoundError):
        store.write_blocking(lambda tx: tx.standings.settle([message_id]))


def test_a_copy_that_somebody_keeps_of_what_he_sent_is_no_received_message(store: SQLStore) -> None:
    """The same bytes, received by one and sent by another: what is known of the first says nothing of the second."""
    desk, sent = box(store), box(store, "sent")
    message_id = store.write_blocking(lambda tx: put(tx, desk))

    def keep(tx: UnitOfWork) -> None:
        body = b"Subject: s\r\n\r\na"
        tx.mailboxes.add(sent, message_id, accepted(ALICE, content=body).content_sha256, indexed(body), NOW)

    store.write_blocking(keep)
    before = modseq(store, sent)
    assert store.write_blocking(lambda tx: link(tx, message_id)) == [desk]
    assert (flags(store, sent), modseq(store, sent)) == ({1: set()}, before)


def test_a_view_of_more_than_a_page_is_read_whole(store: SQLStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "PAGE_ROWS", 4)
    desk = box(store)
    ids = store.write_blocking(lambda tx: [put(tx, desk, content=b"%d" % n) for n in range(11)])
    store.write_blocking(lambda tx: [link(tx, message_id) for message_id in (ids[0], ids[5], ids[10])])
    assert seen(store, desk, View.UNLINKED) == [(n, n) for n in (2, 3, 4, 5, 7, 8, 9, 10)]
    assert seen(store, desk, View.LINKED) == [(1, 1), (2, 6), (3, 11)]
    everything = store.read_blocking(
        lambda tx: tx.views.entered(desk, View.UNLINKED, after_uid=2, until=modseq(store, desk))
    )
    assert list(everything.uids) == list(range(3, 12)), "also what has left again"


def test_the_log_answers_for_a_review(store: SQLStore) -> None:
    desk = box(store)
    message_id = store.write_blocking(lambda tx: put(tx, desk))
    store.write_blocking(lambda tx: tx.reviews.add(message_id, NOW, "jane", ReviewState.REVIEWED))
    events = store.read_blocking(lambda tx: list(tx.audit.events()))  # type: ignore[attr-defined]
    assert "review" in events[-1].rows
    assert "view_entry" not in "".join(event.rows for event in events)
