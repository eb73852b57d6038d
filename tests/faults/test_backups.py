"""F34: backups under load, killed, on a full disk; and what was acknowledged before one began is in it.

The client keeps the list of what was acknowledged. The seeded bug for the harness is a copy without the snapshot, which
the check must find (tests/unit/store/test_backup.py); here the comparison itself is shown to be able to fail.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from gateway.core.audit import AuditQuery
from gateway.keys.body_keys import body_sealer
from gateway.ports import UnitOfWork
from gateway.settings import Settings, load
from gateway.store.audit_verify import verify_store
from gateway.store.backup.after_restore import UIDS_SKIPPED
from gateway.store.backup.checking import read_backup
from gateway.store.backup.manifest import MANIFEST
from gateway.store.opening import init_store
from gateway.store.sql_store import SQLStore
from tests.support.backups import PLAIN, back_up, check
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import COMMAND, Practice, wait_for
from tests.support.intake_faults import need
from tests.support.pki import Authority
from tests.support.postgresql import shared_cluster
from tests.support.store_samples import NOW, inbound

Report = Callable[[str], None]
SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()


# --- under load ---


class Load:
    """A sender that does not stop, and what was acknowledged to him."""

    def __init__(self, practice: Practice, ca: Authority, count: int) -> None:
        self._practice = practice
        self._mail = self._made(ca, count)
        self.acked: list[bytes] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _made(self, ca: Authority, count: int) -> Iterator[tuple[bytes, bytes]]:
        """Made when they are sent: most of them never are."""
        signer, us, addresses = ca.issue(address=SENDER), self._practice.identity(), self._practice.addresses
        for number in range(count):
            inner = inner_message(SENDER, addresses, subject=f"Number {number}")
            to = {"sender": SENDER, "recipients": addresses, "signer": signer, "to": [us]}
            yield inner, direct_message(STACK, inner, **to)  # type: ignore[arg-type]

    def _send(self) -> None:
        for inner, raw in self._mail:
            if self._enough.is_set():
                return
            with contextlib.suppress(OSError):
                if self._practice.send(raw, SENDER, self._practice.addresses)[0] == 250:
                    self.acked.append(inner)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._enough.set()
        self._thread.join()

    def wait(self, count: int) -> list[bytes]:
        """What was acknowledged by the time that so many were."""
        while len(self.acked) < count:
            assert self._thread.is_alive(), "the load ended too early"
            self._thread.join(0.05)
        return list(self.acked)


def lost(acked: Sequence[bytes], inbox: Sequence[bytes]) -> list[bytes]:
    """Messages that are not in the inbox exactly once, byte for byte."""
    return [one for one in acked if list(inbox).count(one) != 1]


def _all_of(practice: Practice, count: int) -> list[bytes]:
    """The inbox, as soon as it has so many messages."""
    inbox = practice.inbox()
    return inbox if len(inbox) >= count else []


def by_uid(practice: Practice) -> dict[int, bytes]:
    """What a mail client keeps: every message by its UID."""
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        _, answer = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
        return {int(item[0].split(b"UID ")[1].split()[0]): item[1] for item in answer if isinstance(item, tuple)}


def keep(store: SQLStore, number: int, raw: bytes) -> None:
    """Keep a message; its id is the number."""

    def work(tx: UnitOfWork) -> None:
        tx.messages.add_raw(f"{number:026d}", NOW, inbound(raw))

    store.write_blocking(work)


def moved_to(backup: Path, old: Practice, folder: Path) -> Practice:
    """A practice on a new machine, from the settings in the backup and the keys in the safe."""
    shutil.copytree(backup / "settings", folder)
    for name in read_backup(backup)[0].left_out:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(old.directory / name, folder / name)
    return replace(old, directory=folder, process=None)


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_what_was_acknowledged_before_the_backup_is_in_it(
    tmp_path: Path, partner_ca: Authority, engine: str, report: Report
) -> None:
    old = Practice.make(tmp_path / "old")
    if engine == "postgresql":
        old.use_postgresql(
            shared_cluster().url(), f"{tmp_path.name}_old"[-40:].lower().replace("-", "_").lstrip("_0123456789")
        )
    old.trust(partner_ca.pem)
    old.start()
    try:
        with Load(old, partner_ca, 400) as load_:
            load_.wait(5)
            old.run("audit", "head", "--out", str(tmp_path / "head.json"))
            before = load_.wait(8)
            made = json.loads(old.run("backup", "create", str(tmp_path / "copy"), "--json").stdout)
            load_.wait(len(load_.acked) + 2)
        acked = list(load_.acked)
        wait_for(lambda: _all_of(old, len(acked)), what="the inbox of the old practice")
        remembered = by_uid(old)
        assert len(remembered) > made["messages"], "the clients must know UIDs from after the backup"
    finally:
        old.stop()
    keys = str(old.directory / "certs" / "audit" / "heads.pub.pem")
    against = ("--against", str(tmp_path / "head.json"), "--public-key", keys)
    old.run("backup", "verify", made["path"], "--bodies", "all", *against)
    new = moved_to(Path(made["path"]), old, tmp_path / "new")
    if engine == "postgresql":
        # And into the other database.
        new.set("store", url=f"sqlite:///{tmp_path}/new/data/gateway.db")
    new.run("backup", "restore", made["path"], *against)
    new.run("audit", "verify", *against)
    new.start()
    try:
        inbox = wait_for(lambda: _all_of(new, made["messages"]), what="the inbox of the restored practice")
        assert lost(before, inbox) == []
        assert lost([*before, b"never sent"], inbox) == [b"never sent"], "the comparison must be able to fail"
        assert made["messages"] < len(acked), "nothing came in during the backup"
        again = inner_message(SENDER, new.addresses, subject="Afterwards")
        to = {"sender": SENDER, "recipients": new.addresses, "signer": partner_ca.issue(address=SENDER)}
        raw = direct_message(STACK, again, to=[new.identity()], **to)  # type: ignore[arg-type]
        assert new.send(raw, SENDER, new.addresses)[0] == 250
        wait_for(lambda: _all_of(new, made["messages"] + 1), what="the message that came afterwards")
        shown = by_uid(new)
        assert max(shown) > UIDS_SKIPPED
        assert shown[max(shown)] == again
        known = set(shown) & set(remembered)
        assert known
        assert all(shown[uid] == remembered[uid] for uid in known), "a UID means another message than before"
        new.run("audit", "verify", *against)
    finally:
        new.stop()
    report(f"F34 {engine}: {len(before)} acknowledged before, {len(acked)} in all, {made['messages']} in it, 0 lost")


# --- killed ---


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Practice:
    """A practice with mail in it, which does not run."""
    practice = Practice.make(tmp_path_factory.mktemp("small") / "practice")
    settings = load(practice.config)
    with SQLStore.open(settings.store, body_sealer(settings)) as store:
        for number in range(60):
            keep(store, number, b"x" * 20_000)
    return practice


def killed_runs(arguments: Sequence[str], calls: dict[str, int]) -> Iterator[tuple[str, bool]]:
    """Run a command again and again, killed at one system call more each time; yields the point, and whether it was."""
    need("strace")
    for call, stride in calls.items():
        for number in itertools.count(1, stride):
            inject = f"inject={call}:signal=SIGKILL:when={number}"
            traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
            done = subprocess.run([*traced, *COMMAND, *arguments], capture_output=True, check=False, timeout=120)
            assert done.returncode in {0, -signal.SIGKILL}, (call, number, done.stderr)
            yield f"{call} {number}", done.returncode != 0
            if done.returncode == 0:
                break


FEW = ({"rename": 1}, 1)
"""Which calls, and how many kills that gives at least."""
MANY_OF_A_BACKUP = ({"pwrite64": 190, "fsync": 3, "rename": 1, "unlink": 2, "mkdir": 3}, 11)
MANY_OF_A_RESTORE = ({"pwrite64": 190, "fsync": 1, "rename": 1, "unlink": 1}, 6)


@pytest.mark.parametrize(("calls", "least"), [FEW, pytest.param(*MANY_OF_A_BACKUP, marks=pytest.mark.slow)])
def test_a_killed_backup_leaves_nothing_that_looks_like_one(
    small: Practice, tmp_path: Path, report: Report, calls: dict[str, int], least: int
) -> None:
    target = tmp_path / "copy"
    points = whole = 0
    arguments = ["backup", "create", str(target), "--config", str(small.config), "--json"]
    for point, killed in killed_runs(arguments, calls):
        points += killed
        if target.exists():
            # Killed after it had its name: then it is whole.
            assert check(target, small.directory / "certs" / "store").findings == [], point
            whole += killed
            shutil.rmtree(target)
        else:
            assert killed, point
            for left in tmp_path.iterdir():
                assert left.name == ".copy.unfinished"
    assert points >= least
    assert [one.name for one in tmp_path.iterdir()] == [], "what was left is swept by the next one"
    report(f"F34 backup killed: {points} points, {whole} of them with a whole backup, 0 half ones taken for one")


@pytest.mark.parametrize(("calls", "least"), [FEW, pytest.param(*MANY_OF_A_RESTORE, marks=pytest.mark.slow)])
def test_a_killed_restore_leaves_no_half_store(
    small: Practice, tmp_path: Path, report: Report, calls: dict[str, int], least: int
) -> None:
    settings = load(small.config)
    backup = back_up(settings.store, tmp_path / "copy")
    folder = tmp_path / "new"
    shutil.copytree(small.directory, folder, ignore=shutil.ignore_patterns("data"))
    database = folder / "data" / "gateway.db"
    points = whole = 0
    arguments = ["backup", "restore", str(backup.path), "--config", str(folder), "--json"]
    for point, killed in killed_runs(arguments, calls):
        points += killed
        if database.exists():
            # Killed after it had its name: then it is whole.
            restored = replace(settings.store, url=f"sqlite:///{database}")
            assert [one for one in verify_store(restored, PLAIN).findings if "received" not in one.what] == [], point
            with SQLStore.open(restored, body_sealer(settings)) as store:
                assert store.read_blocking(lambda tx: tx.messages.raw(f"{59:026d}")) is not None
            whole += killed
            shutil.rmtree(database.parent)
        else:
            assert killed, point
    assert points >= least
    report(f"F34 restore killed: {points} points, {whole} of them with a whole store, 0 half ones")


@pytest.mark.slow
def test_a_restore_into_postgresql_that_is_killed_leaves_nothing(small: Practice, tmp_path: Path) -> None:
    backup = back_up(load(small.config).store, tmp_path / "copy")
    store = shared_cluster().settings()
    folder = tmp_path / "new"
    shutil.copytree(small.directory, folder, ignore=shutil.ignore_patterns("data"))
    new = replace(small, directory=folder)
    new.set("store", url=store.url, schema=store.schema)
    settings = load(new.config)
    init_store(settings.store, None)
    for moment in (b"restoring:", b"reading again:"):
        process = subprocess.Popen(
            [*COMMAND, "backup", "restore", str(backup.path), "--config", str(folder)], stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(moment):
                process.kill()
                break
        process.wait(30)
        process.stderr.close()
        assert process.returncode == -signal.SIGKILL
        with SQLStore.open(settings.store, body_sealer(settings)) as opened:
            assert opened.read_blocking(lambda tx: tx.audit.find(AuditQuery())) == []
    done = new.run("backup", "restore", str(backup.path), "--bodies", "all", "--json")
    assert json.loads(done.stdout)["messages_opened"] == 60
    with SQLStore.open(settings.store, body_sealer(settings)) as opened:
        assert opened.read_blocking(lambda tx: tx.messages.raw(f"{59:026d}")) is not None


# --- a full disk ---


def on_small_disk(folder: Path, kib: int, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with a disk of that size at ``folder``; the last line is what is left on it."""
    need("unshare")
    script = 'mount -t tmpfs -o size="$1"k tmpfs "$2" || exit 77; "$3" -c "$4"; echo "status $?"; ls -A "$2"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(kib), str(folder), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mounts here")
    return done


