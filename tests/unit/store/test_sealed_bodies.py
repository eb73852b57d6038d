"""Bodies at rest: what is sealed, and that nothing that was tampered with is ever served (F32)."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError, KeyUnavailableError, StoreError
from gateway.core.lifecycle import State
from gateway.core.message import PART_BYTES, Envelope, Inbound, MemoryBody, Source
from gateway.keys.body_key_file import KeyFile
from gateway.keys.body_sealer import AESBodySealer
from gateway.ports import UnitOfWork
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import key_file_in, sealer_in
from tests.support.store_samples import ALICE, NOW, SENDER, accepted, inbound, indexed, open_store, settings_for

KINDS = ("raw", "content", "search")
LARGE = b"0123456789abcdef" * (PART_BYTES // 16) * 2 + b"the last part"
"""Three parts."""


def keep(store: SQLStore, raw: bytes, content: bytes, *, at: int = 0) -> str:
    """A filed message in a mailbox of its own name."""
    moment = NOW + timedelta(seconds=at)
    message_id = new_id(moment)

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_raw(message_id, moment, inbound(raw))
        tx.messages.set_state(message_id, State.RECEIVED, moment)
        judgement = accepted(content=content)
        tx.messages.add_verdict(message_id, moment, judgement)
        tx.messages.add_content(message_id, judgement)
        box = tx.mailboxes.create(message_id, moment, [])
        tx.mailboxes.add(box, message_id, judgement.content_sha256, indexed(content), moment)

    store.write_blocking(work)
    return message_id


def box_of(tx: UnitOfWork, message_id: str) -> int:
    return next(n for n in range(1, 100) if tx.mailboxes.get(n).name == message_id)


READS: dict[str, Callable[[UnitOfWork, str], object]] = {
    "raw": lambda tx, message_id: tx.messages.raw(message_id).body,
    "content": lambda tx, message_id: tx.messages.content(message_id).content,
    "contents": lambda tx, message_id: tx.mailboxes.contents(box_of(tx, message_id), [1])[1],
    "text": lambda tx, message_id: tx.mailboxes.search_text(box_of(tx, message_id), "e", headers=True, body=True),
}
READS_OF = {"raw": ("raw",), "content": ("content", "contents"), "search": ("text",)}
"""A search by header opens a text once and then answers from memory (test_header_texts)."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as opened:
        yield opened


def change(store: SQLStore, *statements: str, **values: str) -> None:
    """What somebody does who can write to the file."""
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.create_function("flip", 2, flipped)
        other.execute("DROP TRIGGER IF EXISTS body_part_no_update")
        other.execute("DROP TRIGGER IF EXISTS body_part_no_delete")
        for statement in statements:
            assert other.execute(statement, values).rowcount > 0, statement


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with one bit of one byte changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def rows(store: SQLStore, statement: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store.path)) as other:
        return other.execute(statement, values).fetchall()


