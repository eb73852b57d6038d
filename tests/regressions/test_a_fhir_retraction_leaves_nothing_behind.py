"""A retraction at a FHIR server said that all was taken back while documents stayed on the wrong chart.

* A server that gives fewer resources on a page than were asked for: the other pages were not read.
* A resource that was accepted for later (202) and is not there yet: it was taken for one that nobody made.
* One resource that the server does not change, or that is not ours: those after it were not marked.
* An import whose answer was lost a moment ago: the server may still be at it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.ports import MessagePart
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import STEPS, importer_for
from tests.unit.importers.test_fhir_importer import ENTERED, known, retraction, server, started

__all__ = ["server", "started"]


def statuses(server: FHIRServer, kind: str, link_id: str) -> set[str]:
    return {one["status"] for one in server.resources(kind) if one["identifier"][0]["value"].startswith(link_id)}


@pytest.mark.parametrize("with_receipt", [True, False])
async def test_every_page_is_read(server: FHIRServer, with_receipt: bool) -> None:
    parts = tuple(MessagePart(f"{n}.pdf", "application/pdf", b"%%PDF %d" % n) for n in range(25))
    asked = known(server, parts=parts)
    receipt = await importer_for(server).import_message(asked)
    server.vary(page_size=4)
    await importer_for(server).retract(retraction(asked, receipt if with_receipt else ""))
    assert len(server.resources("DocumentReference")) == 26
    assert statuses(server, "DocumentReference", asked.link.id) == {ENTERED}


async def test_a_page_elsewhere_is_not_asked_for(server: FHIRServer) -> None:
    asked = known(server)
    await importer_for(server).import_message(asked)
    for elsewhere in ("http://127.0.0.1:9/fhir", server.url.removesuffix("/fhir"), "gopher://x"):
        server.vary(page_size=1, pages_at=elsewhere)
        with pytest.raises(ImportFailedError) as caught:
            await importer_for(server).retract(retraction(asked, ""))
        assert caught.value.reason == "bad_next_page"


async def test_what_was_accepted_for_later_is_waited_for(server: FHIRServer) -> None:
    server.vary(**STEPS, answers_202=True)
    asked = known(server)
    receipt = await importer_for(server).import_message(asked)
    assert "accepted/" in receipt
    kept = [*server.resources("Binary"), *server.resources("DocumentReference"), *server.resources("Communication")]
    server.clear()
    with pytest.raises(ImportFailedError) as caught:
        await importer_for(server).retract(retraction(asked, receipt))
    assert caught.value.reason == "not_there_yet"
    for one in kept:
        server.put(one)
    server.add_patient(asked.patient.id)
    await importer_for(server).retract(retraction(asked, receipt))
    assert statuses(server, "DocumentReference", asked.link.id) == {ENTERED}
    assert statuses(server, "Communication", asked.link.id) == {ENTERED}


async def test_one_that_cannot_be_marked_keeps_no_other_from_it(
    server: FHIRServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = known(server), known(server)
    mine = await importer_for(server).import_message(asked)
    theirs = await importer_for(server).import_message(other)
    with pytest.raises(ImportRefusedError) as caught:
        await importer_for(server).retract(retraction(asked, f"{theirs.split()[0]} {mine}"))
    assert caught.value.reason == "not_ours"
    assert statuses(server, "DocumentReference", asked.link.id) == {ENTERED}
    assert statuses(server, "Communication", asked.link.id) == {ENTERED}
    assert statuses(server, "DocumentReference", other.link.id) == {"current"}


async def test_an_import_that_may_go_on_is_waited_for(server: FHIRServer) -> None:
    """The connection ended, the link was undone at once, and the server completes what it was at."""
    asked = known(server)
    now = replace(retraction(asked, ""), retracted_at=datetime.now(UTC))
    with pytest.raises(ImportFailedError) as caught:
        await importer_for(server).retract(now)
    assert caught.value.reason == "nothing_there_yet"
    await importer_for(server).import_message(asked)
    assert (await importer_for(server).retract(now)).startswith("entered-in-error:")
    assert (await importer_for(server).retract(retraction(known(server), ""))).startswith("nothing there")


async def test_a_server_that_tells_of_no_documents_any_more_is_for_a_person(server: FHIRServer) -> None:
    asked = known(server)
    await importer_for(server).import_message(asked)
    server.vary(without=["DocumentReference", "Communication"])
    with pytest.raises(ImportRefusedError) as caught:
        await importer_for(server).retract(retraction(asked, ""))
    assert caught.value.reason == "cannot_find"
