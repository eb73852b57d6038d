"""FHIR R4: what a Patient resource says, alone, in a Bundle, contained in another resource, or as lines of NDJSON.

Each Patient that differs is a patient of its own. A telecom is a Direct address only when something says so: the
us-core-direct extension with ``valueBoolean`` true, a ``system`` of ``direct``, or a value that begins with
``urn:direct:``. What ``use`` or an ended ``period`` calls old is a previous name, an old address, or passed over
(identifiers and telecoms). Social security numbers are passed over.

Guarantees: never raises for any bytes; what is parsed is bounded before it is parsed. Failure modes: a resource whose
shape is not that of FHIR gives what can be read of it, and a problem by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from gateway.core.address import normalise
from gateway.core.claims import (
    Claim,
    Identifier,
    NameKind,
    PersonName,
    PostalAddress,
    Source,
    Strength,
    kept_identifiers,
)
from gateway.core.demographics import calendar_date, partial_date, sex_code
from gateway.core.errors import InputError
from gateway.evidence.collecting import Collector, Piece, value

MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_JSON_MARKS = 1_000_000
"""Braces, brackets and commas, so about the number of values."""
MAX_LINES = 10_000
"""Of NDJSON."""
MAX_PATIENTS = 64
MAX_NESTING = 8
"""Bundles in Bundles, and resources contained in them."""
MAX_LIST = 200
DIRECT_EXTENSION = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-direct"
_KINDS = {
    "official": NameKind.CURRENT, "usual": NameKind.CURRENT, "": NameKind.CURRENT, "old": NameKind.PREVIOUS,
    "maiden": NameKind.BIRTH,
}  # fmt: skip
"""Every other use (temp, nickname, anonymous) is an alias."""
_RANKS = ("official", "usual", "")


def read_json(found: Collector, piece: Piece) -> None:
    """Read a piece that is JSON, or lines of it; what holds no FHIR resource is passed over."""
    if len(piece.data) > MAX_JSON_BYTES:
        _problem(found, piece.path, "json_too_large", f"more than {MAX_JSON_BYTES // 1024 // 1024} MiB")
    elif sum(piece.data.count(mark) for mark in (b"{", b"[", b",")) > MAX_JSON_MARKS:
        _problem(found, piece.path, "json_too_complex", "the JSON has more values than are read")
    else:
        is_fhir = b"resourceType" in piece.data or "fhir" in piece.content_type
        documents, is_whole = _documents(piece.data)
        if not is_whole and is_fhir:
            _problem(found, piece.path, "json_malformed", "it is not valid JSON in UTF-8, or nested too deeply")
        read_resources(found, piece, documents)


def read_resources(found: Collector, piece: Piece, documents: list[Any]) -> None:
    """Read every Patient in the resources."""
    claims: list[Claim] = []
    for resource in _patients(found, piece.path, documents):
        if len(claims) >= MAX_PATIENTS:
            _problem(found, piece.path, "fhir_too_many_patients", f"more than {MAX_PATIENTS} patients")
            break
        claim = _Patient(found, piece.path, resource).claim()
        claims.append(replace(claim, is_doubtful=piece.is_doubtful))
    found.add_patients(claims)


def _problem(found: Collector, path: str, code: str, detail: str) -> None:
    found.problem(Source.FHIR_PATIENT, path, code, detail)


def _documents(data: bytes) -> tuple[list[Any], bool]:
    """The JSON values of a piece, and whether all of it could be read."""
    whole = _parsed(data)
    if whole is not None:
        return [whole], True
    lines = [line for line in data.split(b"\n", MAX_LINES) if line.strip()]
    values = [parsed for line in lines[:MAX_LINES] if (parsed := _parsed(line)) is not None]
    return values, len(values) == len(lines)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return None


def _number(_: str) -> int:
    """No number of a Patient is read: none is converted, however long it is."""
    return 0


def _patients(found: Collector, path: str, documents: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Every Patient in the documents, in order."""
    waiting: list[tuple[Any, int]] = [(document, 0) for document in reversed(documents)]
    while waiting:
        resource, depth = waiting.pop()
        if depth > MAX_NESTING:
            _problem(found, path, "fhir_nested_too_deeply", "resources are nested too deeply")
            continue
        if isinstance(resource, list):
            waiting += [(item, depth + 1) for item in reversed(resource)]
        elif isinstance(resource, dict):
            if resource.get("resourceType") == "Patient":
                yield resource
            entries = resource.get("entry") if resource.get("resourceType") == "Bundle" else None
            listed = entries if isinstance(entries, list) else []
            inner = [entry.get("resource") for entry in listed if isinstance(entry, dict)]
            contained = resource.get("contained")
            inner += contained if isinstance(contained, list) else []
            waiting += [(item, depth + 1) for item in reversed(inner)]


