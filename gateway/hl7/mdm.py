r"""A linked message as an MDM message: a document of the chart with its content (HL7 2.5.1 chapter 9, HL7-9). Pure.

The message is a function of the link and of what was mailed alone: a retry is the same octets again, with the same
MSH-10. TXA-12 is the id of the link: whoever files by it files it once. Text and names of others stand in it escaped;
no subject, sender or file name can begin a field, a segment or a frame.

The patient is named by his medical record number (or by his id, where the settings say so), and never by a number of
another kind: the receiver would file under whoever has it there.

A retraction is a T11, which cancels the document of the same TXA-12 and repeats nothing of it. Receivers that know only
changes of status get a T04 instead, if the settings say so. T10 would need another document to take its place.

Failure modes: ImportRefusedError for what cannot be sent: the patient has no such number, or it is too large.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from gateway.core.errors import ImportRefusedError
from gateway.core.hl7_writing import Text, Verbatim, one_line, write_message, write_segment
from gateway.ports import ImportRequest, MessagePart, Patient, Retraction

APPLICATION = "DIRECTGW"
VERSION = "2.5.1"
MAX_TITLE_CHARS = 200
MAX_NAME_CHARS = 150
CONTROL_ID_CHARS = 20
"""What MSH-10 may have in 2.5.1: an engine that cuts it off would acknowledge another message."""
T11, T04 = "T11", "T04"
_TYPE = re.compile(r"([a-z0-9][a-z0-9!#$&^_.+-]{0,63})/([a-z0-9][a-z0-9!#$&^_.+-]{0,63})\Z", re.ASCII)
_SEXES = {"male": "M", "female": "F", "other": "O", "unknown": "U"}
_CDA_LOOKED_AT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class MDMRules:
    """What the settings of the target say."""

    sending_facility: str
    receiving_application: str
    receiving_facility: str
    assigning_authority: str
    """Whose the number of PID-3 is."""
    uses_mrn: bool = True
    """False: PID-3 is the id of the patient index."""
    processing_id: str = "P"
    document_type: str = "CN"
    """TXA-2, table 0270."""
    retract_event: str = T11
    max_bytes: int = 64 * 1024 * 1024


def control_id(key: str) -> str:
    """MSH-10 for an idempotency key: the same for the same key, of 100 bits."""
    return base64.b32encode(hashlib.sha256(key.encode()).digest()).decode("ascii")[:CONTROL_ID_CHARS]


def import_message(request: ImportRequest, rules: MDMRules) -> bytes:
    """The MDM^T02 of a link.

    Raises:
        ImportRefusedError: the patient has no number of the kind that is sent, or the message is too large.
    """
    large = sum(len(part.data) for part in request.parts) * 4 // 3 + len(request.text)
    if large > rules.max_bytes:
        raise ImportRefusedError("the message is larger than the receiver takes", reason="too_large")
    head = _head(request, rules, "T02", control_id(request.link.id), request.link.linked_at)
    content = [
        write_segment("OBX", "1", "TX", ("BODY", "Message text"), "", Text(request.text), *_final()),
        *(_attachment(number, part) for number, part in enumerate(_attachments(request), start=2)),
    ]
    return write_message([*head, _txa(request, rules, availability="AV"), *content])


def retraction_message(retraction: Retraction, rules: MDMRules) -> bytes:
    """The T11 (or T04) that takes the document back.

    Raises:
        ImportRefusedError: the patient has no number of the kind that is sent.
    """
    request, event = retraction.request, rules.retract_event
    head = _head(request, rules, event, control_id(retraction.key), retraction.retracted_at)
    segments = [*head, _txa(request, rules, availability="CA")]
    if event == T04:
        reason = Text(f"Entered in error: {retraction.reason}")
        segments.append(write_segment("OBX", "1", "TX", ("BODY", "Message text"), "", reason, *_final("W")))
    return write_message(segments)


def _head(request: ImportRequest, rules: MDMRules, event: str, control: str, at: datetime) -> list[str]:
    structure = "MDM_T01" if event == T11 else "MDM_T02"
    return [
        write_segment(
            "MSH",
            APPLICATION,
            rules.sending_facility,
            rules.receiving_application,
            rules.receiving_facility,
            _time(at),
            "",
            ("MDM", event, structure),
            control,
            rules.processing_id,
            VERSION,
            *([""] * 5),
            "UNICODE UTF-8",
        ),
        write_segment("EVN", event, _time(at)),
        _pid(request.patient, rules),
        write_segment("PV1", "1", "U"),
    ]


def _pid(patient: Patient, rules: MDMRules) -> str:
    number, kind = (patient.mrn, "MR") if rules.uses_mrn else (patient.id, "PI")
    if not number.strip():
        raise ImportRefusedError(
            "the patient has no medical record number, and the receiver needs one", reason="no_mrn"
        )
    birth = "" if patient.birth_date is None else patient.birth_date.strftime("%Y%m%d").zfill(8)
    return write_segment(
        "PID",
        "1",
        "",
        (number, "", "", rules.assigning_authority, kind),
        "",
        (patient.family, patient.given),
        "",
        birth,
        _SEXES.get(patient.sex, ""),
    )


def _txa(request: ImportRequest, rules: MDMRules, *, availability: str) -> str:
    """TXA-2 and -12 are what a receiver files by; TXA-17 is authenticated, TXA-19 whether it may be used."""
    title = one_line(request.subject)[:MAX_TITLE_CHARS] or "Direct message"
    return write_segment(
        "TXA",
        "1",
        (rules.document_type, title),
        "TX",
        _time(request.sent_at),
        "",
        _time(request.received_at),
        "",
        "",
        request.sender,
        "",
        "",
        (request.link.id, APPLICATION),
        *([""] * 4),
        "AU",
        "",
        availability,
    )


def _attachments(request: ImportRequest) -> list[MessagePart]:
    """Every part but the one that is the text of the message."""
    body = request.text.split()
    return [part for part in request.parts if not (_is_nameless_text(part) and _words(part.data) == body)]


def _is_nameless_text(part: MessagePart) -> bool:
    return part.content_type == "text/plain" and not part.filename


def _words(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").split()


def _attachment(number: int, part: MessagePart) -> str:
    kind, subtype = _kind(part)
    code = "CCD" if _is_cda(part) else "ATT"
    name = one_line(part.filename)[:MAX_NAME_CHARS] or "Attachment"
    data = Verbatim(base64.b64encode(part.data).decode("ascii"))
    return write_segment("OBX", str(number), "ED", (code, name), "", ("", kind, subtype, "Base64", data), *_final())


def _kind(part: MessagePart) -> tuple[str, str]:
    """ED-2 and ED-3. A C-CDA is text/xml, whatever its sender called it."""
    if _is_cda(part):
        return "text", "xml"
    found = _TYPE.match(part.content_type.lower())
    return (found[1], found[2]) if found else ("application", "octet-stream")


def _is_cda(part: MessagePart) -> bool:
    start = part.data[:_CDA_LOOKED_AT_BYTES]
    return b"ClinicalDocument" in start and b"urn:hl7-org:v3" in start


def _final(status: str = "F") -> tuple[str, ...]:
    """OBX-6 to OBX-11: what follows the value."""
    return ("", "", "", "", "", status)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y%m%d%H%M%S%z")
