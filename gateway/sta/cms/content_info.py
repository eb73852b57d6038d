"""ContentInfo, the outermost layer of every CMS object (RFC 5652 section 3)."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.sta.cms.ber import (
    ANY,
    CONSTRUCTED,
    CONTEXT,
    OID,
    SEQUENCE,
    Buffer,
    Document,
    Element,
    Expected,
    dotted,
    malformed,
)

DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
ENVELOPED_DATA = "1.2.840.113549.1.7.3"
AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"
COMPRESSED_DATA = "1.2.840.113549.1.9.16.1.9"

_CONTENT_INFO: Expected = ((OID, "the CMS content type"), (CONTEXT | CONSTRUCTED, "the CMS content"))
_CONTENT: Expected = ((ANY, "the CMS content"),)
_LENGTH = rb"(\x82..|\x83...|\x84....)"
_USUAL = re.compile(rb"\x30" + _LENGTH + rb"\x06\x09(.{9})\xa0" + _LENGTH + rb"\x30" + _LENGTH, re.DOTALL)
"""A SEQUENCE of an identifier of nine octets, as all of the names below but one have, and a SEQUENCE in a tag."""
_USUAL_BYTES = 29
_CONTENT_DEPTH = 3
_new = tuple.__new__
_NAMES = {
    DATA: "data",
    SIGNED_DATA: "signed-data",
    ENVELOPED_DATA: "enveloped-data",
    AUTH_ENVELOPED_DATA: "auth-enveloped-data",
    COMPRESSED_DATA: "compressed-data",
}


class ContentInfo(NamedTuple):
    """A CMS object whose outermost layer has been read."""

    oid: str
    """The content type, dotted."""
    content: Element

    @property
    def name(self) -> str:
        """The content type as :func:`content_type` gives it."""
        return _NAMES.get(self.oid, self.oid)


def content_type(der: Buffer) -> str:
    """Return what a CMS object is.

    One of ``data``, ``signed-data``, ``enveloped-data``, ``auth-enveloped-data``, ``compressed-data``, or the dotted
    object identifier of anything else.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    return read_content_info(der).name


def open_content(der: Buffer | ContentInfo, *expected: str) -> tuple[str, Element]:
    """Return the content type (dotted) and the content element, which must be of one of the expected types.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    dotted, content = der if isinstance(der, ContentInfo) else read_content_info(der)
    if dotted not in expected:
        raise malformed(f"the CMS object is {_NAMES.get(dotted, dotted)}, which is not expected here")
    return dotted, content


def read_content_info(der: Buffer) -> ContentInfo:
    """Read the outermost layer.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    document = Document(der)
    usual = _USUAL.match(document.source, 0, _USUAL_BYTES)
    if usual is not None:
        end = len(document.data)
        outer, kind, tagged, inner = usual.groups()
        body = usual.end()
        if (
            body + int.from_bytes(inner[1:], "big") == end
            and usual.end(3) + int.from_bytes(tagged[1:], "big") == end
            and usual.end(1) + int.from_bytes(outer[1:], "big") == end
        ):
            start = usual.end(3)
            content = _new(Element, (document, SEQUENCE, start, body, end, end, _CONTENT_DEPTH))
            return _new(ContentInfo, (dotted(kind, "the CMS content type"), content))
    return _walked(document)


def _walked(document: Document) -> ContentInfo:
    root = document.root().expect(SEQUENCE, "the CMS ContentInfo")
    kind, wrapper = root.fields(_CONTENT_INFO, "the CMS ContentInfo")
    return ContentInfo(kind.oid("the CMS content type"), *wrapper.fields(_CONTENT, "the CMS content"))
