"""``health``: asks the running gateway whether it is ready. Docker and other supervisors go by its exit status."""

from __future__ import annotations

import argparse
import http.client
import json
from typing import Any

from gateway.cli.output import clean, note, out, print_json
from gateway.cli.session import FINDINGS, MISUSE, OK, SubCommands, settings_of

HEALTH_TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 65_536
_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def register(commands: SubCommands) -> None:
    """Add the command."""
    health = commands.add(
        "health",
        "ask the running gateway whether it is ready",
        "Ask /readyz of the running gateway. Status 0: ready; 1: not ready, or nothing answers.",
        "health --config clinic/gateway.toml",
        run=_health,
    )
    health.add_argument("--json", action="store_true", help="print the answer as JSON")


def _health(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    host, port = settings.http.host, settings.http.port
    if not port:
        note("error: http.port is 0: the gateway answers no health question; set a port")
        return MISUSE
    connection = http.client.HTTPConnection(_EVERY_INTERFACE.get(host, host), port, timeout=HEALTH_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as exc:
        return _report(args, ready=False, text=f"no answer from {host} port {port} ({type(exc).__name__})")
    finally:
        connection.close()
    return _report(args, ready=response.status == http.HTTPStatus.OK, text=body.strip())


def _report(args: argparse.Namespace, *, ready: bool, text: str) -> int:
    answer: Any
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = text
    if args.json:
        print_json({"ready": ready, "answer": answer})
        return OK if ready else FINDINGS
    checks = answer.get("checks") if isinstance(answer, dict) else None
    word = "ready" if ready else "not ready"
    if isinstance(checks, dict):
        out(word)
        width = max((len(name) for name in checks), default=0) + 1
        for name, outcome in checks.items():
            label = clean(name.replace("_", " ")) + ":"
            out(f"  {label.ljust(width)} {clean(str(outcome))}")
    else:
        # Some other program may have the port: what it says is shown as it is, on one line.
        out(f"{word}: {clean(text)}")
    return OK if ready else FINDINGS
