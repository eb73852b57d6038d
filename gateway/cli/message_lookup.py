"""Finding one message by the beginning of its id, and all that is known of it as one document.

The document never holds content: that is asked for by name (``message show --body``).
"""

from __future__ import annotations

import argparse
import contextlib
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.cli.message_report import repair_of
from gateway.cli.output import note
from gateway.core.errors import ConflictError, KeyUnavailableError, NotFoundError, RefusedError, StoreError
from gateway.core.lifecycle import State
from gateway.ports import UnitOfWork

if TYPE_CHECKING:
    from gateway.ports import SeenDocument
    from gateway.services import Services

MIN_PREFIX_CHARS = 4
MAX_LIST = 10_000
_PART = re.compile(r"[1-9]\d{0,3}(?:\.[1-9]\d{0,3}){0,30}\Z", re.ASCII)
_OF_EARLIER = ("at", "verdict", "reason", "detail", "hint", "delivered_to", "policy_version")
"""What is told of a verdict that another one has replaced."""


def list_size(text: str) -> int:
    """Parse the number after ``--limit``."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None
    if not 1 <= value <= MAX_LIST:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MAX_LIST}")
    return value


def part_number(text: str) -> str:
    """An IMAP part number, as an argument of a command."""
    if not _PART.match(text):
        raise argparse.ArgumentTypeError("must be the number of a part, as 2 or 2.1")
    return text


def find_message(tx: UnitOfWork, text: str, listing: str = "message list") -> str:
    """Return the whole id of the message whose id is, or begins with, the text.

    ``listing`` is the command that an error points to.

    Raises:
        NotFoundError: there is none.
        ConflictError: several begin so.
    """
    wanted = text.strip().upper()
    with contextlib.suppress(NotFoundError):
        tx.messages.state(wanted)
        return wanted
    if len(wanted) < MIN_PREFIX_CHARS:
        raise NotFoundError(
            f"give at least {MIN_PREFIX_CHARS} characters of the message's id; list them with: direct-gateway {listing}"
        )
    # Ids are compared as text, newest first: every id that begins with the prefix stands directly before the
    # first one that is greater than the prefix followed by the greatest character.
    found = [m.id for m in tx.messages.newest(limit=2, before=wanted + "\uffff") if m.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConflictError("several messages begin with this id; give more of it")
    raise NotFoundError(f"no message has this id; list them with: direct-gateway {listing}")


def describe(tx: UnitOfWork, message_id: str) -> dict[str, Any]:
    """Return what ``message show`` and ``quarantine show`` tell of a message. Raises NotFoundError."""
    raw = tx.messages.raw(message_id)
    verdicts = tx.messages.verdicts(message_id)
    newest = verdicts[-1] if verdicts else {}
    kept = tx.kept.get(message_id)
    verdict = {name: value for name, value in newest.items() if name != "at"}
    return {
        "id": raw.id,
        "state": str(tx.messages.state(message_id)),
        "received_at": raw.received_at,
        "judged_at": newest.get("at"),
        "source": str(raw.source),
        "peer": raw.peer,
        "mail_from": raw.mail_from,
        "recipients": list(raw.recipients),
        "raw_size_bytes": len(raw.body),
        "raw_sha256": raw.sha256,
        # Of one that a mail client put here; what it says of itself nobody has verified.
        "kept": None
        if kept is None
        else {
            "by": kept.login,
            "claimed_sender": kept.claimed_sender,
            "subject": kept.subject,
            "message_id": kept.rfc822_message_id,
        },
        "verdict": verdict,
        "repair": repair_of(verdict),
        "earlier_verdicts": [{name: one[name] for name in _OF_EARLIER} for one in verdicts[:-1]],
        "links": [asdict(link) for link in tx.links.for_message(message_id)],
        # Of this message and its copies: who took them back, when and why.
        "undone_links": [asdict(one) for one in tx.links.history(message_id) if one.undone is not None],
        **_standing(tx, message_id),
        "rechecks": tx.messages.rechecks(message_id),
    }


async def seen_elsewhere(services: Services, message_id: str) -> list[SeenDocument]:
    """Where the same is on a chart by another message (S47); nothing for a message that is not filed.

    What cannot be read is told in words: everything else that is known of the message is shown all the same.
    """
    try:
        return await services.charts.seen_elsewhere(message_id)
    except RefusedError:
        return []
    except (StoreError, KeyUnavailableError) as exc:
        note(f"note: whether the same is on a chart by another message is not known: {exc}")
        return []


def _standing(tx: UnitOfWork, message_id: str) -> dict[str, Any]:
    """What mail clients see of a filed message besides itself, and who has looked at it."""
    if tx.messages.state(message_id) not in {State.FILED, State.LINKED}:
        return {"view": "", "keywords": [], "reviews": []}
    standing = tx.standings.of(message_id)
    return {
        "view": standing.view.value,
        "keywords": sorted(standing.keywords),
        "reviews": [asdict(review) for review in tx.reviews.for_message(message_id)],
    }
