"""Who trusts whom, from folders and bundles, for receiving and for sending (AS-56, AS-72, AS-73, TB-11, TB-17)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from gateway.core.errors import ConfigurationError
from gateway.core.trust import BOTH_DIRECTIONS, AnchorBundle, Direction
from gateway.sta.certificates import Certificate
from gateway.sta.trust_anchors.anchor_folder import load_anchors
from gateway.sta.trust_anchors.anchors import AnchorStore, TrustAnchor
from tests.unit.sta.trust_world import CA, World, certificate_of

ANN, BOB = "ann@clinic.example", "bob@clinic.example"
INBOUND, OUTBOUND = frozenset({Direction.INBOUND}), frozenset({Direction.OUTBOUND})


@pytest.fixture(scope="module")
def third() -> CA:
    return CA.root("Third", 69)


def _certificates(anchors: Iterable[TrustAnchor]) -> tuple[Certificate, ...]:
    return tuple(anchor.certificate for anchor in anchors)


def _bundle(
    *anchors: Certificate,
    owners: tuple[str, ...] = (),
    directions: frozenset[Direction] = BOTH_DIRECTIONS,
    version: int = 1,
) -> AnchorBundle:
    return AnchorBundle("agency", version, owners, directions, tuple(anchor.der for anchor in anchors))


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
    assert _certificates(store.anchors_for(ANN)) == (common, domain, own)
    assert _certificates(store.anchors_for(BOB)) == (common, domain)
    assert _certificates(store.anchors_for("clinic.example")) == (common, domain)
    assert _certificates(store.anchors_for("ann@sub.clinic.example")) == (common,)
    assert _certificates(store.anchors_for("ann@else.example")) == (common,)
    assert store.anchors_for(ANN) == store.anchors_for(ANN, Direction.OUTBOUND)
    assert set(_certificates(store.all())) == {common, domain, own}
    assert {anchor.sources for anchor in store.all()} == {("folder",)}


def test_what_is_in_the_folder_of_a_direction_counts_for_it_alone(world: World, third: CA, tmp_path: Path) -> None:
    """AS-72: the two sets are apart, with common anchors and owners' own in each."""
    for name, ca in (("inbound", world.community), ("Outbound", world.stranger), ("outbound", third)):
        folder = tmp_path / name / ("clinic.example" if ca is third else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "a.der").write_bytes(ca.certificate.der)
    (tmp_path / "both.der").write_bytes(world.clinic.certificate.der)
    store = load_anchors(tmp_path)
    both, inward = world.clinic.certificate, world.community.certificate
    outward, own = world.stranger.certificate, third.certificate
    assert store.warnings == ()
    assert set(_certificates(store.anchors_for(ANN))) == {both, inward}
    assert set(_certificates(store.anchors_for(ANN, Direction.OUTBOUND))) == {both, outward, own}
    assert set(_certificates(store.anchors_for("x@else.example", Direction.OUTBOUND))) == {both, outward}
    assert set(_certificates(store.anchors_for_notification(ANN))) == {both, inward, outward, own}
    assert len(store.all()) == 4


def test_folders_that_lie_too_deep_trust_nobody_and_are_reported(world: World, tmp_path: Path) -> None:
    for deep in ("inbound/outbound", "clinic.example/inbound", "inbound/clinic.example/more"):
        (tmp_path / deep).mkdir(parents=True)
        (tmp_path / deep / "a.der").write_bytes(world.community.certificate.der)
    store = load_anchors(tmp_path)
    assert store.all() == ()
    assert len(store.warnings) == 3


# --- bundles ---


def test_a_bundle_counts_for_its_owners_and_directions_alone(world: World, third: CA) -> None:
    """TB-11, TB-12: on top of what the folder grants."""
    store = AnchorStore((world.clinic.certificate,)).with_bundles(
        [
            _bundle(world.community.certificate, directions=INBOUND),
            AnchorBundle("b", 4, ("clinic.example", "x@y.example"), OUTBOUND, (world.stranger.certificate.der,)),
            AnchorBundle("c", 2, (ANN,), BOTH_DIRECTIONS, (third.certificate.der,)),
        ]
    )
    every, agency, other = world.clinic.certificate, world.community.certificate, world.stranger.certificate
    assert set(_certificates(store.anchors_for(ANN))) == {every, agency, third.certificate}
    assert set(_certificates(store.anchors_for(BOB))) == {every, agency}
    assert set(_certificates(store.anchors_for(BOB, Direction.OUTBOUND))) == {every, other}
    assert set(_certificates(store.anchors_for("x@y.example", Direction.OUTBOUND))) == {every, other}
    assert set(_certificates(store.anchors_for("z@y.example", Direction.OUTBOUND))) == {every}
    sources = {anchor.certificate: anchor.sources for anchor in store.anchors_for(ANN)}
    assert sources == {
        every: ("folder",),
        agency: ("bundle agency version 1",),
        third.certificate: ("bundle c version 2",),
    }


