"""Fields that messages are shown with: what the store refuses, and what ``audit verify`` finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from gateway.core.errors import ConflictError, StoreError
from gateway.ports import UnitOfWork
from gateway.store.audit_shown_check import check_shown
from gateway.store.opening import open_database
from gateway.store.sql_store import SQLStore
from tests.support.filled_store import fill, fill_rest
from tests.support.store_samples import NOW, open_store, settings_for


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLStore]:
    with open_store(tmp_path) as store:
        store.write_blocking(fill)
        yield store


def tampered(folder: Path, *statements: str) -> list[str]:
    """What is found after somebody has altered the database past its guards."""
    database = open_database(settings_for(folder), daemon=False)
    found: list[str] = []
    try:
        with database.writer.connect() as connection, connection.begin():
            for name in ("shown_fields", "verdict", "link", "mailbox_message", "message_index"):
                for verb in ("update", "delete"):
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}_no_{verb}")
            for statement in statements:
                connection.exec_driver_sql(statement)
            check_shown(connection, lambda _node, _seq, what: found.append(what))
    finally:
        database.close()
    return found


def message_id(store: SQLStore) -> str:
    def first(connection: Connection) -> str:
        return str(connection.scalar(text("SELECT message_id FROM shown_fields")))

    return store.read_blocking(lambda tx: first(tx.audit._connection))  # type: ignore[attr-defined]


def test_a_message_gets_its_fields_once(store: SQLStore) -> None:
    about = message_id(store)
    with pytest.raises(ConflictError):
        store.write_blocking(lambda tx: tx.shown.add(about, NOW, "X: y\r\n", 1))
    fields = store.read_blocking(lambda tx: tx.shown.of(about))
    assert fields is not None
    assert fields.startswith("Direct-Gateway-Verdict: accepted\r\n")
    assert store.read_blocking(lambda tx: tx.shown.of("0" * 26)) is None


def test_what_is_shown_is_the_content_with_its_fields(store: SQLStore) -> None:
    about = message_id(store)

    def work(tx: UnitOfWork) -> tuple[bytes, bytes, str | None]:
        return tx.mailboxes.contents(1, [1])[1], tx.messages.content(about).content, tx.shown.of(about)

    read, content, fields = store.read_blocking(work)
    assert read == (fields or "").encode() + content


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE shown_fields SET fields = replace(fields, 'partner', 'bank')", "header fields that its verdict does"),
        ("UPDATE shown_fields SET fields = replace(fields, 'unlinked', 'certain')", "header fields that its verdict"),
        (
            "UPDATE shown_fields SET fields = fields || 'X: y' || char(13, 10)",
            "header fields that its verdict does not",
        ),
        ("UPDATE verdict SET judgement = replace(judgement, 'partner', 'bank')", "header fields that its verdict does"),
        ("UPDATE verdict SET judgement = replace(judgement, '\"accepted\"', '\"rejected\"')", "header fields that its"),
        ("UPDATE verdict SET judgement = 'no JSON'", "a verdict that cannot be read"),
        ("UPDATE verdict SET judgement = '{\"format\": 2}'", "a verdict that cannot be read"),
        ("UPDATE shown_fields SET size_bytes = 7", "another size"),
        ("UPDATE mailbox_message SET size_bytes = 7", "another size"),
        ("UPDATE shown_fields SET format = 2", "of format 2, and this release makes format 1"),
    ],
)
def test_what_was_altered_past_the_gateway_is_named(store: SQLStore, statement: str, what: str, tmp_path: Path) -> None:
    about = message_id(store)
    store.close()
    [found] = tampered(tmp_path, statement)
    assert what in found
    assert about in found


def test_who_is_told_as_linked_must_have_been_linked(store: SQLStore, tmp_path: Path) -> None:
    store.write_blocking(fill_rest)
    store.close()
    assert tampered(tmp_path) == []
    linked = "UPDATE shown_fields SET fields = replace(fields, ': unlinked', ': linked')"
    assert tampered(tmp_path, linked) == []
    [found] = tampered(tmp_path, "UPDATE link SET message_id = (SELECT max(message_id) FROM kept_message)")
    assert "was never linked" in found


def test_a_message_that_does_not_fit_its_fields_is_not_shown(store: SQLStore, tmp_path: Path) -> None:
    about = message_id(store)
    store.close()
    tampered(tmp_path, "UPDATE shown_fields SET fields = 'X: y' || char(13, 10)")
    with (
        open_store(tmp_path) as opened,
        pytest.raises(StoreError, match=f"{about} is damaged: it does not have the size"),
    ):
        opened.read_blocking(lambda tx: tx.mailboxes.contents(1, [1]))
