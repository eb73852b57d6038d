"""C-CDA: what the author of a clinical document says of its patient (HL7 CDA R2, ``recordTarget``).

A document is known by its root, ``ClinicalDocument`` in the namespace ``urn:hl7-org:v3``, whatever its MIME type. Only
the header is read. Each ``recordTarget`` is a patient of its own. An id below DirectTrust's OID for patients is the
patient's Direct address; the OIDs for practitioners and organisations are passed over, because the patient is meant
here, and so are social security numbers. ``mailto:`` is an ordinary e-mail address.

A name or an address that has an end (``validTime``, ``useablePeriod``) is a previous one: no document states the end of
what is in use, and reading must not depend on the day.

Guarantees: never raises for a parsed document; linear in the header. Failure modes: what cannot be read is a problem
by its own name, and the rest is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import date

from lxml import etree

from gateway.core.address import normalise
from gateway.core.claims import (
    Claim,
    Document,
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
from gateway.evidence.context import DIRECT_PATIENT_OID
from gateway.evidence.xml_documents import element_text, local_name

NAMESPACE = "urn:hl7-org:v3"
MAX_RECORD_TARGETS = 32
MAX_CHILDREN = 200
"""Ids, names, addresses, telecoms or parts of a name that are read of one element."""
_V3 = f"{{{NAMESPACE}}}"
_SDTC = "{urn:hl7-org:sdtc}"
_OTHER_DIRECT_OIDS = frozenset(f"1.3.6.1.4.1.41179.2.{number}" for number in (1, 2, 3))
_ALIAS_USES = frozenset({"P", "A", "I", "R", "SRCH", "SNDX", "PHON"})
_BIRTH_QUALIFIERS = frozenset({"BR", "AD"})
"""Birth name, and the one from before or after an adoption."""


_PATIENT_ELEMENTS = frozenset({"recordTarget", "patientRole", "patient"})


def is_cda(root: etree._Element) -> bool:
    """Whether the root is that of a clinical document."""
    return bool(root.tag == f"{_V3}ClinicalDocument")


def names_patient(root: etree._Element) -> bool:
    """Whether a patient is named anywhere in the document, in whatever namespace."""
    return any(local_name(element) in _PATIENT_ELEMENTS for element in root.iter("{*}*"))


def read_cda(found: Collector, root: etree._Element, piece: Piece) -> None:
    """Read the header of a document. Its claims are doubtful when the piece is."""
    identity = root.find(f"{_V3}id")
    code = root.find(f"{_V3}code")
    found.document(
        Document(
            piece.path,
            hashlib.sha256(piece.data).hexdigest(),
            id_root=_attribute(identity, "root"),
            id_extension=_attribute(identity, "extension"),
            code=_attribute(code, "code"),
            code_system=_attribute(code, "codeSystem"),
            title=value(element_text(root.find(f"{_V3}title"))),
        )
    )
    targets = root.findall(f"{_V3}recordTarget/{_V3}patientRole")
    if not targets:
        # A document that was read and speaks of nobody hides nobody.
        hides = names_patient(root)
        found.problem(
            Source.CDA_HEADER, piece.path, "cda_patient_missing", "the document names no patient", hides=hides
        )
    if len(targets) > MAX_RECORD_TARGETS:
        _problem(found, piece.path, "cda_too_many_patients", f"more than {MAX_RECORD_TARGETS} patients")
    found.add_patients([_Header(found, piece, role).claim() for role in targets[:MAX_RECORD_TARGETS]])


def _problem(found: Collector, path: str, code: str, detail: str) -> None:
    found.problem(Source.CDA_HEADER, path, code, detail)


def _attribute(element: etree._Element | None, name: str) -> str:
    return "" if element is None else value(element.get(name))


class _Header:
    """One ``patientRole`` while it is read."""

    def __init__(self, found: Collector, piece: Piece, role: etree._Element) -> None:
        self._found = found
        self._piece = piece
        self._role = role
        self._patient = role.find(f"{_V3}patient")

    def claim(self) -> Claim:
        numbers = list(self._numbers())
        phones, emails, direct = self._telecoms()
        born, part = self._birth()
        return Claim(
            Source.CDA_HEADER,
            Strength.AUTHOR,
            self._piece.path,
            names=self._names(),
            birth_date=born,
            birth_part=part,
            sex=self._sex(),
            identifiers=kept_identifiers(self._identifiers(numbers)),
            phones=phones,
            emails=emails,
            direct_addresses=tuple(dict.fromkeys((*self._direct(numbers), *direct))),
            addresses=tuple(a for one in self._few(self._role, "addr") if (a := _address(one)) is not None),
            deceased=self._deceased(),
            is_doubtful=self._piece.is_doubtful,
        )

    def _problem(self, code: str, detail: str) -> None:
        _problem(self._found, self._piece.path, code, detail)

    def _few(self, parent: etree._Element | None, name: str, namespace: str = _V3) -> list[etree._Element]:
        """The children of that name that say something, as far as the limit goes."""
        if parent is None:
            return []
        children = list(parent.iterchildren(f"{namespace}{name}"))
        if len(children) > MAX_CHILDREN:
            self._problem("cda_too_many_values", f"more than {MAX_CHILDREN} elements of one kind")
        # A masked value (MSK) is not the value.
        return [child for child in children[:MAX_CHILDREN] if child.get("nullFlavor") is None]

    # --- identifiers ---

    def _numbers(self) -> Iterator[tuple[str, str, str]]:
        """Root, extension and type of every id."""
        for one in (*self._few(self._role, "id"), *self._few(self._role, "id", _SDTC)):
            yield _attribute(one, "root"), _attribute(one, "extension"), ""
        for by in self._few(self._role, "identifiedBy", _SDTC):
            for other in self._few(by, "alternateIdentification", _SDTC):
                kind = _attribute(next(iter(self._few(other, "code", _SDTC)), None), "code")
                for one in self._few(other, "id", _SDTC):
                    yield _attribute(one, "root"), _attribute(one, "extension"), kind

    def _identifiers(self, numbers: Iterable[tuple[str, str, str]]) -> list[Identifier]:
        kinds: dict[tuple[str, str], str] = {}
        for root, extension, kind in numbers:
            if root not in _OTHER_DIRECT_OIDS and root != DIRECT_PATIENT_OID:
                kinds[root, extension] = kind or kinds.get((root, extension), "")
        return [Identifier(extension, root, kind) for (root, extension), kind in kinds.items()]

    def _direct(self, numbers: Iterable[tuple[str, str, str]]) -> list[str]:
        return [
            address
            for root, extension, _ in numbers
            if root == DIRECT_PATIENT_OID and extension
            for address in self._normalised(extension)
        ]

    def _normalised(self, text: str) -> list[str]:
        try:
            return [normalise(text[7:] if text.lower().startswith("mailto:") else text)]
        except InputError:
            self._problem("cda_direct_address_unreadable", "a Direct address cannot be read")
            return []

    # --- the person ---

    def _names(self) -> tuple[PersonName, ...]:
        elements = sorted(self._few(self._patient, "name"), key=lambda one: not {"L", "OR"} & set(_uses(one)))
        names = list(dict.fromkeys(name for one in elements for name in self._name(one)))
        return tuple(sorted(names, key=lambda name: name.kind is not NameKind.CURRENT))

    def _name(self, one: etree._Element) -> list[PersonName]:
        """The name, and the birth name that may stand within it."""
        families = [(value(element_text(part)), _qualifiers(part)) for part in self._few(one, "family")]
        given = [(value(element_text(part)), _qualifiers(part)) for part in self._few(one, "given")]
        suffix = " ".join(value(element_text(part)) for part in self._few(one, "suffix"))
        families, given = ([pair for pair in pairs if pair[0]] for pairs in (families, given))
        if not families and not given:
            if value(element_text(one)):
                self._problem("cda_name_unstructured", "a name is not split into family and given names")
            return []
        first = tuple(text for text, qualifiers in given if "CL" not in qualifiers) or tuple(text for text, _ in given)
        nicknames = [text for text, qualifiers in given if "CL" in qualifiers and text not in first]
        kind = _name_kind(one)
        is_legal = bool({"L", "OR"} & set(_uses(one)))
        if not is_legal and any(_BIRTH_QUALIFIERS & qualifiers for _, qualifiers in given):
            kind = NameKind.BIRTH
        used = " ".join(text for text, qualifiers in families if not _BIRTH_QUALIFIERS & qualifiers)
        born = " ".join(text for text, qualifiers in families if _BIRTH_QUALIFIERS & qualifiers)
        names = [PersonName(used, first, "", suffix, kind)] if used or not born else []
        names += [PersonName(used, (text,), "", "", NameKind.ALIAS) for text in nicknames]
        if born:
            names.append(PersonName(born, first, "", suffix, NameKind.BIRTH))
        return names

    def _birth(self) -> tuple[date | None, str]:
        element = next(iter(self._few(self._patient, "birthTime")), None)
        text = _attribute(element, "value")
        born = calendar_date(text)
        part = "" if born else partial_date(text)
        if text and born is None and not part:
            self._problem("cda_birth_date_unreadable", "birthTime is not a date")
        return born, part

    def _sex(self) -> str:
        code = _attribute(next(iter(self._few(self._patient, "administrativeGenderCode")), None), "code")
        if code and not sex_code(code):
            self._problem("cda_gender_unknown", "administrativeGenderCode is none that is known")
        return sex_code(code)

    def _deceased(self) -> bool | None:
        said = [_attribute(one, "value").lower() for one in self._few(self._patient, "deceasedInd", _SDTC)]
        if "true" in said or any(one.get("value") for one in self._few(self._patient, "deceasedTime", _SDTC)):
            return True
        return False if "false" in said else None

    # --- where the person is reached ---

    def _telecoms(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Phones, e-mail addresses, and Direct addresses that are marked as such."""
        phones: dict[str, None] = {}
        emails: dict[str, None] = {}
        direct: dict[str, None] = {}
        for one in self._few(self._role, "telecom"):
            text = _attribute(one, "value")
            scheme, colon, rest = text.partition(":")
            kind, rest = (scheme.lower(), rest.strip()) if colon else ("", text)
            if text.lower().startswith("urn:direct:"):
                direct.update(dict.fromkeys(self._normalised(text[11:])))
            elif rest and (kind == "mailto" or (not kind and "@" in rest)):
                emails[rest] = None
            elif rest and kind in {"tel", "sms", ""}:
                phones[rest] = None
        return tuple(phones), tuple(emails), tuple(direct)


