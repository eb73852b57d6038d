"""``audit verify``: the command around :mod:`gateway.store.audit_verify`. Status 1 when anything does not hold."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.output import clean, counted, note, out, print_json
from gateway.cli.session import FINDINGS, OK, settings_of
from gateway.core.errors import ConfigurationError, InputError, TamperedError
from gateway.core.tree_head import MAX_DOCUMENT_CHARS, TreeHead, from_text

if TYPE_CHECKING:
    from gateway.keys.head_signing import HeadVerifier
    from gateway.ports import BodySealer
    from gateway.settings import Settings
    from gateway.store.audit_verify import LogReport

_PROGRESS_SECONDS = 0.5


def verify(args: argparse.Namespace) -> int:
    """Run the command."""
    from gateway.store.audit_verify import Witnesses, verify_store  # noqa: PLC0415 - see gateway.cli.session
    from gateway.store.opening import missing_tables  # noqa: PLC0415 - the same

    settings = settings_of(args)
    against = [read_head(path) for path in args.against]
    check = signature_check(known_keys(settings, args.public_key))
    if missing := missing_tables(settings.store):
        raise ConfigurationError(f"store.url: {missing}")
    sealer = None if args.bodies == "none" else _sealer(settings)
    witnesses = Witnesses(check, against, sealer, every_part=args.bodies == "all")
    report = verify_store(settings.store, witnesses, _progress())
    if args.json:
        print_json(_document(report, against))
    else:
        _print(report, against)
    return FINDINGS if report.findings else OK


def _sealer(settings: Settings) -> BodySealer | None:
    """What opens the bodies, when the settings say where the keys are."""
    from gateway.keys.body_keys import body_sealer  # noqa: PLC0415 - heavy

    try:
        return body_sealer(settings)
    except ConfigurationError as exc:
        note(f"note: bodies are not opened: {exc}")
        return None


def read_head(path: Path) -> TreeHead:
    """Read a head from a file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return from_text(file.read(MAX_DOCUMENT_CHARS + 1))
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot read {path}: {getattr(exc, 'strerror', None) or 'it is not text'}") from exc
    except InputError as exc:
        raise InputError(f"{path}: {exc}") from exc


def known_keys(settings: Settings, files: list[Path]) -> list[HeadVerifier]:
    """The keys that may have signed: those of the files, or else our own.

    Raises:
        InputError: a file is no public key. ConfigurationError: none is named, and our own cannot be read.
    """
    from gateway.keys.head_signing import load_public_key, load_signing_key, public_file_of  # noqa: PLC0415 - heavy

    if files:
        return [load_public_key(path) for path in files]
    private = settings.audit.signing_key_file
    public = public_file_of(private)
    if private.exists():
        return [load_signing_key(private)]
    return [load_public_key(public)] if public.exists() else []


def signature_check(keys: list[HeadVerifier]) -> Callable[[TreeHead], None]:
    """What checks a head's signature against the keys; it raises TamperedError."""
    by_id = {key.key_id: key for key in keys}

    def check(head: TreeHead) -> None:
        if head.key_id not in by_id:
            known = "none of the known keys" if by_id else "a key that is not here (name it with --public-key)"
            raise TamperedError(f"it is signed by {known}: {head.key_id[:16]}")
        by_id[head.key_id].check(head)

    return check


def _progress() -> Callable[[int, int], None]:
    """Tells a person at a terminal how far it is."""
    begun = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if sys.stderr.isatty() and now - last > _PROGRESS_SECONDS:
            last = now
            rate = done / (now - begun)
            note(f"{done} of {total} events, {rate:.0f} a second, {(total - done) / max(rate, 1):.0f} s to go")

    return tell


def _print(report: LogReport, against: list[TreeHead]) -> None:
    for finding in report.findings:
        out(clean(str(finding)))
    if report.more_findings:
        out(f"... and {report.more_findings} more")
    parts = ((report.events, "event"), (report.rows, "row"), (report.heads, "signed head"))
    looked = ", ".join(counted(number, noun) for number, noun in parts) + " looked at"
    if report.findings:
        out(f"the log does NOT hold ({looked})")
        return
    out(f"the log holds ({looked})")
    for line in _bodies(report):
        note(line)
    if not against:
        note("note: only a head that was kept elsewhere shows that the end was not cut off: --against HEAD.json")
    for head in against:
        out(f"it extends the head of {head.size} events of {head.at:%Y-%m-%d %H:%M:%SZ}")


def _bodies(report: LogReport) -> list[str]:
    """What was opened of the bodies, and what was not and why, in words."""
    looked = report.bodies
    if looked is None:
        return ["note: no body was opened; the log does not show that their keys are the right ones"]
    opened = f"{counted(looked.bodies, 'body', 'bodies')} of {counted(looked.messages, 'message')} opened"
    told = [f"{opened}, {looked.whole} of them to the end"]
    if looked.without_key:
        why = f": {looked.trouble}" if looked.trouble else ""
        told.append(f"note: {counted(looked.without_key, 'message')} not opened: the keys are not at hand{why}")
    if looked.in_bucket:
        told.append(f"note: {counted(looked.in_bucket, 'body', 'bodies')} in the bucket not opened")
    return told


def _document(report: LogReport, against: list[TreeHead]) -> dict[str, Any]:
    return {
        "holds": not report.findings,
        "events": report.events,
        "rows": report.rows,
        "heads": report.heads,
        "leaves": report.leaves,
        "against": [{"size": head.size, "at": head.at, "root": head.root.hex()} for head in against],
        "findings": [{"node": f.node or None, "seq": f.seq or None, "what": f.what} for f in report.findings],
        "more_findings": report.more_findings,
        "bodies": None if report.bodies is None else asdict(report.bodies),
    }
