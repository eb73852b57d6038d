"""The FHIR adapter against a strict server: what is made, whose chart it is, what answers mean, and tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigurationError, ImportFailedError, ImportRefusedError
from gateway.importers import conformance
from gateway.importers.conformance import request
from gateway.importers.fhir.resources import SYSTEM
from gateway.importers.fhir.server import FHIRServer as Client
from gateway.keys.assertion_key import read_assertion_key
from gateway.ports import CHECK_DEGRADED, ImportRequest, MessagePart, Retraction
from tests.support.fhir_server import FHIRServer
from tests.support.fhir_target import BARE, STEPS, client_of, ec_key, importer_for, jwk_of, rsa_key, violations
from tests.support.gateway_process import free_ports
from tests.support.tls_files import make_authority

CDA = (
    b'<?xml version="1.0"?><ClinicalDocument xmlns="urn:hl7-org:v3"><id root="1.2.3" extension="D-1"/>'
    b'<code code="18842-5" codeSystem="2.16.840.1.113883.6.1"/><title>Discharge</title>'
    b'<effectiveTime value="20260102030405+0100"/><recordTarget/></ClinicalDocument>'
)
ENTERED = "entered-in-error"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FHIRServer]:
    [port] = free_ports(1)
    made = FHIRServer(tmp_path_factory.mktemp("fhir"), port).start()
    yield made
    made.kill()


@pytest.fixture
def server(started: FHIRServer) -> FHIRServer:
    started.vary()
    started.behave()
    started.clear()
    return started


def known(server: FHIRServer, **changes: Any) -> ImportRequest:
    """A request whose patient is there."""
    asked = replace(request(), **changes)
    server.add_patient(asked.patient.id)
    return asked


async def refused(server: FHIRServer, asked: ImportRequest, **settings: Any) -> str:
    with pytest.raises(ImportRefusedError) as caught:
        await importer_for(server, **settings).import_message(asked)
    assert "Ann" not in str(caught.value)
    return caught.value.reason


async def failed(server: FHIRServer, asked: ImportRequest, **settings: Any) -> ImportFailedError:
    with pytest.raises(ImportFailedError) as caught:
        await importer_for(server, **settings).import_message(asked)
    assert "Ann" not in str(caught.value)
    return caught.value


def attachment_of(server: FHIRServer, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
    [found] = [one for one in server.resources("DocumentReference") if one["identifier"][0]["value"].endswith(key)]
    return found, found["content"][0]["attachment"]


# --- what is made ---


async def test_a_message_with_a_document_becomes_one_set(server: FHIRServer) -> None:
    parts = (
        MessagePart("", "text/plain", b"Please see the attached.\r\n"),
        MessagePart("", "text/html", b"<p>Please see the attached.</p>"),
        MessagePart("../../etc/ccd.xml", "application/octet-stream", CDA),
        MessagePart("empty.bin", "no type", b""),
    )
    asked = known(server, parts=parts, rfc822_message_id="<1 a@phr.example>", subject="Re:\x00 it\r\nall")
    receipt = await importer_for(server).import_message(asked)
    assert len(receipt.split()) == 6
    document, attachment = attachment_of(server, ".1")
    assert document["masterIdentifier"] == {"system": "urn:oid:1.2.3", "value": "D-1"}
    assert document["type"]["coding"] == [{"system": "http://loinc.org", "code": "18842-5"}]
    assert (attachment["title"], attachment["contentType"]) == ("ccd.xml", "text/xml")
    assert attachment["creation"] == "2026-01-02T03:04:05+01:00"
    assert base64.b64decode(attachment["data"]) == CDA
    assert document["description"] == "Re:\ufffd it all"
    empty, nothing = attachment_of(server, ".2")
    assert empty["type"]["coding"][0]["code"] == "34133-9"
    assert (nothing["size"], "data" in nothing, nothing["contentType"]) == (0, False, "application/octet-stream")
    original, kept = attachment_of(server, ".original")
    [binary] = server.resources("Binary")
    assert kept["url"] == f"Binary/{binary['id']}"
    assert base64.b64decode(binary["data"]) == asked.content
    [communication] = server.resources("Communication")
    assert communication["payload"][0] == {"contentString": asked.text}
    assert [one["contentReference"]["reference"] for one in communication["payload"][1:]] == [
        f"DocumentReference/{one['id']}" for one in (original, document, empty)
    ]
    assert communication["identifier"] == [
        {"system": SYSTEM, "value": asked.link.id},
        {"system": "urn:ietf:rfc:3986", "value": "mid:1%20a@phr.example"},
    ]
    [provenance] = server.resources("Provenance")
    assert len(provenance["target"]) == 4
    assert "PATAST" not in json.dumps([document, communication]), "the sender is not known to be the patient"


async def test_what_the_patient_has_sent_is_labelled(server: FHIRServer) -> None:
    asked = known(server, sender="Ann@direct.example")
    await importer_for(server).import_message(asked)
    for kind in ("Communication", "DocumentReference"):
        labels = [one["meta"]["security"][0]["code"] for one in server.resources(kind)]
        assert set(labels) == {"PATAST"}


async def test_a_link_of_one_part_brings_that_part_alone(server: FHIRServer) -> None:
    part = MessagePart("a.pdf", "application/pdf", b"%PDF")
    asked = known(server, content=b"", text="", subject="", parts=(part,))
    await importer_for(server).import_message(asked)
    [document] = server.resources("DocumentReference")
    assert document["content"][0]["attachment"]["title"] == "a.pdf"
    assert server.resources("Binary") == []
    assert len(server.resources("Provenance")) == 1


async def test_a_large_document_stands_apart_from_its_reference(server: FHIRServer) -> None:
    data = b"x" * (5 * 1024 * 1024 + 1)
    asked = known(server, parts=(MessagePart("a.pdf", "application/pdf", data),))
    await importer_for(server).import_message(asked)
    _, attachment = attachment_of(server, ".1")
    assert attachment["url"].startswith("Binary/")
    assert attachment["hash"] == base64.b64encode(hashlib.sha1(data).digest()).decode()  # noqa: S324 - of R4
    assert len(server.resources("Binary")) == 2


@pytest.mark.parametrize("odd", [True, False])
@pytest.mark.parametrize("variant", [{}, STEPS, BARE, {"says_where": False}, {**STEPS, "says_where": False}])
async def test_once_by_whatever_the_server_can(server: FHIRServer, variant: dict[str, Any], odd: bool) -> None:
    server.vary(**variant)
    asked = request(odd=odd)
    server.add_patient(asked.patient.id)
    importer = importer_for(server)
    receipt = await importer.import_message(asked)
    assert await importer.import_message(asked) == receipt
    assert violations(server, [asked], variant) == []
    assert not {"Ann", "test"} & set(receipt.split())


@pytest.mark.parametrize("variant", [{}, STEPS, BARE])
async def test_calls_at_the_same_time_for_one_link_make_one_set(server: FHIRServer, variant: dict[str, Any]) -> None:
    server.vary(**variant)
    asked, importer = known(server), importer_for(server)
    receipts = await asyncio.gather(*(importer.import_message(asked) for _ in range(8)))
    assert len(set(receipts)) == 1
    assert violations(server, [asked], variant) == []


async def test_a_parameter_that_is_not_listed_is_not_searched_by(server: FHIRServer) -> None:
    """A server that ignores it answers with anything, and each attempt would make another resource."""
    server.vary(conditional=False, lists_params=False, ignores_params=True)
    assert await refused(server, known(server)) == "no_document_create"
    server.vary(lists_params=False, ignores_params=True)
    asked, importer = known(server), importer_for(server)
    receipt = await importer.import_message(asked)
    assert await importer.import_message(asked) == receipt
    with pytest.raises(ImportRefusedError) as caught:
        await importer.retract(retraction(asked, ""))
    assert caught.value.reason == "cannot_find"
    assert await importer.retract(retraction(asked, receipt))
    assert {one["status"] for one in server.resources("DocumentReference")} == {ENTERED}


async def test_without_a_communication_the_text_is_a_document(server: FHIRServer) -> None:
    server.vary(without=["Communication", "Provenance"])
    await importer_for(server).import_message(asked := known(server))
    _, attachment = attachment_of(server, ".text")
    assert base64.b64decode(attachment["data"]).decode() == asked.text
    assert server.resources("Provenance") == []


async def test_what_is_accepted_for_later_is_referred_to_by_identifier(server: FHIRServer) -> None:
    server.vary(**STEPS, answers_202=True)
    asked = known(server)
    receipt = await importer_for(server).import_message(asked)
    assert f"accepted/{asked.link.id}" in receipt
    [communication] = server.resources("Communication")
    assert communication["payload"][1]["contentReference"]["identifier"]["value"] == f"{asked.link.id}.original"


# --- whose chart ---


async def test_the_patient_is_searched_by_number(server: FHIRServer) -> None:
    system = {"patient_identifier_system": "urn:oid:1.2.3"}
    asked = request()
    server.add_patient("other", identifier=[{"system": "urn:oid:9", "value": "000"}])
    assert await refused(server, asked, **system) == "unknown_patient"
    server.add_patient("right", identifier=[{"system": "urn:oid:1.2.3", "value": "000"}], birthDate="1970-01-31")
    server.vary(ignores_params=True)
    await importer_for(server, **system).import_message(asked)
    assert server.resources("Communication")[0]["subject"] == {"reference": "Patient/right"}
    assert "000" not in json.dumps(server.requests()), "the number stands in no URL"
    server.add_patient("again", identifier=[{"system": "urn:oid:1.2.3", "value": "000"}])
    assert await refused(server, asked, **system) == "several_patients"
    assert await refused(server, replace(asked, patient=replace(asked.patient, mrn=" ")), **system) == "no_mrn"


async def test_a_number_is_no_search(server: FHIRServer) -> None:
    system = {"patient_identifier_system": "urn:oid:1.2.3"}
    asked = request()
    odd = replace(asked, patient=replace(asked.patient, mrn="1,urn:oid:1.2.3|2\\$&x=1"))
    server.add_patient("two", identifier=[{"system": "urn:oid:1.2.3", "value": "2"}])
    assert await refused(server, odd, **system) == "unknown_patient"
    server.add_patient("one", identifier=[{"system": "urn:oid:1.2.3", "value": odd.patient.mrn}])
    await importer_for(server, **system).import_message(odd)
    assert server.resources("Communication")[0]["subject"] == {"reference": "Patient/one"}


async def test_another_person_is_not_written_to(server: FHIRServer) -> None:
    asked = request()
    assert await refused(server, asked) == "unknown_patient"
    server.add_patient(asked.patient.id, birthDate="1970-01-30")
    assert await refused(server, asked) == "patient_differs"
    link = [{"type": "replaced-by", "other": {"reference": "Patient/x"}}]
    server.add_patient(asked.patient.id, birthDate="1970-01-31", link=link)
    assert await refused(server, asked) == "patient_replaced"
    server.add_patient(asked.patient.id, birthDate="1970")
    assert await importer_for(server).import_message(asked)
    odd = replace(asked, patient=replace(asked.patient, id="../metadata"))
    assert await refused(server, odd) == "bad_patient_id"


# --- what answers mean ---


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (("outcome", "422", "business-rule"), "http_422_business-rule"),
        (("outcome", "400", "made-up"), "http_400"),
        (("status", "413"), "too_large"),
        (("status", "412"), "several_matches"),
        (("status", "415"), "http_415"),
    ],
)
async def test_what_speaks_against_the_content_is_for_good(
    server: FHIRServer, fault: tuple[str, ...], reason: str
) -> None:
    asked = known(server)
    server.behave(*fault, at=4)
    assert await refused(server, asked) == reason


@pytest.mark.parametrize(
    ("fault", "reason", "after"),
    [
        (("status", "429", "7"), "http_429", 7.0),
        (("status", "503", "9"), "http_503", 9.0),
        (("status", "401"), "http_401", None),
        (("outcome", "403", "forbidden"), "http_403_forbidden", None),
        (("status", "404"), "http_404", None),
        (("status", "302"), "http_302", None),
        (("outcome", "409", "conflict"), "http_409_conflict", None),
        (("outcome", "422", "lock-error"), "http_422_lock-error", None),
        (("cut_before",), "no_answer", None),
        (("half",), "bad_answer", None),
        (("bad_json",), "bad_answer", None),
    ],
)
async def test_what_may_pass_is_tried_again(
    server: FHIRServer, fault: tuple[str, ...], reason: str, after: float | None
) -> None:
    asked = known(server)
    server.behave(*fault, at=4)
    error = await failed(server, asked)
    assert (error.reason, error.retry_after_seconds) == (reason, after)


@pytest.mark.parametrize("variant", [{}, STEPS, BARE])
async def test_several_of_one_link_are_for_a_person(server: FHIRServer, variant: dict[str, Any]) -> None:
    server.vary(**variant)
    asked = known(server)
    await importer_for(server).import_message(asked)
    server.put({**server.resources("DocumentReference")[0], "id": "twin"})
    assert await refused(server, asked) == "several_matches"


async def test_a_server_that_is_none(server: FHIRServer) -> None:
    asked = known(server)
    server.vary(version="3.0.2")
    assert (await failed(server, asked)).reason == "not_r4"
    server.vary()
    server.behave("bad_json", at=1)
    assert (await failed(server, asked)).reason == "bad_metadata"
    server.vary(without=["DocumentReference"])
    assert await refused(server, asked) == "no_document_create"


async def test_capabilities_are_read_again_after_a_failure_only(server: FHIRServer) -> None:
    importer = importer_for(server)
    for _ in range(2):
        await importer.import_message(known(server))
    assert [one["path"] for one in server.requests()].count("/fhir/metadata") == 1
    server.vary(**STEPS)
    with pytest.raises(ImportRefusedError):
        await importer.import_message(known(server))
    asked = known(server)
    await importer.import_message(asked)
    assert [one["path"] for one in server.requests()].count("/fhir/metadata") == 2


async def test_a_check_names_what_is_done_without(server: FHIRServer) -> None:
    assert await importer_for(server).check() is None
    server.vary(**BARE, update=False)
    told = str(await importer_for(server).check())
    assert told.startswith(CHECK_DEGRADED)
    for word in ("no Communication", "no Binary", "no transaction", "no conditional create", "cannot be taken back"):
        assert word in told
    server.vary(without=["DocumentReference"])
    assert "no_document_create" in str(await importer_for(server).check())
    assert "unreachable" in str(await importer_for(server, url="http://127.0.0.1:9/fhir").check())


async def test_a_preview_is_the_bundle_and_tells_nobody(server: FHIRServer) -> None:
    preview = await importer_for(server).preview(request())
    bundle = json.loads(preview.data)
    assert [one["resource"]["resourceType"] for one in bundle["entry"]] == [
        "DocumentReference", "DocumentReference", "Communication", "Binary", "Provenance",
    ]  # fmt: skip
    assert server.requests() == []


# --- taking back ---


def retraction(asked: ImportRequest, receipt: str) -> Retraction:
    return Retraction(asked, receipt, "wrong chart", "olga", datetime(2026, 2, 3, tzinfo=UTC))


@pytest.mark.parametrize("variant", [{}, STEPS, BARE, {"patch": True}, {"patch": True, "update": False}])
@pytest.mark.parametrize("with_receipt", [True, False])
async def test_a_retraction_marks_everything_once(
    server: FHIRServer,
    variant: dict[str, Any],
    with_receipt: bool,
) -> None:
    server.vary(**variant)
    asked, other = known(server), known(server)
    importer = importer_for(server)
    receipt = await importer.import_message(asked)
    await importer.import_message(other)
    wanted = retraction(asked, receipt if with_receipt else "")
    assert await importer.retract(wanted) == await importer.retract(wanted)
    for kind in ("DocumentReference", "Communication"):
        for one in server.resources(kind):
            ours = one["identifier"][0]["value"].startswith(asked.link.id)
            assert (one["status"] == ENTERED, one["meta"]["versionId"]) == (ours, "2" if ours else "1")
    assert await importer.import_message(asked) == receipt, "it is not made anew"
    if not variant:
        assert {one.get("statusReason", {}).get("text") for one in server.resources("Communication")} == {
            "wrong chart", None,
        }  # fmt: skip


async def test_what_others_wrote_meanwhile_is_kept(server: FHIRServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = known(server)
    receipt = await importer_for(server).import_message(asked)
    ask, written = Client.ask, list[dict[str, Any]]()

    async def meanwhile(self: Client, method: str, path: str, *rest: Any, **more: Any) -> Any:
        if method == "PUT" and not written:
            [there] = server.resources("Communication")
            written.append(there)
            server.put({**there, "note": [{"text": "seen"}]})
        return await ask(self, method, path, *rest, **more)

    monkeypatch.setattr(Client, "ask", meanwhile)
    await importer_for(server).retract(retraction(asked, receipt))
    [there] = server.resources("Communication")
    assert (there["status"], there["note"], there["meta"]["versionId"]) == (ENTERED, [{"text": "seen"}], "3")


async def test_what_is_not_ours_is_not_touched(server: FHIRServer) -> None:
    asked, other = known(server), known(server)
    await importer_for(server).import_message(asked)
    receipt = await importer_for(server).import_message(other)
    with pytest.raises(ImportRefusedError) as caught:
        await importer_for(server).retract(retraction(asked, receipt))
    assert caught.value.reason == "not_ours"
    mine = [one["status"] for one in server.resources("Communication") if other.link.id in json.dumps(one)]
    assert mine == ["completed"]


async def test_a_server_that_changes_nothing_is_for_a_person(server: FHIRServer) -> None:
    server.vary(update=False)
    asked = known(server)
    receipt = await importer_for(server).import_message(asked)
    with pytest.raises(ImportRefusedError) as caught:
        await importer_for(server).retract(retraction(asked, receipt))
    assert caught.value.reason == "cannot_retract"
    assert await importer_for(server).retract(retraction(known(server), ""))


# --- tokens ---


def _old(folder: Path) -> Path:
    (folder / "old-token").write_text("old")
    return folder / "old-token"


@pytest.mark.parametrize("form", ["pem", "jwk"])
@pytest.mark.parametrize("made", [rsa_key, ec_key])
async def test_smart_backend_services(server: FHIRServer, tmp_path: Path, made: Any, form: str) -> None:
    key = made()
    settings, client = client_of(tmp_path, key)
    server.vary(client=client)
    error = await failed(
        server, replace(request(), patient=replace(request().patient, mrn="1")), bearer_file=_old(tmp_path)
    )
    assert error.reason == "http_401_login"
    if form == "jwk":
        settings["key_file"].write_text(jwk_of(key, "key-1"))
        settings["kid"] = ""
    importer = importer_for(server, **settings)
    for _ in range(2):
        await importer.import_message(known(server))
    assert [one["path"] for one in server.requests()].count("/fhir/token") == 1
    server.behave("expire", at=1)
    await importer.import_message(known(server))
    assert [one["path"] for one in server.requests()].count("/fhir/token") == 2
    assert await importer.check() is None


async def test_a_token_that_cannot_be_had(server: FHIRServer, tmp_path: Path) -> None:
    settings, client = client_of(tmp_path, rsa_key())
    asked = known(server)
    server.vary(client={**client, "kid": "another"})
    assert (await failed(server, asked, **settings)).reason == "token_invalid_client"
    server.vary(client=client, token_endpoint="http://169.254.169.254/token")
    assert (await failed(server, asked, **settings)).reason == "no_token_url"
    server.vary(client=client, token_endpoint="https://elsewhere.example/token")
    assert (await failed(server, asked, **settings)).reason in {"unknown_host", "not_allowed"}
    named = {**settings, "token_url": f"{server.url}/token"}
    assert await importer_for(server, **named).import_message(asked)
    assert str(await importer_for(server, **{**named, "key_file": tmp_path / "none"}).check()).endswith("(no_key)")


async def test_a_token_of_a_file(server: FHIRServer, tmp_path: Path) -> None:
    path = tmp_path / "token"
    asked = known(server)
    assert (await failed(server, asked, bearer_file=path)).reason == "no_token"
    path.write_text("two words\r\nx: y")
    assert (await failed(server, asked, bearer_file=path)).reason == "bad_token"
    path.write_text("abc\n")
    assert await importer_for(server, bearer_file=path).import_message(asked)


async def test_the_certificate_is_checked_before_a_token_or_a_message_is_sent(tmp_path: Path) -> None:
    authority, (certificate, key), _ = make_authority(tmp_path / "tls")
    settings, client = client_of(tmp_path, ec_key())
    [port] = free_ports(1)
    (tmp_path / "fhir").mkdir()
    server = FHIRServer(tmp_path / "fhir", port, (str(certificate), str(key))).start()
    try:
        server.vary(client=client)
        settings["allow"] = ("localhost",)
        asked = known(server)
        assert (await failed(server, asked, **settings)).reason == "bad_certificate"
        assert server.requests() == []
        assert await importer_for(server, **settings, ca_file=authority).import_message(asked)
    finally:
        server.kill()


@pytest.mark.parametrize("text", ["", "{}", '{"kty": "RSA"}', '{"kty": "EC", "crv": "P-256"}', "-----BEGIN"])
def test_a_key_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigurationError, match="key_file"):
        read_assertion_key(tmp_path / "key")


# --- the kit ---


class TestConformance(conformance.ImporterConformance):
    """The conformance kit of the hook, on a server that knows every patient."""

    @pytest.fixture(autouse=True, params=[{}, STEPS], ids=["transaction", "steps"])
    def place(self, started: FHIRServer, request: pytest.FixtureRequest) -> None:
        started.clear()
        started.behave()
        started.vary(**{**request.param, "makes_patients": True})
        self.server = started

    def make(self) -> Any:
        return importer_for(self.server)
