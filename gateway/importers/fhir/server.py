"""The FHIR server of a target: requests with a token, answers read within bounds, and what they mean.

What an answer means for a link (docs/fhir.md has the table):

* what another attempt may mend is a nack for now: no connection, no answer or half of one, 401 after one new token,
  403, 404, 409, 429, 5xx, and whatever else the server calls transient;
* what it says against the content is for good: 400, 412 (several matches), 413, 422 and the like.

Of an OperationOutcome only the code of its first issue is kept, when it is one of FHIR's own: the rest quotes patients.

Failure modes: ImportFailedError, ImportRefusedError, whose texts hold nothing of what the server wrote.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.documents import encoded
from gateway.importers.fhir.access_tokens import AccessTokens
from gateway.importers.fhir.capabilities import Capabilities, capabilities_of
from gateway.importers.http_client import HTTPClient, Reply, retry_after
from gateway.ports import Clock

T = TypeVar("T")
FHIR_JSON = "application/fhir+json"
MAX_METADATA_BYTES = 8 * 1024 * 1024
"""CapabilityStatements of large servers have some megabytes."""
MAX_RESOURCE_BYTES = 128 * 1024 * 1024
"""A resource with a document in it; some servers send it back although they are asked not to."""
MAX_VALUES = 2_000_000
"""In an answer, counted by its brackets and commas, which bounds the memory of what is made of it. A text of the
longest kind may be of commas alone; documents are base64, which has none."""
MAX_PAGES = 50
METADATA_SECONDS = 3600.0
_PIECE_BYTES = 1024 * 1024
_MAX_DIGITS = 40
_PRINTABLE = re.compile(r"[!-~]{1,8192}\Z")
_TRANSIENT = frozenset({"transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"})
_ISSUES = _TRANSIENT | {
    "invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden",
    "suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long",
    "code-invalid", "extension", "too-costly", "business-rule", "conflict",
}  # fmt: skip
_FOR_NOW = frozenset({401, 403, 404, 408, 409, 423, 425, 429})
_LOCATION = re.compile(r"(?:\A|/)([A-Za-z]{1,64})/([A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, its body parsed; None when that is no JSON object."""

    status: int
    headers: Mapping[str, str]
    document: dict[str, Any] | None

    def id_of(self, kind: str) -> str:
        """The id of the resource that was made or found, or nothing."""
        if found := located(self.headers.get("location", "") or self.headers.get("content-location", ""), kind):
            return found
        told = self.document or {}
        return located(f"{kind}/{told.get('id', '')}", kind) if told.get("resourceType") == kind else ""


