"""``audit verify`` names what was done to the rows that mail clients are shown messages by (F29).

All that the log answers for was there, and nobody saw the message: its flags were gone, or its MODSEQ was one that the
mailbox had not come to. With a counter set back, the next message would have had the UID of another.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.tampering import Forger, findings, practice

FORGERIES = {
    "flags of a message removed": (
        "DELETE FROM mailbox_flag WHERE uid = 1",
        "message 1 of mailbox 1 has lost its flags: no mail client is shown it",
    ),
    "MODSEQ of a view set ahead": (
        "UPDATE view_entry SET modseq = 900000000 WHERE of_uid = 1",
        "mailbox 1 has a MODSEQ that its counter has not come to",
    ),
    "MODSEQ of flags set ahead": (
        "UPDATE mailbox_flag SET modseq = 900000000 WHERE uid = 1",
        "mailbox 1 has a MODSEQ that its counter has not come to",
    ),
    "MODSEQ of the mailbox set back": (
        "UPDATE mailbox_counter SET highest_modseq = 1",
        "mailbox 1 has a MODSEQ that its counter has not come to",
    ),
    "next UID set back": (
        "UPDATE mailbox_counter SET uid_next = 2",
        "mailbox 1 has a UID that its counter has not come to",
    ),
    "counters removed": ("DELETE FROM mailbox_counter", "mailbox 1 has lost its counters"),
    "UIDs of a view moved": (
        "UPDATE view_entry SET uid = uid + 100",
        "the UIDs of the view linked of mailbox 1 were changed",
    ),
    "a review made up": (
        "UPDATE mailbox_flag SET flags = flags || ' $DirectReviewed' WHERE uid = 1",
        "message 1 of mailbox 1 is told to mail clients as something else than it is",
    ),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    practice(folder)
    return folder


@pytest.mark.parametrize("name", FORGERIES)
def test_it_is_named(original: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(original, tmp_path / "copy")
    statement, said = FORGERIES[name]
    forger = Forger(folder)
    forger.run(statement)
    assert forger.connection.total_changes
    forger.done()
    assert any(said in finding for finding in findings(folder)), findings(folder)
