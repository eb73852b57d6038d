"""What the demonstration looks at afterwards: the verdicts, the inbox over IMAP, the files on the chart."""

from __future__ import annotations

import imaplib
import re
import ssl
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.cli.demo_content import FORGED_SUBJECT, GENUINE_SUBJECT
from gateway.cli.demo_mail import DemoError
from gateway.cli.demo_world import Practice, query

SETTLE_TIMEOUT_SECONDS = 60.0
IMAP_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.2
_FINAL_STATES = frozenset({"filed", "linked", "refused"})


def settled_messages(practice: Practice) -> tuple[dict[str, Any], dict[str, Any]]:
    """Wait until both messages have a verdict and the genuine one has been looked up; return (genuine, forged).

    Raises:
        DemoError: that takes too long, or there are other messages than these two.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    found: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        found = query(practice, "message", "list")
        if len(found) == 2 and all(message["state"] in {"linked", "refused"} for message in found):
            break
        time.sleep(POLL_SECONDS)
    # Two messages arrived, one after the other; the list has the newest first.
    if len(found) != 2 or not all(message["state"] in _FINAL_STATES for message in found):
        states = ", ".join(f"{message['state']} ({message['reason']})" for message in found) or "none"
        raise DemoError(f"two messages with a verdict were expected; there are: {states}")
    forged, genuine = found
    if genuine["subject"] != GENUINE_SUBJECT and forged["subject"] == GENUINE_SUBJECT:
        genuine, forged = forged, genuine
    if forged["subject"] not in {FORGED_SUBJECT, ""}:
        raise DemoError("the messages in the store are not the ones that were sent")
    return genuine, forged


class Inbox:
    """The practice's INBOX through Python's imaplib, over TLS from the first byte, certificate checked."""

    def __init__(self, practice: Practice) -> None:
        context = ssl.create_default_context(cafile=str(practice.tls_ca))
        self._client = imaplib.IMAP4_SSL(
            "localhost", practice.imaps_port, ssl_context=context, timeout=IMAP_TIMEOUT_SECONDS
        )
        self._client.login(practice.login, practice.password)
        self._client.select("INBOX")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.logout()

    def _uids(self) -> list[str]:
        _, data = self._client.uid("SEARCH", "ALL")
        return [uid.decode("ascii") for uid in (data[0] or b"").split()]

    def _fetch(self, uid: str, what: str) -> bytes:
        status, data = self._client.uid("FETCH", uid, f"({what})")
        for item in data:
            if status == "OK" and isinstance(item, tuple):
                return bytes(item[1])
        raise DemoError(f"the inbox does not give {what} of message {uid}")

    def _subject(self, uid: str) -> str:
        header = self._fetch(uid, "BODY.PEEK[HEADER.FIELDS (SUBJECT)]").decode("utf-8", "replace")
        found = re.search(r"(?i)subject:[ \t]*(.*?)\s*\Z", header, re.DOTALL)
        return found.group(1) if found else ""

    def subjects(self) -> list[str]:
        """Subjects by ascending UID."""
        return [self._subject(uid) for uid in self._uids()]

    def body(self, subject: str) -> bytes:
        """The whole message with that subject, exactly as IMAP gives it."""
        for uid in self._uids():
            if self._subject(uid) == subject:
                return self._fetch(uid, "BODY.PEEK[]")
        raise DemoError("the genuine message is not in the inbox")


def chart_files(practice: Practice, attachment: bytes) -> list[Path]:
    """Wait until the import hook has written the attachment; return every file below the charts folder.

    Raises:
        DemoError: it does not come, or no file holds exactly the attachment's bytes.
    """
    folder = practice.directory / "charts"
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        # The importer may still be renaming what it writes: a file that has gone again is looked for next time.
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if any(_holds(path, attachment) for path in files) and any(path.suffix == ".json" for path in files):
            return files
        time.sleep(POLL_SECONDS)
    raise DemoError("the C-CDA did not reach the patient's folder")


def _holds(path: Path, attachment: bytes) -> bool:
    try:
        return path.read_bytes() == attachment
    except OSError:
        return False
