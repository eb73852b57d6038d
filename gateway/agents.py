"""Builds the Security/Trust Agent from the settings, in the forms that the daemon needs.

``ReloadableAgent`` judges in the daemon's own process. ``IsolatedAgent`` judges in a child process: a message that
was being judged when the process died, again and again, may be the cause, or may just have been there while
somebody killed the process. Only a child that dies alone tells the two apart (F30), and the daemon lives on.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime

from gateway.core.errors import ConfigurationError, GatewayError
from gateway.core.message import Envelope
from gateway.core.verdict import Judgement
from gateway.keys.key_files import load_key_ring
from gateway.observability.log import get_log
from gateway.ports import SecurityAgent
from gateway.settings import TrustSettings
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.anchors import load_anchors
from gateway.sta.crls import load_crls
from gateway.sta.fetcher import Fetcher
from gateway.sta.revocation import RevocationSource

log = get_log("agents")


class JudgeDiedError(GatewayError):
    """The child process died while it judged the message: the message is the cause."""


class ReloadableAgent:
    """The Security/Trust Agent in force; ``reload`` swaps it as a whole or not at all."""

    def __init__(self, settings: TrustSettings) -> None:
        self._settings = settings
        self._agent: SecurityAgent = build_agent(settings)

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """As the agent in force says."""
        return self._agent.judge(raw, envelope, at)

    def reload(self) -> None:
        """Read keys, anchors and revocation lists again; keep what was in force when they cannot be read."""
        try:
            self._agent = build_agent(self._settings)
        except ConfigurationError as exc:
            log.warning("trust_reload_failed", exc=exc)
        else:
            log.info("trust_reloaded")


def build_agent(settings: TrustSettings) -> SecurityTrustAgent:
    """Read keys, anchors and revocation lists, and build the agent.

    Raises:
        ConfigurationError: one of them cannot be read; the text names the file.
    """
    keys = load_key_ring(settings.identities_dir, _key_password(settings))
    anchors = load_anchors(settings.anchors_dir)
    crls = load_crls(settings.crls_dir) if settings.crls_dir and settings.crls_dir.is_dir() else ()
    log.info("trust_loaded", identities=len(keys.names()), anchors=len(anchors.all()))
    return SecurityTrustAgent(
        keys,
        anchors,
        RevocationSource(crls),
        Fetcher.within(settings.allow_fetch_cidrs),
        hard_revocation=settings.revocation == "hard",
    )


def _key_password(settings: TrustSettings) -> bytes | None:
    if settings.key_password_file is None:
        return None
    try:
        return settings.key_password_file.read_bytes().rstrip(b"\r\n")
    except OSError as exc:
        raise ConfigurationError(f"cannot read trust.key_password_file {settings.key_password_file}") from exc


class IsolatedAgent:
    """Judges each message in a child process of its own, which reads keys and anchors afresh."""

    def __init__(self, settings: TrustSettings) -> None:
        self._settings = settings

    async def __call__(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge one message.

        Raises:
            JudgeDiedError: the child died.
            ConfigurationError: keys or anchors cannot be read.
        """
        # Not fork: the daemon has threads, and a forked child could inherit a lock that one of them holds.
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, _judge_here, self._settings, raw, envelope, at)
        except BrokenProcessPool as exc:
            raise JudgeDiedError("the process that judged the message died") from exc
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _judge_here(settings: TrustSettings, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
    return build_agent(settings).judge(raw, envelope, at)
