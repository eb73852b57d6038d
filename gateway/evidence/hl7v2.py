"""HL7 v2 messages in a message: what their PID segments say of the patient (HL7-5).

Files in the form of a batch are read message by message. A file in which spaces stand around every delimiter, as
examples on paper have them and the tests of Direct Context do, is read without these spaces.

Guarantees: never raises. Failure modes: a message that cannot be read is a problem by its place and the others are
read. Patients that differ are several patients, who contradict each other.
"""

from __future__ import annotations

import re
from dataclasses import replace

from gateway.core.claims import Claim, Source
from gateway.core.hl7 import HL7Error, read_message, split_messages
from gateway.core.hl7_patient import read_pid
from gateway.evidence.collecting import Collector, Piece

MAX_HL7_BYTES = 16 * 1024 * 1024
MAX_LINES = 500_000
MAX_PIDS = 64
MAX_PID_CHARS = 32_768
"""Of one PID segment: an honest one has some hundred."""
_SPACED = re.compile(rb"MSH[ \t]{1,4}\|")


def read_hl7(found: Collector, piece: Piece) -> None:
    """Read every PID of a file."""
    if len(piece.data) > MAX_HL7_BYTES:
        _problem(found, piece, "hl7_too_large", f"more than {MAX_HL7_BYTES // 1024 // 1024} MiB")
        return
    if piece.data.count(b"\r") + piece.data.count(b"\n") > 2 * MAX_LINES:
        _problem(found, piece, "hl7_too_large", f"more than {MAX_LINES} lines")
        return
    try:
        messages = split_messages(piece.data)
    except HL7Error as exc:
        _problem(found, piece, "hl7_unreadable", str(exc))
        return
    claims: list[Claim] = []
    for data in messages:
        claims += _claims(found, piece, _unspaced(data) if _SPACED.match(data) else data)
        if len(claims) > MAX_PIDS:
            _problem(found, piece, "hl7_too_many_patients", f"more than {MAX_PIDS} PID segments")
            break
    found.add_patients(claims[:MAX_PIDS])


def _claims(found: Collector, piece: Piece, data: bytes) -> list[Claim]:
    claims: list[Claim] = []
    try:
        for pid in read_message(data).all("PID")[: MAX_PIDS + 1]:
            if sum(map(len, pid.fields)) > MAX_PID_CHARS:
                _problem(found, piece, "hl7_patient_too_large", f"a PID has more than {MAX_PID_CHARS} characters")
                continue
            if not found.may_read_pid(sum(map(len, pid.fields)), Source.HL7V2_PID, piece.path):
                break
            reading = read_pid(pid, path=piece.path)
            claims.append(replace(reading.claim, is_doubtful=piece.is_doubtful))
            for doubt in reading.doubts:
                _problem(found, piece, "hl7_value_unreadable", str(doubt))
    except HL7Error as exc:
        _problem(found, piece, "hl7_unreadable", str(exc))
    return claims


def _problem(found: Collector, piece: Piece, code: str, detail: str) -> None:
    found.problem(Source.HL7V2_PID, piece.path, code, detail)


def _unspaced(data: bytes) -> bytes:
    lines = [b"|".join(field.strip(b" \t") for field in line.split(b"|")) for line in data.split(b"\r")]
    head, bar, rest = lines[0].partition(b"|")
    encoding, second, others = rest.partition(b"|")
    lines[0] = head + bar + encoding.replace(b" ", b"") + second + others
    return b"\r".join(lines)
