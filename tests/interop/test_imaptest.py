"""imaptest, a tester of IMAP servers that others wrote: its scripts, and its stress mode with state tracking.

The scripts make, fill and empty mailboxes, so they run over the test mailboxes behind the gateway's engine
(``serve --imap-test-policy``). Stress runs over the gateway as it is, and tries to delete all the time: it tracks what
each session was told, so a number, a flag or a UID that is wrong shows.

imaptest is not part of this project. It is run where it is found: $GATEWAY_IMAPTEST or the path; its scripts in
$GATEWAY_IMAPTEST_SCRIPTS or beside it, as in its own source tree. docs/imap.md tells how to build it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.core.lifecycle import State
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.core.verdict import Judgement, Reason
from gateway.inbox.indexer import Indexer
from gateway.keys.body_keys import body_sealer
from gateway.observability.clock import SystemClock
from gateway.ports import UnitOfWork
from gateway.settings import load
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.gateway_process import Practice

pytestmark = pytest.mark.slow

MESSAGES = 300
STRESS_SECONDS = 20
SCRIPT_SECONDS = 300
_GROUPS = re.compile(r"(\d+) test groups: (\d+) failed, (\d+) skipped")
_COMMANDS = re.compile(r"(base protocol|extensions): (\d+)/(\d+) individual commands failed")
_DOCUMENTED = re.compile(r"Error: \S+ COPY failed: \S+ NO \[NOPERM\] Messages cannot be copied or moved")
"""What a client is told that wants to copy: the one refusal that stress counts as an error."""


@pytest.fixture(scope="module")
def imaptest() -> Path:
    """The program; skips by name where there is none."""
    found = os.environ.get("GATEWAY_IMAPTEST") or shutil.which("imaptest")
    if not found or not Path(found).is_file():
        pytest.skip("no imaptest here (GATEWAY_IMAPTEST or PATH); docs/imap.md, Conformance, tells how to build it")
    return Path(found)


@pytest.fixture(scope="module")
def scripts(imaptest: Path) -> Path:
    """The folder of its scripts."""
    folder = Path(os.environ.get("GATEWAY_IMAPTEST_SCRIPTS") or imaptest.resolve().parent / "tests")
    if not (folder / "default.mbox").is_file():
        pytest.skip(f"no scripts of imaptest in {folder} (GATEWAY_IMAPTEST_SCRIPTS); see docs/imap.md, Conformance")
    return folder


def run(imaptest: Path, practice: Practice, mbox: Path, *options: str, seconds: float) -> str:
    """Run it against a practice; all that it says. A tester that broke down has tested nothing."""
    done = subprocess.run(
        [
            str(imaptest),
            "host=localhost",
            f"port={practice.imaps_port}",
            "ssl=any-cert",
            f"user={practice.login}",
            f"pass={practice.password}",
            f"mbox={mbox}",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=seconds,
    )
    said = done.stdout.decode("utf-8", "replace")
    assert "Panic:" not in said, said[-4_000:]
    assert "Fatal:" not in said, said[-4_000:]
    return said


def test_scripts(imaptest: Path, scripts: Path, tmp_path: Path) -> None:
    """No base command fails, and none of an extension that is advertised."""
    practice = Practice.make(tmp_path / "practice")
    practice.serve_options = ["--imap-test-policy"]
    practice.start()
    try:
        said = run(imaptest, practice, scripts / "default.mbox", f"test={scripts}", seconds=SCRIPT_SECONDS)
    finally:
        practice.stop()
    groups = _GROUPS.search(said)
    assert groups is not None, said[-4_000:]
    total, failed, skipped = map(int, groups.groups())
    assert failed == 0, said
    assert total - skipped > 30, "too few groups ran: is the server's capability list what it was?"
    counts = {name: (int(bad), int(ran)) for name, bad, ran in _COMMANDS.findall(said)}
    assert {bad for bad, _ in counts.values()} == {0}, said
    assert counts["base protocol"][1] > 400
    assert counts["extensions"][1] > 90


@pytest.mark.parametrize(
    "options",
    [
        ["append=0", "copy=0"],
        ["append=0", "copy=0", "qresync", "uidfetch=30", "noop=30"],
        ["copybox=Trash", "mcreate=20", "mdelete=20", "msubs=20", "search=50", "check=30", "store=100"],
    ],
    ids=["delete and expunge", "qresync", "whatever changes something"],
)
def test_stress_that_tries_to_delete(imaptest: Path, tmp_path: Path, options: list[str]) -> None:
    """Many sessions at once: nobody is told anything wrong, nothing leaves, and the attempts are on record."""
    practice = Practice.make(tmp_path / "practice")
    contents = filed(practice, MESSAGES)
    mbox = tmp_path / "stress.mbox"
    mbox.write_bytes(b"".join(b"From a@b  Fri Feb 22 17:06:23 2008\n%b\n" % content for content in contents[:5]))
    practice.start()
    try:
        before = practice.inbox()
        said = run(
            imaptest,
            practice,
            mbox,
            "clients=10",
            f"secs={STRESS_SECONDS}",
            "seed=1",
            "delete=100",
            "expunge=100",
            *options,
            seconds=STRESS_SECONDS * 6,
        )
        after = practice.inbox()
        attempts = practice.json("audit", "list", "--action", "message.delete_ignored", "--limit", "1")
    finally:
        practice.stop()
    errors = [line for line in said.splitlines() if line.startswith("Error:")]
    assert [line for line in errors if not _DOCUMENTED.match(line)] == []
    assert sessions(said) > 50
    assert before == after == contents
    assert attempts


def sessions(said: str) -> int:
    """How many sessions came to their LOGOUT, from the table at the end."""
    names, *_, counts = said.partition("Totals:")[2].strip().splitlines()
    return dict(zip(names.split(), map(int, counts.split()), strict=True))["Logo"]


def filed(practice: Practice, count: int) -> list[bytes]:
    """File messages in the inbox of a practice that does not run yet; their bytes."""
    settings, clock, indexer = load(practice.config), SystemClock(), Indexer()
    address = practice.addresses[0]
    contents = [
        b"From: Dr. A <dr.a@partner.example>\r\nTo: %b\r\nSubject: Referral %d\r\nMessage-ID: <%d@partner.example>\r\n"
        b"Date: Fri, 01 Mar 2024 10:00:00 +0100\r\n\r\nPlease see the patient of letter %d.\r\n"
        % (address.encode(), number, number, number)
        for number in range(count)
    ]

    def work(unit: UnitOfWork) -> None:
        [mailbox_id] = unit.mailboxes.for_recipient(address)
        for number, content in enumerate(contents):
            at = clock.now()
            message_id, digest = new_id(at), hashlib.sha256(content).hexdigest()
            envelope = Envelope("dr.a@partner.example", (address,))
            unit.messages.add_raw(message_id, at, Inbound(MemoryBody(b"encrypted %d" % number), envelope, Source.SMTP))
            unit.messages.set_state(message_id, State.RECEIVED, at)
            accepted = Judgement(
                Reason.OK, "", (address,), sender="dr.a@partner.example", content=content, inner_sha256=digest
            )
            unit.messages.add_content(message_id, accepted)
            assert unit.mailboxes.add(mailbox_id, message_id, digest, indexer.index(content), at) is not None

    async def write() -> None:
        with SQLStore.open(settings.store, body_sealer(settings)) as store:
            await store.write(work)

    asyncio.run(write())
    return contents
