"""The ``import`` step: says for which targets of the import hook a link is meant.

The targets themselves are served by :mod:`gateway.pipeline.deliver`, each from a queue of its own, so that one that is
down neither delays nor repeats another. A target gets the links that are made while it is configured; older ones on
request (``direct-gateway import replay``).

Crash story: the orders and the end of the job are one transaction. A target that has given its receipt, or has its
order, is left alone, so a job that is run again changes nothing.

Failure modes: StoreError when the lease was lost or a commit failed; NotFoundError when there is no such link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.errors import StoreError
from gateway.ports import Job, Store, UnitOfWork


class OrderImports:
    """Runs ``import`` jobs, whose subject is the link id."""

    def __init__(self, store: Store, targets: Sequence[str], wake: Callable[[], None] = lambda: None) -> None:
        """``targets``: their names; ``wake``: told after each job that there may be something to deliver."""
        self._store = store
        self._targets = tuple(targets)
        self._wake = wake

    async def __call__(self, job: Job) -> bool:
        """Run one job; returns False, because no other job follows.

        Raises:
            StoreError: the lease was lost, or a commit failed.
            NotFoundError: there is no such link.
        """

        def work(rows: UnitOfWork) -> bool:
            rows.links.get(job.subject)
            ordered = rows.deliveries.order(job.subject, self._targets)
            if not rows.jobs.finish(job):
                raise StoreError("the lease of the import job was lost")
            return bool(ordered)

        if await self._store.write(work):
            self._wake()
        return False
