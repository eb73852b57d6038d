"""``import check``: whether the targets of the import hook can be reached and are fit, before a message goes to one.

Each enabled target is asked at the same time, for its ``timeout_seconds`` at the most. Nothing is sent and nothing is
made; the store is not opened, so that this works before the first start as well.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from gateway.cli.output import clean, out, print_json
from gateway.cli.session import FINDINGS, OK, settings_of
from gateway.core.errors import GatewayError, NotFoundError

if TYPE_CHECKING:
    from gateway.core.import_settings import ImporterSettings

FIT, DEGRADED, UNFIT, OFF = "fit", "degraded", "unfit", "off"


def check(args: argparse.Namespace) -> int:
    """The command."""
    from gateway.importing import import_targets  # noqa: PLC0415 - see gateway.cli.session

    every = import_targets(settings_of(args))
    targets = [one for one in every if args.target in {None, one.name}]
    if args.target is not None and not targets:
        raise NotFoundError(f"there is no target {args.target}; there is: {', '.join(o.name for o in every) or 'none'}")
    found = asyncio.run(_looked_at(targets))
    if args.json:
        print_json(found)
    elif not found:
        out("there is no target: name one by [[importer]] (docs/import-hook.md)")
    else:
        for one in found:
            out(clean(f"{one['target']} ({one['kind']}): {one['state']}{': ' if one['told'] else ''}{one['told']}"))
    return FINDINGS if any(one["state"] == UNFIT for one in found) else OK


async def _looked_at(targets: list[ImporterSettings]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_one(target) for target in targets)))


async def _one(target: ImporterSettings) -> dict[str, Any]:
    state, told = await _answer(target) if target.enabled else (OFF, "enabled is false: its links wait")
    return {"target": target.name, "kind": target.kind, "state": state, "told": told}


async def _answer(target: ImporterSettings) -> tuple[str, str]:
    """(state, what is wrong or left out)."""
    from gateway.importing import adapter_for  # noqa: PLC0415 - see gateway.cli.session
    from gateway.observability.clock import SystemClock  # noqa: PLC0415 - the same
    from gateway.ports import CHECK_DEGRADED  # noqa: PLC0415 - the same

    importer = adapter_for(target, SystemClock())
    try:
        async with asyncio.timeout(target.timeout_seconds):
            told = await importer.check()
    except TimeoutError:
        return UNFIT, f"no answer within {target.timeout_seconds} s"
    except (GatewayError, OSError) as exc:
        return UNFIT, str(exc)
    finally:
        await importer.close()
    if told is None:
        return FIT, ""
    if told.startswith(CHECK_DEGRADED):
        return DEGRADED, told.removeprefix(CHECK_DEGRADED)
    return UNFIT, told
