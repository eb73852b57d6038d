"""Accepted paths are remembered, and no message is accepted by what another one carried (AS-55, AS-57, AS-70)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.trust import Direction
from gateway.core.verdict import Judgement, Reason, RevocationAnswer
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.certificates import Certificate
from gateway.sta.evidence import Evidence
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.path_building import Path
from gateway.sta.paths.path_cache import (
    MAX_AGE,
    MAX_AGE_UNKNOWN,
    AcceptedPath,
    PathCache,
    PathKey,
    carried_digest,
    holds_until,
)
from gateway.sta.paths.path_validation import validate_path
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.findings import Finding
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from gateway.sta.trust import TrustExamination
from gateway.sta.trust_anchors.anchors import AnchorStore
from gateway.sta.trust_policy import TrustPolicy
from tests.unit.sta.trust_world import CA, NOW, RCPT, World, certificate_of, notes

MINUTE = timedelta(minutes=1)
KEY = PathKey("leaf", "carried", "set", Direction.INBOUND, "policy", is_hard=False)


def _accepted(*, judged_at: datetime = NOW, lasts: timedelta = MAX_AGE, data: tuple[bytes, ...] = ()) -> AcceptedPath:
    return AcceptedPath(("leaf", "anchor"), (), (), (), data, judged_at, judged_at + lasts)


# --- the cache by itself ---


@pytest.mark.parametrize(
    ("after", "hit"),
    [
        (timedelta(0), True),
        (MAX_AGE - timedelta(microseconds=1), True),
        (MAX_AGE, False),
        (timedelta(microseconds=-1), False),
    ],
)
def test_an_entry_counts_from_its_moment_until_it_runs_out(after: timedelta, hit: bool) -> None:
    """A message that is judged again as of an earlier moment is judged, not remembered."""
    cache = PathCache()
    cache.put(KEY, _accepted())
    assert (cache.get(KEY, NOW + after) is not None) is hit


@pytest.mark.parametrize(
    "other",
    [
        {"leaf_sha256": "x"},
        {"carried": "x"},
        {"anchor_set": "x"},
        {"direction": Direction.OUTBOUND},
        {"policy": "x"},
        {"is_hard": True},
    ],
)
def test_whatever_the_decision_depends_on_is_in_the_key(other: dict[str, object]) -> None:
    cache = PathCache()
    cache.put(KEY, _accepted())
    assert cache.get(replace(KEY, **other), NOW) is None  # type: ignore[arg-type]


def test_what_would_never_count_is_not_kept() -> None:
    cache = PathCache()
    cache.put(KEY, _accepted(lasts=timedelta(0)))
    assert len(cache) == 0


@given(
    steps=st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 4), max_size=3)), max_size=60),
    entries=st.integers(1, 5),
    room=st.integers(0, 40),
)
def test_entries_and_data_stay_within_their_bounds(steps: list[tuple[int, list[int]]], entries: int, room: int) -> None:
    cache = PathCache(entries, room)
    for number, pieces in steps:
        key = replace(KEY, leaf_sha256=str(number))
        cache.put(key, _accepted(data=tuple(bytes([piece]) * 10 for piece in dict.fromkeys(pieces))))
        kept = [found for n in range(10) if (found := cache.get(replace(KEY, leaf_sha256=str(n)), NOW))]
        held = {data for one in kept for data in one.data}
        assert len(kept) == len(cache) <= entries
        assert sum(map(len, held)) == cache._data_bytes <= room
        assert set(cache._held) == held


def test_the_least_recently_used_entry_goes_first() -> None:
    cache = PathCache(2)
    first, second, third = (replace(KEY, leaf_sha256=name) for name in "abc")
    for key in (first, second):
        cache.put(key, _accepted())
    cache.get(first, NOW)
    cache.put(third, _accepted())
    assert [cache.get(key, NOW) is not None for key in (first, second, third)] == [True, False, True]


def test_a_list_that_many_paths_rest_on_is_held_once() -> None:
    cache = PathCache(max_data_bytes=1_000)
    for n in range(50):
        cache.put(replace(KEY, leaf_sha256=str(n)), _accepted(data=(b"l" * 500 + bytes(0),)))
    assert len(cache) == 50
    held = [cache.get(replace(KEY, leaf_sha256=str(n)), NOW) for n in range(50)]
    assert len({id(one.data[0]) for one in held if one is not None}) == 1


def test_threads_may_share_it() -> None:
    cache = PathCache(8, 100)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(400):
                key = replace(KEY, leaf_sha256=str((n * seed) % 13))
                cache.put(key, _accepted(data=(bytes([n % 7]) * 10,)))
                cache.get(key, NOW)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cache) <= 8


# --- how long a path counts ---


def _finding(certificate: Certificate, status: str, until: datetime | None) -> Finding:
    return Finding(certificate, status, "", RevocationAnswer(certificate.sha256, status, ""), (), until)


def _path(world: World, *, ends: datetime = NOW + timedelta(days=9)) -> Path:
    return certificate_of(world.community.issue(ends=ends)), world.community.certificate


def test_a_path_counts_until_the_first_thing_that_runs_out(world: World) -> None:
    path = _path(world)
    good = _finding(path[0], "good", NOW + timedelta(days=1))
    assert holds_until(path, [good], NOW) == NOW + MAX_AGE
    assert holds_until(path, [replace(good, valid_until=NOW + MINUTE)], NOW) == NOW + MINUTE
    assert holds_until(_path(world, ends=NOW + 2 * MINUTE), [good], NOW) == NOW + 2 * MINUTE
    assert holds_until(path[1:], [], NOW) == NOW + MAX_AGE


@pytest.mark.parametrize(("status", "until"), [("unknown", None), ("good", None)])
def test_what_is_not_known_for_certain_is_asked_again_soon(world: World, status: str, until: datetime | None) -> None:
    path = _path(world)
    assert holds_until(path, [_finding(path[0], status, until)], NOW) == NOW + MAX_AGE_UNKNOWN


def test_the_certificates_that_a_message_carries_are_named_in_their_order(world: World) -> None:
    one, two = world.community.certificate, world.stranger.certificate
    digests = {carried_digest(some) for some in ([], [one], [two], [one, two], [two, one])}
    assert len(digests) == 5


# --- the decisions of messages ---


class Desk:
    """Decides about signers, and counts the paths that were validated for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *anchors: CA, crls: Sequence[bytes] = ()) -> None:
        self.store = AnchorStore(ca.certificate for ca in anchors)
        self.source = RevocationSource([RevocationList(der) for der in crls])
        self.cache = PathCache()
        self.validated = 0
        self.evidence = Evidence()

        def counting(*args: object) -> None:
            self.validated += 1
            validate_path(*args)  # type: ignore[arg-type]

        monkeypatch.setattr("gateway.sta.trust.validate_path", counting)

    def decide(
        self,
        signer: Certificate,
        carried: Sequence[Certificate] = (),
        *,
        at: datetime = NOW,
        own_crls: Sequence[bytes] = (),
        hard: bool = False,
        policy: TrustPolicy | None = None,
        direction: Direction = Direction.INBOUND,
    ) -> Reason:
        self.evidence = Evidence()
        lists = [RevocationList(der) for der in own_crls]
        check = RevocationCheck(self.source, Fetcher().session(), at, hard, lists, carried)
        examination = TrustExamination(
            at, check, carried, self.evidence, policy or TrustPolicy(), direction, paths=self.cache
        )
        return examination.decide(RCPT, [signer], self.store.anchors_for(RCPT)).reason


