"""``import dry-run``: what each target would be sent for a message, were it linked to that patient now.

Nothing is sent and nothing is linked. That somebody looked is written to the audit log before anything is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from typing import TYPE_CHECKING, Any

from gateway.cli.message_lookup import find_message
from gateway.cli.output import clean, out, print_json
from gateway.cli.session import FINDINGS, OK, actor, audit, with_services
from gateway.core.errors import GatewayError, NotFoundError, RefusedError
from gateway.core.lifecycle import State

if TYPE_CHECKING:
    from gateway.core.import_settings import ImporterSettings
    from gateway.ports import ImportRequest, UnitOfWork
    from gateway.services import Services

DRY_RUN_RULE = "dry-run"


def dry_run(args: argparse.Namespace) -> int:
    """The command."""

    async def work(services: Services) -> int:
        from gateway.importing import import_targets  # noqa: PLC0415 - see gateway.cli.session

        every = import_targets(services.settings)
        targets = [one for one in every if args.target in {None, one.name}]
        if not targets:
            raise NotFoundError(
                f"there is no target {args.target or ''}".rstrip()
                + f"; there is: {', '.join(one.name for one in every) or 'none'} (docs/import-hook.md)"
            )
        request = await _request(services, args.message, args.patient, args.part or "")
        told = {"patient": request.patient.id, "targets": len(targets)}
        await audit(services, "import.dry_run", request.link.message_id, told)
        shown = [await _shown(target, request, services) for target in targets]
        if args.json:
            print_json(shown)
        else:
            for document in shown:
                _print(document)
        return FINDINGS if any(document["error"] for document in shown) else OK

    return with_services(args, work)


async def _request(services: Services, message: str, patient: str, part: str) -> ImportRequest:
    """The request as it would be: with a link that is not made, or the one that is there.

    Raises:
        NotFoundError: no such message, part or patient.
        RefusedError: the message was not accepted, or is not filed yet.
    """
    from gateway.pipeline.import_request import completed, request_of  # noqa: PLC0415 - see gateway.cli.session
    from gateway.pipeline.message_view import view_message  # noqa: PLC0415 - the same
    from gateway.ports import Link  # noqa: PLC0415 - the same
    from gateway.services import ids  # noqa: PLC0415 - the same

    at, who, link_id = services.clock.now(), actor(), ids(services.clock)()

    def read(rows: UnitOfWork) -> ImportRequest:
        message_id = find_message(rows, message)
        if rows.messages.state(message_id) not in {State.FILED, State.LINKED}:
            raise RefusedError("the message was not accepted or is not filed yet: it cannot go onto a chart")
        there = [one for one in rows.links.for_message(message_id) if (one.patient_id, one.part) == (patient, part)]
        link = there[0] if there else Link(link_id, message_id, patient, "manual", who, DRY_RUN_RULE, at, part)
        return request_of(rows, link, with_bytes=True)

    return completed(await services.store.read(read), view_message)


async def _shown(target: ImporterSettings, request: ImportRequest, services: Services) -> dict[str, Any]:
    from gateway.importing import adapter_for  # noqa: PLC0415 - see gateway.cli.session

    document: dict[str, Any] = {"target": target.name, "kind": target.kind, "content_type": "", "error": ""}
    importer = adapter_for(target, services.clock)
    try:
        async with asyncio.timeout(target.timeout_seconds):
            preview = await importer.preview(request)
    except TimeoutError:
        return {**document, "error": f"no answer within {target.timeout_seconds} s"}
    except (GatewayError, OSError) as exc:
        return {**document, "error": str(exc)}
    finally:
        await importer.close()
    document["content_type"] = preview.content_type
    try:
        return {**document, "text": preview.data.decode("utf-8")}
    except UnicodeDecodeError:
        return {**document, "base64": base64.b64encode(preview.data).decode("ascii")}


def _print(document: dict[str, Any]) -> None:
    out(clean(f"--- {document['target']} ({document['kind']}): {document['error'] or document['content_type']}"))
    for line in str(document.get("text", document.get("base64", ""))).splitlines():
        out(clean(line))
