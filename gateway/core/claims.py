"""What a source says of a patient, as values, and whether several of them can be of one person.

A message may name its patient in several places: who signed it, the Direct Context, the header of a C-CDA, the
metadata of an XDM package, the PID of an HL7 v2 message, a FHIR Patient. Each place gives a :class:`Claim`, which says
how far it can be trusted and is never mixed with another one. All of a message together is its :class:`Evidence`.

Guarantees: pure values; texts are as the source wrote them (white space made single, control characters removed);
they are made comparable by :mod:`gateway.core.demographics` only when they are compared. A social security number is
never held, not even its last four digits: no rule of the matching policy needs it, the patient index does not have
it, and what is not kept cannot leak. Every reader of a source leaves it out (:func:`is_social_security`).

Failure modes: none; whoever reads a source tells what it could not read as a :class:`Problem`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from gateway.core.demographics import squashed


class Source(StrEnum):
    """Where a claim stands. The words are stored with decisions."""

    SIGNED_FROM = "signed_from"
    """The verified From of the message."""
    DIRECT_CONTEXT = "direct_context"
    """The metadata part of Expressing Context in Direct Messaging (CX-1)."""
    CDA_HEADER = "cda_header"
    """``recordTarget`` of a C-CDA."""
    XDM_METADATA = "xdm_metadata"
    """``METADATA.XML`` of an IHE XDM package (CX-20)."""
    HL7V2_PID = "hl7v2_pid"
    """The PID segment of an HL7 v2 message."""
    FHIR_PATIENT = "fhir_patient"
    """A FHIR R4 Patient."""


class Strength(StrEnum):
    """Who stands behind a claim, the strongest first."""

    SIGNATURE = "signature"
    """The signature of the message and its trust chain prove it."""
    SENDER = "sender"
    """The sender of the message says so."""
    AUTHOR = "author"
    """The author of a document in the message says so."""
    PACKAGER = "packager"
    """Whoever packed the documents says so."""


class NameKind(StrEnum):
    """What a name is to its bearer."""

    CURRENT = "current"
    ALIAS = "alias"
    """A pseudonym, nickname or other name in use beside the current one."""
    PREVIOUS = "previous"
    BIRTH = "birth"
    """The name before a marriage or adoption; also a previous one."""


@dataclass(frozen=True, slots=True)
class PersonName:
    """One name of a person."""

    family: str = ""
    given: tuple[str, ...] = ()
    """As the source lists them: the first name first. Some sources put middle names here, others into ``middle``."""
    middle: str = ""
    suffix: str = ""
    kind: NameKind = NameKind.CURRENT

    @property
    def first(self) -> str:
        """The first given name, or the empty string."""
        return self.given[0] if self.given else ""

    @property
    def middles(self) -> tuple[str, ...]:
        """The given names after the first one, wherever the source puts them."""
        return (*self.given[1:], *self.middle.split())


@dataclass(frozen=True, slots=True)
class Identifier:
    """A number that somebody assigned to the patient; never a social security number."""

    value: str
    assigner: str = ""
    """Who assigned it: an OID (without ``urn:oid:``), a FHIR system, or the namespace of HL7 v2. Empty: unknown."""
    kind: str = ""
    """The type in HL7 table 0203 where the source tells it: ``MR``, ``PI``, ``MB``."""


@dataclass(frozen=True, slots=True)
class PostalAddress:
    """Where the patient lives, or lived."""

    lines: tuple[str, ...] = ()
    city: str = ""
    state: str = ""
    postal_code: str = ""
    country: str = ""
    is_old: bool = False
    """The source marks it as no longer in use."""


@dataclass(frozen=True, slots=True)
class Claim:
    """All that one source says of one patient. Everything may be missing."""

    source: Source
    strength: Strength
    path: str = ""
    """The part of the message, numbered as IMAP does (``1.2``); the entry of a package follows its part
    (``2/zip:3``). Numbers and fixed words only: a file name may hold the name of a patient."""
    ordinal: int = 1
    """Which patient it is of several that the same source names; every patient beyond the first is a contradiction."""
    names: tuple[PersonName, ...] = ()
    """Those in use first."""
    birth_date: date | None = None
    birth_part: str = ""
    """What is known of an incomplete birth date: ``1970`` or ``1970-06``; empty when ``birth_date`` is set."""
    sex: str = ""
    """``male``, ``female``, ``other``, ``unknown`` (FHIR administrative gender); empty: not said."""
    identifiers: tuple[Identifier, ...] = ()
    phones: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    direct_addresses: tuple[str, ...] = ()
    """Normalised (:func:`gateway.core.address.normalise`)."""
    addresses: tuple[PostalAddress, ...] = ()
    deceased: bool | None = None
    """None: not said."""
    is_doubtful: bool = False
    """The bytes that hold the claim are not those which the package describes (hash or size differ). Such a claim
    supports nothing and is itself a contradiction: somebody changed or exchanged the document after it was packed."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said that could be compared with a patient."""
        return not (
            self.names
            or self.birth_date
            or self.birth_part
            or self.identifiers
            or self.phones
            or self.emails
            or self.direct_addresses
            or self.addresses
        )


