"""Experiments that need no daemon, with a bug put into the gateway: each must find it, or its result means nothing.

The bug is put into the product for the length of a test. What runs then is the very function that the sound product
passes, and the test fails when that function finds nothing. The bugs of daemons are in test_harnesses_find_bugs.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from gateway.core.errors import ConfigurationError
from gateway.core.mime import structure
from gateway.imap import mailbox_names
from gateway.imap.scanner import Scanner
from gateway.inbox import indexer
from gateway.keys.body_sealer import AESBodySealer
from gateway.observability.clock import SystemClock
from gateway.ports import Job, PartName
from gateway.settings import reading, values
from gateway.sta.cms import signature
from gateway.store import files
from gateway.store.jobs import Jobs
from gateway.store.sql_store import SQLStore
from gateway.store.tables import APPEND_ONLY, job
from gateway.store.unit_time import UnitTime
from tests.faults import test_wrong_settings as wrong_settings
from tests.regressions import test_a_clock_that_jumps_while_a_write_waits as jumps
from tests.support.body_keys import sealer_in
from tests.support.postgresql import ROLE, shared_cluster
from tests.unit.core_mime import test_mime_structure as mime
from tests.unit.imap import test_imap_parser as imap_parser
from tests.unit.inbox import test_indexer as dates
from tests.unit.sta import test_bundle_file as bundles
from tests.unit.sta_cms import test_cms_mutations as cms
from tests.unit.store import test_append_only as append_only
from tests.unit.store import test_postgresql_opening as on_postgresql
from tests.unit.store import test_sealed_bodies as sealed
from tests.unit.store import test_store_opening as opening
from tests.unit.workers import test_pool as pool

Report = Callable[[str], None]
FOUND = (AssertionError, pytest.fail.Exception)

# The stores of those experiments.
database = append_only.database
filled = append_only.filled
store = sealed.store
bench = pool.bench
as_writer = on_postgresql.as_writer


def unheard(_line: str) -> None:
    """What an experiment reports of a product with a bug is no result."""


# --- F10 ---


async def test_f10_finds_a_worker_that_does_not_ask_whether_it_holds_the_job(
    bench: pool.Bench, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    """Without the fencing token whoever wakes up late ends what is another's by now."""

    def finish(self: Jobs, claimed: Job) -> bool:
        return self._connection.execute(delete(job).where(job.c.id == claimed.id)).rowcount == 1

    monkeypatch.setattr(Jobs, "finish", finish)
    with pytest.raises(FOUND):
        await pool.test_a_step_that_lost_its_lease_changes_nothing(bench)
    report("F10, a job without a fence: found")


# --- F11 ---


@pytest.mark.parametrize("hours", [-1, 1])
async def test_f11_finds_leases_in_the_time_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report, hours: int
) -> None:
    settings = shared_cluster().settings()
    with (
        SQLStore.open(replace(settings, node="jumps"), sealer_in(tmp_path)) as one,
        SQLStore.open(replace(settings, node="right"), sealer_in(tmp_path)) as other,
    ):
        node = jumps.Node(one, monkeypatch)
        monkeypatch.setattr(UnitTime, "now", lambda _self: SystemClock().now())
        with pytest.raises(FOUND):
            await jumps.test_accepted_mail_is_due_at_once((node, other), hours * jumps.HOUR, late=False)
    report(f"F11, leases in the time of a node that is {hours:+d} h off: found")


# --- F12 ---


def in_utc(text: str) -> datetime:
    """SEARCH goes by the day that is written, whatever the zone."""
    return parsed(text).astimezone(UTC)


def for_32_bits(text: str) -> datetime:
    return min(parsed(text).astimezone(UTC), datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC))


def rolled_over(text: str) -> datetime:
    """As ``mktime`` has it: the 60th second is the next minute's first, and February 29 may be March 1."""
    later = {":60": ":59", "29 Feb 2026": "1 Mar 2026"}
    for wrong, instead in later.items():
        if wrong in text:
            return parsed(text.replace(wrong, instead)) + timedelta(seconds=wrong == ":60")
    return parsed(text)


parsed = parsedate_to_datetime


@pytest.mark.parametrize("bug", [in_utc, for_32_bits, rolled_over])
def test_f12_finds_dates_that_are_read_wrongly(
    monkeypatch: pytest.MonkeyPatch, report: Report, bug: Callable[[str], datetime]
) -> None:
    monkeypatch.setattr(indexer, "parsedate_to_datetime", bug)
    wrong = 0
    for value, expected in dates.DATES:
        try:
            dates.test_the_date(value, expected)
        except AssertionError:
            wrong += 1
    report(f"F12, {bug.__name__}: found at {wrong} of {len(dates.DATES)} dates")
    assert 0 < wrong < len(dates.DATES)


# --- F31 ---

QUICK = {"update", "insert or replace"}


@pytest.mark.parametrize(
    "attack", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in append_only.ATTACKS]
)
def test_f31_finds_a_table_without_its_guards(
    database: sqlite3.Connection, attack: str, report: Report, tmp_path: Path
) -> None:
    table = next(one for one in APPEND_ONLY if one.name == "raw_recipient")
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
    for (name,) in database.execute(triggers, [table.name]).fetchall():
        database.execute(f"DROP TRIGGER {name}")
    with pytest.raises(FOUND):
        append_only.test_no_statement_changes_an_append_only_row(database, table, attack)
    report(f"F31, a table without guards, {attack}: found")


