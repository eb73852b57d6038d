"""The evidence of one message: all that it says of its patient, each with source and strength (CX-12).

Read are the signed From, every Direct Context, and every part (in attached messages too) whose content is a C-CDA, an
XDM package or another zip with such documents, an HL7 v2 message or FHIR. Body text is never evidence: what somebody
writes to somebody is not data about a patient.

Guarantees: a pure function of the verified bytes and the verified sender; nothing is written, fetched or logged, and no
message makes it raise. What could not be read is a problem; a problem that may hide a claim makes the evidence
incomplete, so that nothing is linked without a person because the one claim that contradicts was damaged.

Failure modes: those problems. A fault of a reader costs its part only (:func:`gateway.evidence.collecting.guarded`).
"""

from __future__ import annotations

from functools import partial

from gateway.core.address import normalise
from gateway.core.claims import Claim, Evidence, Source, Strength
from gateway.core.errors import InputError
from gateway.core.mime.parts import Leaf, leaf_parts
from gateway.core.mime.structure import OPAQUE, Part, parse_structure
from gateway.evidence.cda import NAMESPACE, is_cda, names_patient, read_cda
from gateway.evidence.collecting import MAX_PARTS, Collector, Piece, guarded
from gateway.evidence.context import read_contexts
from gateway.evidence.fhir import read_json, read_resources
from gateway.evidence.fhir_xml import is_fhir, resource_of
from gateway.evidence.hl7v2 import read_hl7
from gateway.evidence.recognising import Kind, is_labelled_xml, recognise
from gateway.evidence.transfer import decoded, head
from gateway.evidence.xdm import read_package
from gateway.evidence.xml_documents import UnreadableXMLError, local_name, parse_xml

_SOURCES = {
    Kind.XML: Source.CDA_HEADER,
    Kind.ZIP: Source.XDM_METADATA,
    Kind.HL7V2: Source.HL7V2_PID,
    Kind.JSON: Source.FHIR_PATIENT,
}
_HEADER_PIECES = frozenset({"recordTarget", "patientRole", "documentationOf", "componentOf", "participant"})
"""Roots of what people cut out of a C-CDA, often without its namespace."""


def read_evidence(content: bytes, sender: str) -> Evidence:
    """Return what a message says of its patient.

    Args:
        content: the exact bytes that were verified (:attr:`gateway.core.verdict.Judgement.content`). Header fields
            before ``protected_offset`` never name a context: the block that is put before an unwrapped entity has
            address and subject fields only.
        sender: the verified sender (:attr:`gateway.core.verdict.Judgement.sender`); empty when nobody was verified,
            and then no claim is one of the signature's strength.
    """
    found = Collector()
    _add_sender(found, sender)
    guarded(found, None, "", partial(_read_message, found, content))
    return found.evidence()


def _add_sender(found: Collector, sender: str) -> None:
    if not sender:
        return
    try:
        address = normalise(sender)
    except InputError:
        found.problem(Source.SIGNED_FROM, "", "sender_unreadable", "the verified sender is no Direct address")
        return
    found.add(Claim(Source.SIGNED_FROM, Strength.SIGNATURE, direct_addresses=(address,)))


def _read_message(found: Collector, content: bytes) -> None:
    root: Part = parse_structure(content)
    leaves = leaf_parts(content, root)
    guarded(found, Source.DIRECT_CONTEXT, "", partial(read_contexts, found, root, leaves))
    if len(leaves) > MAX_PARTS:
        found.problem(None, "", "too_many_parts", f"only the first {MAX_PARTS} parts were read")
    for leaf in leaves[:MAX_PARTS]:
        guarded(found, None, leaf.path, partial(_read_leaf, found, leaf))


def _read_leaf(found: Collector, leaf: Leaf) -> None:
    # What the reader of the structure did not open has no type but this very one.
    if leaf.part.content_type is OPAQUE:
        found.problem(None, leaf.path, "part_not_opened", "the message is nested too deeply or has too many parts")
    elif leaf.content_type == "message/rfc822":
        found.problem(None, leaf.path, "message_not_opened", "an attached message is encoded, which it may not be")
    kind = recognise(head(leaf), leaf.content_type, leaf.filename)
    if kind is None or not found.may_read(leaf.part.size, _SOURCES[kind], leaf.path):
        return
    read_piece(found, Piece(leaf.path, decoded(leaf), leaf.content_type, leaf.filename), kind)


def read_piece(found: Collector, piece: Piece, kind: Kind | None = None) -> None:
    """Read a part, or a document out of a package; what is nothing that is read is passed over."""
    kind = kind or recognise(piece.data[:4_096], piece.content_type, piece.filename)
    if kind is None:
        return
    readers = {Kind.XML: _read_xml, Kind.ZIP: _read_zip, Kind.HL7V2: read_hl7, Kind.JSON: read_json}
    guarded(found, _SOURCES[kind], piece.path, partial(readers[kind], found, piece))


def _read_zip(found: Collector, piece: Piece) -> None:
    read_package(found, piece, partial(read_piece, found))


def _read_xml(found: Collector, piece: Piece) -> None:
    try:
        root = parse_xml(piece.data)
    except UnreadableXMLError as exc:
        _tell_unreadable(found, piece, exc)
        return
    if is_cda(root):
        read_cda(found, root, piece)
    elif is_fhir(root):
        read_resources(found, piece, [resource_of(root)])
    elif local_name(root) == "ClinicalDocument":
        detail = "a ClinicalDocument is not in the namespace of CDA"
        found.problem(Source.CDA_HEADER, piece.path, "cda_namespace", detail, hides=names_patient(root))
    elif local_name(root) in _HEADER_PIECES or str(root.tag).startswith(f"{{{NAMESPACE}}}"):
        # A piece of a document names somebody, but no document vouches for it.
        found.problem(Source.CDA_HEADER, piece.path, "cda_fragment", "a piece of a clinical document, not a whole one")
    elif next(root.iter(f"{{{NAMESPACE}}}ClinicalDocument"), None) is not None:
        found.problem(Source.CDA_HEADER, piece.path, "cda_wrapped", "a ClinicalDocument stands within another document")


def _tell_unreadable(found: Collector, piece: Piece, reason: UnreadableXMLError) -> None:
    """A piece that is XML by its label or its look is told; words in angle brackets are not."""
    start = piece.data[:4_096]
    is_xml = is_labelled_xml(piece.content_type, piece.filename) or b"<?xml" in start or b"ClinicalDocument" in start
    if is_xml:
        source = Source.FHIR_PATIENT if b"http://hl7.org/fhir" in start else Source.CDA_HEADER
        # Without an angle bracket it is no document in any encoding that is read, whatever its label says.
        found.problem(source, piece.path, reason.code, str(reason), hides=b"<" in piece.data)