def _uses(element: etree._Element) -> list[str]:
    return (element.get("use") or "").upper().split()[:8]


def _qualifiers(element: etree._Element) -> set[str]:
    return set((element.get("qualifier") or "").upper().split()[:8])


def _has_ended(element: etree._Element, period: str) -> bool:
    high = element.find(f"{_V3}{period}/{_V3}high")
    return high is not None and bool(high.get("value"))


def _name_kind(one: etree._Element) -> NameKind:
    if _has_ended(one, "validTime"):
        return NameKind.PREVIOUS
    uses = set(_uses(one))
    return NameKind.ALIAS if uses & _ALIAS_USES and not uses & {"L", "OR"} else NameKind.CURRENT


def _address(one: etree._Element) -> PostalAddress | None:
    def texts(name: str) -> list[str]:
        children = list(one.iterchildren(f"{_V3}{name}"))[:MAX_CHILDREN]
        return [text for child in children if child.get("nullFlavor") is None and (text := value(element_text(child)))]

    lines = texts("streetAddressLine")
    if not lines:
        street = " ".join((*texts("houseNumber"), *texts("streetName"), *texts("unitID")))
        lines = [street] if street else []
    city, state, code, country = (" ".join(texts(name)) for name in ("city", "state", "postalCode", "country"))
    if not (lines or city or state or code):
        return None
    is_old = _has_ended(one, "useablePeriod") or bool({"BAD", "OLD"} & set(_uses(one)))
    return PostalAddress(tuple(lines), city, state, code, country, is_old)
