"""Events about the gateway itself: that it started with these settings, that it stopped, that the clock jumped.

``gateway.started`` holds a digest of every setting in force and names those that changed since this node's start before
(ON-10, "changed a setting"). Paths and addresses are in it as digests only; numbers and switches as they are. A start
without a ``gateway.stopped`` before it says so: the process was killed, or the machine went down. An event that lies
before the newest one in time shows that the clock was set back while nobody ran (ON-17).

Nothing here can be switched off. Failure modes: StoreError: a gateway that cannot write down its start does not start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

import gateway
from gateway.core.audit import CHAIN_ORDER, AuditEvent, AuditQuery
from gateway.ports import Clock, Store, UnitOfWork
from gateway.settings import Settings

ACTOR = "gateway"
STARTED = "gateway.started"
STOPPED = "gateway.stopped"
RELOADED = "gateway.reloaded"
CLOCK_JUMPED = "clock.jumped"
CLOCK_BEHIND = "clock.behind"
CLOCK_TOLERANCE = timedelta(seconds=5)
"""ON-17: clocks are expected within five seconds of the true time."""
_DIGEST_CHARS = 16


async def record_start(store: Store, clock: Clock, settings: Settings) -> tuple[str, ...]:
    """Write down the start; return the names of the settings that changed since the last one.

    Raises:
        StoreError: it could not be written.
    """
    at, node = clock.now(), settings.store.node
    values = setting_values(settings)

    def work(rows: UnitOfWork) -> tuple[str, ...]:
        newest = _newest(rows, node, "gateway.*")
        last_start = _newest(rows, node, STARTED)
        changed = _changed(last_start, values)
        latest = _newest(rows, node, "")
        if latest is not None and at < latest.at - CLOCK_TOLERANCE:
            seconds = round((latest.at - at).total_seconds())
            rows.audit.add(at, ACTOR, CLOCK_BEHIND, node, {"seconds": seconds})
        end = "none" if newest is None else "clean" if newest.action == STOPPED else "missing"
        detail = {
            "version": gateway.__version__,
            "settings": values,
            "settings_sha256": _sha256(json.dumps(values, sort_keys=True)),
            "changed": list(changed),
            "stop_before": end,
        }
        rows.audit.add(at, ACTOR, STARTED, node, detail)
        return changed

    return await store.write(work, urgent=True)


async def record_stop(store: Store, clock: Clock, node: str) -> None:
    """Write down that the gateway stops of its own accord. Raises StoreError."""
    at = clock.now()
    await store.write(lambda rows: rows.audit.add(at, ACTOR, STOPPED, node), urgent=True)


def add_reload(rows: UnitOfWork, clock: Clock, node: str, failed: Sequence[str]) -> None:
    """Add the event that keys, anchors and lists were read again; ``failed``: the parts that stayed as they were."""
    rows.audit.add(clock.now(), ACTOR, RELOADED, node, {"not_reloaded": sorted(failed)})


async def record_jump(store: Store, clock: Clock, node: str, seconds: float) -> None:
    """Write down that the clock moved by so many seconds more than time did. Raises StoreError."""
    at = clock.now()
    detail = {"seconds": round(seconds)}
    await store.write(lambda rows: rows.audit.add(at, ACTOR, CLOCK_JUMPED, node, detail), urgent=True)


def setting_values(settings: Settings) -> dict[str, Any]:
    """Every setting by ``section.key``: numbers and switches as they are, everything else as a digest."""
    values: dict[str, Any] = {}
    for section in fields(settings):
        held = getattr(settings, section.name)
        if section.name == "base_dir":
            continue
        if not hasattr(held, "__dataclass_fields__"):
            values[section.name] = _shown(held)
            continue
        for key in fields(held):
            values[f"{section.name}.{key.name}"] = _shown(getattr(held, key.name))
    return values


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    return _sha256(str(value))[:_DIGEST_CHARS]


def _changed(last: AuditEvent | None, values: dict[str, Any]) -> tuple[str, ...]:
    if last is None:
        return ()
    before = json.loads(last.detail).get("settings", {})
    return tuple(sorted(key for key in before.keys() | values.keys() if before.get(key, "") != values.get(key, "")))


def _newest(rows: UnitOfWork, node: str, action: str) -> AuditEvent | None:
    # In the order of the chain: a clock that was ahead for a while makes nothing the newest.
    found = rows.audit.find(AuditQuery(node=node, action=action, sort=CHAIN_ORDER, limit=1))
    return found[0] if found else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
