"""What an operator decides, end to end: mail without an envelope, wrapping, algorithms (AS-41, AS-43, AS-46)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.agents import trust_policy
from gateway.core.errors import ConfigurationError
from gateway.core.trust import Direction, FetchedMail
from gateway.core.verdict import Judgement, Reason, is_repaired_here
from gateway.settings import TrustSettings
from gateway.sta.algorithm_policy import AlgorithmPolicy
from gateway.sta.trust_policy import TrustPolicy
from tests.unit.sta.trust_world import NOW, OTHER, RCPT, SENDER, World

STRANGER = "mallory@elsewhere.example"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def fetched(world: World, raw: bytes, rule: FetchedMail, *, rcpt: Sequence[str] = ()) -> Judgement:
    agent = replace(world.agent(), policy=TrustPolicy(fetched_mail=rule))
    return world.judge(raw, agent, mail_from=None, rcpt=rcpt)


def routing(judgement: Judgement) -> dict[str, str]:
    return {c.name: c.outcome for c in judgement.checks if c.name in {"reverse path", "forward paths"}}


def under(trace: bytes, raw: bytes) -> bytes:
    return trace + raw


def test_fetched_mail_may_be_compared_with_its_outer_headers(world: World) -> None:
    judgement = fetched(world, world.message(), FetchedMail.OUTER)
    assert judgement.reason is Reason.OK
    assert routing(judgement) == {"reverse path": "noted", "forward paths": "noted"}
    assert any("no envelope" in c.detail for c in judgement.checks)


@pytest.mark.parametrize(("outer_from", "outer_to"), [(STRANGER, (RCPT,)), (SENDER, (RCPT, STRANGER))])
def test_outer_headers_that_disagree_are_tampering(world: World, outer_from: str, outer_to: tuple[str, ...]) -> None:
    raw = world.message(outer_from=outer_from, outer_to=outer_to)
    assert fetched(world, raw, FetchedMail.OUTER).reason is Reason.ROUTING_TAMPER
    assert fetched(world, raw, FetchedMail.UNCHECKED).reason is Reason.OK
    # With an envelope the outer headers are nobody's word, whatever the rule (AS-62).
    agent = replace(world.agent(), policy=TrustPolicy(fetched_mail=FetchedMail.OUTER))
    assert world.judge(raw, agent).reason is Reason.OK


def test_unchecked_mail_says_that_nothing_was_compared(world: World) -> None:
    judgement = fetched(world, world.message(), FetchedMail.UNCHECKED)
    assert routing(judgement) == {"reverse path": "skipped", "forward paths": "skipped"}


def test_trace_fields_of_our_upstream_count_as_the_envelope(world: World) -> None:
    trace = f"Return-Path: <{SENDER}>\r\nDelivered-To: {RCPT}\r\n".encode()
    judgement = fetched(world, under(trace, world.message(outer_from=STRANGER)), FetchedMail.TRACE)
    assert judgement.reason is Reason.OK
    assert judgement.delivered_to == (RCPT,)
    assert routing(judgement) == {"reverse path": "passed", "forward paths": "passed"}


@pytest.mark.parametrize(
    "trace",
    [
        f"Return-Path: <{STRANGER}>\r\nDelivered-To: {RCPT}\r\n",
        f"Return-Path: <{SENDER}>\r\nX-Original-To: {OTHER}\r\n",
        f"Return-Path: <>\r\nDelivered-To: {RCPT}\r\n",
        # A stranger's own trace fields stand below those of our upstream, and do not count.
        f"Return-Path: <{STRANGER}>\r\nDelivered-To: {RCPT}\r\nReturn-Path: <{SENDER}>\r\n",
    ],
)
def test_trace_fields_that_disagree_are_tampering(world: World, trace: str) -> None:
    raw = under(trace.encode(), world.message())
    assert fetched(world, raw, FetchedMail.TRACE).reason is Reason.ROUTING_TAMPER


def test_without_trace_fields_the_outer_headers_are_compared(world: World) -> None:
    assert fetched(world, world.message(), FetchedMail.TRACE).reason is Reason.OK
    assert fetched(world, world.message(outer_from=STRANGER), FetchedMail.TRACE).reason is Reason.ROUTING_TAMPER


def test_the_recipient_that_the_mail_was_fetched_for_must_be_named(world: World) -> None:
    assert fetched(world, world.message(), FetchedMail.OUTER, rcpt=(RCPT,)).reason is Reason.OK
    assert fetched(world, world.message(), FetchedMail.OUTER, rcpt=(OTHER,)).reason is not Reason.OK


def test_unwrapped_mail_is_accepted_unless_the_operator_refuses_it(world: World) -> None:
    raw = world.message(entity=b"Content-Type: text/plain\r\n\r\nold style\r\n")
    assert world.judge(raw).reason is Reason.OK
    strict = replace(world.agent(), policy=TrustPolicy(accept_unwrapped=False))
    refused = world.judge(raw, strict)
    assert refused.reason is Reason.MALFORMED
    assert "not wrapped" in refused.detail
    assert world.judge(world.message(), strict).reason is Reason.OK


def test_an_algorithm_that_the_operator_refuses_is_weak(world: World) -> None:
    raw = world.message()
    used = world.judge(raw).algorithms
    for name in (used["content_encryption"], used["key_transport"], used["digest"]):
        policy = TrustPolicy(AlgorithmPolicy(refused=frozenset({name})))
        refused = world.judge(raw, replace(world.agent(), policy=policy))
        assert refused.reason is Reason.WEAK_ALGORITHM
        assert is_repaired_here(refused.reason, refused.detail), refused.detail


def test_a_longer_rsa_floor_refuses_our_shorter_keys(world: World) -> None:
    policy = TrustPolicy(AlgorithmPolicy(min_rsa_bits=3072))
    refused = world.judge(world.message(), replace(world.agent(), policy=policy))
    assert refused.reason is Reason.WEAK_ALGORITHM
    assert is_repaired_here(refused.reason, refused.detail), refused.detail


def test_the_version_kept_with_a_verdict_names_what_differs_from_the_default(world: World) -> None:
    plain = world.judge(world.message()).policy_version
    policy = TrustPolicy(
        AlgorithmPolicy(refused=frozenset({"sha512"}), min_rsa_bits=2560, gcm_in_enveloped_data=True),
        frozenset(Direction),
        accept_unwrapped=False,
        fetched_mail=FetchedMail.OUTER,
    )
    named = policy.version
    assert named.startswith(plain)
    for word in ("hard inbound", "hard outbound", "sha512", "2560", "GCM", "unwrapped", "outer"):
        assert word in named


def test_settings_become_the_policy() -> None:
    settings = TrustSettings(
        refuse_algorithms=("aes-128-cbc",), revocation_inbound="hard", revocation_outbound="soft", fetched_mail="trace"
    )
    policy = trust_policy(settings)
    assert policy.hard_revocation == {Direction.INBOUND}
    assert policy.algorithms.refused == {"aes-128-cbc"}
    assert policy.fetched_mail is FetchedMail.TRACE
    assert policy.accept_unwrapped


@pytest.mark.parametrize(
    "settings",
    [TrustSettings(min_rsa_bits=1024), TrustSettings(min_rsa_bits=9000), TrustSettings(refuse_algorithms=("sha-1",))],
)
def test_no_setting_lowers_the_floor_and_no_name_is_misspelt_silently(settings: TrustSettings) -> None:
    with pytest.raises(ConfigurationError):
        trust_policy(settings)


@pytest.mark.parametrize("written", ["< {} >", "<\t{}>", '"Jane" <{} >', "Jane <\r\n {}>"])
def test_blanks_inside_the_angle_brackets_are_no_fault(world: World, written: str) -> None:
    inner = world.inner().replace(f"From: {SENDER}".encode(), b"From: " + written.format(SENDER).encode(), 1)
    assert written.format("")[:2].encode() in inner
    assert world.judge(world.message(inner), at=NOW).reason is Reason.OK


def test_no_file_is_needed_for_the_default_policy(tmp_path: Path) -> None:
    assert (
        trust_policy(TrustSettings(identities_dir=tmp_path)).version
        == TrustPolicy(hard_revocation=frozenset({Direction.OUTBOUND}), fetched_mail=FetchedMail.OUTER).version
    )
