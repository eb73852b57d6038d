"""From the feed to the chart through the real daemon: ADT brings the patient, mail is linked, MDM files it once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.protocol.test_delivery_end_to_end import SENDER, deliver
from tests.support.direct_messages import inner_message
from tests.support.gateway_process import Practice, free_ports, wait_for
from tests.support.mllp_peer import MLLPPeer
from tests.support.pki import Authority


def import_to(practice: Practice, port: int) -> None:
    target = {
        "name": "ehr", "kind": "mdm", "host": "127.0.0.1", "port": port, "tls": "none", "assigning_authority": "HOSP",
        "timeout_seconds": 2, "retry_seconds": [1] * 40,
    }  # fmt: skip
    text = "\n[[importer]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in target.items())
    practice.config.write_text(practice.config.read_text() + text)


@pytest.mark.slow
def test_a_document_is_filed_once_by_a_receiver_that_fails_in_every_way(tmp_path: Path, partner_ca: Authority) -> None:
    """The receiver fails, is gone and comes back, and the gateway is killed: one document, and mail goes on."""
    port = free_ports(1)[0]
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    import_to(practice, port)
    patients = tmp_path / "patients.csv"
    patients.write_text("id,mrn,family,given,dob,sex\n7,M7,Quimby,Ann,1961-02-03,F\n8,,Nobody,Jo,1970-01-01,M\n")
    practice.run("patient", "import", str(patients))
    peer = MLLPPeer(tmp_path / "peer", port)
    peer.mode("half")
    practice.start()
    try:
        deliver(practice, partner_ca, inner_message(SENDER, practice.addresses))
        [message] = practice.settled(1)
        shown = practice.run("import", "dry-run", message["id"], "7", "--target", "ehr").stdout
        practice.run("link", "add", message["id"], "7")
        [link] = practice.json("link", "list", "7")
        peer.start()
        wait_for(lambda: peer.messages, what="the first attempt")
        practice.kill()
        practice.start()
        for mode in ("silent", "AE", "wrong_id"):
            peer.mode(mode)
            before = len(peer.messages)
            wait_for(lambda before=before: len(peer.messages) > before, what=f"an attempt while {mode}")  # type: ignore[misc]
        peer.kill()
        # The target hangs, and mail is taken and filed as ever.
        deliver(practice, partner_ca, inner_message(SENDER, practice.addresses, subject="the second one"))
        other = next(m for m in practice.settled(2) if m["id"] != message["id"])
        peer.mode("AA")
        peer.start()
        done = ["import", "list", "--target", "ehr", "--state", "done"]
        wait_for(lambda: practice.json(*done)["deliveries"], what="the receipt")
        assert len(set(peer.messages)) == 1
        assert peer.documents == {link["id"]}
        assert b"MDM^T02^MDM_T02" in shown
        # A patient without the number that the receiver needs is for a person, and is never filed under another one.
        practice.run("link", "add", other["id"], "8")
        dead = ["import", "list", "--target", "ehr", "--state", "dead", "--json"]
        wait_for(lambda: b"no_mrn" in practice.run(*dead, check=False).stdout, what="the dead letter")
        assert peer.documents == {link["id"]}
    finally:
        practice.stop()
        peer.kill()
