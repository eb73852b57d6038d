"""A strict FHIR R4 server in a process of its own, which misbehaves when told.

Run as ``python -m tests.support.fhir_server PORT FOLDER [CERTIFICATE KEY]``. What it holds is ``FOLDER/fhir.db``,
committed before the answer, so that a server that is killed forgets nothing but its access tokens. What it takes says
:mod:`tests.support.fhir_rules`. Every request that was read is a line of ``FOLDER/requests.jsonl``.

What it can do stands in ``FOLDER/variant.json`` (see :data:`VARIANT`), what it does wrong in ``FOLDER/fault.json``:
``{"serial": n, "at": k, "fault": [word, ...]}`` for the k-th request since then, ``at`` 0 for every one, with
``onward`` for those after it as well:

* ``status N [Retry-After]``; ``outcome N CODE``: an OperationOutcome; both before any work;
* ``cut_before``, ``cut_after``: close without an answer, before or after the work is committed;
* ``half``, ``bad_json``: after the work, half an answer, or one that is no JSON and names nothing;
* ``hang``, ``hang_after``; ``slow S``; ``die_before``, ``die_after``: the whole process; ``expire``: every token.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from fhir.resources.R4B import get_fhir_model_class

from tests.support.fhir_rules import PARAMS, TYPES, Database, Document, Refusal, every, matching, read, validate, write

VARIANT: dict[str, Any] = {
    "transaction": True,
    "conditional": True,
    "binary_put": True,
    "provenance_params": ["target", "entity"],
    "without": [],
    "patch": False,
    "update": True,
    "version": "4.0.1",
    "says_where": True,
    "answers_202": False,
    "makes_patients": False,
    "ignores_params": False,
    "lists_params": True,
    "token_endpoint": "",
    "page_size": 0,
    "pages_at": "",
    "client": None,
}
"""``makes_patients``: whoever is asked for is there.
``page_size``: a search gives so many at most, whatever ``_count`` says, and names the next page; 0: all at once.
``pages_at``: where the next page is said to be; empty: here.
``client``: ``{"id", "key" (PEM), "kid", "alg"}`` of SMART Backend Services; None: nobody is asked for a token."""


class Cut(Exception):  # noqa: N818 - a fault that is wanted
    """Close without an answer."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Beyond the base."""
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Response:
    status: int
    body: Document | None = None
    headers: dict[str, str] = field(default_factory=dict)


# --- the server ---


