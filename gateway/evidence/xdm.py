"""XDM packages: what the packager says of the patient, and whether the documents are those it packed (CX-20, CX-22).

``IHE_XDM/SUBSET*/METADATA.XML`` describes each document: ``sourcePatientInfo`` (PID-3, -5, -7, -8, -9, -11, -13, -14)
and ``sourcePatientId`` are the packager's claim; URI, size and hash (SHA-1, 40 hexadecimal digits) find and check the
document. The affinity domain's ``patientId`` is passed over: whose number it is depends on a domain that a Direct
message has not.

A document whose bytes have another size or hash than the metadata says was changed or exchanged after it was packed:
a problem by name, and its claims are doubtful (:attr:`gateway.core.claims.Claim.is_doubtful`), which is a contradiction
by itself. Dropping them instead could hide the one claim that contradicts; counting them would let an exchanged
document vouch for a patient. A missing hash is told, but casts no doubt: a document that is attached without a
package has none either, and the signature of the message covers both.

Guarantees: never raises for a package; each document is unpacked once. Failure modes: problems by name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lxml import etree

from gateway.core.claims import Claim, Problem, Source, Strength
from gateway.core.hl7 import STANDARD, HL7Error, Segment
from gateway.core.hl7_patient import read_pid
from gateway.evidence.archives import Archive, Entry, open_archive
from gateway.evidence.collecting import Collector, Piece, value
from gateway.evidence.recognising import Kind, recognise
from gateway.evidence.xml_documents import UnreadableXMLError, local_name, parse_xml

MAX_DOCUMENTS = 256
"""Documents that one METADATA.XML describes."""
MAX_SLOTS = 200
MAX_VALUES = 100
MAX_PID_CHARS = 32_768
"""Of one patient: an honest one has some hundred, and undoing escape sequences takes time."""
_METADATA = re.compile(r"(?:(.*/)?IHE_XDM/[^/]{1,64}/)METADATA\.XML\Z", re.IGNORECASE | re.DOTALL)
_PID_FIELDS = frozenset({3, 5, 7, 8, 9, 11, 13, 14})
"""PID-19, the social security number, is not among them."""
_PID_VALUE = re.compile(r"PID-(\d{1,2})\s*\|(.*)\Z", re.IGNORECASE | re.DOTALL | re.ASCII)
_CHUNK = re.compile(r"(\d{1,3})\|(.*)\Z", re.DOTALL | re.ASCII)
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_MAX_PID_FIELD = 14
_OFFICE = "[content_types].xml"


@dataclass(frozen=True, slots=True)
class _Described:
    """What the metadata says of one document."""

    uri: str
    size: str
    sha1: str
    mime_type: str


def read_package(found: Collector, piece: Piece, read: Callable[[Piece], None]) -> None:
    """Read a zip package.

    Args:
        found: takes the claims of the metadata and the problems.
        piece: the package.
        read: reads a document of the package.
    """
    archive = open_archive(found, piece)
    if archive is None:
        return
    metadata = [entry for entry in archive.entries if _METADATA.match(entry.name)]
    if not metadata and any(entry.name.lower() == _OFFICE for entry in archive.entries):
        return  # A word processor's file is a zip too, and no evidence.
    described: dict[str, list[_Described]] = {}
    for entry in metadata:
        folder = entry.name.rpartition("/")[0].lower()
        for one in _metadata(found, archive, entry):
            described.setdefault(_joined(folder, one.uri), []).append(one)
    names = {entry.name.lower() for entry in archive.entries}
    for name in described.keys() - names:
        for _ in described[name]:
            _problem(found, piece.path, "xdm_document_missing", "the metadata describes a document that is not there")
    for entry in archive.entries:
        if entry not in metadata:
            _document(found, archive, entry, described.get(entry.name.lower(), []), read)


def _problem(found: Collector, path: str, code: str, detail: str, *, hides: bool = True) -> None:
    found.problem(Source.XDM_METADATA, path, code, detail, hides=hides)


def _joined(folder: str, uri: str) -> str:
    """The name that an URI of the metadata means: relative to its folder."""
    parts = folder.split("/")
    for step in uri.replace("\\", "/").lower().split("/"):
        if step == "..":
            parts = parts[:-1]
        elif step not in {"", "."}:
            parts.append(step)
    return "/".join(parts)


# --- METADATA.XML ---


def _metadata(found: Collector, archive: Archive, entry: Entry) -> list[_Described]:
    path = archive.path_of(entry)
    data = archive.read(entry)
    if data is None:
        return []
    try:
        root = parse_xml(data)
    except UnreadableXMLError as exc:
        _problem(found, path, f"xdm_metadata_{exc.code}", f"METADATA.XML: {exc}")
        return []
    documents = [element for element in root.iter() if local_name(element) == "ExtrinsicObject"]
    if not documents:
        _problem(found, path, "xdm_metadata_empty", "METADATA.XML describes no document")
    if len(documents) > MAX_DOCUMENTS:
        _problem(found, path, "xdm_too_many_documents", f"METADATA.XML describes more than {MAX_DOCUMENTS} documents")
    described: list[_Described] = []
    for element in documents[:MAX_DOCUMENTS]:
        slots = _slots(found, path, element)
        claim = _claim(found, path, slots)
        if claim is not None:
            found.add(claim)
        described.append(
            _Described(
                _uri(slots.get("uri", [])),
                "".join(slots.get("size", [])[:1]),
                "".join(slots.get("hash", [])[:1]).lower(),
                value(element.get("mimeType")).lower(),
            )
        )
    return [one for one in described if one.uri]


def _slots(found: Collector, path: str, element: etree._Element) -> dict[str, list[str]]:
    slots: dict[str, list[str]] = {}
    children = [child for child in element if local_name(child) == "Slot"]
    if len(children) > MAX_SLOTS:
        _problem(found, path, "xdm_too_many_values", f"a document has more than {MAX_SLOTS} slots")
    for slot in children[:MAX_SLOTS]:
        # No deeper, and without what stands within a value: nested slots and values would be read once for each level.
        lists = (child if local_name(child) == "ValueList" else [child] for child in slot)
        values = [one for listed in lists for one in listed if local_name(one) == "Value"]
        if len(values) > MAX_VALUES:
            _problem(found, path, "xdm_too_many_values", f"a slot has more than {MAX_VALUES} values")
        if any(len(one) for one in values):
            _problem(found, path, "xdm_value_unreadable", "a value of a slot holds elements")
        texts = [value(one.text) for one in values[:MAX_VALUES]]
        slots.setdefault((slot.get("name") or "").strip().lower(), []).extend(texts)
    return slots


def _uri(values: list[str]) -> str:
    """A long URI comes in numbered pieces (``1|...``)."""
    chunks = [_CHUNK.match(text) for text in values]
    if values and all(chunks):
        return "".join(chunk[2] for chunk in sorted((c for c in chunks if c), key=lambda chunk: int(chunk[1])))
    return "".join(values[:1])


def _claim(found: Collector, path: str, slots: Mapping[str, list[str]]) -> Claim | None:
    said_of: dict[int, list[str]] = {}
    for text in slots.get("sourcepatientinfo", []):
        said = _PID_VALUE.match(text)
        if said is None:
            _problem(found, path, "xdm_patient_unreadable", "a sourcePatientInfo is not of the form PID-n|value")
        elif int(said[1]) in _PID_FIELDS:
            said_of.setdefault(int(said[1]), []).append(said[2])
    said_of.setdefault(3, []).extend(slots.get("sourcepatientid", []))
    # A field that stands twice is one with repetitions.
    fields = [
        STANDARD.repetition.join(filter(None, said_of.get(number, []))) for number in range(1, _MAX_PID_FIELD + 1)
    ]
    if sum(map(len, fields)) > MAX_PID_CHARS:
        _problem(found, path, "xdm_patient_too_large", f"sourcePatientInfo has more than {MAX_PID_CHARS} characters")
        return None
    if not found.may_read_pid(sum(map(len, fields)), Source.XDM_METADATA, path):
        return None
    try:
        reading = read_pid(
            Segment("PID", tuple(fields), STANDARD),
            source=Source.XDM_METADATA,
            strength=Strength.PACKAGER,
            path=path,
        )
    except HL7Error:
        _problem(found, path, "xdm_patient_unreadable", "sourcePatientInfo has more values than are read")
        return None
    for doubt in reading.doubts:
        _problem(found, path, "xdm_value_unreadable", f"sourcePatientInfo: {doubt}")
    return reading.claim


# --- the documents ---


def _document(
    found: Collector, archive: Archive, entry: Entry, described: list[_Described], read: Callable[[Piece], None]
) -> None:
    path = archive.path_of(entry)
    head = archive.head(entry)
    if head is None:
        return
    mime_type = described[0].mime_type if described else ""
    kind = recognise(head, mime_type, entry.name)
    if kind is None and not described:
        return
    if kind is Kind.ZIP:
        _problem(found, path, "zip_nested", "a package within a package is not opened")
        return
    data = archive.read(entry)
    if data is None:
        return
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest() if described else ""
    problems = [problem for one in described for problem in _checked(path, one, len(data), digest)]
    for problem in problems:
        found.problem(problem.source, problem.path, problem.code, problem.detail, hides=problem.hides)
    if kind is not None:
        is_doubtful = any(problem.code in _DOUBTS for problem in problems)
        read(Piece(path, data, mime_type, entry.name, is_doubtful))


_DOUBTS = frozenset({"xdm_hash_mismatch", "xdm_size_mismatch"})


def _checked(path: str, one: _Described, size: int, digest: str) -> list[Problem]:
    """What does not fit between a document and its description. ``size`` and ``digest`` are the document's."""
    source = Source.XDM_METADATA
    problems: list[Problem] = []
    if one.size and one.size != str(size):
        problems.append(
            Problem(source, path, "xdm_size_mismatch", "a document has another size than the metadata says")
        )
    if not _SHA1.match(one.sha1):
        problems.append(
            Problem(source, path, "xdm_hash_missing", "the metadata has no SHA-1 of a document", hides=False)
        )
    elif digest != one.sha1:
        problems.append(
            Problem(source, path, "xdm_hash_mismatch", "a document has another hash than the metadata says")
        )
    return problems
