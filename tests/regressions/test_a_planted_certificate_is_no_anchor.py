"""A certificate that was planted in the database under the digest of an anchor to come used to become that anchor.

The table of certificates is filled by digest, and what is there already is not written again. So a row that somebody
put there first (the role of the gateway may add rows, on PostgreSQL too) stood for a trust anchor of the next version
of a bundle; no event of the log listed it, and ``audit verify`` said that all was well (F29, AS-56).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.store.sql_store import SQLStore
from gateway.store.tables import certificate
from tests.faults.tampering import Forger, findings, practice
from tests.support.store_samples import NOW, open_store

REAL, EVIL = b"the anchor of a bundle", b"the authority of an attacker"


def _bundle(store: SQLStore) -> None:
    store.write_blocking(lambda tx: tx.bundles.add_version("national", NOW, b"file", [REAL]))


def test_it_is_not_handed_out_and_is_named(tmp_path: Path) -> None:
    practice(tmp_path)
    forger = Forger(tmp_path)
    digest = hashlib.sha256(REAL).hexdigest()
    forger.run("INSERT INTO certificate (sha256, der) VALUES (?, ?)", values=(digest, EVIL))
    forger.done()
    assert any(f"the row certificate {digest} " in line for line in findings(tmp_path))
    with open_store(tmp_path) as store:
        _bundle(store)
        with pytest.raises(StoreError, match="does not match its digest"):
            store.read_blocking(lambda tx: tx.bundles.versions("national"))


def test_an_honest_one_is_handed_out(tmp_path: Path) -> None:
    practice(tmp_path)
    with open_store(tmp_path) as store:
        _bundle(store)
        [version] = store.read_blocking(lambda tx: tx.bundles.versions("national"))
        assert version.anchors == (REAL,)
    assert certificate.info["by_digest"]
    assert findings(tmp_path) == []


@pytest.mark.parametrize("table", ["revocation_data", "anchor_set"])
def test_other_rows_that_go_by_their_digest_are_looked_at_as_well(tmp_path: Path, table: str) -> None:
    practice(tmp_path)
    forger = Forger(tmp_path)
    insert = f"INSERT INTO {table} VALUES (?, ?)"  # noqa: S608 - the name is our own
    forger.run(insert, values=("0" * 64, b"x" if table == "revocation_data" else "[]"))
    forger.done()
    assert any(f"the row {table} {'0' * 64} " in line for line in findings(tmp_path))
