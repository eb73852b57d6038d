"""FHIR in XML, made into the same values as FHIR in JSON, so that one reader reads both (FHIR R4, 2.6.1).

An element's value is in its attribute ``value``; children of one name are a list; a resource stands in an element of
its type. Only what :mod:`gateway.evidence.fhir` looks at is taken: narrative and the rest are left out.

Guarantees: never raises for a parsed document; visits each element at most once, and no deeper than the limit.
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from gateway.evidence.xml_documents import local_name

NAMESPACE = "http://hl7.org/fhir"
MAX_DEPTH = 24
_PREFIX = f"{{{NAMESPACE}}}"
_LISTS = frozenset(
    {"name", "given", "suffix", "telecom", "identifier", "address", "line", "extension", "coding", "entry", "contained"}
)


def is_fhir(root: etree._Element) -> bool:
    """Whether the root is that of a FHIR resource."""
    return isinstance(root.tag, str) and root.tag.startswith(_PREFIX) and local_name(root)[:1].isupper()


def resource_of(root: etree._Element) -> dict[str, Any]:
    """The resource as its JSON would be."""
    return {"resourceType": local_name(root), **_members(root, 1)}


def _members(element: etree._Element, depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    if depth > MAX_DEPTH:
        return members
    for child in element:
        if not isinstance(child.tag, str) or not child.tag.startswith(_PREFIX):
            continue
        name = local_name(child)
        made = _value(child, depth)
        if name in _LISTS:
            members.setdefault(name, []).append(made)
        else:
            members.setdefault(name, made)
    if element.get("url") is not None:
        members["url"] = element.get("url")
    return members


def _value(element: etree._Element, depth: int) -> Any:
    name = local_name(element)
    if name in {"resource", "contained"}:
        inner = next((child for child in element if is_fhir(child)), None)
        return None if inner is None else {"resourceType": local_name(inner), **_members(inner, depth + 1)}
    if element.get("value") is not None:
        return element.get("value")
    return _members(element, depth + 1)
