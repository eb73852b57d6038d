"""What a FHIR server says that it can do (CapabilityStatement, R4), and what is left out for want of it. Pure.

A statement is believed: what it does not list is not tried. A server that says nothing of an interaction would refuse
it, or worse, take a conditional create for a plain one.

Failure modes: ImportFailedError for what is no CapabilityStatement of R4: a mend on the other side, or of the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.errors import ImportFailedError

DOCUMENT, COMMUNICATION, PROVENANCE, BINARY = "DocumentReference", "Communication", "Provenance", "Binary"
JSON_PATCH = "application/json-patch+json"
_R4 = ("4.0", "4.1", "4.3")
"""4.3 is R4B, in which none of these resources differs."""


@dataclass(frozen=True, slots=True)
class TypeCapabilities:
    """What can be done with resources of one type."""

    interactions: frozenset[str] = frozenset()
    conditional_create: bool = False
    update_create: bool = False
    """A PUT to an id of ours makes the resource."""
    search_params: frozenset[str] = frozenset()

    def found_by(self, param: str) -> bool:
        """It can be searched by that. A server that does not list a parameter ignores it, as a rule."""
        return "search-type" in self.interactions and param in self.search_params

    @property
    def put_makes(self) -> bool:
        """It can be made by a PUT to an id of ours."""
        return self.update_create and "update" in self.interactions

    @property
    def created_once(self) -> bool:
        """A repeated create can be told from a new one, by the server or by us."""
        return "create" in self.interactions and (self.conditional_create or self.found_by("identifier"))


_NOTHING = TypeCapabilities()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the server says of itself."""

    types: Mapping[str, TypeCapabilities] = field(default_factory=dict)
    transaction: bool = False
    json_patch: bool = False
    """Where a type takes patches, they may be JSON Patch."""

    def of(self, kind: str) -> TypeCapabilities:
        """Of a type of resource."""
        return self.types.get(kind, _NOTHING)

    @property
    def documents(self) -> bool:
        """The least that is needed."""
        return self.of(DOCUMENT).created_once

    @property
    def communications(self) -> bool:
        return self.of(COMMUNICATION).created_once

    @property
    def binaries(self) -> bool:
        """A Binary has nothing to be searched by: only a PUT to an id of ours makes one of it and no second one."""
        return self.of(BINARY).put_makes

    @property
    def in_one(self) -> bool:
        """Documents and Communication can be created in one transaction, each if it is not there."""
        needed = (DOCUMENT, COMMUNICATION) if self.communications else (DOCUMENT,)
        return self.transaction and all(self.of(kind).conditional_create for kind in needed)

    @property
    def provenance_by(self) -> str:
        """How a Provenance stays single: ``put``, the search parameter that finds it, or nothing.

        A Provenance has no identifier in R4. The entity is the original message, of which there is one Provenance of
        ours; a target may have one of the server's own.
        """
        kind = self.of(PROVENANCE)
        if kind.put_makes:
            return "put"
        if "create" not in kind.interactions:
            return ""
        wanted = [name for name in ("entity", "target") if name in kind.search_params]
        return next((name for name in wanted if kind.conditional_create or kind.found_by(name)), "")

    def change_by(self, kind: str) -> str:
        """How the status of a resource can be changed: ``patch``, ``update`` or nothing."""
        here = self.of(kind).interactions
        if self.json_patch and "patch" in here:
            return "patch"
        return "update" if "update" in here else ""

    def missing(self) -> list[str]:
        """What is done without, in words for the operator."""
        told = []
        if not self.communications:
            told.append("no Communication: the text of a message becomes a document")
        if not self.provenance_by:
            told.append("no Provenance")
        if not self.binaries:
            told.append("no Binary under an id of ours: the original message is inside its DocumentReference")
        if not self.in_one:
            told.append("no transaction with conditional creates: resources are made one after the other")
        for kind in (DOCUMENT, COMMUNICATION):
            here = self.of(kind)
            if here.created_once and not here.conditional_create:
                told.append(f"no conditional create of {kind}: it is searched for first")
            if here.created_once and not self.change_by(kind):
                told.append(f"no change of {kind}: it cannot be taken back")
        return told


def capabilities_of(document: Any) -> Capabilities:
    """Read a CapabilityStatement. Raises ImportFailedError: it is none, or not of R4."""
    if not isinstance(document, Mapping) or document.get("resourceType") != "CapabilityStatement":
        raise ImportFailedError("what stands at /metadata is no CapabilityStatement", reason="bad_metadata")
    if not str(document.get("fhirVersion", "")).startswith(_R4):
        raise ImportFailedError("the server does not speak FHIR R4", reason="not_r4")
    servers = [rest for rest in _objects(document.get("rest")) if rest.get("mode") == "server"]
    if not servers:
        raise ImportFailedError("the CapabilityStatement tells nothing of a server", reason="bad_metadata")
    rest = servers[0]
    types = {str(one.get("type", "")): _type_of(one) for one in _objects(rest.get("resource"))}
    patches = document.get("patchFormat")
    return Capabilities(
        types,
        transaction="transaction" in _names(rest.get("interaction"), "code"),
        json_patch=isinstance(patches, list) and JSON_PATCH in patches,
    )


def _type_of(document: Mapping[str, Any]) -> TypeCapabilities:
    return TypeCapabilities(
        _names(document.get("interaction"), "code"),
        document.get("conditionalCreate") is True,
        document.get("updateCreate") is True,
        _names(document.get("searchParam"), "name"),
    )


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _names(value: Any, key: str) -> frozenset[str]:
    return frozenset(str(one.get(key, "")) for one in _objects(value))
