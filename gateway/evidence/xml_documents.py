"""XML of strangers, read without any of what makes XML dangerous.

Before the parser sees a byte: the encoding is one of a few that are decoded here (so that nothing hides in another
one), the size and the number of marks are bounded, and a document type declaration is refused: no C-CDA, XDM metadata
or FHIR resource has one, and without it there are no entities to expand, no files and no addresses to fetch. The
parser itself expands nothing, fetches nothing, loads no DTD and keeps its own limits on depth and text
(``huge_tree=False``); XInclude and style sheets are never run.

Guarantees: the time is linear in the size; the same bytes give the same result.

Failure modes: :class:`UnreadableXMLError` with a code and a fixed text; the parser's own messages, which quote the
document, are dropped.
"""

from __future__ import annotations

import re

from lxml import etree

MAX_XML_BYTES = 32 * 1024 * 1024
"""Of one document. One text in it may have 10 MB, the limit of the parser."""
MAX_XML_MARKS = 600_000
"""``<``, so about twice the elements: a C-CDA of 1 MB has some 30,000."""
MAX_XML_ATTRIBUTES = 1_000_000
"""``=``, after which white space may stand: what is counted must not depend on how an attribute is written."""
MAX_PROLOG_STEPS = 100
"""Comments and processing instructions before the first element."""

_DECLARED = re.compile(rb"<\?xml[^>]{0,200}?\bencoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]*\?>")
_CODECS = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8",
    "iso-8859-1": "cp1252", "latin1": "cp1252", "iso-8859-15": "iso8859-15", "windows-1252": "cp1252",
    "utf-16": "utf-16", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be",
}  # fmt: skip
"""ASCII is read as UTF-8, of which it is a part."""


class UnreadableXMLError(ValueError):
    """The document cannot be read. ``code`` is a fixed word, the text names the reason and quotes nothing."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def parse_xml(data: bytes) -> etree._Element:
    """Return the root of a document.

    Raises:
        UnreadableXMLError: malformed, beyond a limit, in another encoding, or with a document type declaration.
    """
    if len(data) > MAX_XML_BYTES:
        raise UnreadableXMLError("xml_too_large", f"the document has more than {MAX_XML_BYTES // 1024 // 1024} MiB")
    text = _as_utf8(data)
    _check_prolog(text)
    if text.count(b"<") > MAX_XML_MARKS or text.count(b"=") > MAX_XML_ATTRIBUTES:
        raise UnreadableXMLError("xml_too_complex", "the document has more elements or attributes than are read")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text, parser)
    except (etree.LxmlError, ValueError, AssertionError):
        raise UnreadableXMLError("xml_malformed", "the document is not well-formed XML, or nested too deeply") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise UnreadableXMLError("xml_doctype", "the document has a document type declaration, which is not accepted")
    return root


def local_name(element: etree._Element) -> str:
    """The name of an element without its namespace."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def element_text(element: etree._Element | None) -> str:
    """All text of an element and those in it."""
    return "" if element is None else "".join(map(str, element.itertext()))


def _as_utf8(data: bytes) -> bytes:
    """The document as UTF-8 without its declaration, which would contradict it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        codec = "utf-16"
    elif data.startswith((b"<\0", b"\0<")):
        codec = "utf-16-le" if data.startswith(b"<\0") else "utf-16-be"
    else:
        found = _DECLARED.match(data.lstrip(b"\xef\xbb\xbf \t\r\n")[:400])
        declared = found[1].decode("ascii").lower() if found else "utf-8"
        codec = _CODECS.get(declared, "")
        if codec.startswith("utf-16"):
            # The bytes before us are no UTF-16, or the declaration could not have been read.
            codec = "utf-8"
    if not codec:
        raise UnreadableXMLError("xml_encoding", "the document is in an encoding that is not supported")
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        raise UnreadableXMLError("xml_encoding", "the bytes are not in the encoding that the document names") from None
    text = text.removeprefix("\ufeff")
    declaration = _DECLARATION.match(text[:400])
    try:
        return text[declaration.end() if declaration else 0 :].strip().encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableXMLError("xml_encoding", "the bytes are not in the encoding that the document names") from None


def _check_prolog(text: bytes) -> None:
    """Refuse a document type declaration: it can only stand before the first element."""
    at = 0
    for _ in range(MAX_PROLOG_STEPS):
        at = _skip_white(text, at)
        if text.startswith(b"<!--", at):
            end = text.find(b"-->", at + 4)
            at = end + 3
        elif text.startswith(b"<?", at):
            end = text.find(b"?>", at + 2)
            at = end + 2
        elif text.startswith(b"<!", at):
            raise UnreadableXMLError(
                "xml_doctype", "the document has a document type declaration, which is not accepted"
            )
        else:
            return
        if end < 0:
            return  # Malformed: the parser says so.
    raise UnreadableXMLError("xml_too_complex", "the document begins with too many comments or instructions")


_WHITE = re.compile(rb"[ \t\r\n]*")


def _skip_white(text: bytes, at: int) -> int:
    found = _WHITE.match(text, at)
    return found.end() if found else at
