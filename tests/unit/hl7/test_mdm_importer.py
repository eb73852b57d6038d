"""The MDM adapter against a receiver in a process of its own that misbehaves in every way (HL7-6, HL7-7, HL7-9)."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.errors import ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings, completed
from gateway.hl7.mdm_importer import MDMImporter, make_mdm_importer
from gateway.ports import Retraction
from tests.support.gateway_process import free_ports
from tests.support.mllp_peer import MLLPPeer
from tests.support.tls_files import make_authority
from tests.unit.hl7.test_mdm_messages import AT, request


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[MLLPPeer]:
    made = MLLPPeer(tmp_path / "peer", free_ports(1)[0]).start()
    yield made
    made.kill()


@asynccontextmanager
async def importer_to(peer: MLLPPeer, **changes: object) -> AsyncIterator[MDMImporter]:
    settings = ImporterSettings(
        name="ehr", kind="mdm", host="127.0.0.1", port=peer.port, tls="none", assigning_authority="HOSPAA",
        timeout_seconds=4,
    )  # fmt: skip
    made = make_mdm_importer(completed(dataclasses.replace(settings, **changes), Path("/")))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


async def test_several_imports_go_over_one_connection_and_a_repeated_one_is_the_same_octets(peer: MLLPPeer) -> None:
    async with importer_to(peer) as importer:
        links = [dataclasses.replace(request().link, id=f"LINK{n}") for n in range(4)]
        receipts = [await importer.import_message(request(link=link)) for link in links]
        assert len(set(receipts)) == 4
        assert await importer.import_message(request(link=links[0])) == receipts[0]
    assert {entry["connection"] for entry in peer.journal} == {1}
    assert peer.messages[0] == peer.messages[4]
    assert peer.documents == {"LINK0", "LINK1", "LINK2", "LINK3"}


async def test_imports_at_the_same_time_do_not_take_each_others_answers(peer: MLLPPeer) -> None:
    async with importer_to(peer) as importer:
        links = [dataclasses.replace(request().link, id=f"LINK{n}") for n in range(20)]
        receipts = await asyncio.gather(*(importer.import_message(request(link=link)) for link in links))
    assert len(set(receipts)) == 20
    assert len(peer.messages) == 20


@pytest.mark.parametrize("mode", ["AA", "CA", "trickle", "then_close", "slow"])
async def test_what_accepts_gives_a_receipt(peer: MLLPPeer, mode: str) -> None:
    peer.mode(mode)
    async with importer_to(peer) as importer:
        first = await importer.import_message(request())
        assert await importer.import_message(request()) == first


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("AE", "ack_ae"),
        ("CE", "ack_ce"),
        ("close", "closed"),
        ("close_within", "closed"),
        ("half", "closed"),
        ("silent", "timeout"),
        ("garbage", "answer"),
        ("no_frame", "answer"),
        ("wrong_id", "answer"),
        ("endless", "answer"),
        ("ZZ", "answer"),
    ],
)
async def test_what_may_pass_is_tried_again_and_files_one_document(peer: MLLPPeer, mode: str, reason: str) -> None:
    peer.mode(mode)
    async with importer_to(peer, timeout_seconds=2) as importer:
        with pytest.raises(ImportFailedError) as caught:
            await importer.import_message(request())
        assert caught.value.reason == reason
        peer.mode("AA")
        assert (await importer.import_message(request())).startswith("mdm:")
    assert len(set(peer.messages)) == 1
    assert peer.documents == {request().link.id}


@pytest.mark.parametrize(("mode", "reason"), [("AR", "ack_ar"), ("CR", "ack_cr")])
async def test_what_is_rejected_is_for_a_person_and_the_connection_goes_on(
    peer: MLLPPeer, mode: str, reason: str
) -> None:
    peer.mode(mode)
    async with importer_to(peer) as importer:
        with pytest.raises(ImportRefusedError) as caught:
            await importer.import_message(request())
        assert caught.value.reason == reason
        peer.mode("AA")
        await importer.import_message(request())


async def test_a_receiver_that_restarts_is_met_again(peer: MLLPPeer) -> None:
    async with importer_to(peer) as importer:
        await importer.import_message(request())
        peer.kill()
        with pytest.raises(ImportFailedError) as caught:
            await importer.import_message(request())
        assert caught.value.reason == "unreachable"
        assert "reached" in (await importer.check() or "")
        peer.start()
        assert await importer.check() is None
        await importer.import_message(request())
        # Restarted while the connection was kept: the first attempt finds it closed and makes it anew.
        peer.kill()
        peer.start()
        await importer.import_message(request())
    assert len(set(peer.messages)) == 1


async def test_a_cancelled_call_ends_at_once_and_its_late_answer_is_nobodys(peer: MLLPPeer) -> None:
    peer.mode("slow")
    async with importer_to(peer) as importer:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await importer.import_message(request())
        assert time.monotonic() - began < 1.2
        peer.mode("AA")
        other = dataclasses.replace(request().link, id="OTHER")
        assert await importer.import_message(request(link=other)) != await importer.import_message(request())


async def test_a_retraction_is_sent_and_repeated_alike(peer: MLLPPeer) -> None:
    async with importer_to(peer) as importer:
        receipt = await importer.import_message(request())
        retraction = Retraction(request(), receipt, "wrong patient", "olga", AT)
        assert await importer.retract(retraction) == await importer.retract(retraction) != receipt
        shown = await importer.preview(request())
    assert [message.split("|")[8] for message in peer.messages] == [
        "MDM^T02^MDM_T02", "MDM^T11^MDM_T01", "MDM^T11^MDM_T01",
    ]  # fmt: skip
    assert shown.data.decode() == peer.messages[0]
    assert peer.documents == {request().link.id}


async def test_tls_is_checked_on_both_sides(tmp_path: Path) -> None:
    ca, server, client = make_authority(tmp_path / "tls")
    other = make_authority(tmp_path / "other", slot=1)[0]
    peer = MLLPPeer(tmp_path / "peer", free_ports(1)[0], certificate=server[0], key=server[1], client_ca=ca).start()
    try:
        host = {"host": "localhost", "tls": "required"}
        async with importer_to(peer, **host, ca_file=ca, certificate_file=client[0], key_file=client[1]) as importer:
            assert await importer.check() is None
            await importer.import_message(request())
        for wrong in ({"ca_file": other, "certificate_file": client[0], "key_file": client[1]}, {"ca_file": ca}):
            async with importer_to(peer, **host, **wrong) as importer:
                with pytest.raises(ImportFailedError) as caught:
                    await importer.import_message(request())
                assert caught.value.reason in {"tls", "closed"}
        async with importer_to(peer, ca_file=ca, host="127.0.0.1", tls="required") as importer:
            with pytest.raises(ImportFailedError, match="TLS"):
                await importer.import_message(request())
        async with importer_to(peer, **host, ca_file=tmp_path / "none.pem") as importer:
            assert "none.pem" in (await importer.check() or "")
            with pytest.raises(ImportFailedError, match="holds no certificates"):
                await importer.import_message(request())
        assert len(peer.messages) == 1
    finally:
        peer.kill()
