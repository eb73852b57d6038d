"""What a piece of content is, told by its first bytes; MIME type and file name only help where these say nothing.

Senders label a C-CDA ``text/xml``, ``application/xml``, ``application/octet-stream`` or not at all, and an XDM package
likewise (CX-25). What a label alone makes of a piece is read too, so that a damaged one is told and not overlooked.

Guarantees: never raises; looks at no more than it is given. Pages of HTML are no evidence and are not recognised.
"""

from __future__ import annotations

import re
from enum import StrEnum

_WHITE = b" \t\r\n\x0b\xef\xbb\xbf"
_HL7_START = re.compile(rb"(?:MSH|FHS|BHS)[ \t]{0,4}[^\w\s]")
_HTML_START = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_XML_TYPES = frozenset({"text/xml", "application/xml", "application/cda+xml", "application/hl7-cda+xml"})
_ZIP_TYPES = frozenset({"application/zip", "application/x-zip-compressed", "application/x-zip", "application/xdm"})
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


class Kind(StrEnum):
    """The forms of content that are read."""

    XML = "xml"
    ZIP = "zip"
    HL7V2 = "hl7v2"
    JSON = "json"


def recognise(head: bytes, content_type: str, filename: str) -> Kind | None:
    """Return what a piece is, or None when it is nothing that is read.

    Args:
        head: its first bytes, transfer encoding undone; at least some hundred when there are.
        content_type: ``type/subtype`` in lower case, or empty.
        filename: as its sender wrote it, or empty.
    """
    return _by_content(head, content_type, filename) or _by_label(head, content_type, filename)


def is_labelled_xml(content_type: str, filename: str) -> bool:
    """Whether its label says that a piece is XML."""
    return content_type in _XML_TYPES or (
        (content_type.endswith("+xml") and content_type not in {*_HTML_TYPES, "image/svg+xml"})
        or filename.lower().endswith((".xml", ".cda", ".ccd", ".ccda"))
    )


def _by_content(head: bytes, content_type: str, filename: str) -> Kind | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Kind.ZIP
    start = head.lstrip(_WHITE)
    if _HL7_START.match(start):
        return Kind.HL7V2
    if start.startswith(b"<") or head.startswith((b"\xff\xfe<", b"\xfe\xff\0<", b"\0<")):
        is_page = (
            content_type in _HTML_TYPES or filename.lower().endswith((".htm", ".html")) or _HTML_START.match(start)
        )
        return Kind.XML if not is_page or b"ClinicalDocument" in head else None
    if start.startswith((b"{", b"[")):
        is_json = "json" in content_type or filename.lower().endswith((".json", ".ndjson"))
        return Kind.JSON if is_json or b'"resourceType"' in head else None
    return None


def _by_label(head: bytes, content_type: str, filename: str) -> Kind | None:
    name = filename.lower()
    if is_labelled_xml(content_type, filename) and not _HTML_START.match(head.lstrip(_WHITE)):
        return Kind.XML
    if content_type in _ZIP_TYPES or name.endswith((".zip", ".xdm")):
        return Kind.ZIP
    if "hl7v2" in content_type or "hl7-v2" in content_type or name.endswith(".hl7"):
        return Kind.HL7V2
    if "fhir" in content_type and "json" in content_type:
        return Kind.JSON
    return None
