"""A store that is an unfinished copy is not copied: what it lacks the audit log need not tell.

Flags, jobs, the next UIDs and the keys of messages may change, so the log does not answer for their rows. A copy that
was cut off among them passes the proof of the log, and a copy of it would have been called complete.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConfigurationError
from tests.support.copies import contents, copy, filled, new_place, unfinished


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_unfinished_copy_is_no_source(kind: str, tmp_path: Path) -> None:
    source, half = filled("sqlite", tmp_path), new_place(kind, tmp_path)
    unfinished(source, half, until="mailbox_flag")
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match="--from: this store is an unfinished copy of another one"):
            copy(half, new_place("sqlite", tmp_path), dry_run=dry_run)
    copy(source, half)
    whole = new_place("sqlite", tmp_path)
    assert copy(half, whole).state == "complete"
    assert contents(whole)["mailbox_flag"] == contents(source)["mailbox_flag"]
