"""Whether a gateway runs on the database, and how to make it read keys, anchors and revocation lists again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.services import Services


def gateway_runs(services: Services) -> bool:
    """Whether a gateway runs on the configured database, as far as that is seen from here."""
    return bool(services.store.gateways())


def how_to_reload(services: Services) -> str:
    """One line for people: what must be done before a repair counts."""
    running = services.store.gateways()
    if not running:
        return "no running gateway was found on this database: the messages wait until it is started"
    if services.store.shared:
        return (
            f"after a change of keys, anchors or revocation lists: bring it to every node ({', '.join(running)}) and "
            f"send its gateway a HUP signal first, then retry"
        )
    return f"after a change of keys, anchors or revocation lists: kill -HUP {running[0]} first, then retry"