class _Patient:
    """One Patient while it is read."""

    def __init__(self, found: Collector, path: str, resource: Mapping[str, Any]) -> None:
        self._found = found
        self._path = path
        self._resource = resource

    def claim(self) -> Claim:
        born, part = self._birth()
        phones, emails, direct = self._telecoms()
        return Claim(
            Source.FHIR_PATIENT,
            Strength.AUTHOR,
            self._path,
            names=self._names(),
            birth_date=born,
            birth_part=part,
            sex=self._sex(),
            identifiers=kept_identifiers(
                [self._identifier(one) for one in self._objects("identifier") if _is_now(one)]
            ),
            phones=phones,
            emails=emails,
            direct_addresses=direct,
            addresses=tuple(a for one in self._objects("address") if (a := _address(one)) is not None),
            deceased=self._deceased(),
        )

    def _objects(self, key: str) -> list[Mapping[str, Any]]:
        values = self._resource.get(key)
        if values is None:
            return []
        listed = values if isinstance(values, list) else []
        objects: list[Mapping[str, Any]] = [one for one in listed[:MAX_LIST] if isinstance(one, dict)]
        if not isinstance(values, list) or len(objects) != len(values):
            self._problem("fhir_value_unreadable", "an element of Patient is no list of objects, or too long a one")
        return objects

    def _problem(self, code: str, detail: str) -> None:
        _problem(self._found, self._path, code, detail)

    def _names(self) -> tuple[PersonName, ...]:
        ranked = sorted(self._objects("name"), key=_name_rank)
        names = [PersonName(_text(one, "family"), _texts(one, "given"), "", " ".join(_texts(one, "suffix")), _kind(one))
                 for one in ranked]  # fmt: skip
        if any(
            not name.family and not name.given and _text(one, "text") for name, one in zip(names, ranked, strict=True)
        ):
            self._problem("fhir_name_unstructured", "a name is not split into family and given names")
        kept = dict.fromkeys(name for name in names if name.family or name.given)
        return tuple(sorted(kept, key=lambda name: name.kind is not NameKind.CURRENT))

    def _birth(self) -> tuple[date | None, str]:
        text = _text(self._resource, "birthDate")
        born = calendar_date(text)
        part = "" if born else partial_date(text)
        if self._resource.get("birthDate") is not None and born is None and not part:
            self._problem("fhir_birth_date_unreadable", "birthDate is not a date")
        return born, part

    def _sex(self) -> str:
        said = _text(self._resource, "gender")
        if said and not sex_code(said):
            self._problem("fhir_gender_unknown", "gender is none that is known")
        return sex_code(said)

    def _identifier(self, one: Mapping[str, Any]) -> Identifier:
        kind = one.get("type")
        codings = kind.get("coding") if isinstance(kind, dict) else None
        codes = (
            [_text(c, "code") for c in codings[:MAX_LIST] if isinstance(c, dict)] if isinstance(codings, list) else []
        )
        if "SS" in codes:
            return Identifier("")
        system = _text(one, "system")
        return Identifier(_text(one, "value"), system[8:] if system.lower().startswith("urn:oid:") else system,
                          next(iter(codes), ""))  # fmt: skip

    def _telecoms(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Phones, e-mail addresses and Direct addresses that are in use."""
        phones: dict[str, None] = {}
        emails: dict[str, None] = {}
        direct: dict[str, None] = {}
        for one in filter(_is_now, self._objects("telecom")):
            text, system = _text(one, "value"), _text(one, "system").lower()
            bare = text[11:] if text.lower().startswith("urn:direct:") else text
            bare = bare[7:] if bare.lower().startswith("mailto:") else bare
            if not text:
                continue
            if _is_direct(one) or system == "direct" or text.lower().startswith("urn:direct:"):
                try:
                    direct[normalise(bare)] = None
                except InputError:
                    self._problem("fhir_direct_address_unreadable", "a Direct address cannot be read")
            elif system == "email":
                emails[bare] = None
            elif system in {"phone", "sms"}:
                phones[text] = None
        return tuple(phones), tuple(emails), tuple(direct)

    def _deceased(self) -> bool | None:
        if _text(self._resource, "deceasedDateTime"):
            return True
        said = self._resource.get("deceasedBoolean")
        return (
            {True: True, "true": True, False: False, "false": False}.get(said) if isinstance(said, str | bool) else None
        )


def _text(one: Mapping[str, Any], key: str) -> str:
    found = one.get(key)
    return value(found) if isinstance(found, str) else ""


def _texts(one: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = one.get(key)
    given = found if isinstance(found, list) else [found]
    return tuple(text for item in given[:MAX_LIST] if isinstance(item, str) and (text := value(item)))


def _has_ended(one: Mapping[str, Any]) -> bool:
    period = one.get("period")
    return isinstance(period, dict) and bool(period.get("end"))


def _is_now(one: Mapping[str, Any]) -> bool:
    return one.get("use") != "old" and not _has_ended(one)


def _name_rank(one: Mapping[str, Any]) -> int:
    use = _text(one, "use")
    return _RANKS.index(use) if use in _RANKS else len(_RANKS)


def _kind(one: Mapping[str, Any]) -> NameKind:
    kind = _KINDS.get(_text(one, "use"), NameKind.ALIAS)
    return NameKind.PREVIOUS if kind is NameKind.CURRENT and _has_ended(one) else kind


def _is_direct(one: Mapping[str, Any]) -> bool:
    extensions = one.get("extension")
    return isinstance(extensions, list) and any(
        isinstance(e, dict) and e.get("url") == DIRECT_EXTENSION and e.get("valueBoolean") in {True, "true"}
        for e in extensions[:MAX_LIST]
        if isinstance(e, dict) and isinstance(e.get("valueBoolean"), bool | str)
    )


def _address(one: Mapping[str, Any]) -> PostalAddress | None:
    address = PostalAddress(
        _texts(one, "line"), _text(one, "city"), _text(one, "state"), _text(one, "postalCode"), _text(one, "country")
    )
    if address == PostalAddress():
        return None
    return replace(address, is_old=not _is_now(one))
