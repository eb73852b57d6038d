"""Requests as JSON: what a command and a plug-in's process read from standard input (docs/import-hook.md).

Guarantees: ASCII, one document on one line, every key always there. What :func:`request_of` makes of a document is
what the document was made of. Bytes are base64; they are bounded by the largest message that is accepted.

Failure modes: ValueError for a document that is none of ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import secrets
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pybase64

from gateway.ports import (
    IMPORTER_API_VERSION,
    ImportRequest,
    Link,
    MessagePart,
    Patient,
    Retraction,
)

_PIECE_BYTES = 3 * 256 * 1024
"""A multiple of three, so that the pieces of base64 make one whole."""


def import_document(request: ImportRequest) -> dict[str, Any]:
    """What an import looks like; the bytes become base64 when it is :func:`encoded`."""
    return {"api_version": IMPORTER_API_VERSION, "action": "import", "key": request.link.id, **_body(request)}


def retraction_document(retraction: Retraction) -> dict[str, Any]:
    """What a retraction looks like: the import as it was, and why it is taken back."""
    told = {
        "receipt": retraction.receipt,
        "reason": retraction.reason,
        "actor": retraction.actor,
        "retracted_at": retraction.retracted_at.isoformat(),
    }
    head = {"api_version": IMPORTER_API_VERSION, "action": "retract", "key": retraction.key, "retraction": told}
    return head | _body(retraction.request)


def encoded(document: Mapping[str, Any]) -> bytes:
    """The document as one line of ASCII.

    Bytes go in as base64 piece by piece, past the JSON writer: it would hold the interpreter, and so the mail, for a
    second over the largest messages.
    """
    raw: list[bytes] = []
    mark = secrets.token_hex(16)

    def place(value: object) -> str:
        if not isinstance(value, bytes):
            raise TypeError(f"a {type(value).__name__} has no place in a document")
        raw.append(value)
        return mark

    around = json.dumps(document, ensure_ascii=True, separators=(",", ":"), default=place).split(mark)
    whole = io.BytesIO()
    whole.write(around[0].encode("ascii"))
    for data, text in zip(raw, around[1:], strict=True):
        view = memoryview(data)
        for begin in range(0, len(view), _PIECE_BYTES):
            whole.write(pybase64.b64encode(view[begin : begin + _PIECE_BYTES]))
        whole.write(text.encode("ascii"))
    whole.write(b"\n")
    return whole.getvalue()


def elided(document: dict[str, Any]) -> dict[str, Any]:
    """The document for people: how long the bytes are instead of the bytes."""
    message = dict(document["message"])
    message["content_base64"] = _length(message["content_base64"])
    message["parts"] = [{**part, "data_base64": _length(part["data_base64"])} for part in message["parts"]]
    return {**document, "message": message}


def _length(data: bytes) -> str:
    return f"... base64 of {len(data)} bytes ..."


def request_of(document: Mapping[str, Any]) -> ImportRequest:
    """The request of a document. Raises ValueError."""
    try:
        message = document["message"]
        parts = tuple(_part(part) for part in message["parts"])
        return ImportRequest(
            link=_value(Link, document["link"]),
            patient=_value(Patient, document["patient"]),
            sender=message["sender"],
            recipients=tuple(message["recipients"]),
            subject=message["subject"],
            sent_at=_moment(message["sent_at"]),
            received_at=datetime.fromisoformat(message["received_at"]),
            rfc822_message_id=message["rfc822_message_id"],
            content_sha256=message["content_sha256"],
            content=pybase64.b64decode(message["content_base64"], validate=True),
            text=message["text"],
            parts=parts,
        )
    except (LookupError, TypeError) as exc:
        raise ValueError(f"this is no request: {type(exc).__name__}") from None


def retraction_of(document: Mapping[str, Any]) -> Retraction:
    """The retraction of a document. Raises ValueError."""
    request = request_of(document)
    try:
        told = document["retraction"]
        at = datetime.fromisoformat(told["retracted_at"])
        return Retraction(request, told["receipt"], told["reason"], told["actor"], at)
    except (LookupError, TypeError) as exc:
        raise ValueError(f"this is no retraction: {type(exc).__name__}") from None


def _body(request: ImportRequest) -> dict[str, Any]:
    message = {
        "id": request.link.message_id,
        "rfc822_message_id": request.rfc822_message_id,
        "sender": request.sender,
        "recipients": list(request.recipients),
        "subject": request.subject,
        "sent_at": request.sent_at.isoformat() if request.sent_at else None,
        "received_at": request.received_at.isoformat(),
        "content_sha256": request.content_sha256,
        "text": request.text,
        "content_base64": request.content,
        "parts": [
            {
                "number": part.number,
                "filename": part.filename,
                "content_type": part.content_type,
                "size_bytes": len(part.data),
                "sha256": hashlib.sha256(part.data).hexdigest(),
                "data_base64": part.data,
            }
            for part in request.parts
        ],
    }
    return {"link": _plain(request.link), "patient": _plain(request.patient), "message": message}


def _plain(value: Any) -> dict[str, Any]:
    return {key: _json(item) for key, item in dataclasses.asdict(value).items()}


def _json(item: Any) -> Any:
    if isinstance(item, date):
        return item.isoformat()
    if isinstance(item, tuple | list):
        return [_json(one) for one in item]
    return {key: _json(one) for key, one in item.items()} if isinstance(item, dict) else item


def _part(part: Mapping[str, Any]) -> MessagePart:
    data = pybase64.b64decode(part["data_base64"], validate=True)
    return MessagePart(part["filename"], part["content_type"], data, part["number"])


_MADE = {"linked_at": datetime.fromisoformat, "birth_date": date.fromisoformat, "direct_addresses": tuple}


def _value(kind: type[Any], document: Mapping[str, Any]) -> Any:
    """A value of ours from its JSON form."""
    known = {field.name for field in dataclasses.fields(kind)}
    values = {key: item for key, item in document.items() if key in known}
    made: dict[str, Any] = {}
    for key, item in values.items():
        make: Any = _MADE.get(key)
        made[key] = make(item) if make is not None and item is not None else item
    return kind(**made)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
