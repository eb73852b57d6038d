"""Messages and packages for the tests of the evidence, small and made here."""

import hashlib
import io
import zipfile
from base64 import encodebytes
from collections.abc import Iterable

from gateway.core.claims import Evidence
from gateway.evidence.collecting import Collector, Piece
from gateway.evidence.message import read_evidence, read_piece

SENDER = "ada@direct.phr.test"
CDA_NS = 'xmlns="urn:hl7-org:v3" xmlns:sdtc="urn:hl7-org:sdtc"'


def part(
    data: bytes, content_type: str = "application/octet-stream", *, filename: str = "", encoding: str = "base64",
    content_id: str = "",
) -> bytes:  # fmt: skip
    """A part of a multipart, its content encoded."""
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    head += f'Content-Disposition: attachment; filename="{filename}"\r\n' if filename else ""
    head += f"Content-ID: <{content_id}>\r\n" if content_id else ""
    return head.encode() + b"\r\n" + (encodebytes(data) if encoding == "base64" else data)


def message(*parts: bytes, header: bytes = b"") -> bytes:
    """A multipart message; the first part is a text."""
    text = b"Content-Type: text/plain\r\n\r\nMSH is no evidence here, and neither is Jane Doe 1970-01-01.\r\n"
    body = b"".join(b"--edge\r\n" + one + b"\r\n" for one in (text, *parts))
    return (
        header + b"From: ada@direct.phr.test\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="edge"\r\n\r\n' + body + b"--edge--\r\n"
    )


def of_message(*parts: bytes, header: bytes = b"", sender: str = "") -> Evidence:
    """The evidence of such a message; without a sender there is no claim but those of its parts."""
    return read_evidence(message(*parts, header=header), sender)


def of_piece(data: bytes | str, content_type: str = "", filename: str = "") -> Evidence:
    """The evidence of one part."""
    found = Collector()
    read_piece(found, Piece("2", data.encode() if isinstance(data, str) else data, content_type, filename))
    return found.evidence()


def codes(evidence: Evidence) -> list[str]:
    return [problem.code for problem in evidence.problems]


def cda(
    *roles: str, family: str = "Quimby", given: str = "Ada", born: str = "19610314", sex: str = "F", head: str = ""
) -> str:
    """A clinical document of those patient roles, or of one with a name, a birth date and a sex."""
    one = (
        '<id root="1.2.3.4" extension="MRN-7"/><patient>'
        f'<name use="L"><given>{given}</given><family>{family}</family></name>'
        f'<administrativeGenderCode code="{sex}"/><birthTime value="{born}"/></patient>'
    )
    targets = "".join(f"<recordTarget><patientRole>{role}</patientRole></recordTarget>" for role in roles or (one,))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<ClinicalDocument {CDA_NS}>'
        f'<id root="9.8.7" extension="doc-1"/><code code="34133-9" codeSystem="2.16.840.1.113883.6.1"/>'
        f"<title>Summary</title>{targets}</ClinicalDocument>"
    )


def metadata(
    uri: str, data: bytes, *, sha1: str | None = None, size: str | None = None, info: Iterable[str] = ()
) -> str:
    """METADATA.XML that describes one document."""

    def slot(name: str, *values: str) -> str:
        listed = "".join(f"<Value>{value}</Value>" for value in values)
        return f'<Slot name="{name}"><ValueList>{listed}</ValueList></Slot>'

    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest() if sha1 is None else sha1
    slots = slot("URI", uri) + slot("sourcePatientInfo", *info)
    slots += slot("hash", sha1) if sha1 else ""
    slots += slot("size", str(len(data)) if size is None else size)
    slots += slot("sourcePatientId", "MRN-7^^^&amp;1.2.3.4&amp;ISO")
    return (
        '<SubmitObjectsRequest xmlns="urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"><RegistryObjectList '
        'xmlns="urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"><ExtrinsicObject id="Document01" mimeType="text/xml">'
        f"{slots}</ExtrinsicObject></RegistryObjectList></SubmitObjectsRequest>"
    )


def package(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


PID_INFO = ("PID-3|MRN-7^^^&amp;1.2.3.4&amp;ISO", "PID-5|Quimby^Ada^^^", "PID-7|19610314", "PID-8|F",
            "PID-11|1 Main St^^Springfield^OR^97477^US", "PID-19|123-45-6789")  # fmt: skip


def xdm(document: bytes, **described: str) -> bytes:
    """An XDM package with one document, of the patient of :func:`cda`."""
    sha1, size = described.get("sha1"), described.get("size")
    said = metadata("DOC.XML", document, sha1=sha1, size=size, info=PID_INFO)
    return package(
        {
            "INDEX.HTM": b"<html><body>Jane Doe</body></html>",
            "IHE_XDM/SUBSET01/METADATA.XML": said.encode(),
            "IHE_XDM/SUBSET01/DOC.XML": document,
        }
    )
