"""Acknowledgements: those that we give, and those that we are given (HL7 2.5.1 section 2.9, HL7-7).

Guarantees: what we answer names the segment and the field that is wrong and never repeats a value of the message, but
for what an acknowledgement consists of (control id, names of the applications). Pure.

Failure modes: HL7Error for an answer that is no acknowledgement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.core.hl7 import STANDARD, Delimiters, HL7Error, Message, read_message
from gateway.core.hl7_writing import write_message, write_segment

MAX_ANSWER_BYTES = 64 * 1024
MAX_ECHO_CHARS = 200
_VERSION = re.compile(r"2\.[1-9](?:\.[12])?\Z", re.ASCII)


_EVENT = re.compile(r"[A-Z][0-9A-Z]{2}\Z", re.ASCII)


class Code(StrEnum):
    """Table 0008."""

    ACCEPT = "AA"
    ERROR = "AE"
    """Not now: the same message may be sent again."""
    REJECT = "AR"
    """Not as it is."""
    COMMIT_ACCEPT = "CA"
    COMMIT_ERROR = "CE"
    COMMIT_REJECT = "CR"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an acknowledgement says."""

    code: Code
    control_id: str = ""
    """Of the message that is answered (MSA-2)."""
    error: HL7Error | None = None
    """What is wrong, unless it is accepted."""


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer takes from the message that it is for. All is empty when the message could not be read."""

    delimiters: Delimiters = STANDARD
    sending: tuple[str, str] = ("", "")
    receiving: tuple[str, str] = ("", "")
    event: str = ""
    control_id: str = ""
    processing_id: str = ""
    version: str = ""

    @classmethod
    def of(cls, message: Message) -> Head:
        """Read the MSH. Raises HL7Error: it has more parts than the limits allow."""
        msh = message.msh
        return cls(
            delimiters=message.delimiters,
            sending=(msh.text(3)[:MAX_ECHO_CHARS], msh.text(4)[:MAX_ECHO_CHARS]),
            receiving=(msh.text(5)[:MAX_ECHO_CHARS], msh.text(6)[:MAX_ECHO_CHARS]),
            event=event if _EVENT.match(event := msh.text(9, 2).strip().upper()) else "",
            control_id=msh.text(10)[:MAX_ECHO_CHARS],
            processing_id=msh.text(11)[:16],
            version=msh.text(12)[:16],
        )


def acknowledge(answer: Answer, head: Head, at: datetime, control_id: str) -> bytes:
    """Write an acknowledgement.

    Args:
        answer: what it says; its control id is that of ``head``.
        head: of the message that is answered.
        at: now.
        control_id: of the acknowledgement itself.
    """
    given = head.delimiters
    segments = [
        write_segment(
            "MSH",
            *head.receiving,
            *head.sending,
            at.strftime("%Y%m%d%H%M%S+0000"),
            "",
            ("ACK", head.event, "ACK") if head.event else "ACK",
            control_id,
            head.processing_id or "P",
            head.version if _VERSION.match(head.version) else "2.5.1",
            *([""] * 5),
            "UNICODE UTF-8",
            delimiters=given,
        ),
        write_segment("MSA", answer.code.value, head.control_id, delimiters=given),
    ]
    if answer.error is not None:
        segments.append(_error(answer.error, given))
    return write_message(segments)


def _error(error: HL7Error, delimiters: Delimiters) -> str:
    place = (error.segment, "1", str(error.field) if error.field else "") if error.segment else ""
    return write_segment(
        "ERR", "", place, (error.code, "", "HL70357"), "E", "", "", "", str(error), delimiters=delimiters
    )


def read_answer(octets: bytes) -> Answer:
    """Read an acknowledgement.

    Raises:
        HL7Error: it is none.
    """
    message = read_message(octets, max_bytes=MAX_ANSWER_BYTES)
    msa = message.first("MSA")
    if msa is None:
        raise HL7Error("the answer has no MSA segment", segment="MSA")
    try:
        code = Code(msa.text(1).strip().upper())
    except ValueError:
        raise HL7Error("the answer has an unknown code", segment="MSA", field=1) from None
    return Answer(code, msa.text(2).strip())
