"""What a person should know of the trust bundles although mail goes on: alarms, and refreshes that fail (TB-8, TB-14).

For the health of a running gateway, which anybody on the network of the operator may read: names of bundles and days,
no address, and no text of what a publisher sent. The command line tells the rest.
"""

from __future__ import annotations

from gateway.bundles.service import TrustBundles
from gateway.core.trust import BundleSetting, BundleStatus

MAX_NAMED = 5


async def doubts_about(bundles: TrustBundles) -> str | None:
    """What is wrong with enabled bundles and what to do, in one line; None when all is well.

    Raises:
        StoreError: the store cannot be read.
    """
    told = [doubt for setting, status in await bundles.statuses() if (doubt := _doubt(setting, status))]
    if not told:
        return None
    more = f"; and {len(told) - MAX_NAMED} more" if len(told) > MAX_NAMED else ""
    return f"{'; '.join(told[:MAX_NAMED])}{more}; direct-gateway bundle list tells why, and what to do"


def _doubt(setting: BundleSetting, status: BundleStatus) -> str:
    name = setting.name
    if not setting.enabled:
        return ""
    parts = []
    if status.alarm:
        parts.append(f"bundle {name} has an alarm: look with direct-gateway bundle show {name}")
        parts.append(f"and having looked run direct-gateway bundle acknowledge {name}")
    if status.error:
        last = f"{status.last_success:%Y-%m-%d}" if status.last_success else ""
        kept = f"the content of {last} stays in force" if last else "it was never fetched, so nothing of it is in force"
        parts.append(f"bundle {name} could not be refreshed ({kept})")
    elif status.last_success is None:
        parts.append(f"bundle {name} was never fetched, so nothing of it is in force")
    return ", ".join(parts)