def run_without_the_guard(module: str, arguments: Sequence[str]) -> str:
    """The command without its look at the free space before it begins: somebody else fills the disk meanwhile."""
    return (
        f"import sys; from gateway.store.backup import {module} as m; m._SPARE_BYTES = -(1 << 40); "
        f"from gateway.cli.main import main; sys.exit(main({list(arguments)!r}))"
    )


@pytest.mark.parametrize("kib", [64, *(pytest.param(kib, marks=pytest.mark.slow) for kib in (700, 1500))])
def test_a_full_disk_leaves_no_backup_and_no_store(small: Practice, tmp_path: Path, kib: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    create = ["backup", "create", str(disk / "copy"), "--config", str(small.config), "--json"]
    done = on_small_disk(disk, kib, run_without_the_guard("making", create))
    assert done.stdout.splitlines()[-1] == "status 3", done.stdout
    assert "no space is left" in done.stderr
    backup = back_up(load(small.config).store, tmp_path / "copy")
    folder = tmp_path / "new"
    shutil.copytree(small.directory, folder, ignore=shutil.ignore_patterns("data"))
    (folder / "gateway.toml").write_text(
        (folder / "gateway.toml").read_text().replace("sqlite:///data/gateway.db", f"sqlite:///{disk}/gateway.db")
    )
    again = ["backup", "restore", str(backup.path), "--config", str(folder), "--json"]
    done = on_small_disk(disk, kib, run_without_the_guard("restoring", again))
    assert done.stdout.splitlines()[-2:] == ["status 3", "gateway.db.lock"], done.stdout
    assert "no space" in done.stderr.lower()


# --- memory ---


@pytest.mark.slow
def test_memory_does_not_grow_with_the_store(small: Practice, tmp_path: Path) -> None:
    """200 MB of bodies, in parts of a mebibyte: neither backup, check nor restore holds more than a few of them."""
    folder = tmp_path / "large"
    shutil.copytree(small.directory, folder)
    settings: Settings = load(folder / "gateway.toml")
    body = bytes(range(256)) * 40_000
    with SQLStore.open(settings.store, body_sealer(settings)) as store:
        for number in range(100, 120):
            keep(store, number, body + b"%d" % number)
    target = tmp_path / "copy"
    peaks = {}
    for name, arguments in {
        "create": ["create", str(target), "--config", str(folder)],
        "verify": ["verify", str(target), "--bodies", "none", "--config", str(folder)],
        "restore": ["restore", str(target), "--bodies", "none", "--config", str(tmp_path / "empty")],
    }.items():
        if name == "restore":
            shutil.copytree(folder, tmp_path / "empty", ignore=shutil.ignore_patterns("data"))
        code = (
            # The peak that the system counts for a process begins with that of the one which started it.
            f"import sys; from gateway.cli.main import main; "
            f"status = main({['backup', *arguments, '--json']!r}); "
            f"peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]; "
            f"print(peak, file=sys.stderr); sys.exit(status)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        peaks[name] = int(done.stderr.split()[-1]) >> 10
    assert (target / MANIFEST).is_file()
    assert max(peaks.values()) < 250, peaks
