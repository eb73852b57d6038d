"""The webhook adapter: a signed, thin POST for each link (Standard Webhooks 1.0.0, docs/import-hook.md).

The payload says which link was made, by ids; whoever is told fetches the message where access is recorded.
``webhook-id`` is the idempotency key: the same for every attempt at a link.

Guarantees: no address, name, subject or content travels; every attempt is signed anew with all secrets in force, which
are read at that moment; an answer is believed by its status alone. Where it may go, and what it takes from the
environment (nothing), says :mod:`gateway.importers.http_client`.

Failure modes: ImportFailedError for every status but 2xx and 410, and for a receiver that cannot be reached;
ImporterGoneError for 410.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from gateway.core.errors import ConfigurationError, ImporterGoneError, ImportFailedError
from gateway.core.import_settings import ImporterSettings
from gateway.importers.http_client import HTTPClient, Reply, retry_after
from gateway.importers.standard_webhooks import headers, read_secrets
from gateway.ports import (
    IMPORTER_API_VERSION,
    Clock,
    ImporterCapabilities,
    ImportPreview,
    ImportRequest,
    Link,
    Retraction,
)

LINKED, UNLINKED = "message.linked", "message.unlinked"
_USER_AGENT = "direct-gateway"
_THREADS = 2


class WebhookImporter:
    """A :class:`gateway.ports.PatientImporter` that posts."""

    def __init__(self, settings: ImporterSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"webhook-{settings.name}")
        self._http = HTTPClient(settings.url, settings.allow, settings.ca_file, self._threads)

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def api_version(self) -> int:
        return IMPORTER_API_VERSION

    @property
    def capabilities(self) -> ImporterCapabilities:
        return ImporterCapabilities(retract=True, preview=True, content=False)

    async def import_message(self, request: ImportRequest) -> str:
        """Post ``message.linked``. Raises ImportFailedError, ImporterGoneError."""
        return await self._post(request.link.id, payload(LINKED, request.link, request.link.linked_at))

    async def retract(self, retraction: Retraction) -> str:
        """Post ``message.unlinked``, under an id of its own. Raises ImportFailedError, ImporterGoneError."""
        body = payload(UNLINKED, retraction.request.link, retraction.retracted_at)
        return await self._post(retraction.key, body)

    async def check(self) -> str | None:
        """Read the secrets, connect, and check the certificate; nothing is sent."""
        try:
            read_secrets(self._settings.secret_files)
        except ConfigurationError as exc:
            return str(exc)
        try:
            await self._http.reach()
        except ImportFailedError as exc:
            return f"{exc} ({exc.reason})"
        return None

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """The request as it would be sent, without its signature."""
        body = payload(LINKED, request.link, request.link.linked_at)
        fields = {"host": self._http.host_header, **_fields(), **headers(request.link.id, 0, body, [])}
        fields |= {"webhook-timestamp": "(when it is sent)", "webhook-signature": "v1,(made when it is sent)"}
        head = [f"POST {self._http.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return ImportPreview("message/http", "\r\n".join([*head, "", ""]).encode("ascii") + body)

    async def close(self) -> None:
        """Let the threads go. A name server that hangs is not waited for."""
        self._threads.shutdown(wait=False)

    async def _post(self, key: str, body: bytes) -> str:
        try:
            secrets = read_secrets(self._settings.secret_files)
        except ConfigurationError as exc:
            raise ImportFailedError(str(exc), reason="no_secret") from None
        now = self._clock.now()
        signed = headers(key, int(now.timestamp()), body, secrets)
        reply = await self._http.request("POST", self._http.target, {**_fields(), **signed}, body)
        return self._judged(key, reply, now)

    def _judged(self, key: str, reply: Reply, now: datetime) -> str:
        if 200 <= reply.status < 300:
            return f"webhook:{key}"
        reason = f"http_{reply.status}"
        if reply.status == 410:
            raise ImporterGoneError("the receiver wants no more", reason=reason)
        after = retry_after(reply.headers.get("retry-after", ""), now)
        raise ImportFailedError(f"the receiver answered {reply.status}", reason=reason, retry_after_seconds=after)


def payload(event: str, link: Link, at: datetime) -> bytes:
    """The body: ids only, the same bytes for every attempt."""
    ids = {"link_id": link.id, "message_id": link.message_id, "patient_id": link.patient_id}
    moment = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    part = {"part": link.part} if link.part else {}
    data = {**ids, **part, "mode": link.mode}
    document: dict[str, Any] = {"type": event, "timestamp": moment, **ids, **part, "data": data}
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _fields() -> dict[str, str]:
    return {"content-type": "application/json", "user-agent": _USER_AGENT, "accept": "*/*"}
