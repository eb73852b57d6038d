"""Builds the Security/Trust Agent from the settings, in the forms that the daemon needs.

``ReloadableAgent`` judges in the daemon's own process. ``IsolatedAgent`` judges in a child process: a message that
was being judged when the process died, again and again, may be the cause, or may just have been there while
somebody killed the process. Only a child that dies alone tells the two apart (F30), and the daemon lives on.

A child that does not answer within ``ISOLATED_SECONDS`` is killed, and counts as one that died. It also ends by itself
a little later, whatever it does: the daemon may have been killed meanwhile, and nobody else would end it.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from multiprocessing.connection import Connection
from typing import cast

from gateway.core.errors import ConfigurationError, GatewayError, KeyUnavailableError
from gateway.core.message import Envelope
from gateway.core.trust import AnchorBundle, Direction, FetchedMail
from gateway.core.verdict import Judgement
from gateway.keys.loading import TokenSettings, load_key_ring
from gateway.observability.log import get_log
from gateway.ports import KeyRing
from gateway.settings import TrustSettings
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.path_cache import PathCache
from gateway.sta.revocation.crls import RevocationList, load_crls, unread_files
from gateway.sta.revocation.revocation import RevocationSource
from gateway.sta.self_test import run_self_test
from gateway.sta.trust_anchors.anchor_folder import load_anchors, reload_anchors
from gateway.sta.trust_policy import TrustPolicy

log = get_log("agents")

ISOLATED_SECONDS = 60.0
"""How long a child may take, from its start to its answer. The slowest message may take five seconds, and a child
reads all keys and anchors first, from a token as well; this is several times both together. It is not more, because no
other mail is judged while a suspect is."""
_GRACE_SECONDS = 10
_REAP_SECONDS = 1.0


class JudgeDiedError(GatewayError):
    """The child process died while it judged the message, or hung and was killed: the message is the cause."""


class ReloadableAgent:
    """The Security/Trust Agent in force. ``judge`` may run in several threads while it is changed in others.

    A change is made beside what is in force and then put in its place in one step. Reading keys may take seconds (a
    token that does not answer, thousands of identities): meanwhile mail is judged by what was in force, and a bundle
    that is withdrawn is out of force all the same.
    """

    def __init__(self, settings: TrustSettings, bundles: Sequence[AnchorBundle] = ()) -> None:
        self._settings = settings
        self.bundles = tuple(bundles)
        self._agent = build_agent(settings, self.bundles)
        self.not_reloaded: tuple[str, ...] = ()
        """What the newest reload could not read (``anchors``, ``lists``, ``keys``): what was read before counts."""
        self._reloading = threading.Lock()
        self._changing = threading.Lock()

    def judge(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """As the agent in force says."""
        return self._agent.judge(raw, envelope, at)

    def reload(self) -> None:
        """Read keys, anchors and revocation lists again. Blocks; raises nothing that a file can cause.

        Each of the three stands alone: keys that cannot be read keep no withdrawn anchor in force. What fails is
        logged as ``trust_reload_failed`` and kept in ``not_reloaded``; ``config check`` names the file and the mend.
        """
        failed: list[str] = []
        with self._reloading:
            before = self._agent
            anchors = reload_anchors(self._settings.anchors_dir, before.anchors)
            keys, revocation = before.keys, before.revocation
            if anchors.stale:
                log.warning("trust_reload_failed", component="anchors", count=len(anchors.stale))
                failed.append("anchors")
            try:
                revocation = revocation.with_crls(read_crls(self._settings))
            except ConfigurationError as exc:
                log.warning("trust_reload_failed", exc=exc, component="lists")
                failed.append("lists")
            try:
                keys = load_keys(self._settings)
            except (ConfigurationError, KeyUnavailableError) as exc:
                log.warning("trust_reload_failed", exc=exc, component="keys")
                failed.append("keys")
            with self._changing:
                anchors = anchors.with_bundles(self.bundles)
                self._agent = replace(before, keys=keys, anchors=anchors, revocation=revocation, paths=PathCache())
            self.not_reloaded = tuple(failed)
        _tell_doubts(self._agent, self._settings)
        if not failed:
            log.info("trust_reloaded", identities=len(self._agent.keys.names()), anchors=len(self._agent.anchors.all()))

    def use_bundles(self, bundles: Sequence[AnchorBundle]) -> None:
        """Put the trust bundles into force, and take out those that are not among them.

        Keys and lists stay as they are: a bundle that changes must not open a token again, nor lose what was fetched.
        The paths that were accepted before are forgotten, because an anchor may have gone.
        """
        with self._changing:
            if tuple(bundles) == self.bundles:
                return
            self.bundles = tuple(bundles)
            anchors = self._agent.anchors.with_bundles(bundles)
            self._agent = replace(self._agent, anchors=anchors, paths=PathCache())
        log.info("trust_bundles_in_force", count=len(bundles), anchors=len(anchors.all()))


def _tell_doubts(agent: SecurityTrustAgent, settings: TrustSettings) -> None:
    """Log how much of the trust was found and does not count; ``config check`` says what it is."""
    if agent.anchors.warnings:
        log.warning("anchors_left_out", count=len(agent.anchors.warnings))
    if unread := unread_crl_files(settings):
        log.warning("lists_left_out", count=len(unread))


def build_agent(settings: TrustSettings, bundles: Sequence[AnchorBundle] = ()) -> SecurityTrustAgent:
    """Test the cryptographic library, read keys, anchors and revocation lists, and build the agent.

    Raises:
        ConfigurationError: one of them cannot be read, and the text names the file; or the library is not sound.
        KeyUnavailableError: the token does not answer now.
    """
    run_self_test(require_implicit_rejection=settings.require_implicit_rejection)
    policy = trust_policy(settings)
    keys = load_keys(settings)
    anchors = load_anchors(settings.anchors_dir).with_bundles(bundles)
    revocation = RevocationSource(read_crls(settings))
    log.info("trust_loaded", identities=len(keys.names()), anchors=len(anchors.all()))
    fetcher = Fetcher.configured(settings.fetch, settings.allow_fetch_cidrs)
    agent = SecurityTrustAgent(keys, anchors, revocation, fetcher, policy)
    _tell_doubts(agent, settings)
    return agent


def read_crls(settings: TrustSettings) -> tuple[RevocationList, ...]:
    """Read the operator's revocation lists; none when there is no folder of them.

    Raises:
        ConfigurationError: one cannot be read; the text names the file.
    """
    return load_crls(settings.crls_dir) if settings.crls_dir and settings.crls_dir.is_dir() else ()


def unread_crl_files(settings: TrustSettings) -> tuple[str, ...]:
    """A sentence for each thing in the folder of revocation lists that is not read as one. Raises nothing."""
    return unread_files(settings.crls_dir) if settings.crls_dir else ()


def load_keys(settings: TrustSettings) -> KeyRing:
    """Read every private key of this gateway.

    Raises:
        ConfigurationError: one cannot be read; the text names the file, or the token is set up wrongly.
        KeyUnavailableError: the token does not answer now.
    """
    token = None
    if settings.pkcs11_module is not None:
        token = TokenSettings(settings.pkcs11_module, settings.pkcs11_token, settings.pkcs11_pin_file)
    return load_key_ring(settings.identities_dir, _key_password(settings), token)


def trust_policy(settings: TrustSettings) -> TrustPolicy:
    """The operator's decisions.

    Raises:
        ConfigurationError: one lies below the floor, or names an algorithm that is not in the matrix.
    """
    hard = {
        Direction.INBOUND: settings.revocation_inbound == "hard",
        Direction.OUTBOUND: settings.revocation_outbound == "hard",
    }
    algorithms = AlgorithmPolicy(
        refused=frozenset(settings.refuse_algorithms),
        min_rsa_bits=settings.min_rsa_bits,
        gcm_in_enveloped_data=settings.accept_gcm_in_enveloped_data,
    )
    return TrustPolicy(
        algorithms,
        frozenset(direction for direction, is_hard in hard.items() if is_hard),
        settings.accept_unwrapped,
        FetchedMail(settings.fetched_mail),
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

    def __init__(
        self,
        settings: TrustSettings,
        bundles: Callable[[], Sequence[AnchorBundle]] = tuple,
        *,
        seconds: float = ISOLATED_SECONDS,
    ) -> None:
        """``bundles`` tells the trust bundles that are in force when a message is judged."""
        self._settings = settings
        self._bundles = bundles
        self._seconds = seconds

    async def __call__(self, raw: bytes, envelope: Envelope, at: datetime) -> Judgement:
        """Judge one message.

        Raises:
            JudgeDiedError: the child died, or did not answer in time and was killed.
            ConfigurationError: keys or anchors cannot be read.
            KeyUnavailableError: the token does not answer now.
        """
        child = _Child(self._seconds)
        try:
            async with asyncio.timeout(self._seconds):
                question = (_judge_here, self._settings, tuple(self._bundles()), raw, envelope, at)
                return await asyncio.to_thread(child.ask, question)
        except TimeoutError:
            raise JudgeDiedError("the process that judged the message took too long and was killed") from None
        finally:
            # Whatever happened, and when this task is cancelled too: the thread that waits for the child ends by it.
            child.kill()


class _Child:
    """A process that answers one question. Nothing that it does or leaves undone can hold up the daemon's end."""

    def __init__(self, seconds: float) -> None:
        # Not fork: the daemon has threads, and a forked child could inherit a lock that one of them holds.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # The message goes through the connection and not with the start, which would wait for the child to read it.
        self._process = context.Process(target=_answer, args=(theirs, seconds), name="isolated-agent", daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: tuple[object, ...]) -> Judgement:
        """Put the question and wait for the answer: for a thread that may wait. ``kill`` ends the waiting.

        Raises:
            JudgeDiedError: the child died. And what it raised.
        """
        try:
            self._connection.send(question)
            found = self._connection.recv()
        except (EOFError, OSError) as exc:
            raise JudgeDiedError("the process that judged the message died") from exc
        if isinstance(found, BaseException):
            raise found
        return cast("Judgement", found)

    def kill(self) -> None:
        """End the child at once, which no signal handler and no native code can put off."""
        self._process.kill()
        # Only a disk or a device that does not answer keeps it longer, and for that the event loop must not wait.
        self._process.join(_REAP_SECONDS)


def _answer(connection: Connection, seconds: float) -> None:
    """The child's whole life."""
    # The system ends the process then, wherever it is: no handler of Python's, which native code would never reach.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds) + _GRACE_SECONDS)
    judge, *arguments = connection.recv()
    try:
        connection.send(judge(*arguments))
    except Exception as exc:  # noqa: BLE001 - it is raised where the question came from
        try:
            connection.send(exc)
        except Exception:  # noqa: BLE001 - an error that cannot be sent, or nobody there to send it to
            # Not with a traceback on standard error, which could show a line of the message.
            os._exit(1)


def _judge_here(
    settings: TrustSettings, bundles: Sequence[AnchorBundle], raw: bytes, envelope: Envelope, at: datetime
) -> Judgement:
    return build_agent(settings, bundles).judge(raw, envelope, at)
