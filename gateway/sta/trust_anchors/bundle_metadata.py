"""The metadata that a trust bundle may carry beside its anchors (TB-4): for what, from where, from when, until when.

It is the content of the SignedData whose certificates are the anchors: an XML document ``TrustBundle`` with
``Profile``, ``DistributionPoint``, ``ValidFrom`` and ``ValidTo``. Its ``Anchors`` only repeat issuer and serial
number of the certificates and add nothing; they are stepped over like everything unknown.

Guarantees: no document type, so no entity of any kind; size and depth are bounded; nothing is fetched. Content that
does not name a ``TrustBundle`` (the reference implementations let anything stand there) says nothing about validity
and counts as absent. What does name one and cannot be read is refused: its dates may be what was meant to stop us.

Failure modes: :class:`BundleError`, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn
from xml.parsers import expat

from gateway.core.errors import BundleError

MAX_METADATA_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_TEXT_CHARS = 2_048
_FRACTION = re.compile(r"(\.\d{1,6})\d*")
_ROOT = "TrustBundle"


@dataclass(frozen=True, slots=True)
class BundleMetadata:
    """What the publisher says of the bundle. Times are in UTC; None where nothing is said."""

    profile: str = ""
    distribution_points: tuple[str, ...] = ()
    valid_from: datetime | None = None
    valid_to: datetime | None = None


def read_metadata(content: bytes) -> BundleMetadata | None:
    """Read the content of a bundle; None when it is no metadata.

    Raises:
        BundleError: it is XML, but damaged, hostile or contradictory.
    """
    # Without the zero octets, UTF-16 shows the name as well.
    if _ROOT.encode() not in content.replace(b"\0", b""):
        return None
    if len(content) > MAX_METADATA_BYTES:
        raise BundleError("unreadable", f"the metadata of the bundle is larger than {MAX_METADATA_BYTES >> 10} KiB")
    reader = _Reader()
    try:
        reader.parse(content)
    except (expat.ExpatError, ValueError, LookupError) as exc:
        raise BundleError("unreadable", "the metadata of the bundle is damaged XML") from exc
    return reader.metadata()


class _Reader:
    """Collects the texts of the root's direct children."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._text: list[str] = []
        self._chars = 0
        self._found: dict[str, list[str]] = {}
        self._root = ""

    def parse(self, content: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartDoctypeDeclHandler = _no_document_type
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.Parse(content, True)

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if not self._open:
            self._root = local
        self._open.append(local)
        if len(self._open) > MAX_DEPTH:
            raise BundleError("unreadable", "the metadata of the bundle is nested too deeply")
        self._text, self._chars = [], 0

    def _end(self, _name: str) -> None:
        local = self._open.pop()
        if len(self._open) == 1:
            self._found.setdefault(local, []).append("".join(self._text).strip())

    def _characters(self, text: str) -> None:
        if len(self._open) == 2:
            self._chars += len(text)
            if self._chars > MAX_TEXT_CHARS:
                raise BundleError("unreadable", "the metadata of the bundle has an entry that is too long")
            self._text.append(text)

    def metadata(self) -> BundleMetadata | None:
        if self._root != _ROOT:
            return None
        return BundleMetadata(
            profile=next(iter(self._found.get("Profile", ())), ""),
            distribution_points=tuple(self._found.get("DistributionPoint", ())),
            valid_from=self._moment("ValidFrom"),
            valid_to=self._moment("ValidTo"),
        )

    def _moment(self, name: str) -> datetime | None:
        texts = self._found.get(name, [])
        if len(set(texts)) > 1:
            raise BundleError("unreadable", f"the metadata of the bundle has two different values of {name}")
        if not texts:
            return None
        try:
            # XML Schema's dateTime: any number of digits of a second; without a zone we read UTC.
            moment = datetime.fromisoformat(_FRACTION.sub(r"\1", texts[0]))
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise BundleError("unreadable", f"the metadata of the bundle has a {name} that is no date") from None


def _no_document_type(*_declaration: object) -> NoReturn:
    raise BundleError("unreadable", "the metadata of the bundle declares a document type, which is not allowed")
