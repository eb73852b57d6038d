"""What the header of a C-CDA says of the document itself: its id, its type and its date.

Only the beginning is parsed, up to the patient (C-CDA header order: id, code, title, effectiveTime come before
``recordTarget``), with a parser that expands no entity, loads no DTD and opens nothing. What the header says of the
patient is not read here: that is evidence, and was judged when the message was linked.

Failure modes: none; what cannot be read is not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

MAX_HEADER_BYTES = 262_144
_PIECE_BYTES = 16_384
_V3 = "{urn:hl7-org:v3}"
_LOINC = "2.16.840.1.113883.6.1"
_LOINC_CODE = re.compile(r"\d{1,7}-\d\Z", re.ASCII)
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+\Z", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z", re.ASCII)
_TIME = re.compile(
    r"(\d{4})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?:([01]\d|2[0-3])([0-5]\d)([0-5]\d)?(?:\.\d+)?([+-](?:0\d|1[0-3]))([0-5]\d))?",
    re.ASCII,
)
_MAX_ID_CHARS = 256


@dataclass(frozen=True, slots=True)
class CDAHeader:
    """Empty where the document does not say, or not in a form that can be passed on."""

    id_root: str = ""
    """``urn:oid:...`` or ``urn:uuid:...``."""
    id_extension: str = ""
    loinc: str = ""
    created: str = ""
    """A FHIR dateTime: with its zone, or a day."""


def read_cda_header(data: bytes) -> CDAHeader | None:
    """The header of a document, or None: it is no C-CDA."""
    if b"urn:hl7-org:v3" not in data[:MAX_HEADER_BYTES] or b"<!DOCTYPE" in data[:MAX_HEADER_BYTES]:
        return None
    parser = etree.XMLPullParser(
        ("start", "end"), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_pis=True
    )
    found: dict[str, str] = {}
    depth, is_cda = 0, False
    try:
        for begin in range(0, min(len(data), MAX_HEADER_BYTES), _PIECE_BYTES):
            parser.feed(data[begin : begin + _PIECE_BYTES])
            for event, element in parser.read_events():
                depth += 1 if event == "start" else -1
                if event == "start" and depth == 1:
                    is_cda = element.tag == f"{_V3}ClinicalDocument"
                if not is_cda or (depth == 2 and element.tag == f"{_V3}recordTarget"):
                    return _header(found) if is_cda else None
                if event == "start" and depth == 2:
                    _take(found, element)
    except etree.XMLSyntaxError:
        pass
    return _header(found) if is_cda else None


def _take(found: dict[str, str], element: etree._Element) -> None:
    name = str(element.tag).removeprefix(_V3)
    if name == "id":
        found.setdefault("root", element.get("root", ""))
        found.setdefault("extension", element.get("extension", ""))
    elif name == "code" and element.get("codeSystem") == _LOINC:
        found.setdefault("loinc", element.get("code", ""))
    elif name == "effectiveTime":
        found.setdefault("time", element.get("value", ""))


def _header(found: dict[str, str]) -> CDAHeader:
    root, extension, loinc = found.get("root", ""), found.get("extension", "").strip(), found.get("loinc", "")
    urn = f"urn:oid:{root}" if _OID.match(root) else f"urn:uuid:{root.lower()}" if _UUID.match(root) else ""
    if len(urn) > _MAX_ID_CHARS or len(extension) > _MAX_ID_CHARS or not extension.isprintable():
        urn = extension = ""
    return CDAHeader(
        urn, extension if urn else "", loinc if _LOINC_CODE.match(loinc) else "", _moment(found.get("time", ""))
    )


def _moment(text: str) -> str:
    match = _TIME.match(text.strip())
    if match is None:
        return ""
    year, month, day, hour, minute, second, zone, zone_minutes = match.groups()
    told = f"{year}-{month}-{day}"
    if hour is not None:
        told += f"T{hour}:{minute}:{second or '00'}{zone}:{zone_minutes}"
    try:
        datetime.fromisoformat(told).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return told
