"""Direct Context: what the sender says of the patient (CX-1, CX-11; versions 1.0, 1.1 and the ADT extension, CX-14).

The header field ``X-Direct-Context`` names a part by its Content-ID; that part holds ``field: value`` lines. Read are
``patient-id`` and ``patient``; ``version``, ``id``, ``type`` and ``purpose`` are only checked. A ``patient`` line says
who it is; a second one is a second patient. The social security number is passed over.

A message that is attached may have a context of its own. Its sender was not verified, so it counts as an author's word.

Guarantees: never raises; linear. Failure modes: whatever is malformed is a problem by its own name and the rest is
read (CX-11). An element of ``patient`` that is not known hides something; a bad ``type`` does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.core.address import normalise
from gateway.core.claims import Claim, Identifier, PersonName, PostalAddress, Source, Strength, kept_identifiers
from gateway.core.demographics import calendar_date, partial_date, sex_code
from gateway.core.errors import InputError
from gateway.core.mime.encoding import decode_text, header_text
from gateway.core.mime.parts import Leaf
from gateway.core.mime.structure import Part
from gateway.evidence.collecting import Collector, unspaced, value
from gateway.evidence.transfer import decoded

MAX_CONTEXT_BYTES = 65_536
MAX_LINES = 1_000
MAX_CONTEXTS = 16
"""Header fields that name a context, in one message with those attached to it."""
MAX_ELEMENTS = 200
"""Of one ``patient`` or ``patient-id`` line."""
DIRECT_PATIENT_OID = "1.3.6.1.4.1.41179.2.4"
"""DirectTrust: what it identifies is the Direct address of a patient."""
_HEADER = b"x-direct-context"
_ID = re.compile(r"<([^<>\s]{1,998})>")
_LINE = re.compile(r"([!-9;-~]{1,100})[ \t]*:(.*)", re.DOTALL)
_VERSIONS = frozenset({"1.0", "1.1"})
_CATEGORIES = frozenset({"laboratory", "radiology", "pharmacy", "referral", "general", "error"})
_ACTIONS = frozenset({"order", "report", "result", "request", "response", "notification", "query"})
_ELEMENTS = frozenset(
    {
        "givenname", "surname", "middlename", "dateofbirth", "gender", "telephonenumber", "streetaddress",
        "postalcode", "localityname", "stateorprovincename", "country", "directaddress", "socialsecuritynumber",
    }
)  # fmt: skip


@dataclass(slots=True)
class _Context:
    """The metadata part while it is read."""

    found: Collector
    path: str
    strength: Strength
    fields: dict[str, list[str]] = field(default_factory=dict)

    def problem(self, code: str, detail: str, *, hides: bool = True) -> None:
        self.found.problem(Source.DIRECT_CONTEXT, self.path, code, detail, hides=hides)


def read_contexts(found: Collector, root: Part, leaves: Iterable[Leaf]) -> None:
    """Read every context that the message, or a message attached to it, names."""
    by_id: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        if leaf.part.content_id:
            by_id.setdefault(_bare(leaf.part.content_id), []).append(leaf)
    named = 0
    for message, strength in _messages(root):
        for header in message.fields:
            if header.name != _HEADER:
                continue
            named += 1
            if named > MAX_CONTEXTS:
                found.problem(
                    Source.DIRECT_CONTEXT, "", "too_many_contexts", f"more than {MAX_CONTEXTS} contexts are named"
                )
                return
            _read_named(found, by_id, _bare(header_text(header.value)), strength)


def _messages(root: Part) -> Iterable[tuple[Part, Strength]]:
    """The message and every message attached to it, with who speaks in its header."""
    yield root, Strength.SENDER
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.message is not None:
            yield part.message, Strength.AUTHOR
            waiting.append(part.message)
        waiting.extend(reversed(part.children))


def _bare(content_id: str) -> str:
    bracketed = _ID.search(content_id)
    return bracketed[1] if bracketed else content_id.strip()


def _read_named(found: Collector, by_id: Mapping[str, list[Leaf]], name: str, strength: Strength) -> None:
    parts = by_id.get(name, [])
    if not parts:
        found.problem(
            Source.DIRECT_CONTEXT, "", "context_part_missing", "the header names a part that the message does not have"
        )
    elif len(parts) > 1:
        found.problem(
            Source.DIRECT_CONTEXT, "", "context_part_ambiguous", "several parts have the Content-ID that is named",
            hides=False,
        )  # fmt: skip
    for leaf in parts[:MAX_CONTEXTS]:
        context = _Context(found, leaf.path, strength)
        if leaf.part.size > 2 * MAX_CONTEXT_BYTES:
            context.problem("context_too_large", f"more than {MAX_CONTEXT_BYTES} bytes")
        else:
            read_context(context.found, decoded(leaf), leaf.path, _charset(leaf), strength)


def _charset(leaf: Leaf) -> str:
    return leaf.part.content_type.parameters.get("charset", "")


def read_context(
    found: Collector, data: bytes, path: str, charset: str = "", strength: Strength = Strength.SENDER
) -> None:
    """Read a metadata part, its transfer encoding undone."""
    context = _Context(found, path, strength)
    if len(data) > MAX_CONTEXT_BYTES:
        context.problem("context_too_large", f"more than {MAX_CONTEXT_BYTES} bytes")
        return
    _split(context, decode_text(data, charset))
    _check(context)
    found.add_patients(_claims(context))


def _split(context: _Context, text: str) -> None:
    lines: list[str] = []
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")[: MAX_LINES + 1]:
        if line[:1] in {" ", "\t"} and lines and line.strip():
            lines[-1] += " " + line.strip()
        elif line.strip():
            lines.append(line.strip())
    if len(lines) > MAX_LINES:
        context.problem("context_too_large", f"more than {MAX_LINES} lines")
    for line in lines[:MAX_LINES]:
        parsed = _LINE.match(line)
        if parsed is None:
            context.problem("context_line_unreadable", "a line is not of the form field: value")
        else:
            context.fields.setdefault(parsed[1].lower(), []).append(parsed[2].strip())


def _check(context: _Context) -> None:
    fields = context.fields
    if not fields:
        context.problem("context_unreadable", "the part holds no field")
        return
    version = fields.get("version", [""])[0]
    if not version:
        context.problem("context_version_missing", "the required field version is missing", hides=False)
    elif version not in _VERSIONS:
        context.problem("context_version_unknown", "the version is neither 1.0 nor 1.1")
    if not fields.get("id", [""])[0]:
        context.problem("context_id_missing", "the required field id is missing", hides=False)
    for kind in fields.get("type", []):
        category, _, action = kind.lower().partition("/")
        if category.strip() not in _CATEGORIES or action.strip() not in _ACTIONS:
            context.problem("context_type_unknown", "the type is none that the guide defines", hides=False)


def _claims(context: _Context) -> list[Claim]:
    identifiers, addresses = _identifiers(context)
    patients = [_elements(context, line) for line in context.fields.get("patient", [])] or [{}]
    claims = [_claim(context, elements) for elements in patients]
    # The identifiers stand beside the patient line, not in it: they are the first patient's.
    first = claims[0]
    claims[0] = Claim(
        first.source, first.strength, first.path, names=first.names, birth_date=first.birth_date,
        birth_part=first.birth_part, sex=first.sex, identifiers=identifiers, phones=first.phones,
        direct_addresses=tuple(dict.fromkeys((*first.direct_addresses, *addresses))), addresses=first.addresses,
    )  # fmt: skip
    return claims


def _identifiers(context: _Context) -> tuple[tuple[Identifier, ...], tuple[str, ...]]:
    identifiers: list[Identifier] = []
    addresses: list[str] = []
    for line in context.fields.get("patient-id", []):
        entries = [entry.strip() for entry in line.split(";", MAX_ELEMENTS)]
        if len(entries) > MAX_ELEMENTS:
            context.problem("context_too_large", f"more than {MAX_ELEMENTS} identifiers")
        for entry in filter(None, entries[:MAX_ELEMENTS]):
            known = entry[8:] if entry.lower().startswith("urn:oid:") else entry
            assigner, colon, number = known.partition(":")
            if not (colon and assigner.strip() and number.strip()):
                context.problem("context_patient_id_unreadable", "a patient-id is not of the form oid:value")
            elif assigner.strip() == DIRECT_PATIENT_OID:
                addresses += _direct(context, number)
            else:
                identifiers.append(Identifier(value(number), value(assigner)))
    return kept_identifiers(identifiers), tuple(addresses)


def _direct(context: _Context, text: str) -> list[str]:
    try:
        return [normalise(unspaced(text).removeprefix("mailto:"))]
    except InputError:
        context.problem("context_direct_address_unreadable", "a Direct address cannot be read")
        return []


def _elements(context: _Context, line: str) -> dict[str, list[str]]:
    elements: dict[str, list[str]] = {}
    pieces = line.split(";", MAX_ELEMENTS)
    if len(pieces) > MAX_ELEMENTS:
        context.problem("context_too_large", f"more than {MAX_ELEMENTS} elements of a patient")
    for piece in pieces[:MAX_ELEMENTS]:
        name, equals, content = piece.partition("=")
        key = unspaced(name).lower()
        if not piece.strip():
            continue
        if not equals or key not in _ELEMENTS:
            context.problem("context_element_unknown", "the patient has an element that the guide does not define")
        elif text := value(content.strip().strip('"')):
            elements.setdefault(key, []).append(text)
    if any(len(texts) > 1 and key not in {"givenname", "telephonenumber"} for key, texts in elements.items()):
        context.problem("context_element_repeated", "the patient has an element twice; the first one was taken")
    return elements


def _claim(context: _Context, elements: Mapping[str, list[str]]) -> Claim:
    def one(name: str) -> str:
        return elements.get(name, [""])[0]

    name = PersonName(one("surname"), tuple(elements.get("givenname", [])), one("middlename"))
    birth = unspaced(one("dateofbirth"))
    born, part = calendar_date(birth), partial_date(birth)
    if birth and born is None and not part:
        context.problem("context_birth_date_unreadable", "dateOfBirth is not a date (YYYY-MM-DD)")
    sex = sex_code(one("gender"))
    if one("gender") and not sex:
        context.problem("context_gender_unknown", "gender is none that is known")
    street = one("streetaddress")
    address = PostalAddress(
        (street,) if street else (), one("localityname"), one("stateorprovincename"), one("postalcode"), one("country")
    )
    return Claim(
        Source.DIRECT_CONTEXT,
        context.strength,
        context.path,
        names=(name,) if name.family or name.given else (),
        birth_date=born,
        birth_part="" if born else part,
        sex=sex,
        phones=tuple(elements.get("telephonenumber", [])),
        direct_addresses=tuple(_direct(context, one("directaddress"))) if one("directaddress") else (),
        addresses=(address,) if address != PostalAddress() else (),
    )