def test_the_second_message_of_a_correspondent_is_not_validated_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(monkeypatch, world.community, crls=[world.community.crl()])
    signer = certificate_of(world.signer)
    assert desk.decide(signer, [signer]) is Reason.OK
    first = desk.evidence
    assert desk.decide(signer, [signer], at=NOW + MINUTE) is Reason.OK
    again = desk.evidence
    assert desk.validated == 1
    assert again.revocation == first.revocation != []
    assert again.revocation_data == first.revocation_data != {}
    assert again.certificates == first.certificates
    note = f"path and revocation as validated at {NOW.isoformat()}"
    assert [c.detail for c in again.checks if c not in first.checks] == [note]


def test_a_message_without_its_intermediates_is_not_accepted_by_those_of_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AS-67: the verdict must not depend on which message came first."""
    desk = Desk(monkeypatch, world.community)
    below = world.community.below("Below", 54)
    signer = certificate_of(below.issue())
    assert desk.decide(signer, [signer]) is Reason.UNTRUSTED
    assert desk.decide(signer, [signer, below.certificate]) is Reason.OK
    assert desk.decide(signer, [signer]) is Reason.UNTRUSTED
    assert desk.decide(signer, [signer, below.certificate]) is Reason.OK


def test_a_list_in_the_message_is_news_and_counts_for_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old list in force, sent along by a revoked signer, must hide nothing from anybody else's message."""
    desk = Desk(monkeypatch, world.community)
    identity = world.community.issue()
    signer = certificate_of(identity)
    clean, news = world.community.crl(), world.community.crl([identity])
    assert desk.decide(signer, [signer], own_crls=[clean], hard=True) is Reason.OK
    assert len(desk.cache) == 0, "what one message brings is not remembered"
    assert desk.decide(signer, [signer], hard=True) is Reason.UNTRUSTED, "so that the next one has to bring its own"
    assert desk.decide(signer, [signer]) is Reason.OK
    assert desk.decide(signer, [signer], own_crls=[news]) is Reason.REVOKED, "and the cache hides no news"
    assert desk.decide(signer, [signer], at=NOW + MINUTE) is Reason.OK