class FHIRServer:
    """One server, its token and what it can do. For one event loop."""

    def __init__(
        self,
        settings: ImporterSettings,
        clock: Clock,
        tokens: AccessTokens,
        network: ThreadPoolExecutor,
        work: ThreadPoolExecutor,
    ) -> None:
        """``network``: threads for names and files; ``work``: for what costs time over large documents."""
        self._http = HTTPClient(settings.url, settings.allow, settings.ca_file, network)
        self._url = f"{settings.url.rstrip('/')}/"
        self._base = self._http.target.rstrip("/")
        self._clock, self._tokens, self._work = clock, tokens, work
        self._able: Capabilities | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def capabilities(self) -> Capabilities:
        """What the server can do; asked once in a while, and after a failure. Raises ImportFailedError."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if self._able is None or now - self._read_at >= METADATA_SECONDS:
                answer = await self.ask("GET", "metadata", max_answer_bytes=MAX_METADATA_BYTES)
                if answer.status != 200:
                    reason, after = f"metadata_http_{answer.status}", self._patience(answer)
                    raise ImportFailedError(
                        "the server tells no capabilities", reason=reason, retry_after_seconds=after
                    )
                self._able = await self.in_thread(lambda: capabilities_of(answer.document))
                self._read_at = now
            return self._able

    def forget_capabilities(self) -> None:
        """They may have changed: something failed."""
        self._able = None

    async def ask(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        max_answer_bytes: int = MAX_RESOURCE_BYTES,
    ) -> Answer:
        """Ask, with a new token where the old one is not taken any more. Raises ImportFailedError."""
        body = b"" if document is None else await self.in_thread(lambda: _json(document))
        kind = {"content-type": FHIR_JSON} if document is not None else {}
        return await self._ask(method, path, {**kind, **(headers or {})}, body, max_answer_bytes)

    async def search(
        self, kind: str, query: Mapping[str, str], right: Callable[[dict[str, Any]], bool], *, by_post: bool = False
    ) -> list[dict[str, Any]]:
        """The resources on every page that are ``right``: a server that ignores a parameter answers with all it has.

        ``by_post``: what is searched for belongs in no log. Where the next page is says the server; it is asked for
        at this server only.

        Raises:
            ImportFailedError, ImportRefusedError.
        """
        form = urlencode(query, quote_via=quote)
        if by_post:
            content = {"content-type": "application/x-www-form-urlencoded"}
            answer = await self._ask("POST", f"{kind}/_search", content, form.encode("ascii"), MAX_RESOURCE_BYTES)
        else:
            answer = await self.ask("GET", f"{kind}?{form}")
        found: list[dict[str, Any]] = []
        for _ in range(MAX_PAGES):
            if answer.status != 200:
                raise self.nack(answer)
            told = answer.document or {}
            entries = told.get("entry", [])
            if told.get("resourceType") != "Bundle" or not isinstance(entries, list):
                raise ImportFailedError("the answer to a search is no Bundle", reason="bad_answer")
            resources = [entry.get("resource") for entry in entries if isinstance(entry, dict)]
            found += [
                one for one in resources if isinstance(one, dict) and one.get("resourceType") == kind and right(one)
            ]
            following = self._next_page(told) if entries else ""
            if not following:
                return found
            answer = await self.ask("GET", following)
        raise ImportFailedError("the server finds more than can be looked through", reason="too_many_found")

    def _next_page(self, bundle: Mapping[str, Any]) -> str:
        """Where the next page of a search is, beyond the base of the server, or nothing. Raises ImportFailedError."""
        links = bundle.get("link")
        every = [one for one in links if isinstance(one, Mapping)] if isinstance(links, list) else []
        told = next((str(one.get("url", "")) for one in every if one.get("relation") == "next"), "")
        if not told:
            return ""
        try:
            whole = urljoin(self._url, told)
            here, there = urlsplit(self._url), urlsplit(whole)
            same = (there.scheme, there.netloc.lower()) == (here.scheme, here.netloc.lower())
        except ValueError:
            whole, same = "", False
        if (
            not same
            or not f"{there.path}/".startswith(f"{self._base}/")
            or not _PRINTABLE.match(whole)
            or there.fragment
        ):
            raise ImportFailedError("the next page of a search is not at this server", reason="bad_next_page")
        path = there.path[len(self._base) :].lstrip("/")
        return f"{path}?{there.query}" if there.query else path

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what costs time, away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._work, work)

    def nack(self, answer: Answer) -> ImportFailedError | ImportRefusedError:
        """What an answer that is no success means."""
        status, code = answer.status, _issue_of(answer.document)
        if 200 <= status < 300:
            return ImportFailedError("the answer is not what was asked for", reason="bad_answer")
        reason = f"http_{status}_{code}" if code else f"http_{status}"
        if status >= 500 or status < 400 or status in _FOR_NOW or code in _TRANSIENT:
            after = self._patience(answer)
            return ImportFailedError(f"the server answers {status}", reason=reason, retry_after_seconds=after)
        if status == 412:
            return ImportRefusedError("the server has several resources for this link", reason="several_matches")
        if status == 413:
            return ImportRefusedError("the message is larger than the server takes", reason="too_large")
        return ImportRefusedError(f"the server refuses with {status}", reason=reason)

    async def _ask(self, method: str, path: str, fields: Mapping[str, str], body: bytes, limit: int) -> Answer:
        for attempt in (1, 2):
            token = await self._tokens.header()
            every = {"accept": FHIR_JSON, "user-agent": "direct-gateway", **fields, **token}
            target = f"{self._base}/{path}" if path and path[0] != "?" else f"{self._base or '/'}{path}"
            reply = await self._http.request(method, target, every, body, max_answer_bytes=limit)
            if reply.status != 401 or attempt == 2 or not self._tokens.forget(token):
                break
        return Answer(reply.status, reply.headers, await self._parsed(reply))

    async def _parsed(self, reply: Reply) -> dict[str, Any] | None:
        if not reply.body:
            return None
        document = await self.in_thread(lambda: _loaded(reply.body))
        return document if isinstance(document, dict) else None

    def _patience(self, answer: Answer) -> float | None:
        return retry_after(answer.headers.get("retry-after", ""), self._clock.now())


def located(text: str, kind: str) -> str:
    """The id in the URL of a resource of that type, or nothing."""
    found = _LOCATION.search(text)
    return found[2] if found is not None and found[1] == kind else ""


def _json(document: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> bytes:
    return encoded(document) if isinstance(document, Mapping) else json.dumps(document).encode()


def _loaded(body: bytes) -> object:
    # Many small values take fifty times their size, and hold the interpreter while they are made.
    values = 0
    for begin in range(0, len(body), _PIECE_BYTES):
        values += sum(body.count(mark, begin, begin + _PIECE_BYTES) for mark in (b",", b"[", b"{"))
        if values > MAX_VALUES:
            return None
    try:
        return json.loads(body, parse_int=_whole_number)
    except (ValueError, RecursionError):
        return None


def _whole_number(text: str) -> int:
    # Thousands of digits take time by their square.
    if len(text) > _MAX_DIGITS:
        raise ValueError("no number of FHIR has so many digits")
    return int(text)


def _issue_of(document: Mapping[str, Any] | None) -> str:
    issues = document.get("issue") if document and document.get("resourceType") == "OperationOutcome" else None
    first = issues[0] if isinstance(issues, list) and issues and isinstance(issues[0], dict) else {}
    code = first.get("code")
    return code if isinstance(code, str) and code in _ISSUES else ""
