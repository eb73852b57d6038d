"""F01, F12, F23, F24, F25, F32, F34 and F40 against a real daemon with a bug in it: each must find its bug.

As in test_harnesses_find_bugs: a few lines of Python run at the start of every process of the gateway, and the
experiment is the very function that a sound gateway passes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.agents import ReloadableAgent
from tests.faults import test_backups as backups
from tests.faults import test_bodies_in_a_bucket as bucket
from tests.faults import test_cluster_history as cluster_history
from tests.faults import test_fetch_killed as fetch_killed
from tests.faults import test_hard_dates as dates
from tests.faults import test_hostile_mail as hostile
from tests.faults import test_kill_after_ack as kill_after_ack
from tests.faults import test_wrong_settings as wrong_settings
from tests.faults.test_harnesses_find_bugs import with_bug
from tests.support.gateway_process import Practice
from tests.support.pki import Authority
from tests.support.s3_server import S3Server

Report = Callable[[str], None]
Experiment = Callable[[Practice, Authority, Report], object]
FOUND = (AssertionError, pytest.fail.Exception)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

server = bucket.server

NO_DATE_NO_FILING = """
from gateway.inbox.indexer import Indexer
index = Indexer.index
def strict(self, content):
    made = index(self, content)
    if made.sent_at is None:
        raise ValueError("a message without a date")
    return made
Indexer.index = strict
"""
AS_MANY_RECIPIENTS_AS_THERE_ARE = """
from gateway.sta.cms import recipients
recipients.MAX_RECIPIENTS = 10**9
"""
TIME_BY_THE_SIZE = """
# As a reader that begins anew for each part: a megabyte takes half a minute.
import time
from gateway.sta.agent import SecurityTrustAgent
judge = SecurityTrustAgent.judge
def slow(self, raw, *words, **named):
    time.sleep(len(raw) / 35_000)
    return judge(self, raw, *words, **named)
SecurityTrustAgent.judge = slow
"""
ENCRYPTED_PARTS_ANYWHERE = """
# What mail clients did: a part that is encrypted is opened wherever it stands (EFAIL).
from gateway.sta.agent import SecurityTrustAgent
judge = SecurityTrustAgent.judge
MARK = b"Content-Type: application/pkcs7-mime"
def eager(self, raw, *words, **named):
    found = judge(self, raw, *words, **named)
    data = bytes(raw)
    place = data.find(MARK, data.find(b"\\r\\n\\r\\n"))
    if found.accepted or place < 0:
        return found
    head = b"".join(line + b"\\r\\n" for line in data.split(b"\\r\\n")[:2])
    part = data[place:].partition(b"\\r\\n--x")[0]
    return judge(self, head + b"MIME-Version: 1.0\\r\\n" + part + b"\\r\\n", *words, **named)
SecurityTrustAgent.judge = eager
"""
A_MONTH_OF_TOLERANCE = """
from datetime import timedelta
from gateway.sta.certificates import Certificate
from gateway.sta.paths import path_validation
path_validation.timedelta = lambda *_: timedelta(days=30)
before, after = Certificate.not_before.fget, Certificate.not_after.fget
Certificate.not_before = property(lambda self: before(self) - timedelta(days=30))
Certificate.not_after = property(lambda self: after(self) + timedelta(days=30))
"""
A_RELOAD_THAT_KEEPS_NOTHING = """
from dataclasses import replace
from gateway.agents import ReloadableAgent
from gateway.sta.trust_anchors.anchors import AnchorStore
reload = ReloadableAgent.reload
def forgetful(self):
    reload(self)
    if self.not_reloaded:
        self._agent = replace(self._agent, anchors=AnchorStore())
ReloadableAgent.reload = forgetful
"""
A_COPY_OF_THE_FILE = """
# As cp does it: the file of the database alone, without its write-ahead log, which is large where mail is written.
import contextlib, shutil, tempfile
from dataclasses import replace
from gateway.store import sqlite_engine
from gateway.store.backup import making
sqlite_engine.PRAGMAS = tuple(
    (name, "1000000", 1000000) if name == "wal_autocheckpoint" else (name, *rest)
    for name, *rest in sqlite_engine.PRAGMAS
)
whole = making.snapshot
@contextlib.contextmanager
def of_the_file(settings):
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(settings.url.removeprefix("sqlite:///"), folder + "/gateway.db")
        with whole(replace(settings, url="sqlite:///" + folder + "/gateway.db")) as connection:
            yield connection
making.snapshot = of_the_file
"""
BODIES_THAT_NOBODY_CHECKS = """
# AES-GCM without its tag, and no digest of what came from the bucket.
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from gateway.keys.body_sealer import AESBodySealer
def opened(self, key, name, sealed):
    part = bytes(sealed)
    counter = part[1:13] + (2).to_bytes(4, "big")
    return Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor().update(part[13:-16])
