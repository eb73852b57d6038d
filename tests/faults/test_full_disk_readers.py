"""F04 for people: on a full disk mail is put off, and logins and readings go on, each recorded, until the reserve ends.

On a real file system of a few megabytes, mounted in a namespace of its own; skipped where that is refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CHILD = """
import asyncio, json, os, sys
from dataclasses import replace
from pathlib import Path
from gateway.core.errors import StoreFullError
from gateway.core.lifecycle import State
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.body_keys import sealer_in
from tests.support.store_samples import NOW, inbound, settings_for

folder, mib = Path(sys.argv[1]), int(sys.argv[2])
settings = replace(settings_for(folder), audit_reserve_mib=mib)
sealer = sealer_in(folder)
found = {}

async def main():
    store = SQLStore.open(settings, sealer)
    await store.keep_reserve()
    reserve = folder / "gateway.db.reserve"
    found["reserve"] = reserve.stat().st_size if reserve.exists() else 0
    with open(folder / "filler", "wb", buffering=0) as filler:
        size = 65536
        while size >= 512:
            try:
                filler.write(bytes(size))
            except OSError:
                size //= 2

    async def mail():
        def work(tx):
            message_id = new_id(NOW)
            tx.messages.add_raw(message_id, NOW, inbound(os.urandom(3_000_000)))
            tx.messages.set_state(message_id, State.RECEIVED, NOW)
        try:
            await store.write(work)
        except StoreFullError:
            return "full"
        return "kept"

    async def look(number):
        try:
            await store.write(lambda tx: tx.audit.add(NOW, "nurse", "login.succeeded", str(number)), urgent=True)
        except StoreFullError:
            return "full"
        return "kept"

    found["mail"] = [await mail() for _ in range(3)]
    found["looks"] = [await look(n) for n in range(300)]
    both = await asyncio.gather(mail(), look(1000), mail(), look(1001))
    found["together"] = list(both)
    number = 2000
    while mib and number < 2_400 and await look(number) == "kept":
        number += 1
    found["after"] = number - 2000
    found["mail_again"] = await mail()
    found["left"] = reserve.stat().st_size if reserve.exists() else 0
    (folder / "filler").unlink()
    await store.keep_reserve()
    found["restored"] = reserve.stat().st_size if reserve.exists() else 0
    found["mail_then"] = await mail()
    found["recorded"] = len(await store.read(lambda tx: [e for e in tx.audit.events() if e.actor == "nurse"]))
    found["actions"] = sorted({e.action for e in await store.read(lambda tx: list(tx.audit.events()))})
    found["whole"] = await store.read(lambda tx: tx.audit.first_broken()) is None
    found["dead"] = store.dead
    store.close()

asyncio.run(main())
print(json.dumps(found))
"""


def run(folder: Path, reserve_mib: int) -> dict[str, Any]:
    script = 'mount -t tmpfs -o size=12m none "$1" || exit 77; shift; exec "$@"'
    child = [sys.executable, "-c", CHILD, str(folder), str(reserve_mib)]
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(folder), *child]
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this user may not mount a file system of his own")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_readers_are_recorded_and_go_on_while_mail_is_put_off(tmp_path: Path) -> None:
    found = run(tmp_path, 16)
    assert found["reserve"] >= 512 * 1024
    assert set(found["mail"]) == {"full"}
    assert set(found["looks"]) == {"kept"}
    assert found["together"] == ["full", "kept", "full", "kept"]
    assert found["after"] > 300
    # The reserve is for readers alone: mail got nothing of it.
    assert found["mail_again"] == "full"
    assert found["recorded"] == 300 + 2 + found["after"]
    assert found["whole"]
    assert not found["dead"]
    assert found["restored"] >= found["reserve"] - 512 * 1024
    assert found["mail_then"] == "kept"
    assert ("audit.reserve_restored" in found["actions"]) == (found["left"] < found["restored"])


def test_the_harness_sees_readers_locked_out_without_a_reserve(tmp_path: Path) -> None:
    found = run(tmp_path, 0)
    assert "full" in found["looks"]
    assert found["whole"]
