"""ContentInfo, the outermost layer of every CMS object (RFC 5652 section 3)."""

from __future__ import annotations

from gateway.sta.cms.ber import CONSTRUCTED, CONTEXT, OID, SEQUENCE, Buffer, Document, Element, malformed

DATA = "1.2.840.113549.1.7.1"
SIGNED_DATA = "1.2.840.113549.1.7.2"
ENVELOPED_DATA = "1.2.840.113549.1.7.3"
AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"
COMPRESSED_DATA = "1.2.840.113549.1.9.16.1.9"

_NAMES = {
    DATA: "data",
    SIGNED_DATA: "signed-data",
    ENVELOPED_DATA: "enveloped-data",
    AUTH_ENVELOPED_DATA: "auth-enveloped-data",
    COMPRESSED_DATA: "compressed-data",
}


def content_type(der: Buffer) -> str:
    """Return what a CMS object is.

    One of ``data``, ``signed-data``, ``enveloped-data``, ``auth-enveloped-data``, ``compressed-data``, or the dotted
    object identifier of anything else.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    dotted = _content_info(der)[0]
    return _NAMES.get(dotted, dotted)


def open_content(der: Buffer, *expected: str) -> tuple[str, Element]:
    """Return the content type (dotted) and the content element, which must be of one of the expected types.

    Raises:
        RejectionError: MALFORMED or RESOURCE_LIMIT.
    """
    dotted, content = _content_info(der)
    if dotted not in expected:
        raise malformed(f"the CMS object is {_NAMES.get(dotted, dotted)}, which is not expected here")
    return dotted, content


def _content_info(der: Buffer) -> tuple[str, Element]:
    cursor = Document(der).root().expect(SEQUENCE, "the CMS ContentInfo").open()
    dotted = cursor.take(OID, "the CMS content type").oid("the CMS content type")
    wrapper = cursor.take(CONTEXT | CONSTRUCTED, "the CMS content").open()
    cursor.finish("the CMS ContentInfo")
    content = wrapper.next("the CMS content")
    wrapper.finish("the CMS content")
    return dotted, content
