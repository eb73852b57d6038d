"""What a strict FHIR R4 server keeps and takes: its database, its rules for resources, and its search.

Resources are validated by the models of fhir.resources (R4B, in which these types are as in R4), and beyond them:
values of status, what references lead to and whether it is there, hash and size of attachments.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fhir.resources.R4B import get_fhir_model_class

TYPES = ("Patient", "DocumentReference", "Communication", "Provenance", "Binary")
STATUS = {
    "DocumentReference": {"current", "superseded", "entered-in-error"},
    "Communication": {
        "preparation", "in-progress", "not-done", "on-hold", "stopped", "completed", "entered-in-error", "unknown",
    },
}  # fmt: skip
PARAMS = {
    "Patient": {"identifier"}, "DocumentReference": {"identifier"}, "Communication": {"identifier"}, "Binary": set(),
    "Provenance": {"entity", "target"},
}  # fmt: skip
ACTORS = {"Practitioner", "PractitionerRole", "Organization", "Device", "Patient", "RelatedPerson"}
TARGETS: dict[tuple[str, str], set[str]] = {
    ("DocumentReference", "subject"): {"Patient"},
    ("DocumentReference", "author"): ACTORS,
    ("Communication", "subject"): {"Patient"},
    ("Communication", "sender"): ACTORS,
    ("Communication", "recipient"): ACTORS,
    ("Binary", "securityContext"): {"Patient"},
}
ID = re.compile(r"[A-Za-z0-9.-]{1,64}\Z")
Document = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, code: str, text: str = "") -> None:
        super().__init__(text)
        self.status, self.code = status, code


class Database:
    """Everything in one file; one request at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.open() as database:
            columns = "type TEXT, id TEXT, version INT, body TEXT, PRIMARY KEY (type, id)"
            database.execute(f"CREATE TABLE IF NOT EXISTS resource ({columns})")
            database.execute("CREATE TABLE IF NOT EXISTS jti (jti TEXT PRIMARY KEY)")

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            # A process that is killed loses nothing by it; only a machine would.
            database.execute("PRAGMA synchronous = OFF")
            yield database


def every(database: sqlite3.Connection, kind: str) -> list[Document]:
    return [json.loads(row[0]) for row in database.execute("SELECT body FROM resource WHERE type = ?", (kind,))]


def read(database: sqlite3.Connection, kind: str, made: str) -> tuple[int, Document] | None:
    row = database.execute("SELECT version, body FROM resource WHERE type = ? AND id = ?", (kind, made)).fetchone()
    return (row[0], json.loads(row[1])) if row else None


def write(database: sqlite3.Connection, kind: str, made: str, version: int, document: Document) -> None:
    body = {**document, "id": made, "meta": {**document.get("meta", {}), "versionId": str(version)}}
    values = (kind, made, version, json.dumps(body))
    database.execute("INSERT OR REPLACE INTO resource (type, id, version, body) VALUES (?, ?, ?, ?)", values)


# --- validation ---


def validate(database: sqlite3.Connection, document: Document) -> None:
    """Raise Refusal(422) for what no strict server takes."""
    kind = document.get("resourceType", "")
    try:
        get_fhir_model_class(kind).model_validate(document)
    except Exception as exc:
        raise Refusal(422, "structure", str(exc)) from None
    if kind in STATUS and document["status"] not in STATUS[kind]:
        raise Refusal(422, "code-invalid", "status")
    for path, reference in references(document):
        where, _, made = reference.partition("/")
        if where not in TYPES or not ID.match(made) or read(database, where, made) is None:
            raise Refusal(422, "not-found", f"{path} leads to {reference}, which is not there")
        allowed = TARGETS.get((kind, path))
        if allowed is not None and where not in allowed:
            raise Refusal(422, "value", f"{path} may not be a {where}")
    needed = {"DocumentReference": ("subject", "identifier", "type", "category"), "Communication": ("subject",)}
    for name in needed.get(kind, ()):
        if name not in document:
            raise Refusal(422, "required", name)
    for content in document.get("content", []) if kind == "DocumentReference" else []:
        check_attachment(database, content["attachment"])


def references(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(name of the first element, reference) of every literal reference."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield path, value["reference"]
        for name, one in value.items():
            yield from references(one, path or name)
    elif isinstance(value, list):
        for one in value:
            yield from references(one, path)


def check_attachment(database: sqlite3.Connection, attachment: Document) -> None:
    data = attachment.get("data", "")
    if url := attachment.get("url"):
        found = read(database, "Binary", url.removeprefix("Binary/"))
        if found is None:
            raise Refusal(422, "not-found", "the Binary of the attachment")
        data = found[1].get("data", "")
    try:
        octets = base64.b64decode(data, validate=True)
    except ValueError:
        raise Refusal(422, "value", "base64") from None
    digest = base64.b64encode(hashlib.sha1(octets, usedforsecurity=False).digest()).decode()
    if attachment.get("size") != len(octets) or attachment.get("hash") != digest:
        raise Refusal(422, "value", "size or hash")
    if "contentType" not in attachment or "/" in attachment.get("title", "") or "\\" in attachment.get("title", ""):
        raise Refusal(422, "value", "contentType or title")


def matching(database: sqlite3.Connection, kind: str, query: str, params: set[str]) -> list[Document]:
    """The resources that a search finds. Raises Refusal for a parameter that is not known."""
    found = every(database, kind)
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    if not any(not name.startswith("_") for name, _ in pairs):
        raise Refusal(400, "required", "a criterion")
    for name, value in pairs:
        if name in {"_elements", "_count"}:
            continue
        if name not in params:
            raise Refusal(400, "not-supported", name)
        wanted = re.split(r"(?<!\\),", value)
        found = [one for one in found if any(matches(one, name, re.sub(r"\\(.)", r"\1", w)) for w in wanted)]
    return found


def matches(document: Document, name: str, wanted: str) -> bool:
    if name == "identifier":
        system, _, value = wanted.partition("|")
        master = [document["masterIdentifier"]] if "masterIdentifier" in document else []
        return any(
            one.get("system") == system and one.get("value") == value for one in [*document["identifier"], *master]
        )
    found = [str(one.get("what", one).get("reference")) for one in document.get(name, [])]
    # A reference may be absolute, and name a version.
    return any(re.search(rf"(?:\A|/){re.escape(wanted)}(?:/_history/[^/]+)?\Z", one) for one in found)
