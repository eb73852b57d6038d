"""``message verify``: the contract of item 6, and the 75 attack vectors through the command's own code path."""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs7, pkcs12

from gateway.cli.main import main
from gateway.cli.verify import add_arguments
from gateway.core.verdict import REPAIRS, Reason
from tests.unit.sta.trust_world import NOW, OTHER, RCPT, SENDER, World, issuers_at

AT = NOW.isoformat()
KEYS = [
    "file",
    "verdict",
    "reason",
    "detail",
    "hint",
    "delivered_to",
    "signer",
    "algorithms",
    "wrapped",
    "message_id",
    "subject",
    "inner_sha256",
    "checks",
]


class Desk:
    """Folders of credentials, anchors and CRLs, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.credentials = folder / "credentials"
        self.anchors = folder / "anchors"
        self.credentials.mkdir()
        self.anchors.mkdir()
        self._capsys = capsys

    def put(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def verify(self, *words: str) -> tuple[int, str, str]:
        status = main(["message", "verify", *words])
        shown = self._capsys.readouterr()
        return status, shown.out, shown.err

    def judge(self, files: Sequence[str], *words: str, at: str = AT) -> tuple[int, list[dict[str, Any]]]:
        places = ["--credentials", str(self.credentials), "--anchors", str(self.anchors), "--at", at, "--json"]
        status, shown, complaint = self.verify(*files, *places, *words)
        assert "Traceback" not in shown + complaint
        return status, [json.loads(line) for line in shown.splitlines()]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], world: World) -> Desk:
    made = Desk(tmp_path, capsys)
    world.rcpt.write(made.credentials, "ann")
    world.other.write(made.credentials, "bob")
    (made.anchors / "community.pem").write_bytes(world.community.identity.certificate_pem)
    return made


def test_one_object_for_each_file_on_a_line_with_all_keys(desk: Desk, world: World) -> None:
    inner = world.inner()
    good, bad = desk.put("good.eml", world.message(inner)), desk.put("bad.eml", inner)
    status, found = desk.judge([good, bad], "--mail-from", SENDER, "--rcpt-to", RCPT)
    assert status == 1
    assert [list(one) for one in found] == [KEYS, KEYS]
    first, second = found
    assert first["file"] == good
    assert (first["verdict"], first["reason"], first["detail"]) == ("accepted", "ok", "")
    assert first["delivered_to"] == [RCPT]
    assert first["signer"]["identity"] == SENDER
    assert first["wrapped"] is True
    assert first["message_id"] == "<m1@test.example>"
    assert first["subject"] == "Referral"
    assert first["inner_sha256"] == hashlib.sha256(inner).hexdigest()
    assert (second["verdict"], second["reason"], second["delivered_to"]) == ("rejected", "not_encrypted", [])


def test_the_status_is_0_only_when_all_are_accepted(desk: Desk, world: World) -> None:
    good = desk.put("good.eml", world.message())
    assert desk.judge([good, good])[0] == 0
    assert desk.judge([good, desk.put("bad.eml", b"junk")])[0] == 1


def test_without_credentials_nothing_can_be_opened_and_without_anchors_nobody_is_trusted(
    desk: Desk, world: World
) -> None:
    message, plain = desk.put("m.eml", world.message()), desk.put("p.eml", world.inner())
    status, shown, told = desk.verify(message, plain, "--anchors", str(desk.anchors), "--at", AT, "--json")
    assert status == 1
    assert told == "warning: no keys were given: --credentials DIR (and --anchors DIR)\n"
    assert [json.loads(line)["reason"] for line in shown.splitlines()] == ["cannot_decrypt", "not_encrypted"]
    _, shown, told = desk.verify(message, "--credentials", str(desk.credentials), "--at", AT, "--json")
    assert told == ""
    assert json.loads(shown)["reason"] == "untrusted"


@pytest.mark.parametrize("owner", ["direct.clinic.example", "Direct.Clinic.EXAMPLE", OTHER, OTHER.upper()])
def test_a_sub_folder_holds_what_its_domain_or_address_alone_trusts(desk: Desk, world: World, owner: str) -> None:
    (desk.anchors / "community.pem").unlink()
    (desk.anchors / owner).mkdir()
    (desk.anchors / owner / "community.crt").write_bytes(world.community.certificate.der)
    raw = world.message(world.inner(to=[RCPT, OTHER]), to=[world.rcpt, world.other])
    status, [found] = desk.judge([desk.put("m.eml", raw)], "--rcpt-to", RCPT, "--rcpt-to", OTHER)
    assert status == 0
    assert found["delivered_to"] == ([OTHER] if "@" in owner else [RCPT, OTHER])


def test_a_sub_folder_of_a_stranger_is_of_no_use_and_a_misnamed_one_is_reported(desk: Desk, world: World) -> None:
    (desk.anchors / "community.pem").rename(desk.folder / "community.pem")
    for owner in ("direct.elsewhere.example", "old"):
        (desk.anchors / owner).mkdir()
        shutil.copy(desk.folder / "community.pem", desk.anchors / owner / "community.pem")
    words = ["--credentials", str(desk.credentials), "--anchors", str(desk.anchors), "--at", AT, "--json"]
    status, shown, complaint = desk.verify(desk.put("m.eml", world.message()), *words)
    assert (status, json.loads(shown)["reason"]) == (1, "untrusted")
    assert "old is named after neither a domain nor an address" in complaint


def test_an_empty_mail_from_is_the_null_sender_and_no_option_is_no_envelope(desk: Desk, world: World) -> None:
    message = desk.put("m.eml", world.message())
    assert desk.judge([message], "--mail-from", "")[1][0]["reason"] == "routing_tamper"
    assert desk.judge([message], "--mail-from=")[1][0]["reason"] == "routing_tamper"
    assert desk.judge([message], "--mail-from", f"<{SENDER}>")[1][0]["reason"] == "ok"
    assert desk.judge([message], "--mail-from", "x@direct.sender.example")[1][0]["reason"] == "routing_tamper"
    _, [found] = desk.judge([message])
    assert [c["name"] for c in found["checks"] if c["outcome"] == "skipped"] == ["reverse path", "forward paths"]


def test_the_crls_are_used(desk: Desk, world: World) -> None:
    (desk.folder / "crls").mkdir()
    (desk.folder / "crls" / "community.crl").write_bytes(world.community.crl([world.signer]))
    message = desk.put("m.eml", world.message())
    assert desk.judge([message], "--crls", str(desk.folder / "crls"))[1][0]["reason"] == "revoked"


@pytest.mark.parametrize(
    ("allowed", "reason"), [([], "untrusted"), (["10.0.0.0/8"], "untrusted"), (["127.0.0.1/32"], "ok")]
)
def test_urls_in_certificates_are_fetched_only_within_the_allowed_ranges(
    desk: Desk, world: World, allowed: list[str], reason: str
) -> None:
    below = world.community.below("Below", 54)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(below.certificate.der)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/below.cer"
        signer = below.issue(extra=[(issuers_at(url), False)])
        message = desk.put("m.eml", world.message(signer=signer))
        _, [found] = desk.judge([message], *[word for cidr in allowed for word in ("--allow-fetch", cidr)])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
    assert found["reason"] == reason
    assert bool(asked) is (reason == "ok")


def test_hard_revocation_refuses_what_is_not_known(desk: Desk, world: World) -> None:
    message = desk.put("m.eml", world.message())
    assert desk.judge([message])[1][0]["reason"] == "ok"
    assert desk.judge([message], "--revocation", "hard")[1][0]["reason"] == "untrusted"


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("2026-11-20T12:00:00", "ok"),
        ("2026-11-20T12:00:00Z", "ok"),
        ("2026-11-20", "ok"),
        ("20261120", "ok"),
        ("1795176000", "ok"),
        ("2036-01-01T00:00:00+05:00", "expired"),
        ("2020-01-01", "expired"),
    ],
)
def test_the_moment_is_iso_8601_or_epoch_seconds(desk: Desk, world: World, at: str, reason: str) -> None:
    message = desk.put("m.eml", world.message())
    assert desk.judge([message], at=at)[1][0]["reason"] == reason


def test_pkcs12_credentials_with_a_password(desk: Desk, world: World) -> None:
    for file in desk.credentials.iterdir():
        file.unlink()
    certificate, key = world.rcpt.certificate, world.rcpt.key
    bundle = pkcs12.serialize_key_and_certificates(b"ann", key, certificate, None, BestAvailableEncryption(b"open"))
    (desk.credentials / "ann.p12").write_bytes(bundle)
    (desk.credentials / "ann.p12").chmod(0o600)
    password = desk.put("password", b"open\r\n")
    message = desk.put("m.eml", world.message())
    assert desk.judge([message], "--key-password-file", password)[1][0]["reason"] == "ok"


def test_a_dash_is_standard_input(desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(world.message())))
    status, [found] = desk.judge(["-"])
    assert (status, found["file"], found["reason"]) == (0, "-", "ok")


def test_people_read_the_verdict_the_reason_and_the_repair(desk: Desk, world: World) -> None:
    good, bad = desk.put("good.eml", world.message()), desk.put("bad.eml", world.inner())
    places = ["--credentials", str(desk.credentials), "--anchors", str(desk.anchors), "--at", AT]
    status, shown, _ = desk.verify(good, bad, *places)
    assert status == 1
    assert f"{good}: ACCEPTED (ok)" in shown
    assert f"{bad}: REJECTED (not_encrypted)" in shown
    assert REPAIRS[Reason.NOT_ENCRYPTED] in shown
    assert "(AS-" not in shown


def test_a_subject_cannot_move_the_cursor_of_a_terminal(desk: Desk, world: World) -> None:
    inner = world.inner().replace(b"Subject: Referral", b"Subject: \x1b[2J=?utf-8?q?=1b]0;x=07?=")
    places = ["--credentials", str(desk.credentials), "--anchors", str(desk.anchors), "--at", AT]
    _, shown, _ = desk.verify(desk.put("m.eml", world.message(inner)), *places)
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--credentials", "/nowhere"], "/nowhere"),
        (["--anchors", "/nowhere"], "/nowhere"),
        (["--crls", "/nowhere"], "/nowhere"),
        (["--allow-fetch", "10.0.0.0/99"], "--allow-fetch"),
        (["--allow-fetch", "example.org"], "--allow-fetch"),
        (["--at", "yesterday"], "--at"),
        (["--at", "1e400"], "--at"),
        (["--mail-from", "not an address"], "--mail-from"),
        (["--rcpt-to", ""], "--rcpt-to"),
        (["--key-password-file", "/nowhere", "--credentials", "."], "/nowhere"),
    ],
)
def test_misuse_is_status_2_with_one_clear_line(desk: Desk, world: World, words: list[str], complaint: str) -> None:
    status, shown, said = desk.verify(desk.put("m.eml", world.message()), *words)
    assert status == 2
    assert shown == ""
    assert complaint in said
    assert "Traceback" not in said


def test_a_file_that_cannot_be_read_is_misuse_but_the_others_are_judged(desk: Desk, world: World) -> None:
    good = desk.put("good.eml", world.message())
    places = ["--credentials", str(desk.credentials), "--anchors", str(desk.anchors), "--at", AT, "--json"]
    status, shown, said = desk.verify(str(desk.folder / "missing.eml"), str(desk.folder), good, *places)
    assert status == 2
    assert [json.loads(line)["file"] for line in shown.splitlines()] == [good]
    assert "missing.eml" in said


@pytest.mark.parametrize("before", [True, False])
def test_a_configuration_is_not_read_and_naming_one_is_misuse(desk: Desk, world: World, before: bool) -> None:
    named, words = ["--config", "gateway.toml"], ["message", "verify", desk.put("m.eml", world.message())]
    assert main([*named, *words] if before else [*words, *named]) == 2
    said = desk.verify(str(desk.folder / "m.eml"), "--config", "gateway.toml")[2]
    assert "message verify reads no configuration" in said
    assert "--credentials DIR" in said


def test_a_configuration_of_the_environment_changes_nothing(
    desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIRECTGW_CONFIG", "/nowhere/gateway.toml")
    assert desk.judge([desk.put("m.eml", world.message())])[0] == 0


def test_the_help_tells_the_default_of_each_option() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for action in parser._actions:
        if action.option_strings and action.dest != "help":
            assert "default" in str(action.help), action.option_strings


def test_no_file_is_misuse(desk: Desk) -> None:
    with pytest.raises(SystemExit) as stopped:
        desk.verify("--json")
    assert stopped.value.code == 2


# --- the 75 vectors ---

ACCEPTED = frozenset({"accept", "accept-strip"})
DECIDED = {
    "s09_unsorted_wire_signed_as_is.eml": "accepted",
    "s13_two_signers_sender_ok_sender_bad.eml": "accepted",
    "s16_empty_digestAlgorithms.eml": "accepted",
    "s19_signer_cert_absent.eml": "rejected",
    "m01_bare_lf_body.eml": "accepted",
    "i07_case_local.eml": "accepted",
    "e07_gcm_in_envelopeddata.eml": "rejected",
}
"""What the manifest leaves to the receiver, and what was decided: AS-50, AS-4, and strictness where nothing asks
for tolerance. Each of the accepted ones leaves a note in the evidence where it is odd."""


@pytest.fixture
def vectors(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Desk]:
    folder = shared_data / "smime" / "attacks"
    if not folder.is_dir():
        pytest.skip("the attack vectors (smime/attacks) are not here")
    made = Desk(tmp_path, capsys)
    (made.credentials / "rcpt.cert.pem").write_bytes((folder / "rcpt.pem").read_bytes())
    (made.credentials / "rcpt.key.pem").write_bytes((folder / "rcpt.key").read_bytes())
    (made.credentials / "rcpt.key.pem").chmod(0o600)
    (made.anchors / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    return folder, made


def _sealed(content: bytes, recipient: x509.Certificate) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(content).set_content_encryption_algorithm(algorithms.AES256)
    der = builder.add_recipient(recipient).encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    return _carried(der)


def _carried(der: bytes) -> bytes:
    head = (
        b"From: sender@direct.example.org\r\nTo: rcpt@direct.example.org\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: application/pkcs7-mime; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    return head + base64.encodebytes(der).replace(b"\n", b"\r\n")


def test_every_vector_gets_the_verdict_that_its_manifest_wants(vectors: tuple[Path, Desk]) -> None:
    """Signature, MIME and identity vectors are judged inside an envelope, where their own fault is reached."""
    folder, desk = vectors
    recipient = x509.load_pem_x509_certificate((folder / "rcpt.pem").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest) == 75
    wrong: list[str] = []
    for vector in manifest:
        name, expect = vector["file"], vector["expect"]
        raw = (folder / name).read_bytes()
        shapes = [raw] if name[0] == "e" else [_sealed(raw, recipient)]
        shapes += [_carried(raw), raw] if name.endswith(".der") else []
        for shape in shapes:
            began = time.monotonic()
            _, [found] = desk.judge([desk.put("vector.eml", shape)], at="2026-11-22T12:00:00Z")
            want = DECIDED.get(name) or ("accepted" if expect in ACCEPTED else "rejected")
            if found["verdict"] != want or time.monotonic() - began > 5:
                wrong.append(f"{name}: {found['verdict']} ({found['reason']}: {found['detail']}), wanted {want}")
    assert wrong == []


def test_every_vector_that_is_not_encrypted_is_refused_as_it_stands(vectors: tuple[Path, Desk]) -> None:
    folder, desk = vectors
    files = [str(path) for path in sorted(folder.glob("*.eml")) if path.name[0] in "smic"]
    status, found = desk.judge(files, at="2026-11-22T12:00:00Z")
    assert status == 1
    assert len(found) == len(files)
    assert {one["verdict"] for one in found} == {"rejected"}
    assert {one["reason"] for one in found} <= {"not_encrypted", "malformed"}


def test_all_failures_of_decryption_look_alike(vectors: tuple[Path, Desk]) -> None:
    """Bleichenbacher and padding probes: one reason, one detail (S/MIME rules 2 and 3)."""
    folder, desk = vectors
    names = ["e08_cek_wrong_len", "e09_v15_bad_padding", "e10_cbc_padding_probe", "e15_ct_not_block_multiple"]
    _, found = desk.judge([str(folder / f"{name}.eml") for name in names])
    assert len({(one["reason"], one["detail"]) for one in found}) == 1


def test_identities_of_the_vectors_are_what_the_tests_think(vectors: tuple[Path, Desk]) -> None:
    folder, desk = vectors
    _, [found] = desk.judge([str(folder / "e00_valid_v15_cbc256.eml")], at="2026-11-22T12:00:00Z")
    assert found["signer"]["identity"] == "sender@direct.example.org"
    assert found["wrapped"] is False
