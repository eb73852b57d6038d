"""``make demo``: the whole main job, shown with two practices that exist only for the demonstration.

A receiving practice and a separate sending practice, each with its own certificate authority; the real daemon in
a process of its own; a genuine Direct message with a C-CDA and a forged one, both over SMTP. What is shown is
also checked: the exit status is 0 only when everything came out right, and a sentence says what did not.

Every step uses the ``direct-gateway`` command as a person would; the command lines are printed.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from gateway.cli.demo_checks import Inbox, chart_files, settled_messages
from gateway.cli.demo_content import (
    FORGED_SUBJECT,
    FORGER,
    GENUINE_SUBJECT,
    PATIENT_ID,
    RECEIVER,
    RECEIVER_DOMAIN,
    SENDER,
    SENDER_DOMAIN,
    ccda,
    forged_message,
    genuine_message,
    patients_ndjson,
)
from gateway.cli.demo_mail import DemoError, Outer, seal, send
from gateway.cli.demo_world import Daemon, Practice, Screen, make_practice, run_command, trust
from gateway.core.lifecycle import State
from gateway.core.verdict import Reason
from gateway.observability.clock import SystemClock

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; return 0 only when all of it came out right."""
    parser = argparse.ArgumentParser(
        prog="python -m gateway.cli.demo",
        description="Shows a Direct message travel from one practice to another, and a forged one refused.",
    )
    parser.add_argument("--once", action="store_true", help="end by itself instead of waiting for Ctrl-C")
    parser.add_argument(
        "--dir", metavar="DIR", type=Path, help="a new folder to keep the files in (default: temporary)"
    )
    args = parser.parse_args(argv)
    # Both end the demonstration in order, also where a shell started it in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    screen = Screen(sys.stdout)
    try:
        with _folder(args.dir) as folder:
            return _demonstrate(folder, screen, once=args.once, kept=args.dir is not None)
    except DemoError as exc:
        screen.failure(str(exc))
        return 1
    except KeyboardInterrupt:
        screen.line("\nstopped")
        return INTERRUPTED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="direct-gateway-demo-") as name:
            yield Path(name)
        return
    if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
        raise DemoError(f"{wanted} exists already; name a new or an empty folder")
    wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield wanted.resolve()


def _demonstrate(folder: Path, screen: Screen, *, once: bool, kept: bool) -> int:
    screen.title("direct-gateway: a Direct message, from another system's openssl to the patient's chart")
    screen.step("Two practices, each with its own certificate authority")
    clinic = make_practice(screen, folder / "lakeside-clinic", RECEIVER_DOMAIN, [RECEIVER])
    sender = make_practice(screen, folder / "health-record", SENDER_DOMAIN, [SENDER, FORGER])
    trust(clinic, sender)
    screen.check("the clinic trusts the sender's authority: its anchor is in certs/anchors")
    screen.step("Three invented patients; one documents the Direct address of her health record")
    patients = folder / "patients.ndjson"
    patients.write_text(patients_ndjson(), encoding="utf-8")
    screen.command_output(run_command(screen, clinic, "patient", "import", str(patients)))
    screen.step("The daemon starts")
    with Daemon(clinic, screen):
        inner = _send_both(clinic, sender, screen)
        _examine(clinic, inner, screen)
        screen.title("Everything came out right.")
        if once:
            return 0
        _explain(clinic, screen)
        then = f"The files stay in {folder}." if kept else "The files are removed then."
        screen.line(f"Press Ctrl-C to stop. {then}")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    screen.line("\nstopped")
    return 0


