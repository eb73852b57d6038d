"""The agents of the daemon: reloaded, told of bundles, and isolated from a message that kills its judge (F30, TB-9)."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway import agents
from gateway.core.errors import ConfigurationError, SelfTestError
from gateway.core.message import Envelope
from gateway.core.trust import BOTH_DIRECTIONS, AnchorBundle
from gateway.core.verdict import Reason
from gateway.settings import TrustSettings
from gateway.sta import self_test
from tests.support import dying
from tests.support.pki import Authority

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ENVELOPE = Envelope("a@a.example", ("r@b.example",))
PLAIN = b"From: a@a.example\r\nTo: r@b.example\r\n\r\nhello\r\n"


@pytest.fixture
def settings(tmp_path: Path, partner_ca: Authority) -> TrustSettings:
    partner_ca.issue(address="r@b.example").write(tmp_path / "identities", "r")
    (tmp_path / "anchors").mkdir()
    (tmp_path / "anchors" / "ca.pem").write_bytes(partner_ca.pem)
    return TrustSettings(identities_dir=tmp_path / "identities", anchors_dir=tmp_path / "anchors", crls_dir=None)


async def test_a_child_judges_as_the_daemon_would(settings: TrustSettings) -> None:
    here = agents.build_agent(settings).judge(PLAIN, ENVELOPE, NOW)
    there = await agents.IsolatedAgent(settings)(PLAIN, ENVELOPE, NOW)
    assert here == there
    assert there.reason is Reason.NOT_ENCRYPTED


async def test_a_child_that_dies_is_an_error_and_not_our_end(
    settings: TrustSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_judge_here", dying.die)
    with pytest.raises(agents.JudgeDiedError):
        await agents.IsolatedAgent(settings)(PLAIN, ENVELOPE, NOW)


async def test_a_missing_key_folder_is_told(settings: TrustSettings, tmp_path: Path) -> None:
    gone = replace(settings, identities_dir=tmp_path / "absent")
    with pytest.raises(ConfigurationError):
        await agents.IsolatedAgent(gone)(PLAIN, ENVELOPE, NOW)
    with pytest.raises(ConfigurationError, match="key_password_file"):
        agents.build_agent(replace(settings, key_password_file=tmp_path / "absent"))


async def test_a_reload_that_fails_keeps_what_was_in_force(settings: TrustSettings) -> None:
    agent = agents.ReloadableAgent(settings)
    before = agent.judge(PLAIN, ENVELOPE, NOW)
    key = settings.identities_dir / "r.key.pem"
    saved = key.read_bytes()
    key.unlink()
    assert not_reloaded(agent) == ()
    agent.reload()
    assert agent.judge(PLAIN, ENVELOPE, NOW) == before
    assert not_reloaded(agent) == ("keys",)
    (settings.anchors_dir / "broken.pem").write_bytes(DAMAGED)
    agent.reload()
    assert not_reloaded(agent) == ("anchors", "keys")
    (settings.anchors_dir / "broken.pem").unlink()
    key.write_bytes(saved)
    agent.reload()
    assert not_reloaded(agent) == (), "the newest reload counts"


def not_reloaded(agent: agents.ReloadableAgent) -> tuple[str, ...]:
    return agent.not_reloaded


async def test_lists_that_cannot_be_read_again_are_remembered(settings: TrustSettings, tmp_path: Path) -> None:
    (tmp_path / "crls").mkdir()
    agent = agents.ReloadableAgent(replace(settings, crls_dir=tmp_path / "crls"))
    (tmp_path / "crls" / "x.crl").write_bytes(b"no list")
    agent.reload()
    assert agent.not_reloaded == ("lists",)


def bundle_of(authority: Authority, *, name: str = "community") -> AnchorBundle:
    return AnchorBundle(name, 1, (), BOTH_DIRECTIONS, (pem_to_der(authority.pem),))


def pem_to_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def anchors_of(agent: agents.ReloadableAgent) -> int:
    return len(agent._agent.anchors.all())


def test_bundles_come_into_force_and_go_without_reading_keys_again(
    settings: TrustSettings, stranger_ca: Authority
) -> None:
    agent = agents.ReloadableAgent(settings)
    (settings.identities_dir / "r.key.pem").unlink()  # Whoever reads the keys now fails.
    agent.use_bundles([bundle_of(stranger_ca)])
    assert anchors_of(agent) == 2
    agent.use_bundles([])
    assert anchors_of(agent) == 1


DAMAGED = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_a_damaged_anchor_file_keeps_no_withdrawn_bundle_in_force(
    settings: TrustSettings, stranger_ca: Authority
) -> None:
    agent = agents.ReloadableAgent(settings, [bundle_of(stranger_ca)])
    (settings.anchors_dir / "broken.pem").write_bytes(DAMAGED)
    agent.use_bundles([])
    assert anchors_of(agent) == 1


def test_an_anchor_that_is_gone_is_trusted_no_more_although_another_file_is_damaged(
    settings: TrustSettings, stranger_ca: Authority
) -> None:
    (settings.anchors_dir / "stranger.pem").write_bytes(stranger_ca.pem)
    agent = agents.ReloadableAgent(settings)
    (settings.anchors_dir / "stranger.pem").unlink()
    (settings.anchors_dir / "ca.pem").write_bytes(DAMAGED)
    agent.reload()
    # The damaged file keeps what it held, because nobody took that away.
    assert anchors_of(agent) == 1
    assert any("ca.pem" in stale for stale in agent._agent.anchors.stale)


def test_a_folder_that_is_gone_keeps_what_it_held_and_is_told_as_a_failure(settings: TrustSettings) -> None:
    agent = agents.ReloadableAgent(settings)
    settings.anchors_dir.rename(settings.anchors_dir.with_name("elsewhere"))
    agent.reload()
    assert anchors_of(agent) == 1
    assert "cannot read the anchors folder" in agent._agent.anchors.stale[0]


def test_keys_that_cannot_be_read_keep_no_withdrawn_anchor_in_force(
    settings: TrustSettings, stranger_ca: Authority
) -> None:
    (settings.anchors_dir / "stranger.pem").write_bytes(stranger_ca.pem)
    agent = agents.ReloadableAgent(settings)
    (settings.anchors_dir / "stranger.pem").unlink()
    (settings.identities_dir / "r.key.pem").unlink()
    agent.reload()
    assert anchors_of(agent) == 1
    assert agent._agent.keys.names() == {"r@b.example"}


def test_a_change_of_the_bundles_forgets_the_paths_that_were_accepted(
    settings: TrustSettings, stranger_ca: Authority
) -> None:
    agent = agents.ReloadableAgent(settings)
    before = agent._agent
    agent.use_bundles([bundle_of(stranger_ca)])
    assert agent._agent.paths is not before.paths
    assert agent._agent.revocation is before.revocation
    agent.use_bundles([bundle_of(stranger_ca)])


def test_a_bundle_that_is_withdrawn_waits_for_no_token(
    settings: TrustSettings, stranger_ca: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agents.ReloadableAgent(settings, [bundle_of(stranger_ca)])
    genuine, reading, go_on = agents.load_keys, threading.Event(), threading.Event()

    def hanging(trust: TrustSettings) -> Any:
        reading.set()
        assert go_on.wait(10)
        return genuine(trust)

    monkeypatch.setattr(agents, "load_keys", hanging)
    reload = threading.Thread(target=agent.reload)
    reload.start()
    assert reading.wait(10)
    agent.use_bundles([])
    assert anchors_of(agent) == 1
    go_on.set()
    reload.join()
    # The reload that began before does not put the bundle back.
    assert anchors_of(agent) == 1
    assert agent.bundles == ()


async def test_the_child_trusts_the_bundles_as_well(settings: TrustSettings, stranger_ca: Authority) -> None:
    seen = await agents.IsolatedAgent(settings, lambda: [bundle_of(stranger_ca)])(PLAIN, ENVELOPE, NOW)
    assert seen.reason is Reason.NOT_ENCRYPTED


def test_an_unsound_library_stops_the_start(settings: TrustSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_tag_floor", lambda: False)
    with pytest.raises(SelfTestError, match="tag floor"):
        agents.build_agent(settings)
