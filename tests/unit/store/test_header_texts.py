"""Headers in memory: what is answered from them is what is stored, whatever is searched for and however it grows."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.core.lifecycle import State
from gateway.inbox.indexer import Indexer
from gateway.ports import UnitOfWork
from gateway.store.header_texts import (
    CHUNK_UIDS,
    Form,
    HeaderMemory,
    HeaderRun,
    field_pattern,
    run_of,
    searchable,
    span_of,
)
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import NOW, accepted, inbound, open_store

WORDS = ("ann", "anna", "a", "", "x: y", "subject", "subject: ", "re", "e\u00e9", "from:")


def message(number: int, *, body: bytes = b"text\r\n") -> bytes:
    return (
        b"Received: from a by b\r\n\tfor c\r\nFrom: ann%d@direct.example\r\nSubject: referral %d of Anna\r\n\r\n"
        % (number, number)
        + body
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    made = open_store(tmp_path)
    yield made
    made.close()


@pytest.fixture
def box(store: SQLStore) -> int:
    return store.write_blocking(lambda tx: tx.mailboxes.create("box", NOW, []))


def keep(store: SQLStore, box: int, contents: list[bytes]) -> list[str]:
    """File messages; returns their ids."""

    def work(tx: UnitOfWork) -> list[str]:
        made = []
        for number, content in enumerate(contents):
            moment = NOW + timedelta(seconds=number)
            message_id = new_id(moment)
            tx.messages.add_raw(message_id, moment, inbound(content))
            tx.messages.set_state(message_id, State.RECEIVED, moment)
            judgement = accepted(content=content)
            tx.messages.add_verdict(message_id, moment, judgement)
            tx.messages.add_content(message_id, judgement)
            tx.mailboxes.add(box, message_id, judgement.content_sha256, Indexer().index(content), moment)
            made.append(message_id)
        return made

    return store.write_blocking(work)


def damage(path: Path, message_id: str, kind: str) -> None:
    """As somebody who can write to the file, and has taken its triggers away."""
    with closing(sqlite3.connect(path / "gateway.db")) as connection:
        connection.create_function("flipped", 1, lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]))
        connection.execute("DROP TRIGGER IF EXISTS body_part_no_update")
        statement = "UPDATE body_part SET sealed = flipped(sealed) WHERE message_id = ? AND kind = ?"
        assert connection.execute(statement, (message_id, kind)).rowcount == 1
        connection.commit()


def database_folder(tmp_path: Path) -> Path:
    return next(tmp_path.rglob("gateway.db")).parent


def by_field(header: str, name: str, wanted: str) -> bool:
    """The rule, said once more and slowly: some field of that name holds what is wanted."""
    lines: list[str] = []
    for line in header.split("\n"):
        if line[:1] in {" ", "\t"} and lines:
            lines[-1] += line
        else:
            lines.append(line)
    return any(line.startswith(name + ":") and wanted in line[len(name) + 1 :] for line in lines)


def test_a_run_finds_what_the_fields_hold() -> None:
    chance = random.Random(5)
    pieces = ["from: ", "subject: ", "x", "ann", "anna", "a", "\n", "\n", "\n ", ":", "e\u00e9", " ", "received: "]
    headers = ["".join(chance.choices(pieces, k=chance.randrange(12))) for _ in range(400)]
    rows = [(7 + 2 * place, searchable(header.encode())) for place, header in enumerate(headers)]
    run = HeaderRun(rows, upto=10_000)
    for name, wanted in itertools.product(("from", "subject", "received", "to", "fro"), WORDS):
        prefix = f"{name}:".encode()
        found = set(run.having(prefix, wanted.encode(), field_pattern(prefix, wanted.encode())))
        expected = {7 + 2 * place for place, header in enumerate(headers) if by_field(header, name, wanted)}
        assert found == expected, (name, wanted)


def test_what_is_looked_for_is_no_pattern() -> None:
    run = HeaderRun([(1, b"from: a.b\n"), (2, b"from: axb\n"), (3, b"from: a*\n")], upto=3)
    assert list(run.having(b"from:", b"a.b", field_pattern(b"from:", b"a.b"))) == [1]
    assert list(run.having(b"from:", b"a*", field_pattern(b"from:", b"a*"))) == [3]


def test_a_run_gives_the_headers_that_it_holds() -> None:
    rows = [(3, b"c"), (1, b""), (2, b"b\r\n\n")]
    assert dict(HeaderRun(rows, upto=3).headers([1, 2, 3, 4])) == {1: b"", 2: b"b\r\n\n", 3: b"c"}


def test_every_uid_is_in_one_run() -> None:
    assert [run_of(uid) for uid in (1, CHUNK_UIDS, CHUNK_UIDS + 1)] == [0, 0, 1]
    assert [span_of(run) for run in (0, 1)] == [(1, CHUNK_UIDS), (CHUNK_UIDS + 1, 2 * CHUNK_UIDS)]


def test_a_run_counts_only_as_far_as_it_reaches() -> None:
    memory = HeaderMemory()
    memory.put(1, Form.RAW, 0, HeaderRun([(1, b"a")], upto=1))
    assert memory.get(1, Form.RAW, 0, 1) is not None
    assert memory.get(1, Form.RAW, 0, 2) is None
    memory.put(1, Form.RAW, 0, HeaderRun([], upto=CHUNK_UIDS))
    assert memory.get(1, Form.RAW, 0, 10**6) is not None
    assert memory.get(1, Form.SEARCH, 0, 1) is None
    assert memory.get(2, Form.RAW, 0, 1) is None


def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    made = HeaderRun([(1, random.Random(1).randbytes(1_000))], upto=CHUNK_UIDS)
    memory = HeaderMemory(memory_bytes=2 * made.size_bytes)
    for number in range(2):
        memory.put(number, Form.RAW, 0, made)
    assert memory.get(0, Form.RAW, 0, 1) is made
    memory.put(2, Form.RAW, 0, made)
    memory.put(2, Form.RAW, 0, made)
    assert [memory.get(number, Form.RAW, 0, 1) is made for number in range(3)] == [True, False, True]


def test_answers_before_and_after_they_are_kept_are_the_same(store: SQLStore, box: int) -> None:
    keep(store, box, [message(number) for number in range(CHUNK_UIDS + 40)])
    uids = list(range(1, CHUNK_UIDS + 41))

    def look(tx: UnitOfWork) -> tuple[object, ...]:
        few = tx.mailboxes.headers(box, [1, 300])
        searches = [tx.mailboxes.search_header(box, "from", f"ann{n}@") for n in (0, 255, 256, 295)]
        return few, tx.mailboxes.headers(box, uids), searches, tx.mailboxes.search_header(box, "subject", "of anna")

    first, second = store.read_blocking(look), store.read_blocking(look)
    assert first == second
    few, headers, searches, everybody = first
    assert headers == {uid: message(uid - 1, body=b"") for uid in uids}
    assert few == {1: message(0, body=b"")}, "a UID that is not there is left out"
    assert searches == [{1}, {256}, {257}, {296}]
    assert everybody == set(uids)


def test_what_comes_later_is_found_as_well(store: SQLStore, box: int) -> None:
    keep(store, box, [message(number) for number in range(200)])

    def look(tx: UnitOfWork) -> tuple[set[int], int]:
        return tx.mailboxes.search_header(box, "from", "@direct"), len(tx.mailboxes.headers(box, range(1, 400)))

    assert store.read_blocking(look) == (set(range(1, 201)), 200)
    keep(store, box, [message(number) for number in range(200, 300)])
    assert store.read_blocking(look) == (set(range(1, 301)), 300)


def test_a_damaged_text_is_an_error_and_no_answer_with_a_hole(tmp_path: Path, store: SQLStore, box: int) -> None:
    ids = keep(store, box, [message(number) for number in range(10)])
    damage(database_folder(tmp_path), ids[4], "search")
    for _ in range(2):
        with pytest.raises(StoreError, match="damaged"):
            store.read_blocking(lambda tx: tx.mailboxes.search_header(box, "from", "ann"))


def test_what_was_opened_before_it_was_damaged_is_still_right_and_noticed_at_the_next_start(
    tmp_path: Path, store: SQLStore, box: int
) -> None:
    ids = keep(store, box, [message(number) for number in range(200)])

    def look(tx: UnitOfWork) -> tuple[set[int], dict[int, bytes]]:
        return tx.mailboxes.search_header(box, "from", "ann"), tx.mailboxes.headers(box, range(1, 201))

    before = store.read_blocking(look)
    damage(database_folder(tmp_path), ids[4], "search")
    damage(database_folder(tmp_path), ids[5], "content")
    assert store.read_blocking(look) == before
    # Whoever looks at the text itself or at the message is told at once.
    for work in (
        lambda tx: tx.mailboxes.search_text(box, "text", headers=False, body=True),
        lambda tx: tx.mailboxes.contents(box, [6]),
    ):
        with pytest.raises(StoreError, match="damaged"):
            store.read_blocking(work)
    store.close()
    again = open_store(tmp_path)
    try:
        with pytest.raises(StoreError, match="damaged"):
            again.read_blocking(lambda tx: tx.mailboxes.search_header(box, "from", "ann"))
        with pytest.raises(StoreError, match="damaged"):
            again.read_blocking(lambda tx: tx.mailboxes.headers(box, range(1, 201)))
    finally:
        again.close()


def test_a_damaged_message_is_an_error_for_whoever_asks_for_it_only(tmp_path: Path, store: SQLStore, box: int) -> None:
    ids = keep(store, box, [message(number) for number in range(CHUNK_UIDS)])
    damage(database_folder(tmp_path), ids[4], "content")
    others = [uid for uid in range(1, CHUNK_UIDS + 1) if uid != 5]
    for _ in range(2):
        assert len(store.read_blocking(lambda tx: tx.mailboxes.headers(box, others))) == CHUNK_UIDS - 1
        with pytest.raises(StoreError, match="damaged"):
            store.read_blocking(lambda tx: tx.mailboxes.headers(box, [5, *others]))


def test_the_version_changes_with_a_commit_of_anybody(tmp_path: Path, store: SQLStore, box: int) -> None:
    before = store.version()
    assert before is not None
    store.read_blocking(lambda tx: tx.mailboxes.get(box))
    assert store.version() == before
    store.write_blocking(lambda tx: tx.mailboxes.create("another", NOW, []))
    after = store.version()
    assert after != before
    # As a command beside the daemon does.
    with closing(sqlite3.connect(database_folder(tmp_path) / "gateway.db")) as connection:
        connection.execute("INSERT INTO mailbox_route (address, mailbox_id) VALUES ('z@example.org', ?)", (box,))
        connection.commit()
    assert store.version() != after
    store.close()
    assert store.version() is None
