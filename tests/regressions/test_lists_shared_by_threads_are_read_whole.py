"""Two workers judge by one list: neither may find it half parsed, and no accident may silence it for ever (AS-55)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from asn1crypto.core import Asn1Value
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pyhanko_certvalidator.sig_validate import DefaultSignatureValidator

from gateway.sta.paths.path_validation import DIRECT_ALGORITHMS
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.findings import finding
from gateway.sta.revocation.indirect_lists import judge_indirect
from gateway.sta.revocation.list_status import Question, judge_lists
from tests.support.pki import Identity
from tests.unit.sta.trust_world import NOW, World, certificate_of

THREADS = 4


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _question(world: World, signer: Identity) -> Question:
    return Question((certificate_of(signer), world.community.certificate), NOW, DIRECT_ALGORITHMS)


def _scoped(world: World, signer: Identity) -> bytes:
    scope = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    return world.community.crl([signer], extra=[(scope, True), (x509.CRLNumber(7), False)])


def test_a_list_holds_nothing_that_is_parsed_while_it_is_read(world: World) -> None:
    one = RevocationList(_scoped(world, world.signer))
    judge_lists(_question(world, world.signer), [one])
    judge_indirect(_question(world, world.signer), [one], (), hard=True)
    assert [name for name, value in vars(one).items() if isinstance(value, Asn1Value)] == []


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("indirectly", [False, True], ids=["own-list", "by-the-library"])
def test_threads_that_meet_at_a_new_list_all_learn_of_the_revocation(world: World, indirectly: bool) -> None:
    der = _scoped(world, world.signer)
    for _ in range(25):
        one, barrier = RevocationList(der), threading.Barrier(THREADS)
        found: list[str] = []

        def judge(one: RevocationList = one, barrier: threading.Barrier = barrier, found: list[str] = found) -> None:
            question = _question(world, world.signer)
            barrier.wait(10)
            judged = judge_indirect(question, [one], (), hard=True) if indirectly else judge_lists(question, [one])
            found.append(judged.status)

        threads = [threading.Thread(target=judge) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found == ["revoked"] * THREADS


@pytest.mark.parametrize("accident", [MemoryError(), KeyError("half parsed"), TypeError("half parsed")])
def test_a_check_that_failed_by_accident_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch, accident: Exception
) -> None:
    one = RevocationList(world.community.crl([world.signer]))
    question = _question(world, world.signer)

    def fail(*_: object, **__: object) -> None:
        raise accident

    with monkeypatch.context() as patch:
        patch.setattr(DefaultSignatureValidator, "validate_signature", fail)
        assert judge_lists(question, [one]).status == "unknown"
    assert judge_lists(question, [one]).status == "revoked"


def test_a_wrong_signature_is_checked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = RevocationList(world.community.crl([world.signer], key=world.stranger.identity.key))
    asked: list[int] = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise InvalidSignature

    monkeypatch.setattr(DefaultSignatureValidator, "validate_signature", refuse)
    for _ in range(3):
        assert judge_lists(_question(world, world.signer), [one]).status == "unknown"
    assert asked == [1]


def test_a_finding_does_not_hash_its_list_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = RevocationList(world.community.crl([world.signer]))
    certificate = world.community.certificate
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.sha256", lambda *_: pytest.fail("hashed"))
        found = finding(certificate, "revoked", "", [one.proof])
    assert found.answer.data_sha256 == one.sha256
