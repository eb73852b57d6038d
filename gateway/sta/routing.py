"""Does the envelope agree with the signed headers? (AS-44, AS-45, AS-46, AS-89)

Somebody who cannot forge a signature can still send a genuine message on to other people, or bounce it back under
another reverse path. Version 1.3 of the Applicability Statement therefore ties the envelope to the signed headers.

Mail that was fetched has lost its envelope. No standard says what takes its place, so the operator does
(:class:`gateway.core.trust.FetchedMail`), and the evidence says each time what was compared with what.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.errors import InputError, RejectionError
from gateway.core.message import Envelope
from gateway.core.mime.headers import HeaderBlock
from gateway.core.trust import FetchedMail
from gateway.core.verdict import Reason
from gateway.sta.domain_names import parse_any_address
from gateway.sta.evidence import Evidence
from gateway.sta.identity import named_recipients, the_sender
from gateway.sta.mime.inner_message import InnerMessage

_DELIVERED_TO = (b"delivered-to", b"x-original-to", b"envelope-to")
"""Written by the mail server that filed the message: qmail and Dovecot, Postfix, Exim."""


def traced_envelope(outer: HeaderBlock, envelope: Envelope, rule: FetchedMail) -> Envelope:
    """The envelope as our own upstream wrote it down, when there is none and the operator trusts its trace fields.

    A mail server writes them above everything that it received, so that only the first of each counts: what a
    stranger put into his message stands below. Without them the envelope stays as it is.
    """
    if envelope.mail_from is not None or rule is not FetchedMail.TRACE:
        return envelope
    path = outer.text(b"return-path").strip()
    delivered = next((text for name in _DELIVERED_TO if (text := outer.text(name).strip())), "")
    recipients = envelope.recipients or ((delivered,) if delivered else ())
    if not path:
        return Envelope(None, recipients)
    return Envelope(path.removeprefix("<").removesuffix(">").strip(), recipients)


def check_routing(
    inner: InnerMessage, outer: HeaderBlock, envelope: Envelope, evidence: Evidence, rule: FetchedMail
) -> None:
    """Check both halves of the envelope, or what takes its place.

    Raises:
        RejectionError: ROUTING_TAMPER, or MALFORMED for a From or Sender field that cannot be read.
    """
    if envelope.mail_from is not None:
        _check_reverse_path(inner, envelope.mail_from, evidence)
    elif rule is FetchedMail.UNCHECKED:
        evidence.skipped("reverse path", "there is no envelope: MAIL FROM could not be compared")
    else:
        _check_outer_sender(inner, outer, evidence)
    if envelope.recipients:
        _check_forward_paths(inner, envelope.recipients, evidence)
    elif rule is FetchedMail.UNCHECKED:
        evidence.skipped("forward paths", "there is no envelope: RCPT TO could not be compared")
    else:
        _check_outer_recipients(inner, outer, evidence)


def _check_reverse_path(inner: InnerMessage, mail_from: str, evidence: Evidence) -> None:
    if inner.is_notification:
        # Systems answer with the null sender or with a sender of their own; From is bound to the signer all the same.
        evidence.noted("reverse path", "not compared for a delivery or disposition notification")
        return
    if mail_from == "":
        raise RejectionError(Reason.ROUTING_TAMPER, "the null sender is only for notifications")
    if comparable(mail_from) not in _signed_senders(inner):
        raise RejectionError(Reason.ROUTING_TAMPER, "MAIL FROM is neither the signed From nor the signed Sender")
    evidence.passed("reverse path", "MAIL FROM is the signed From or Sender")


def _check_outer_sender(inner: InnerMessage, outer: HeaderBlock, evidence: Evidence) -> None:
    if the_sender(outer).normalised not in _signed_senders(inner):
        raise RejectionError(Reason.ROUTING_TAMPER, "the outer From is neither the signed From nor the signed Sender")
    evidence.noted("reverse path", "there is no envelope; the outer From, which nobody vouches for, agrees")


def _signed_senders(inner: InnerMessage) -> set[str]:
    sender_field = inner.sender_field
    return {inner.sender.normalised} | ({sender_field.normalised} if sender_field else set())


def _check_forward_paths(inner: InnerMessage, recipients: Sequence[str], evidence: Evidence) -> None:
    named = set(inner.recipients)
    strangers = sum(comparable(recipient) not in named for recipient in recipients)
    if strangers:
        raise RejectionError(
            Reason.ROUTING_TAMPER, f"{strangers} of {len(recipients)} RCPT TO are in neither the signed To nor Cc"
        )
    evidence.passed("forward paths", "every RCPT TO is in the signed To or Cc")


def _check_outer_recipients(inner: InnerMessage, outer: HeaderBlock, evidence: Evidence) -> None:
    named, shown = set(inner.recipients), named_recipients(outer)
    strangers = sum(recipient not in named for recipient in shown)
    if strangers:
        raise RejectionError(
            Reason.ROUTING_TAMPER, f"{strangers} of {len(shown)} outer recipients are in neither the signed To nor Cc"
        )
    evidence.noted("forward paths", "there is no envelope; the outer To and Cc, which nobody vouches for, agree")


def comparable(address: str) -> str:
    """The normalised address; what cannot be one is returned as it is and equals nothing."""
    try:
        return str(parse_any_address(address.strip().removeprefix("<").removesuffix(">")))
    except InputError:
        return "\x00" + address
