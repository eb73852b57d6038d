"""``health``: asks the running gateway whether it is ready, and whether something waits for a person.

A supervisor that ends what is not healthy asks with ``--ready``: a gateway that is ``degraded`` takes and delivers
mail, and to end it for an alarm about trust would stop that.
"""

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
        "Ask /readyz of the running gateway. Status 0: ready; 1: not ready, or nothing answers, or degraded: mail\n"
        "goes on, but something waits for a person (an alarm of a trust bundle, a reload that failed); it says what.",
        "health --config clinic/gateway.toml\nhealth --ready",
        run=_health,
    )
    health.add_argument(
        "--ready", action="store_true", help="status 0 when degraded as well: for supervisors that restart"
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
    told = answer if isinstance(answer, dict) else {}
    degraded = ready and told.get("status") == "degraded"
    status = OK if ready and (args.ready or not degraded) else FINDINGS
    if args.json:
        print_json({"ready": ready, **({"degraded": True} if degraded else {}), "answer": answer})
        return status
    word = "ready" if ready else "not ready"
    if isinstance(told.get("checks"), dict):
        out("degraded: mail goes on, but something waits for you" if degraded else word)
        _print_checks({**told["checks"], **(told["warnings"] if isinstance(told.get("warnings"), dict) else {})})
    else:
        # Some other program may have the port: what it says is shown as it is, on one line.
        out(f"{word}: {clean(text)}")
    return status


def _print_checks(checks: dict[str, Any]) -> None:
    width = max((len(name) for name in checks), default=0) + 1
    for name, outcome in checks.items():
        label = clean(name.replace("_", " ")) + ":"
        out(f"  {label.ljust(width)} {clean(str(outcome))}")