@dataclass(frozen=True, slots=True)
class Document:
    """A clinical document in the message, by which it can be known when it comes again."""

    path: str
    sha256: str
    """Of its exact bytes, hexadecimal."""
    id_root: str = ""
    id_extension: str = ""
    code: str = ""
    """LOINC, as a rule."""
    code_system: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read or does not fit together; the text names source and reason, never a value."""

    source: Source | None
    """None: the message as a whole."""
    path: str
    code: str
    """A fixed lower_snake_case word."""
    detail: str
    """In words for people: fixed text and numbers."""
    hides: bool = True
    """Whether a claim may have gone unread because of it, so that nobody can say that nothing contradicts."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a message says of its patient."""

    claims: tuple[Claim, ...] = ()
    """The strongest source first; never one that is empty."""
    problems: tuple[Problem, ...] = ()
    documents: tuple[Document, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every claim of the message was read. What is not complete links nothing by itself."""
        return not any(problem.hides for problem in self.problems)


class Disagreement(StrEnum):
    """In what two claims differ. The words are stored with decisions."""

    BIRTH_DATE = "birth_date"
    FAMILY = "family"
    SEX = "sex"
    SEVERAL_PATIENTS = "several_patients"
    """One source names more than one patient."""
    INTEGRITY = "integrity"
    """A document is not the one that its package describes."""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two claims that cannot both be of one patient, or one that contradicts itself (``left`` is ``right``)."""

    field: Disagreement
    left: Claim
    right: Claim


def contradictions(claims: Iterable[Claim]) -> tuple[Contradiction, ...]:
    """Return what forbids to take the claims for those of one patient (matching policy, rule 2); empty: nothing does.

    Birth dates, family names and sexes are compared after normalising, and only where both claims say something. A
    family name agrees with any name of the other claim, a previous one as well. ``unknown`` sex says nothing.
    A claim that is doubtful, and a second patient of one source, contradict by themselves.
    """
    given = tuple(claims)
    found = [Contradiction(Disagreement.INTEGRITY, claim, claim) for claim in given if claim.is_doubtful]
    found += [Contradiction(Disagreement.SEVERAL_PATIENTS, claim, claim) for claim in given if claim.ordinal > 1]
    for name, values, differ in (
        (Disagreement.BIRTH_DATE, [_birth(claim) for claim in given], _differ_in_birth),
        (Disagreement.FAMILY, [family_keys(claim) for claim in given], _differ_in_names),
        (Disagreement.SEX, [_sex(claim) for claim in given], _differ_in_sex),
    ):
        said = [(value, claim) for value, claim in zip(values, given, strict=True) if value]
        # Claims that say the same need not be compared twice: a message may hold hundreds of equal ones.
        distinct = list({value: (value, claim) for value, claim in reversed(said)}.values())[::-1]
        found += [
            Contradiction(name, left, right)
            for number, (one, left) in enumerate(distinct)
            for other, right in distinct[number + 1 :]
            if differ(one, other)
        ]
    return tuple(found)


def given_names_differ(claims: Iterable[Claim]) -> bool:
    """Whether two claims share no first given name, where both say one; an initial agrees with what it begins.

    No contradiction in the sense of the policy (nicknames are many), but twins differ in nothing else: what is linked
    without a person must not have this doubt.
    """
    known = list(dict.fromkeys(keys for claim in claims if (keys := _given_keys(claim))))
    return any(
        not any(_first_names_agree(a, b) for a in one for b in two)
        for number, one in enumerate(known)
        for two in known[number + 1 :]
    )


def _first_names_agree(one: str, two: str) -> bool:
    return one[0] == two[0] if 1 in {len(one), len(two)} else one == two


def family_keys(claim: Claim) -> frozenset[str]:
    """Every family name of the claim in the form in which it is compared."""
    return frozenset(key for name in claim.names if (key := squashed(name.family)))


def _given_keys(claim: Claim) -> frozenset[str]:
    return frozenset(key for name in claim.names if (key := squashed(name.first)))


def _birth(claim: Claim) -> str:
    return claim.birth_date.isoformat() if claim.birth_date else claim.birth_part


def _sex(claim: Claim) -> str:
    return "" if claim.sex == "unknown" else claim.sex


def _differ_in_birth(one: object, two: object) -> bool:
    a, b = str(one), str(two)
    # An incomplete date agrees with every day in it.
    return not (a.startswith(b) or b.startswith(a))


def _differ_in_names(one: object, two: object) -> bool:
    return isinstance(one, frozenset) and isinstance(two, frozenset) and one.isdisjoint(two)


def _differ_in_sex(one: object, two: object) -> bool:
    return one != two


SOCIAL_SECURITY_ASSIGNERS = frozenset({"2.16.840.1.113883.4.1", "http://hl7.org/fhir/sid/us-ssn", "ssn", "usssa"})
"""OID, FHIR system and usual namespaces of social security numbers, in lower case."""
_SOCIAL_SECURITY = re.compile(r"[\dxX*#]{3}-[\dxX*#]{2}-\d{4}\Z", re.ASCII)


def is_social_security(value: str, assigner: str = "", kind: str = "") -> bool:
    """Whether an identifier is a social security number: by its assigner, by its type, or by its shape (3-2-4).

    The shape alone is enough because practices have used the number as their record number.
    """
    known = assigner.strip().lower().removeprefix("urn:oid:")
    return known in SOCIAL_SECURITY_ASSIGNERS or kind.upper() in {"SS", "SSN", "SB"} or is_social_security_shape(value)


def is_social_security_shape(value: str) -> bool:
    """Whether a text is written as a social security number is, be it masked in part."""
    return _SOCIAL_SECURITY.match(value.strip()) is not None


def kept_identifiers(identifiers: Sequence[Identifier]) -> tuple[Identifier, ...]:
    """Return the identifiers in order, each once, without empty ones and social security numbers."""
    return tuple(
        dict.fromkeys(i for i in identifiers if i.value and not is_social_security(i.value, i.assigner, i.kind))
    )
