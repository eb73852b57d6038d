"""The isolated agent: the daemon outlives a message that kills its judge (F30)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway import agents
from gateway.core.errors import ConfigurationError
from gateway.core.message import Envelope
from gateway.core.verdict import Reason
from gateway.settings import TrustSettings
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
    (settings.identities_dir / "r.key.pem").unlink()
    agent.reload()
    assert agent.judge(PLAIN, ENVELOPE, NOW) == before
