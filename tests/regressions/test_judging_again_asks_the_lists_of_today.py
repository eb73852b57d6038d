"""A message refused before its trust was asked is not said to be fine without a word about revocation (AS-55).

``message recheck`` as of then put today's anchors in the place of the missing ones, asked no revocation list, and
advised to have the message delivered.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.core.verdict import Reason
from gateway.rejudging import ANCHORS_OF_TODAY, Rejudgement
from tests.support.pki import Identity
from tests.support.store_samples import open_store
from tests.unit.sta.test_rejudging import Archive
from tests.unit.sta.trust_world import NOW, RCPT, World

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def archive(tmp_path: Path, world: World) -> Iterator[Archive]:
    (tmp_path / "store").mkdir()
    with open_store(tmp_path / "store") as store:
        yield Archive(store, tmp_path, world)


def _again(archive: Archive, world: World, signer: Identity) -> Rejudgement:
    """A message that no key opened then, and one opens today."""
    key = world.clinic.issue(RCPT, slot=59)
    message_id, then = archive.keep(world.message(signer=signer, to=[key]), world.agent())
    assert then.reason is Reason.CANNOT_DECRYPT
    key.write(archive.folder / "identities", "found")
    archive.trust(world.community)
    return archive.as_of_then(message_id)


def _list(archive: Archive, crl: bytes) -> None:
    (archive.folder / "crls" / "community.crl").write_bytes(crl)


def test_a_revoked_signer_is_refused_by_the_lists_of_today(archive: Archive, world: World) -> None:
    signer = world.community.issue()
    _list(archive, world.community.crl([signer]))
    found = _again(archive, world, signer)
    assert found.judgement.reason is Reason.REVOKED
    assert ANCHORS_OF_TODAY in found.notes


def test_a_revocation_after_the_moment_does_not_count(archive: Archive, world: World) -> None:
    signer = world.community.issue()
    _list(archive, world.community.crl([signer], begins=NOW + DAY, ends=NOW + 9 * DAY, revoked_at=NOW + DAY))
    assert _again(archive, world, signer).judgement.reason is Reason.OK


def test_a_list_in_force_then_clears_and_nothing_more_is_advised(archive: Archive, world: World) -> None:
    _list(archive, world.community.crl())
    found = _again(archive, world, world.signer)
    assert found.judgement.reason is Reason.OK
    assert {answer.status for answer in found.judgement.revocation} == {"good"}
    assert not found.is_provisional


def test_where_no_list_tells_that_is_said(archive: Archive, world: World) -> None:
    found = _again(archive, world, world.signer)
    assert found.judgement.reason is Reason.OK
    assert found.is_provisional
    assert any("revocation" in note and "nothing was fetched" in note for note in found.notes)


def test_a_list_that_cannot_be_read_is_named(archive: Archive, world: World) -> None:
    from gateway.core.errors import ConfigurationError

    _list(archive, b"no list")
    with pytest.raises(ConfigurationError, match=r"community\.crl"):
        _again(archive, world, world.signer)
