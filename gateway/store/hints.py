"""Hints where there is one node only: there is nobody to tell, and nobody who tells."""

from __future__ import annotations

import asyncio

from gateway.ports import HintSink


class NoHints:
    """Implements :class:`gateway.ports.Hints` for a database that one daemon uses."""

    mailbox_poll_seconds = 2.0
    """Command-line tools change mailboxes beside the daemon, and have no other way to tell it."""

    def mailbox_changed(self, mailbox_id: int) -> None:
        """Nobody listens."""

    def jobs_wait(self) -> None:
        """Nobody listens."""

    async def run(self, sink: HintSink) -> None:  # noqa: ARG002 - nobody tells it anything
        """Wait until cancelled."""
        await asyncio.Event().wait()
