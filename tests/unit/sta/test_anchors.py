"""Who trusts whom, read from folders (AS-56, AS-72)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from gateway.core.errors import ConfigurationError
from gateway.sta.anchors import load_anchors
from tests.unit.sta.trust_world import CA, World


@pytest.fixture(scope="module")
def third() -> CA:
    return CA.root("Third", 69)


def test_the_folder_is_for_everybody_and_a_sub_folder_for_its_name_alone(
    world: World, third: CA, tmp_path: Path
) -> None:
    (tmp_path / "Clinic.Example").mkdir()
    (tmp_path / "ANN@clinic.example").mkdir()
    (tmp_path / "all.pem").write_bytes(world.community.identity.certificate_pem)
    (tmp_path / "Clinic.Example" / "one.der").write_bytes(world.stranger.certificate.der)
    (tmp_path / "ANN@clinic.example" / "two.cer").write_bytes(third.certificate.der)
    store = load_anchors(tmp_path)
    common, domain, own = world.community.certificate, world.stranger.certificate, third.certificate
    assert store.anchors_for("ann@clinic.example") == (common, domain, own)
    assert store.anchors_for("bob@clinic.example") == (common, domain)
    assert store.anchors_for("ann@sub.clinic.example") == (common,)
    assert store.anchors_for("ann@else.example") == (common,)
    assert set(store.all()) == {common, domain, own}


@pytest.mark.parametrize("form", ["pem", "p7b", "p7b-pem", "twice"])
def test_a_file_may_hold_many_certificates(world: World, third: CA, tmp_path: Path, form: str) -> None:
    both = [world.community.identity.certificate, third.identity.certificate]
    pems = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in both)
    name, data = {
        "pem": ("a.pem", b"comment\n" + pems),
        "p7b": ("a.p7b", pkcs7.serialize_certificates(both, serialization.Encoding.DER)),
        "p7b-pem": ("a.p7b", pkcs7.serialize_certificates(both, serialization.Encoding.PEM)),
        "twice": ("a.crt", pems + pems),
    }[form]
    (tmp_path / name).write_bytes(data)
    assert set(load_anchors(tmp_path).common) == {world.community.certificate, third.certificate}


def test_other_files_and_hidden_folders_are_not_read(world: World, tmp_path: Path) -> None:
    (tmp_path / "README").write_bytes(b"these are anchors")
    (tmp_path / "notes.txt").write_bytes(b"-----BEGIN CERTIFICATE-----")
    (tmp_path / ".hidden.pem").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "ca.key.pem").write_bytes(world.community.identity.key_pem)
    store = load_anchors(tmp_path)
    assert (store.common, store.own, store.warnings) == ((), {}, ())


def test_a_folder_named_after_nothing_trusts_nobody_and_is_reported(world: World, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.der").write_bytes(world.community.certificate.der)
    store = load_anchors(tmp_path)
    assert store.all() == ()
    assert len(store.warnings) == 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.pem", b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"),
        ("a.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
        ("a.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("a.der", b"\x30\x80junk"),
        ("a.der", b""),
        ("a.p7b", b"\x30\x03\x02\x01\x01"),
        ("a.crt", b"hello"),
    ],
)
def test_a_certificate_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match=name):
        load_anchors(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_anchors(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "a.der").write_bytes(world.community.certificate.der)
    (tmp_path / "a.der").chmod(0)
    with pytest.raises(ConfigurationError, match=r"a\.der"):
        load_anchors(tmp_path)