def test_a_refusal_is_not_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, world.community)
    stale = certificate_of(world.community.issue(ends=NOW + MINUTE))
    assert desk.decide(stale, at=NOW + 2 * MINUTE) is Reason.EXPIRED
    assert len(desk.cache) == 0
    assert desk.decide(stale, at=NOW) is Reason.OK
    assert desk.decide(stale, at=NOW + 2 * MINUTE) is Reason.EXPIRED, "nor does an acceptance outlive the certificate"


def test_an_unknown_status_is_asked_again_after_five_minutes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, world.community)
    signer = certificate_of(world.signer)
    for minutes in (0, 4, 5, 6, 11):
        assert desk.decide(signer, at=NOW + minutes * MINUTE) is Reason.OK
    assert desk.validated == 3


@pytest.mark.parametrize(
    "change",
    [
        {"hard": True},
        {"policy": TrustPolicy(AlgorithmPolicy(refused=frozenset({"sha512"})))},
        {"policy": TrustPolicy(hard_revocation=frozenset({Direction.INBOUND}))},
        {"direction": Direction.OUTBOUND},
        {"at": NOW - MINUTE},
    ],
)
def test_another_rule_or_an_earlier_moment_is_judged_afresh(
    world: World, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    desk = Desk(monkeypatch, world.community, crls=[world.community.crl()])
    signer = certificate_of(world.signer)
    assert desk.decide(signer) is Reason.OK
    assert desk.decide(signer, **change) is Reason.OK  # type: ignore[arg-type]
    assert desk.validated == 2


def test_recipients_with_different_anchors_share_one_validation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """AS-57: a message to many costs one examination of each path, remembered or not."""
    desk = Desk(monkeypatch, world.community)
    own = {f"u{n}@clinic.example": (certificate_of(world.stranger.issue(subject=f"{n}")),) for n in range(40)}
    desk.store = AnchorStore((world.community.certificate,), own)
    signer = certificate_of(world.signer)
    for _ in range(2):
        check = RevocationCheck(desk.source, Fetcher().session(), NOW)
        examination = TrustExamination(NOW, check, (), Evidence(), paths=desk.cache)
        decisions = [examination.decide(owner, [signer], desk.store.anchors_for(owner)) for owner in own]
        assert {d.reason for d in decisions} == {Reason.OK}
        assert len({d.anchor_set for d in decisions}) == 40
        assert len(examination.evidence.anchor_sets) == 40
        assert sum(c.name == "path" and c.outcome == "passed" for c in examination.evidence.checks) == 1
    assert desk.validated == 1


def test_a_remembered_path_that_leads_to_a_second_set_of_anchors_is_not_taken_for_certain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read from the cache says how it was found, not that nothing was unknown."""
    desk = Desk(monkeypatch, world.community)
    signer = certificate_of(world.signer)
    assert desk.decide(signer) is Reason.OK
    wider = AnchorStore((world.community.certificate, world.stranger.certificate))
    check = RevocationCheck(desk.source, Fetcher().session(), NOW + MINUTE)
    examination = TrustExamination(NOW + MINUTE, check, (), Evidence(), paths=desk.cache)
    examination.decide(RCPT, [signer], desk.store.anchors_for(RCPT))
    examination.decide("else@clinic.example", [signer], wider.anchors_for(RCPT))
    untils = {entry.valid_until for entry in desk.cache._entries.values()}
    assert untils == {NOW + MAX_AGE_UNKNOWN, NOW + MINUTE + MAX_AGE_UNKNOWN}


# --- in the agent ---


def _agent(world: World, anchors: AnchorStore | None = None) -> SecurityTrustAgent:
    return world.agent(anchors=anchors, crls=[world.community.crl()])


def test_the_agent_remembers_from_message_to_message(world: World) -> None:
    agent = _agent(world)
    raw = world.message()
    first, second = (world.judge(raw, agent, at=NOW + n * MINUTE) for n in (0, 1))
    assert [j.reason for j in (first, second)] == [Reason.OK, Reason.OK]
    assert notes(first, "path") == []
    assert notes(second, "path") == [f"path and revocation as validated at {NOW.isoformat()}"]
    assert second.revocation == first.revocation
    assert second.certificates == first.certificates
    assert second.trust == first.trust


def test_an_agent_with_other_lists_knows_nothing_of_the_first_ones(world: World) -> None:
    """A reload makes a new agent: what the operator has just revoked is revoked at once."""
    raw = world.message()
    assert world.judge(raw, _agent(world)).reason is Reason.OK
    revoking = world.agent(crls=[world.community.crl([world.signer])])
    judgement: Judgement = world.judge(raw, revoking)
    assert judgement.reason is Reason.REVOKED
