"""The header fields that tell a mail client what the gateway knows of a message, made from its evidence.

They are made once, when the message is filed, and kept with it: what a client has read of a UID never changes (RFC 3501
2.3.1.1), so they speak of that moment, and the keywords speak of now (:mod:`gateway.core.standing`).

======================================  ===========================================================================
field                                   says
======================================  ===========================================================================
``Direct-Gateway-Verdict``              ``accepted``
``Direct-Gateway-Sender``               the address that the signature was bound to: the verified From
``Direct-Gateway-Signer``               what binds the signer's certificate to it: the same address, or its domain
``Direct-Gateway-Signer-Certificate``   ``sha256=`` of that certificate
``Direct-Gateway-Anchor``               ``sha256=`` of the trust anchor, and the bundle or the folder that it is of;
                                        one field for each anchor
``Direct-Gateway-Policy``               the rules that were in force
``Direct-Gateway-Verified-At``          when it was judged, in UTC
``Direct-Gateway-Message-Id``           the gateway's own id of the message, for ``message show``
``Direct-Gateway-Link-At-Filing``       ``linked``, ``unlinked`` (left to a person) or ``undecided``
======================================  ===========================================================================

Guarantees: a pure function of the evidence, so ``audit verify`` makes them again and compares. The result is ASCII,
whole lines of at most 78 characters where a value can be folded (RFC 5322 2.1.1), at most MAX_ANCHORS anchors and
MAX_CHARS characters of any value; no value holds a line break, and what is not ASCII stands in encoded words (RFC
2047). Format :data:`FORMAT`; another spelling is another number, and what was kept stays as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from gateway.core.shown_message import PREFIX
from gateway.core.standing import Standing

FORMAT: Final = 1
MAX_CHARS: Final = 300
"""Of one value. An address has at most 254."""
MAX_ANCHORS: Final = 4
LINE_CHARS: Final = 78
_CUT = "..."
_WORD_OCTETS = 45
"""Of the text in one encoded word, so that it has at most 75 characters (RFC 2047 section 2)."""
_PLAIN = re.compile(r"[\x20-\x7e]*")
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]+"
)
"""What breaks a line, turns the direction of writing, or is not seen: none of it belongs to a name or an address."""


def link_words(standing: Standing) -> str:
    """How a message stands, in the word that ``Direct-Gateway-Link-At-Filing`` has for it."""
    return "linked" if standing.linked else "unlinked" if standing.decided else "undecided"


def verdict_fields(evidence: Mapping[str, Any], *, message_id: str, verified_at: datetime, link: str) -> str:
    """The fields of a message, each with its CRLF.

    Args:
        evidence: the verdict as it is stored (``verdict``, ``sender``, ``signer``, ``trust``, ``policy_version``).
        message_id: the gateway's own.
        verified_at: the moment of the verdict.
        link: see :func:`link_words`.
    """
    return "".join(_lines(evidence, message_id, verified_at, link))


def _lines(evidence: Mapping[str, Any], message_id: str, verified_at: datetime, link: str) -> Iterator[str]:
    yield _field("Verdict", [str(evidence["verdict"])])
    yield _field("Sender", [str(evidence["sender"])])
    signer = evidence["signer"]
    if signer is not None:
        yield _field("Signer", [str(signer["identity"])])
        yield _field("Signer-Certificate", [f"sha256={signer['sha256']}"])
    for sha256, sources in _anchors(evidence["trust"]):
        yield _field("Anchor", [f"sha256={sha256};", ", ".join(sources)])
    yield _field("Policy", [str(evidence["policy_version"])])
    yield _field("Verified-At", [verified_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")])
    yield _field("Message-Id", [message_id])
    yield _field("Link-At-Filing", [link])


def _anchors(trust: Iterable[Mapping[str, Any]]) -> list[tuple[str, Sequence[str]]]:
    """Each anchor that accepted the signer for somebody, once, with where it came from."""
    found: dict[str, Sequence[str]] = {}
    for one in trust:
        sha256 = one["anchor_sha256"]
        if one["reason"] == "ok" and sha256:
            found.setdefault(str(sha256), [str(source) for source in one["anchor_sources"]])
    return list(found.items())[:MAX_ANCHORS]


def _field(name: str, texts: Iterable[str]) -> str:
    """One field, folded between words. A text that is empty leaves an empty value."""
    line, lines = f"{PREFIX}{name}:", list[str]()
    for word in (word for text in texts for word in _words(text)):
        if line and len(line) + 1 + len(word) > LINE_CHARS:
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\r\n".join([*lines, line]) + "\r\n"


def _words(text: str) -> list[str]:
    """What may stand in a header, in pieces between which it may be folded."""
    clean = " ".join(_UNSEEN.sub(" ", text).split())
    if len(clean) > MAX_CHARS:
        clean = clean[: MAX_CHARS - len(_CUT)] + _CUT
    # What looks like an encoded word would be read as one.
    return clean.split() if _PLAIN.fullmatch(clean) and "=?" not in clean else list(_encoded(clean))


def _encoded(text: str) -> Iterator[str]:
    piece = b""
    for character in text:
        octets = character.encode("utf-8", "replace")
        if len(piece) + len(octets) > _WORD_OCTETS:
            yield _word(piece)
            piece = b""
        piece += octets
    yield _word(piece)


def _word(octets: bytes) -> str:
    return f"=?utf-8?B?{base64.b64encode(octets).decode('ascii')}?="