AESBodySealer.open = opened
from gateway.store import body_objects
class Any:
    __ne__ = lambda *_: False
class Digest:
    def __init__(self, data): pass
    hexdigest = lambda self: Any()
body_objects.hashlib = type("Blind", (), {"sha256": Digest})
"""
NOTHING_IS_REMEMBERED = """
# What was taken is not known as taken, and not as mail that is there.
from gateway.store.fetching import Fetching
from gateway.store.messages import Messages
Fetching.take = Fetching.same = Messages.find_transport_duplicate = lambda *_: None
"""

SEEDED: dict[str, tuple[str, Experiment]] = {
    "F01, 250 before the commit": (cluster_history.CARELESS, lambda gate, ca, _: kill_after_ack.rounds(gate, ca, 2)),
    "F12, no filing without a date": (
        NO_DATE_NO_FILING, dates.test_f12_mail_with_hard_dates_is_filed_once_as_it_came
    ),
    "F23, as many recipients as there are": (
        AS_MANY_RECIPIENTS_AS_THERE_ARE,
        lambda gate, ca, report: hostile.test_bombs_are_set_aside_in_time_and_the_next_message_goes_on(
            gate, ca, report, hostile.SMALL
        ),
    ),
    "F23, time by the size": (
        TIME_BY_THE_SIZE,
        lambda gate, ca, report: hostile.test_bombs_are_set_aside_in_time_and_the_next_message_goes_on(
            gate, ca, report, hostile.LARGE
        ),
    ),
    "F24, encrypted parts are opened anywhere": (
        ENCRYPTED_PARTS_ANYWHERE, hostile.test_tricks_of_the_efail_kind_show_nothing
    ),
    "F25, a month of tolerance": (
        A_MONTH_OF_TOLERANCE,
        lambda gate, ca, report: hostile.test_faults_of_the_signer_s_certificate_are_refused(
            gate, ca, report, "expired"
        ),
    ),
    "F40, a reload that keeps nothing": (
        A_RELOAD_THAT_KEEPS_NOTHING, wrong_settings.test_f40_a_reload_of_something_wrong_keeps_what_was
    ),
}  # fmt: skip


def unheard(_line: str) -> None:
    """What an experiment reports of a gateway with a bug is no result."""


@pytest.mark.parametrize("name", SEEDED)
def test_the_experiment_finds_its_bug(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report, name: str
) -> None:
    bug, experiment = SEEDED[name]
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    with with_bug(tmp_path, bug, monkeypatch):
        practice.start()
        try:
            with pytest.raises(FOUND) as found:
                experiment(practice, partner_ca, unheard)
        finally:
            practice.kill()
    assert "start did not come true" not in str(found.value), "the daemon must run, or nothing was tried"
    report(f"{name}: found")


def test_f01_finds_a_fetch_that_remembers_nothing(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    try:
        with with_bug(tmp_path, NOTHING_IS_REMEMBERED, monkeypatch), pytest.raises(FOUND):
            fetch_killed.rounds(practice, partner_ca, "asked to mark", 2, unheard)
    finally:
        practice.kill()
    report("F01 (fetching), nothing is remembered: found")


async def test_f25_finds_trust_that_is_not_read_again(
    tmp_path: Path,
    partner_ca: Authority,
    stranger_ca: Authority,
    monkeypatch: pytest.MonkeyPatch,
    report: Report,
) -> None:
    monkeypatch.setattr(ReloadableAgent, "reload", lambda _self: None)
    with pytest.raises(FOUND):
        await hostile.test_a_message_that_waits_is_judged_by_the_trust_of_then(tmp_path, partner_ca, stranger_ca)
    report("F25, trust that is not read again: found")


def test_f34_finds_a_backup_without_the_log_of_the_database(
    tmp_path: Path, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    with with_bug(tmp_path, A_COPY_OF_THE_FILE, monkeypatch), pytest.raises(FOUND) as found:
        backups.test_what_was_acknowledged_before_the_backup_is_in_it(tmp_path, partner_ca, "sqlite", unheard)
    report(f"F34, a copy of the file alone: found ({str(found.value).splitlines()[0][:60]})")


def test_f32_finds_a_bucket_whose_bodies_nobody_checks(
    tmp_path: Path, server: S3Server, partner_ca: Authority, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    with with_bug(tmp_path, BODIES_THAT_NOBODY_CHECKS, monkeypatch):
        for world in bucket.made_world(tmp_path, server, partner_ca):
            with pytest.raises(FOUND):
                bucket.test_a_body_that_was_removed_or_altered_is_never_served(world)
    report("F32, bodies of a bucket that nobody checks: found")
