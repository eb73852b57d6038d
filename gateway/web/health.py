"""Health and readiness over HTTP, for the operator and the supervisor of the process.

* ``/healthz``: 200 while the event loop turns.
* ``/readyz``: 200 when every check passes, else 503; JSON with the reason of each. An advisory check that finds
  something makes the answer ``degraded``, which is 200 all the same: mail goes on, and a supervisor that ended the
  process for it would do harm.
* ``/``: a page that says what this is (pages.py).

Guarantees: no PHI, no secret and no text of an exception in an answer; nothing is logged of a request; a check that
hangs is cut off and counts as failed, so an answer always comes. uvicorn runs inside the daemon's event loop: no
signal handlers, no access log, no exit of the process.

Failure modes: a port that cannot be opened raises ListenError.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from gateway.core.errors import ListenError
from gateway.observability.log import EventLog, get_log
from gateway.observability.os_errors import os_reason
from gateway.settings import HTTPSettings, IMAPSettings, POP3Settings
from gateway.web.pages import CONTENT_SECURITY_POLICY, home

Check = Callable[[], Awaitable[str | None]]
"""Returns None when all is well, else a reason: a fixed sentence for the operator, without PHI."""

CHECK_SECONDS = 5.0
_MAX_REQUESTS = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class _Readiness:
    """Runs the checks."""

    checks: Mapping[str, Check]
    seconds: float
    log: EventLog

    async def reasons(self) -> dict[str, str | None]:
        """The reason of each check by name, None where it passed. Never raises."""
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._run(name, check)) for name, check in self.checks.items()}
        return {name: task.result() for name, task in tasks.items()}

    async def _run(self, name: str, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self.seconds):
                return await check()
        except TimeoutError:
            return "the check took too long"
        except Exception as exc:  # noqa: BLE001 - a check that breaks is a check that fails
            self.log.fault("health_check_failed", exc, check=name)
            return "the check itself failed; the log says where"


def build_app(
    checks: Mapping[str, Check],
    *,
    advisories: Mapping[str, Check] | None = None,
    imap: IMAPSettings | None = None,
    pop3: POP3Settings | None = None,
    log: EventLog | None = None,
    check_seconds: float = CHECK_SECONDS,
) -> Starlette:
    """The ASGI application.

    Args:
        checks: what readiness means, by name (lower_snake_case).
        advisories: what a person should look at although mail goes on, by name; in the answer they are ``warnings``.
        imap: for the ports on the page.
        pop3: likewise.
        log: where failing checks are told.
        check_seconds: after so long a check counts as failed.
    """
    readiness = _Readiness(checks, check_seconds, log or get_log("web"))
    advice = _Readiness(advisories or {}, check_seconds, log or get_log("web"))
    page = home(imap or IMAPSettings(), pop3 or POP3Settings())

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_HEADERS)

    async def readyz(_request: Request) -> Response:
        async with asyncio.TaskGroup() as group:
            checking, advising = group.create_task(readiness.reasons()), group.create_task(advice.reasons())
        reasons, warnings = checking.result(), advising.result()
        ready = not any(reasons.values())
        body: dict[str, object] = {"status": _status(ready=ready, degraded=any(warnings.values()))}
        body["checks"] = {name: reason or "ok" for name, reason in reasons.items()}
        if warnings:
            body["warnings"] = {name: reason or "ok" for name, reason in warnings.items()}
        return JSONResponse(body, status_code=200 if ready else 503, headers=_HEADERS)

    async def index(_request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def plain_error(_request: Request, exc: Exception) -> Response:
        status = getattr(exc, "status_code", 500)
        # Starlette would repeat nothing either, but the headers belong on these answers as well.
        headers = {**_HEADERS, **(getattr(exc, "headers", None) or {})}
        return JSONResponse({"status": "error"}, status_code=status, headers=headers)

    return Starlette(
        routes=[Route("/", index), Route("/healthz", healthz), Route("/readyz", readyz)],
        exception_handlers={404: plain_error, 405: plain_error, 500: plain_error},
    )


def _status(*, ready: bool, degraded: bool) -> str:
    if not ready:
        return "not ready"
    return "degraded" if degraded else "ready"


class _EmbeddedServer(uvicorn.Server):
    """uvicorn without its claim on the signals of the process, which belong to the daemon, and with a start event."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class HealthServer:
    """Serves :func:`build_app` on the port of the settings; port 0 switches it off.

    Args:
        settings: the section ``[http]``.
        checks: as :func:`build_app`.
        advisories: as :func:`build_app`.
        imap: as :func:`build_app`.
        pop3: as :func:`build_app`.
        log: where events go.
    """

    def __init__(
        self,
        settings: HTTPSettings,
        checks: Mapping[str, Check],
        *,
        advisories: Mapping[str, Check] | None = None,
        imap: IMAPSettings | None = None,
        pop3: POP3Settings | None = None,
        log: EventLog | None = None,
    ) -> None:
        self._settings = settings
        self._log = log or get_log("web")
        self._app = build_app(checks, advisories=advisories, imap=imap, pop3=pop3, log=self._log)
        self._server: _EmbeddedServer | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0
        """The port that is open; 0 when none is."""

    async def start(self) -> None:
        """Open the port and serve.

        Raises:
            ListenError: the port cannot be opened.
        """
        if self._settings.port == 0:
            return
        listener = await self._bind()
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_REQUESTS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
        )
        self._server = _EmbeddedServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="health-server")
        ready = self._server.ready
        self._task.add_done_callback(lambda _: ready.set())
        await ready.wait()
        if self._task.done():
            await self._task
        self.port = int(listener.getsockname()[1])
        self._log.info("http_listening", port=self.port)

    async def _bind(self) -> socket.socket:
        # uvicorn would end the process when the port is taken.
        host, port = self._settings.host, self._settings.port
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=64)
        except OSError as exc:
            raise ListenError("HTTP", host, port, "http.port (0 switches it off)", os_reason(exc)) from exc

    async def close(self) -> None:
        """Close the port and end the requests under way."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None
        self.port = 0