class FHIR:
    """What a request does. Everything of one request is one commit."""

    def __init__(self, folder: Path, base: str) -> None:
        self.folder, self.base = folder, base
        self.database = Database(folder / "fhir.db")
        self.tokens: dict[str, float] = {}

    @property
    def variant(self) -> Document:
        path = self.folder / "variant.json"
        return {**VARIANT, **(json.loads(path.read_text()) if path.exists() else {})}

    def answer(self, asked: Request) -> Response:
        if asked.path == ".well-known/smart-configuration":
            endpoint = self.variant["token_endpoint"] or f"{self.base}/token"
            return Response(200, {"token_endpoint": endpoint, "grant_types_supported": ["client_credentials"]})
        if asked.path == "token":
            return self.token(asked.body)
        if asked.path == "metadata":
            return Response(200, self.metadata())
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self.variant["client"] and self.tokens.get(token, 0) < time.time():
            raise Refusal(401, "login")
        with self.database.open() as database:
            return self.work(database, asked)

    def token(self, body: bytes) -> Response:
        """As SMART Backend Services says: the assertion is for us, fresh, signed by the client, and never seen."""
        form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
        client, bad = self.variant["client"], Response(400, {"error": "invalid_client"})
        wanted = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        if form.get("grant_type") != "client_credentials" or form.get("client_assertion_type") != wanted or not client:
            return Response(400, {"error": "invalid_request"})
        if not form.get("scope"):
            return Response(400, {"error": "invalid_scope"})
        assertion = form["client_assertion"]
        head = jwt.get_unverified_header(assertion)
        try:
            claims = jwt.decode(
                assertion, client["key"], algorithms=[client["alg"]], audience=f"{self.base}/token",
                options={"require": ["exp", "iss", "sub", "jti", "aud"]},
            )  # fmt: skip
        except jwt.PyJWTError:
            return bad
        if claims["iss"] != client["id"] or claims["sub"] != client["id"] or claims["exp"] > time.time() + 305:
            return bad
        if head.get("kid") != client["kid"] or head.get("typ") != "JWT":
            return bad
        try:
            with self.database.open() as database:
                database.execute("INSERT INTO jti VALUES (?)", (claims["jti"],))
        except sqlite3.IntegrityError:
            return bad
        made = uuid.uuid4().hex
        self.tokens[made] = time.time() + 300
        return Response(200, {"access_token": made, "token_type": "bearer", "expires_in": 300, "scope": form["scope"]})

    def metadata(self) -> Document:
        variant = self.variant
        resources = []
        for kind in TYPES:
            if kind in variant["without"]:
                continue
            codes = ["read", "search-type"] if kind != "Binary" else ["read"]
            codes += ["create"] if kind != "Patient" else []
            codes += ["update"] if variant["update"] or kind == "Binary" else []
            codes += ["patch"] if variant["patch"] else []
            params = variant["provenance_params"] if kind == "Provenance" else sorted(PARAMS[kind])
            resources.append(
                {
                    "type": kind,
                    "interaction": [{"code": code} for code in codes],
                    "conditionalCreate": variant["conditional"],
                    "updateCreate": kind == "Binary" and variant["binary_put"],
                    "searchParam": [{"name": name, "type": "token"} for name in params if variant["lists_params"]],
                }
            )
        rest = {"mode": "server", "resource": resources, "interaction": []}
        if variant["transaction"]:
            rest["interaction"] = [{"code": "transaction"}]
        return {
            "resourceType": "CapabilityStatement", "status": "active", "date": "2026-01-01", "kind": "instance",
            "fhirVersion": variant["version"], "format": ["json"], "rest": [rest],
            "patchFormat": ["application/json-patch+json"] if variant["patch"] else [],
        }  # fmt: skip

    def work(self, database: sqlite3.Connection, asked: Request) -> Response:
        kind, _, made = asked.path.partition("/")
        if made == "_search":
            return self.search(database, kind, asked.body.decode())
        if kind and (kind not in TYPES or kind in self.variant["without"]):
            raise Refusal(404, "not-found")
        if asked.method == "GET":
            return self.get(database, kind, made) if made else self.search(database, kind, asked.query)
        document = json.loads(asked.body)
        patch = asked.method == "PATCH"
        if asked.headers.get("content-type") != ("application/json-patch+json" if patch else "application/fhir+json"):
            raise Refusal(415, "not-supported")
        if asked.method == "POST" and not kind:
            return self.transaction(database, document)
        if not patch and document.get("resourceType") != kind:
            raise Refusal(400, "invalid")
        if asked.method == "POST" and not made:
            return self.create(database, asked, document)
        if asked.method in {"PUT", "PATCH"} and made:
            return self.change(database, asked, document)
        raise Refusal(405, "not-supported")

    def get(self, database: sqlite3.Connection, kind: str, made: str) -> Response:
        if kind == "Patient" and self.variant["makes_patients"] and read(database, kind, made) is None:
            write(database, kind, made, 1, {"resourceType": kind, "identifier": []})
        found = read(database, kind, made)
        if found is None:
            raise Refusal(404, "not-found")
        return Response(200, found[1], {"ETag": f'W/"{found[0]}"'})

    def search(self, database: sqlite3.Connection, kind: str, query: str) -> Response:
        variant = self.variant
        query, _, page = query.partition("&_page=")
        found = (
            every(database, kind) if variant["ignores_params"] else matching(database, kind, query, self.params(kind))
        )
        begin, size = int(page or 0), variant["page_size"] or max(1, len(found))
        entries = [
            {"fullUrl": f"{self.base}/{kind}/{one['id']}", "resource": one} for one in found[begin : begin + size]
        ]
        bundle: Document = {"resourceType": "Bundle", "type": "searchset", "total": len(found), "entry": entries}
        if begin + size < len(found):
            where = f"{variant['pages_at'] or self.base}/{kind}?{query}&_page={begin + size}"
            bundle["link"] = [{"relation": "next", "url": where}]
        return Response(200, bundle)

    def params(self, kind: str) -> set[str]:
        return set(self.variant["provenance_params"]) if kind == "Provenance" else PARAMS[kind]

    def create(self, database: sqlite3.Connection, asked: Request, document: Document) -> Response:
        kind, condition = document["resourceType"], asked.headers.get("if-none-exist")
        validate(database, document)
        status, made, version = 201, "", 1
        if condition and self.variant["conditional"]:
            found = matching(database, kind, condition, self.params(kind))
            if len(found) > 1:
                raise Refusal(412, "multiple-matches")
            if found:
                status, made, version = 200, found[0]["id"], int(found[0]["meta"]["versionId"])
        if not made:
            made = uuid.uuid4().hex
            write(database, kind, made, 1, document)
        if self.variant["answers_202"]:
            return Response(202)
        where = {"Location": f"{self.base}/{kind}/{made}/_history/{version}"} if self.variant["says_where"] else {}
        there = read(database, kind, made)
        body = None if there is None or "minimal" in asked.headers.get("prefer", "") else there[1]
        return Response(status, body, where)

    def change(self, database: sqlite3.Connection, asked: Request, document: Any) -> Response:
        kind, _, made = asked.path.partition("/")
        found = read(database, kind, made)
        if found is None:
            if asked.method == "PATCH" or not (kind == "Binary" and self.variant["binary_put"]):
                raise Refusal(404, "not-found")
            if document.get("id") != made:
                raise Refusal(400, "invalid", "the id")
            validate(database, document)
            write(database, kind, made, 1, document)
            return Response(201, None, {"Location": f"{self.base}/{kind}/{made}/_history/1"})
        version, before = found
        if kind != "Binary" and asked.headers.get("if-match") != f'W/"{version}"':
            raise Refusal(412, "conflict")
        if asked.method == "PATCH":
            if not self.variant["patch"]:
                raise Refusal(405, "not-supported")
            document = functools.reduce(lambda one, op: {**one, op["path"][1:]: op["value"]}, document, before)
        elif kind != "Binary" and not self.variant["update"]:
            raise Refusal(405, "not-supported")
        validate(database, document)
        write(database, kind, made, version + 1, document)
        return Response(200, None, {"ETag": f'W/"{version + 1}"'})

    def transaction(self, database: sqlite3.Connection, bundle: Document) -> Response:
        """All or nothing: what is raised rolls back."""
        if not self.variant["transaction"]:
            raise Refusal(405, "not-supported")
        try:
            get_fhir_model_class("Bundle").model_validate(bundle)
        except Exception as exc:
            raise Refusal(400, "structure", str(exc)) from None
        ids: dict[str, str] = {}
        entries: list[tuple[Document, int, str]] = []
        for entry in bundle["entry"]:
            kind, condition = entry["resource"]["resourceType"], entry["request"].get("ifNoneExist")
            if entry["request"]["method"] != "POST" or entry["request"]["url"] != kind or not condition:
                raise Refusal(400, "invalid")
            found = matching(database, kind, condition, self.params(kind))
            if len(found) > 1:
                raise Refusal(412, "multiple-matches")
            made = found[0]["id"] if found else uuid.uuid4().hex
            ids[entry["fullUrl"]] = f"{kind}/{made}"
            entries.append((entry["resource"], 200 if found else 201, made))
        fresh = []
        for resource, status, made in entries:
            text = json.dumps(resource)
            for name, reference in ids.items():
                text = text.replace(name, reference)
            if status == 201:
                fresh.append(json.loads(text))
                write(database, resource["resourceType"], made, 1, fresh[-1])
        for document in fresh:
            validate(database, document)
        answers = [
            {"response": {"status": f"{status} X", "location": f"{resource['resourceType']}/{made}/_history/1"}}
            if self.variant["says_where"]
            else {"response": {"status": str(status)}}
            for resource, status, made in entries
        ]
        return Response(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": answers})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fhir: FHIR
    lock = threading.Lock()
    serial, count = -1, 0

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.close_connection = True
        with self.lock:
            fault = self._fault()
            self._keep(headers, fault)
        with contextlib.suppress(Cut, ConnectionError):
            self._misbehave("before", fault)
            with self.lock:
                try:
                    path, _, query = self.path.removeprefix("/fhir").partition("?")
                    response = self.fhir.answer(Request(self.command, path.strip("/"), query, headers, body))
                except Refusal as exc:
                    outcome = [{"severity": "error", "code": exc.code, "diagnostics": str(exc)}]
                    response = Response(exc.status, {"resourceType": "OperationOutcome", "issue": outcome})
            self._misbehave("after", fault)
            self._send(response, fault[0] if fault else "")

    do_GET = do_POST = do_PUT = do_PATCH = _do  # noqa: N815 - the names of http.server

    def _fault(self) -> list[str]:
        path = self.fhir.folder / "fault.json"
        told: Document = json.loads(path.read_text()) if path.exists() else {"serial": 0, "at": 1, "fault": []}
        if told["serial"] != _Handler.serial:
            _Handler.serial, _Handler.count = told["serial"], 0
        _Handler.count += 1
        later = told.get("onward", False) and _Handler.count > told["at"]
        return list(told["fault"]) if later or told["at"] in {0, _Handler.count} else []

    def _keep(self, headers: dict[str, str], fault: list[str]) -> None:
        line = {
            "method": self.command,
            "path": self.path,
            "fault": fault,
            "if_none_exist": headers.get("if-none-exist"),
        }
        with (self.fhir.folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _misbehave(self, when: str, fault: list[str]) -> None:
        word = fault[0] if fault else ""
        if word == f"cut_{when}":
            self.connection.shutdown(socket.SHUT_RDWR)
            raise Cut
        if word == f"die_{when}":
            os._exit(1)
        if word == {"before": "hang", "after": "hang_after"}[when]:
            time.sleep(60)
            raise Cut
        if when == "after":
            return
        if word == "slow":
            time.sleep(float(fault[1]))
        if word == "expire":
            self.fhir.tokens.clear()
        if word == "status":
            self._send(Response(int(fault[1]), None, {"Retry-After": fault[2]} if len(fault) > 2 else {}))
            raise Cut
        if word == "outcome":
            issue = [{"severity": "error", "code": fault[2], "diagnostics": "Ann Lee 1970"}]
            self._send(Response(int(fault[1]), {"resourceType": "OperationOutcome", "issue": issue}))
            raise Cut

    def _send(self, response: Response, fault: str = "") -> None:
        body = json.dumps(response.body).encode() if response.body is not None else b""
        if fault == "bad_json":
            body, response.headers = b"<html>", {}
        if fault == "half":
            self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{" + body[:20])
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(response.status)
        for name, value in {"Content-Type": "application/fhir+json", **response.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


def base_url(port: int, *, tls: bool) -> str:
    return f"https://localhost:{port}/fhir" if tls else f"http://127.0.0.1:{port}/fhir"


def serve(port: int, folder: Path, identity: tuple[str, str] | None) -> None:
    """Until it is killed."""
    _Handler.fhir = FHIR(folder, base_url(port, tls=identity is not None))
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    if identity is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


@dataclass
class FHIRServer:
    """The process, as a test sees it."""

    folder: Path
    port: int
    identity: tuple[str, str] = ("", "")
    process: subprocess.Popen[bytes] | None = field(default=None)
    _serial: int = 0

    @property
    def url(self) -> str:
        return base_url(self.port, tls=bool(self.identity[0]))

    def start(self) -> FHIRServer:
        words = [str(self.port), str(self.folder), *(self.identity if self.identity[0] else ())]
        self.process = subprocess.Popen([sys.executable, "-m", "tests.support.fhir_server", *words])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError("the FHIR server does not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def vary(self, **changes: Any) -> None:
        """What it can do from now on; without a word: everything."""
        self._put("variant.json", changes)

    def behave(self, *fault: str, at: int = 0, onward: bool = False) -> None:
        """What goes wrong from now on; without a word: nothing. ``at``: only at that request, or from it ``onward``."""
        self._serial = max(self._serial, time.time_ns()) + 1
        self._put("fault.json", {"serial": self._serial, "at": at, "onward": onward, "fault": list(fault)})

    def _put(self, name: str, told: Document) -> None:
        part = self.folder / f"{name}.new"
        part.write_text(json.dumps(told))
        part.rename(self.folder / name)

    def add_patient(self, patient_id: str, **elements: Any) -> None:
        document = {"resourceType": "Patient", "identifier": [], **elements}
        with Database(self.folder / "fhir.db").open() as database:
            write(database, "Patient", patient_id, 1, document)

    def resources(self, kind: str) -> list[Document]:
        with Database(self.folder / "fhir.db").open() as database:
            return every(database, kind)

    def put(self, document: Document) -> None:
        """Write it past all checks."""
        with Database(self.folder / "fhir.db").open() as database:
            found = read(database, document["resourceType"], document["id"])
            write(database, document["resourceType"], document["id"], (found or (0,))[0] + 1, document)

    def clear(self) -> None:
        """Forget every resource and request."""
        with Database(self.folder / "fhir.db").open() as database:
            database.execute("DELETE FROM resource")
        (self.folder / "requests.jsonl").unlink(missing_ok=True)

    def requests(self) -> list[Document]:
        path = self.folder / "requests.jsonl"
        return [json.loads(one) for one in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    tls = (sys.argv[3], sys.argv[4]) if len(sys.argv) > 4 else None
    serve(int(sys.argv[1]), Path(sys.argv[2]), tls)
