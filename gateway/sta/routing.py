"""Does the envelope agree with the signed headers? (AS-44, AS-45, AS-46, AS-89)

Somebody who cannot forge a signature can still send a genuine message on to other people, or bounce it back under
another reverse path. Version 1.3 of the Applicability Statement therefore ties the envelope to the signed headers.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.address import normalise
from gateway.core.errors import InputError, RejectionError
from gateway.core.message import Envelope
from gateway.core.verdict import Reason
from gateway.sta.evidence import Evidence
from gateway.sta.inner_message import InnerMessage


def check_routing(inner: InnerMessage, envelope: Envelope, evidence: Evidence) -> None:
    """Check both halves of the envelope.

    Raises:
        RejectionError: ROUTING_TAMPER, or MALFORMED for a Sender field that cannot be read.
    """
    _check_reverse_path(inner, envelope.mail_from, evidence)
    _check_forward_paths(inner, envelope.recipients, evidence)


def _check_reverse_path(inner: InnerMessage, mail_from: str | None, evidence: Evidence) -> None:
    if mail_from is None:
        evidence.skipped("reverse path", "there is no envelope: MAIL FROM could not be compared")
        return
    if inner.is_notification:
        # Systems answer with the null sender or with a sender of their own; From is bound to the signer all the same.
        evidence.noted("reverse path", "not compared for a delivery or disposition notification")
        return
    if mail_from == "":
        raise RejectionError(Reason.ROUTING_TAMPER, "the null sender is only for notifications")
    sender_field = inner.sender_field
    allowed = {inner.sender.normalised} | ({sender_field.normalised} if sender_field else set())
    if comparable(mail_from) not in allowed:
        raise RejectionError(Reason.ROUTING_TAMPER, "MAIL FROM is neither the signed From nor the signed Sender")
    evidence.passed("reverse path", "MAIL FROM is the signed From or Sender")


def _check_forward_paths(inner: InnerMessage, recipients: Sequence[str], evidence: Evidence) -> None:
    if not recipients:
        evidence.skipped("forward paths", "there is no envelope: RCPT TO could not be compared")
        return
    named = set(inner.recipients)
    strangers = sum(comparable(recipient) not in named for recipient in recipients)
    if strangers:
        raise RejectionError(
            Reason.ROUTING_TAMPER, f"{strangers} of {len(recipients)} RCPT TO are in neither the signed To nor Cc"
        )
    evidence.passed("forward paths", "every RCPT TO is in the signed To or Cc")


def comparable(address: str) -> str:
    """The normalised address; what cannot be one is returned as it is and equals nothing."""
    try:
        return normalise(address.strip().removeprefix("<").removesuffix(">"))
    except InputError:
        return "\x00" + address