def test_one_certificate_from_two_places_is_one_anchor_with_both_sources(world: World) -> None:
    """TB-17: and only with those sources that grant it to this owner in this direction."""
    common = world.community.certificate
    store = AnchorStore((common,), {ANN: (common,)}).with_bundles([_bundle(common, directions=INBOUND)])
    assert [a.sources for a in store.anchors_for(ANN)] == [("folder", "bundle agency version 1")]
    assert [a.sources for a in store.anchors_for(ANN, Direction.OUTBOUND)] == [("folder",)]


def test_the_next_version_of_a_bundle_takes_the_place_of_the_last(world: World, third: CA) -> None:
    """TB-9: what is gone from it is no longer trusted, what the folder grants stays."""
    folder = AnchorStore((world.clinic.certificate,))
    first = folder.with_bundles([_bundle(world.community.certificate, world.stranger.certificate)])
    second = first.with_bundles([_bundle(world.stranger.certificate, third.certificate, version=2)])
    kept = {world.clinic.certificate, world.stranger.certificate, third.certificate}
    assert set(_certificates(second.anchors_for(ANN))) == kept
    assert len(first.anchors_for(ANN)) == 3, "the first store is what it was"
    assert second.with_bundles([]).anchors_for(ANN) == folder.anchors_for(ANN)


def test_an_unreadable_anchor_of_a_bundle_is_reported_and_the_others_count(world: World) -> None:
    bundle = AnchorBundle("agency", 7, (), BOTH_DIRECTIONS, (b"junk", world.community.certificate.der))
    store = AnchorStore().with_bundles([bundle])
    assert _certificates(store.anchors_for(ANN)) == (world.community.certificate,)
    assert len(store.warnings) == 1
    assert "bundle agency version 7" in store.warnings[0]


# --- what the evidence keeps ---


def test_a_set_is_named_by_what_is_in_it(world: World, third: CA) -> None:
    one, two = world.community.certificate, third.certificate
    named = AnchorStore((one, two)).anchors_for(ANN).name
    assert len(named) == 64
    assert named == AnchorStore((two, one)).anchors_for(BOB).name, "neither order nor owner matters"
    assert named != AnchorStore((one,)).anchors_for(ANN).name
    assert named != AnchorStore((one,)).with_bundles([_bundle(two)]).anchors_for(ANN).name
    assert named != AnchorStore().anchors_for(ANN).name


def test_the_evidence_makes_the_same_store_again(world: World, third: CA) -> None:
    """So that a message can be judged again as of then."""
    store = AnchorStore((world.community.certificate,), {ANN: (third.certificate,)})
    store = store.with_bundles([_bundle(world.community.certificate, world.stranger.certificate)])
    kept = {owner: store.anchors_for(owner).as_set for owner in (ANN, BOB)}
    again = AnchorStore.of_sets(kept)
    for owner in (ANN, BOB):
        assert set(again.anchors_for(owner)) == set(store.anchors_for(owner))
        assert again.anchors_for(owner).name == store.anchors_for(owner).name
    assert again.anchors_for("else@clinic.example") == ()


def test_only_certificates_that_are_no_authorities_may_sign_without_coming_along(world: World) -> None:
    pinned = certificate_of(world.stranger.issue())
    store = AnchorStore((world.community.certificate, pinned))
    assert store.correspondents == (pinned,)


def test_many_owners_and_anchors_cost_a_look_up_for_each_message(world: World) -> None:
    """10,000 addresses and 300 anchors: a set is put together once, and addresses without their own share it."""
    anchors = [certificate_of(world.stranger.issue(subject=f"anchor {n}")) for n in range(300)]
    own = {f"a{n}@d{n % 50}.example": (anchors[n % 300],) for n in range(10_000)}
    store = AnchorStore(anchors[:299], own)
    assert store.anchors_for("x@d1.example") is store.anchors_for("y@else.example")
    first = store.anchors_for("a7@d7.example")
    assert first.name is store.anchors_for("a7@d7.example").name
    _ = store.anchors_for("nobody@d7.example")
    put_together = store._union.cache_info().misses
    for _ in range(1_000):
        _ = store.anchors_for("a7@d7.example").name, store.anchors_for("nobody@d7.example").name
    assert store._union.cache_info().misses == put_together


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
    assert set(_certificates(load_anchors(tmp_path).all())) == {world.community.certificate, third.certificate}


def test_other_files_and_hidden_folders_are_not_read(world: World, tmp_path: Path) -> None:
    (tmp_path / "README").write_bytes(b"these are anchors")
    (tmp_path / "notes.txt").write_bytes(b"-----BEGIN CERTIFICATE-----")
    (tmp_path / ".hidden.pem").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "ca.key.pem").write_bytes(world.community.identity.key_pem)
    store = load_anchors(tmp_path)
    assert (store.all(), store.grants, store.warnings) == ((), (), ())


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