def _send_both(clinic: Practice, sender: Practice, screen: Screen) -> bytes:
    """Send the genuine and the forged message; return the bytes that the genuine sender signed."""
    at = SystemClock().now()
    to = clinic.identity(RECEIVER).certificate
    screen.step("A genuine message with a C-CDA, signed by Ada Quimby's key and encrypted to the clinic")
    genuine = Outer(SENDER, RECEIVER, f"<genuine.1@{SENDER_DOMAIN}>", at)
    inner = genuine_message(at, genuine.message_id)
    sealed = seal(inner, genuine, sender.identity(SENDER), to)
    screen.check(f"signed and encrypted by {sealed.made_by}: {len(sealed.raw)} bytes")
    reply = send(sealed.raw, SENDER, RECEIVER, clinic.smtp_port, clinic.tls_ca)
    screen.check(f"sent over SMTP with STARTTLS; the gateway said: {reply}")
    screen.step("A forged message: it says From Ada Quimby, but another key of the same authority signed it")
    forged = Outer(SENDER, RECEIVER, f"<forged.1@{SENDER_DOMAIN}>", at)
    sealed = seal(forged_message(at, forged.message_id), forged, sender.identity(FORGER), to)
    reply = send(sealed.raw, SENDER, RECEIVER, clinic.smtp_port, clinic.tls_ca)
    screen.check(f"sent; the gateway said: {reply} (a forger learns nothing)")
    return inner


def _examine(clinic: Practice, inner: bytes, screen: Screen) -> None:
    screen.step("Both verdicts")
    genuine, forged = settled_messages(clinic)
    screen.command_output(run_command(screen, clinic, "message", "list"))
    screen.command_output(run_command(screen, clinic, "message", "show", forged["id"]))
    _require(genuine["reason"] == Reason.OK, f"the genuine message was refused: {genuine['reason']}")
    screen.check(f"the genuine message is accepted: signed by {genuine['sender']}, trusted by {RECEIVER}")
    outcome = (forged["state"], forged["reason"])
    _require(
        outcome == (State.REFUSED, Reason.BINDING_MISMATCH),
        f"the forged message should be refused as {Reason.BINDING_MISMATCH}; it is {outcome[0]}: {outcome[1]}",
    )
    screen.check(f"the forged message is in quarantine, reason {forged['reason']}")
    screen.step("The inbox, as a mail client sees it over IMAP with TLS")
    with Inbox(clinic) as inbox:
        subjects = inbox.subjects()
        for subject in subjects:
            screen.line(f"      INBOX  {subject}")
        _require(FORGED_SUBJECT not in subjects, "the forged message is in the inbox")
        _require(
            subjects == [GENUINE_SUBJECT], f"the inbox should hold the genuine message once; it has {len(subjects)}"
        )
        screen.check("the genuine message is there, once; the forged one is not")
        fetched = inbox.body(GENUINE_SUBJECT)
    _require(fetched == inner, "the message in the inbox differs from what was signed")
    screen.check(f"its {len(fetched)} bytes are identical to the bytes that were signed")
    screen.step("The chart")
    screen.command_output(run_command(screen, clinic, "link", "list", PATIENT_ID))
    _require(genuine["patient_ids"] == [PATIENT_ID], "the genuine message is not on the patient's chart")
    _require(forged["patient_ids"] == [], "the forged message is on a chart")
    screen.check("linked automatically: the verified sender is exactly one patient's documented address")
    files = chart_files(clinic, ccda())
    for path in files:
        screen.line(f"      {path.relative_to(clinic.directory)}")
    screen.check("the import hook wrote the message, its C-CDA and a record into the patient's folder")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DemoError(otherwise)


def _explain(clinic: Practice, screen: Screen) -> None:
    screen.title("Look at it with your own mail client")
    for name, value in (
        ("server", "localhost"),
        ("IMAP port", f"{clinic.imaps_port} with SSL/TLS, or {clinic.imap_port} with STARTTLS"),
        ("user name", clinic.login),
        ("password", clinic.password),
        ("authority", f"{clinic.tls_ca} (the client must trust it, or you accept the certificate once)"),
    ):
        screen.line(f"  {name:<10} {value}")
    screen.line("\nOr from a shell:")
    screen.line(
        f"  curl --cacert {shlex.quote(str(clinic.tls_ca))} -u '{clinic.login}:{clinic.password}' "
        f"'imaps://localhost:{clinic.imaps_port}/INBOX;UID=1'"
    )
    screen.line(f"  .venv/bin/direct-gateway --config {shlex.quote(str(clinic.config))} message list\n")


if __name__ == "__main__":
    sys.exit(main())
