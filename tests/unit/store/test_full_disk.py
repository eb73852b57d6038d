"""F04 on a real file system of a few megabytes, mounted in a namespace of its own; skipped where that is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
CHILD = """
import json, sys
from pathlib import Path
from gateway.core.errors import StoreError
from gateway.core.lifecycle import State
from gateway.store.ids import new_id
from tests.support.store_samples import NOW, inbound, open_store

folder = Path(sys.argv[1])
store = open_store(folder)
filler = folder / "filler"
filler.write_bytes(bytes(1_000_000))

def attempt(number):
    def work(tx):
        message_id = new_id(NOW)
        tx.messages.add_raw(message_id, NOW, inbound(b"%d" % number + bytes(200_000)))
        tx.messages.set_state(message_id, State.RECEIVED, NOW)
        return message_id
    try:
        return store.write_blocking(work)
    except StoreError as exc:
        return type(exc).__name__

def stored():
    return [m.id for m in store.read_blocking(lambda tx: tx.messages.newest(limit=200))]

results = [attempt(n) for n in range(50)]
full = stored()
filler.unlink()
recovered = attempt(99)
store.close()
store = open_store(folder)
print(json.dumps({"results": results, "full": full, "recovered": recovered, "after": stored(), "dead": store.dead}))
"""


def test_a_full_disk_acknowledges_nothing_keeps_readers_alive_and_recovers(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=6m none "$1" || exit 77; shift; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), sys.executable, "-c", CHILD, str(tmp_path)]
    try:
        child = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if child.returncode == 77 or "unshare" in child.stderr:
        pytest.skip("this user may not mount a file system of his own")
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    acknowledged = [result for result in found["results"] if len(result) == 26]
    assert acknowledged
    assert "StoreFullError" in found["results"]
    assert set(found["results"]) - set(acknowledged) == {"StoreFullError"}
    assert sorted(found["full"]) == sorted(acknowledged)
    assert sorted(found["after"]) == sorted([*acknowledged, found["recovered"]])
    assert not found["dead"]