# --- keeping and reading ---


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2_500_000])
def test_bodies_of_every_size_come_back(store: SQLStore, size: int) -> None:
    raw = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    content = b"Subject: x\r\n\r\n" + raw.replace(b"0", b"z")
    message_id = keep(store, raw, content)
    assert store.read_blocking(lambda tx: tx.messages.raw(message_id)).body == raw
    assert store.read_blocking(lambda tx: tx.messages.content(message_id)).content == content
    assert store.read_blocking(lambda tx: READS["contents"](tx, message_id)) == content
    parts = rows(store, "SELECT count(*) FROM body_part WHERE kind = 'raw'")
    assert parts == [(max(1, -(-size // PART_BYTES)),)]


def test_nothing_of_a_body_stands_in_the_file(tmp_path: Path) -> None:
    canary = b"Kanarienvogel-4711"
    with open_store(tmp_path) as store:
        content = b"Subject: Referral\r\nX-Field: " + canary + b"\r\n\r\nfindings: " + canary + b"\r\n"
        message_id = keep(store, b"raw " + canary, content)
        found = store.read_blocking(
            lambda tx: tx.mailboxes.search_text(box_of(tx, message_id), canary.decode(), headers=True, body=True)
        )
        assert found == {1}
        files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert {"gateway.db", "gateway.db-wal"} <= set(files)
        for name, data in files.items():
            assert canary not in data, name
            assert canary.lower() not in data.lower(), name


def test_two_messages_of_the_same_bytes_look_different(store: SQLStore) -> None:
    for at in (0, 1):
        keep(store, b"same bytes", b"Subject: same\r\n\r\nsame", at=at)
    sealed = rows(store, "SELECT sealed FROM body_part")
    assert len(sealed) == len(set(sealed)) == 6
    assert len(set(rows(store, "SELECT wrapped FROM wrapped_key"))) == 2


def test_a_large_body_is_written_part_by_part_and_read_into_one_buffer(tmp_path: Path) -> None:
    size = 25 << 20

    class Drops:
        """A body whose parts are made when they are asked for."""

        size_bytes = size
        sha256 = ""

        def parts(self) -> Iterator[bytes]:
            for number in range(size // PART_BYTES):
                yield bytes((number,)) * PART_BYTES

    whole = MemoryBody(b"".join(Drops().parts()))
    Drops.sha256 = whole.sha256
    del whole
    message_id = new_id(NOW)
    message = Inbound(Drops(), Envelope(SENDER, (ALICE,)), Source.SMTP)
    with open_store(tmp_path) as store:
        store.write_blocking(lambda tx: tx.mailboxes.create("warm", NOW, []))
        tracemalloc.start()
        try:
            store.write_blocking(lambda tx: tx.messages.add_raw(message_id, NOW, message))
            written = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            body = store.read_blocking(lambda tx: tx.messages.raw(message_id)).body
            read = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(body) == size
    assert written < 6 * PART_BYTES, "parts of the body, never the whole"
    assert read < size + size // 4, "one buffer, and what one fetch of rows brings"


# --- tampering (F32) ---

# ruff: noqa: S608 - the statements are our own, and SQL is what somebody tampers with
_PART = "WHERE message_id = :victim AND kind = :kind AND position = 0"
_OF_OTHER = "(SELECT sealed FROM body_part o WHERE o.message_id = :other AND o.kind = :kind AND o.position = 0)"
_OF_ANOTHER_KIND = (
    "(SELECT sealed FROM body_part o WHERE o.message_id = :victim AND o.kind = :another AND o.position = 0)"
)
_KEY_OF_OTHER = "(SELECT wrapped FROM wrapped_key o WHERE o.message_id = :other)"
TAMPERINGS: dict[str, tuple[str, ...]] = {
    "format": (f"UPDATE body_part SET sealed = flip(sealed, 0) {_PART}",),
    "nonce": (f"UPDATE body_part SET sealed = flip(sealed, 1) {_PART}",),
    "text": (f"UPDATE body_part SET sealed = flip(sealed, 13) {_PART}",),
    "tag": (f"UPDATE body_part SET sealed = flip(sealed, -1) {_PART}",),
    "emptied": (f"UPDATE body_part SET sealed = x'' {_PART}",),
    "zeroed": (f"UPDATE body_part SET sealed = zeroblob(length(sealed)) {_PART}",),
    "shortened": (f"UPDATE body_part SET sealed = substr(sealed, 1, length(sealed) - 1) {_PART}",),
    "lengthened": (f"UPDATE body_part SET sealed = CAST(sealed || x'00' AS BLOB) {_PART}",),
    "missing": (f"DELETE FROM body_part {_PART}",),
    "of another message": (f"UPDATE body_part SET sealed = {_OF_OTHER} {_PART}",),
    "body and key of another message": (
        f"UPDATE body_part SET sealed = {_OF_OTHER} {_PART}",
        f"UPDATE wrapped_key SET wrapped = {_KEY_OF_OTHER} WHERE message_id = :victim",
    ),
    "another kind": (f"UPDATE body_part SET sealed = {_OF_ANOTHER_KIND} {_PART}",),
    "key missing": ("DELETE FROM wrapped_key WHERE message_id = :victim",),
    "key of another message": (f"UPDATE wrapped_key SET wrapped = {_KEY_OF_OTHER} WHERE message_id = :victim",),
    "key damaged": ("UPDATE wrapped_key SET wrapped = flip(wrapped, 7) WHERE message_id = :victim",),
    "key format": ("UPDATE wrapped_key SET wrapped = flip(wrapped, 0) WHERE message_id = :victim",),
    "key cut": ("UPDATE wrapped_key SET wrapped = substr(wrapped, 1, 20) WHERE message_id = :victim",),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_was_tampered_with_is_an_error_that_names_the_message(store: SQLStore, tampering: str, kind: str) -> None:
    victim = keep(store, b"raw of the victim", b"Subject: the victim\r\n\r\ntext")
    other = keep(store, b"raw of the other", b"Subject: the other one\r\n\r\ntext", at=1)
    for name in READS_OF[kind]:
        assert store.read_blocking(lambda tx, n=name: READS[n](tx, victim))  # type: ignore[misc]
    another = KINDS[KINDS.index(kind) - 1]
    change(store, *TAMPERINGS[tampering], victim=victim, other=other, kind=kind, another=another)
    for name in READS_OF[kind]:
        with pytest.raises(StoreError, match=f"the stored message {victim} is damaged"):
            store.read_blocking(lambda tx, n=name: READS[n](tx, victim))  # type: ignore[misc]
        assert store.read_blocking(lambda tx, n=name: READS[n](tx, other)), "the rest is served"  # type: ignore[misc]


MOVES: dict[str, tuple[str, ...]] = {
    "last part cut off": ("DELETE FROM body_part WHERE kind = :kind AND position = 2",),
    "first part cut off": ("DELETE FROM body_part WHERE kind = :kind AND position = 0",),
    "middle part cut out": ("DELETE FROM body_part WHERE kind = :kind AND position = 1",),
    "middle part cut out and the gap closed": (
        "DELETE FROM body_part WHERE kind = :kind AND position = 1",
        "UPDATE body_part SET position = 1 WHERE kind = :kind AND position = 2",
    ),
    "two parts exchanged": (
        "UPDATE body_part SET position = 9 WHERE kind = :kind AND position = 0",
        "UPDATE body_part SET position = 0 WHERE kind = :kind AND position = 1",
        "UPDATE body_part SET position = 1 WHERE kind = :kind AND position = 9",
    ),
    "a part doubled": (
        "INSERT INTO body_part SELECT message_id, kind, 3, sealed FROM body_part WHERE kind = :kind AND position = 2",
    ),
    "a part doubled before the last": (
        "UPDATE body_part SET position = 3 WHERE kind = :kind AND position = 2",
        "INSERT INTO body_part SELECT message_id, kind, 2, sealed FROM body_part WHERE kind = :kind AND position = 1",
    ),
    "only the last part left": ("DELETE FROM body_part WHERE kind = :kind AND position < 2",),
}


@pytest.mark.parametrize("kind", ["raw", "content"])
@pytest.mark.parametrize("move", MOVES)
def test_parts_cannot_be_cut_off_moved_or_doubled(store: SQLStore, move: str, kind: str) -> None:
    message_id = keep(store, LARGE, LARGE)
    change(store, *MOVES[move], kind=kind)
    for name in READS_OF[kind]:
        with pytest.raises(StoreError, match=f"the stored message {message_id} is damaged"):
            store.read_blocking(lambda tx, n=name: READS[n](tx, message_id))  # type: ignore[misc]


def test_a_digest_that_does_not_match_is_an_error_as_before(store: SQLStore) -> None:
    """The seal holds, and the row that says what it should be was changed."""
    message_id = keep(store, b"raw", b"Subject: x\r\n\r\ntext")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("DROP TRIGGER raw_message_no_update")
        other.execute("UPDATE raw_message SET sha256 = ?", ("0" * 64,))
    with pytest.raises(StoreError, match=f"{message_id} is damaged: it does not match its digest"):
        store.read_blocking(lambda tx: tx.messages.raw(message_id))


def test_a_search_beside_a_damaged_message_is_no_answer(store: SQLStore) -> None:
    """An answer that leaves one out would pass for a whole one."""
    message_id = keep(store, b"raw", b"Subject: x\r\n\r\ntext")
    other = keep(store, b"raw 2", b"Subject: y\r\n\r\ntext", at=1)
    store.write_blocking(
        lambda tx: tx.mailboxes.add(
            box_of(tx, message_id), other, tx.messages.content(other).content_sha256, indexed(), NOW
        )
    )
    change(store, "DELETE FROM body_part WHERE message_id = :other AND kind = 'search'", other=other)
    with pytest.raises(StoreError, match=other):
        store.read_blocking(lambda tx: READS["text"](tx, message_id))


# --- keys ---


def test_another_key_under_the_same_id_opens_nothing_and_seals_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        message_id = keep(store, b"raw", b"Subject: x\r\n\r\ntext")
    ring = key_file_in(tmp_path)
    kek_id = ring.current_id
    path = tmp_path / "bodies.keys"
    good = path.read_text()
    swapped = good.replace(good.split()[-1], "A" * 43 + "=")
    path.write_text(swapped)
    with open_store(tmp_path) as store:
        with pytest.raises(StoreError, match=f"{message_id} is damaged: its key does not open with the key {kek_id}"):
            store.read_blocking(lambda tx: tx.messages.raw(message_id))
        with pytest.raises(ConfigurationError, match="not the one that stored mail is sealed under"):
            keep(store, b"new", b"Subject: y\r\n\r\ntext", at=1)
    with pytest.raises(ConfigurationError, match=f"a key {kek_id}, but it is not the one"):
        open_store(tmp_path, daemon=True)
    path.write_text(good)
    with open_store(tmp_path, daemon=True) as store:
        assert store.read_blocking(lambda tx: tx.messages.raw(message_id)).body == b"raw"


def test_a_daemon_without_the_key_of_stored_mail_is_refused_by_its_id(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        message_id = keep(store, b"raw", b"Subject: x\r\n\r\ntext")
    path = tmp_path / "bodies.keys"
    kek_id = key_file_in(tmp_path).current_id
    good = path.read_bytes()
    path.unlink()
    lost = AESBodySealer(KeyFile(path))
    with pytest.raises(ConfigurationError, match=r"there is no file .*bodies\.keys.*put it back from your copy"):
        SQLStore.open(settings_for(tmp_path), lost, daemon=True)
    assert not path.exists(), "no key is ever made in its place"
    key_file_in(tmp_path)  # Somebody made a new file.
    with pytest.raises(ConfigurationError, match=f"the key {kek_id}, which stored mail rests on, is not in"):
        open_store(tmp_path, daemon=True)
    with open_store(tmp_path) as tool:
        for work in (lambda tx: tx.messages.raw(message_id), lambda tx: READS["text"](tx, message_id)):
            with pytest.raises(KeyUnavailableError, match=kek_id):
                tool.read_blocking(work)
        with pytest.raises(KeyUnavailableError, match=kek_id):
            keep(tool, b"new", b"Subject: y\r\n\r\ntext", at=1)
        assert rows(tool, "SELECT count(*) FROM raw_message") == [(1,)], "nothing was taken that nobody could read"
    path.write_bytes(good)
    with open_store(tmp_path, daemon=True) as store:
        assert store.read_blocking(lambda tx: tx.messages.raw(message_id)).body == b"raw"


def test_an_empty_store_without_a_key_file_is_refused_for_a_daemon(tmp_path: Path) -> None:
    nothing = AESBodySealer(KeyFile(tmp_path / "bodies.keys"))
    with pytest.raises(ConfigurationError, match="direct-gateway keys make"):
        SQLStore.open(settings_for(tmp_path), nothing, daemon=True)


def test_a_tool_that_needs_no_body_needs_no_key(tmp_path: Path) -> None:
    nothing = AESBodySealer(KeyFile(tmp_path / "bodies.keys"))
    with SQLStore.open(settings_for(tmp_path), nothing) as store:
        assert store.write_blocking(lambda tx: tx.accounts.add("alice", "hash", NOW)) == 1


def test_a_message_that_was_rolled_back_leaves_no_key(store: SQLStore) -> None:
    def fails(tx: UnitOfWork) -> None:
        tx.messages.add_raw(new_id(NOW), NOW, inbound())
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            store.write_blocking(fails)
    assert rows(store, "SELECT count(*) FROM wrapped_key") == [(0,)]
    keep(store, b"raw", b"Subject: x\r\n\r\ntext")
    assert rows(store, "SELECT count(*) FROM wrapped_key") == [(1,)]


def test_a_key_that_is_destroyed_takes_the_message_with_it_at_once(store: SQLStore) -> None:
    """What is remembered in memory is never served in place of what was removed."""
    message_id = keep(store, b"raw", b"Subject: x\r\n\r\ntext")
    assert store.read_blocking(lambda tx: tx.messages.raw(message_id)).body == b"raw"
    change(store, "DELETE FROM wrapped_key WHERE message_id = :victim", victim=message_id)
    for name in READS:
        with pytest.raises(StoreError, match=message_id):
            store.read_blocking(lambda tx, n=name: READS[n](tx, message_id))  # type: ignore[misc]


def test_the_memory_of_keys_is_bounded(tmp_path: Path) -> None:
    from gateway.store.message_keys import KeyMemory

    memory = KeyMemory(sealer_in(tmp_path), remembered=2)
    for number in range(3):
        memory.put("k", bytes((number,)), b"key")
    assert memory.get("k", b"\x00") is None
    assert memory.get("k", b"\x01") == b"key"
    memory.put("k", b"\x03", b"key")
    assert memory.get("k", b"\x02") is None
    assert memory.get("k", b"\x01") == b"key"