def test_f31_finds_a_table_without_its_guards_on_postgresql(as_writer: Any, report: Report) -> None:
    table = next(one for one in APPEND_ONLY if one.name == "raw_recipient")
    place = f"{as_writer.schema}.{table.name}"
    shared_cluster().sql(f"ALTER TABLE {place} DISABLE TRIGGER USER", "gateway")
    with pytest.raises(FOUND):
        on_postgresql.test_no_statement_of_anybody_changes_an_append_only_row(as_writer, table)
    report(f"F31 on PostgreSQL, the owner of a table without guards ({ROLE}): found")


# --- F32 ---


@pytest.mark.parametrize(
    ("tampering", "kind"), [("tag", "raw"), ("tag", "content"), ("tag", "search"), ("text", "search")]
)
def test_f32_finds_a_body_that_is_served_unauthenticated(
    store: SQLStore, monkeypatch: pytest.MonkeyPatch, report: Report, tampering: str, kind: str
) -> None:
    """AES-GCM without its tag is AES in counter mode: it opens whatever it is given."""

    def opened(_self: AESBodySealer, key: bytes, _name: PartName, part: bytes) -> bytes:
        sealed_part = bytes(part)
        counter = sealed_part[1:13] + (2).to_bytes(4, "big")
        return Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor().update(sealed_part[13:-16])

    monkeypatch.setattr(AESBodySealer, "open", opened)
    with pytest.raises(FOUND):
        sealed.test_what_was_tampered_with_is_an_error_that_names_the_message(store, tampering, kind)
    report(f"F32, bodies that are not authenticated, {tampering} of {kind}: found")


# --- F40 ---


def test_f40_finds_numbers_that_nobody_looks_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setattr(values, "_integer", lambda _section, _key, _value: 7)
    with pytest.raises(FOUND, match="more items"):
        wrong_settings.test_f40_every_wrong_key_is_named(tmp_path, unheard)
    report("F40, numbers that nobody looks at: found")


def test_f40_finds_an_error_that_names_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    value = values.checked_value

    def mute(*words: Any) -> Any:
        try:
            return value(*words)
        except ConfigurationError:
            raise ConfigurationError("a value is wrong") from None

    monkeypatch.setattr(reading, "checked_value", mute)
    with pytest.raises(FOUND):
        wrong_settings.test_f40_every_wrong_key_is_named(tmp_path, unheard)
    report("F40, an error without the key: found")


# --- F42 ---

ONCE = settings(max_examples=1_000, phases=[Phase.generate], database=None, derandomize=True, deadline=None)


def fuzz(harness: Any, **strategies: st.SearchStrategy[Any]) -> None:
    """Run what hypothesis runs, as often, with draws that are the same each time."""
    test: Any = given(**strategies)(harness.hypothesis.inner_test)
    test._hypothesis_internal_use_settings = ONCE
    test()


def careless_literal(self: Scanner) -> bytes:
    match = re.compile(rb"\{(\d+)\+?\}\r\n").match(self.data, self.position)
    assert match is not None
    self.position = match.end() + int(match[1])
    # The last octet is looked at before anybody knows that it is there.
    return self.data[match.end() : self.position] if self.data[self.position - 1] else b""


def test_f42_finds_a_crash_of_the_imap_parser(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    monkeypatch.setattr(Scanner, "_literal", careless_literal)
    commands = st.sampled_from(imap_parser.COMMANDS)
    with pytest.raises((IndexError, AssertionError)):
        fuzz(imap_parser.test_any_tokens, command=commands, tokens=st.lists(st.sampled_from(imap_parser.TOKENS)))
    report("F42, a literal that is shorter than it says: found")


def test_f42_finds_names_that_do_not_come_back(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    monkeypatch.setattr(mailbox_names, "_RUN", re.compile(r"[^\x20-\x7e]+"))
    with pytest.raises((ValueError, AssertionError)):
        fuzz(imap_parser.test_mailbox_names_come_back, name=st.text(st.characters(exclude_categories=["Cs"])))
    report("F42, an ampersand that is not escaped: found")


def test_f42_finds_parts_that_are_said_to_be_larger(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    monkeypatch.setattr(structure, "_count_lines", lambda data, *_: data.count(b"\n"))
    with pytest.raises(AssertionError):
        fuzz(mime.test_any_bytes_give_a_tree_of_slices, data=mime.MESSAGES)
    report("F42, the lines of the whole counted for each part: found")


def any_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature holds, whatever the content is."""
    monkeypatch.setattr(signature, "hmac", SimpleNamespace(compare_digest=lambda *_: True))


def test_f42_finds_content_that_was_not_signed(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    any_digest(monkeypatch)
    with pytest.raises(AssertionError):
        fuzz(cms.test_changed_octets, data=st.data())
    report("F42, a digest that is not compared: found in CMS")


def test_f42_finds_anchors_that_were_not_signed(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    any_digest(monkeypatch)
    with pytest.raises(AssertionError):
        fuzz(bundles.test_no_mutation_gives_another_error_or_other_anchors, data=st.data())
    report("F42, a digest that is not compared: found in trust bundles")


# --- F43 ---


@pytest.mark.parametrize(("folder", "kind"), [("/srv/data", "nfs4"), ("/mnt/x", "cifs")])
def test_f43_finds_a_network_file_system_that_is_taken_for_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report, folder: str, kind: str
) -> None:
    monkeypatch.setattr(files, "_NETWORK_FILE_SYSTEMS", frozenset())
    with pytest.raises(FOUND):
        opening.test_the_file_system_of_a_folder_is_found(tmp_path, folder, kind)
    report(f"F43, {kind} taken for a disk: found")
