"""The intake alone, in a process of its own: the real listener, the real ``accept`` step, the real store; no workers.

Fault experiments kill it, starve it and cut its power. It starts in a fraction of the time of the daemon, and what it
stored stays as it was: one message, one job. ``--bug`` seeds a mistake that a harness must find, or it proves nothing.

``python -m tests.support.intake_node FOLDER [--bug NAME]`` prints its port. SIGTERM ends it with status 0; a store
that died ends it with 75, as it does the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from gateway.core.lifecycle import JobKind, State
from gateway.core.message import Inbound
from gateway.ingress.arriving import ArrivingMessage
from gateway.ingress.recipients import LocalRecipients
from gateway.ingress.smtp_server import SMTPListener
from gateway.ingress.spool import Spool
from gateway.observability.clock import SystemClock
from gateway.observability.log import get_log
from gateway.pipeline.accept import Accept
from gateway.settings import SMTPSettings
from gateway.store import sqlite_engine
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.store_samples import open_store

DOMAIN = "clinic.example"
RECIPIENT = f"inbox@{DOMAIN}"
SENDER = "lab@partner.example"
BUGS = ("ack-before-commit", "job-in-second-transaction", "synchronous-off", "success-after-eio", "half-a-message")
Step = Callable[[Inbound], Awaitable[str]]
_CLOCK = SystemClock()


def ack_before_commit(accept: Step) -> Step:
    """Says 250 and commits afterwards."""
    running = set()

    async def early(inbound: Inbound) -> str:
        task = asyncio.ensure_future(accept(inbound))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(0)
        return new_id(_CLOCK.now())

    return early


def job_in_second_transaction(store: SQLStore) -> Step:
    """Commits the message, says so, and commits the job that asks for its examination afterwards."""

    async def twice(inbound: Inbound) -> str:
        at, message_id = _CLOCK.now(), new_id(_CLOCK.now())

        def keep(rows: object) -> None:
            rows.messages.add_raw(message_id, at, inbound)  # type: ignore[attr-defined]
            rows.messages.set_state(message_id, State.RECEIVED, at)  # type: ignore[attr-defined]

        await store.write(keep)
        await store.write(lambda rows: rows.jobs.enqueue(JobKind.UNWRAP, message_id))
        return message_id

    return twice


def success_after_eio(accept: Step) -> Step:
    """Takes a failed commit for a success."""

    async def blind(inbound: Inbound) -> str:
        try:
            return await accept(inbound)
        except Exception:
            return new_id(_CLOCK.now())

    return blind


def half_a_message() -> None:
    """Takes what could not be written to the spool for written."""
    spill = ArrivingMessage._spill

    async def careless(self: ArrivingMessage) -> None:
        refuse, self._reader.refuse = self._reader.refuse, lambda problem: None  # type: ignore[method-assign]  # noqa: ARG005
        kept = self._file
        await spill(self)
        self._file = self._file or kept
        self._reader.refuse = refuse  # type: ignore[method-assign]

    ArrivingMessage._spill = careless  # type: ignore[method-assign]


def seeded(bug: str, store: SQLStore) -> Step:
    accept = Accept(store, _CLOCK, lambda: new_id(_CLOCK.now()), lambda: None)
    if bug == "ack-before-commit":
        return ack_before_commit(accept)
    if bug == "job-in-second-transaction":
        return job_in_second_transaction(store)
    if bug == "success-after-eio":
        return success_after_eio(accept)
    return accept


async def run(folder: Path, bug: str, settings: SMTPSettings) -> int:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    with open_store(folder, daemon=True) as store:
        spool = Spool(folder / "spool")
        spool.prepare()
        listener = SMTPListener(
            settings,
            accept=seeded(bug, store),
            is_local_recipient=LocalRecipients([DOMAIN], [RECIPIENT]),
            tls=None,
            log=get_log("smtp"),
            spool=spool,
        )
        await listener.start()
        print(listener.port, flush=True)
        dead, stopped = asyncio.ensure_future(store.wait_dead()), asyncio.ensure_future(stopping.wait())
        await asyncio.wait({dead, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await listener.close(2)
        status = 75 if store.dead else 0
        dead.cancel()
        stopped.cancel()
    return status


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bug", choices=BUGS, default="")
    parser.add_argument("--messages-per-connection", type=int, default=1000)
    chosen = parser.parse_args(arguments)
    if chosen.bug == "synchronous-off":
        sqlite_engine.PRAGMAS = tuple(
            (name, "OFF", 0) if name == "synchronous" else (name, value, expected)
            for name, value, expected in sqlite_engine.PRAGMAS
        )
    if chosen.bug == "half-a-message":
        half_a_message()
    settings = SMTPSettings(
        port=0, hostname="mail.clinic.example", max_messages_per_connection=chosen.messages_per_connection
    )
    try:
        return asyncio.run(run(chosen.folder, chosen.bug, settings))
    except OSError as exc:
        # Told apart from every other end: the fault was injected at the start already.
        return 74 if exc.errno == errno.EIO else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
