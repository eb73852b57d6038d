"""S/MIME rule 3 and the promise behind all rules: nothing decrypted exists outside the agent before all passed.

What is looked for is a text that stands in the plaintext only. It is searched in the judgement, in every object that
the interpreter still holds, and in every file that was opened for writing.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import SECRET, Clinic
from tests.support.direct_messages import wrapped_entity
from tests.support.forge_envelopes import cbc, chacha, gcm
from tests.support.forge_signatures import Signed, Signing
from tests.unit.sta.trust_world import OTHER

MARKER = "Zwiebelfisch 4711"
Maker = Callable[[Clinic], bytes]


def marked(clinic: Clinic) -> bytes:
    """A signed entity with the marker in subject, text and attachment."""
    inner = clinic.world.inner(subject=MARKER, text=f"{MARKER}\r\n", attachment=f"<x>{MARKER}</x>".encode())
    return wrapped_entity(inner)


def sealed_by(clinic: Clinic, signing: Signing, entity: bytes | None = None, **options: Any) -> bytes:
    return clinic.sealed(Signed(marked(clinic) if entity is None else entity, [signing], **options).entity())


def bad_signature(clinic: Clinic) -> bytes:
    content = Signed(marked(clinic), [Signing(clinic.sender())]).entity()
    altered = content.replace(MARKER.encode() + b"\r\n", MARKER.encode() + b"!\r\n")
    assert altered != content
    return clinic.sealed(altered)


def unsigned(clinic: Clinic) -> bytes:
    return clinic.sealed(marked(clinic))


def weak_digest(clinic: Clinic) -> bytes:
    return sealed_by(clinic, Signing(clinic.sender(), digest="sha1"))


def untrusted(clinic: Clinic) -> bytes:
    return sealed_by(clinic, Signing(clinic.world.stranger.issue(slot=53)))


def not_bound(clinic: Clinic) -> bytes:
    return sealed_by(clinic, Signing(clinic.world.community.issue("eve@direct.sender.example", slot=53)))


def two_from_fields(clinic: Clinic) -> bytes:
    inner = marked(clinic).removeprefix(b"Content-Type: message/rfc822\r\n\r\n")
    return sealed_by(clinic, Signing(clinic.sender()), wrapped_entity(b"From: x@y.example\r\n" + inner))


def too_deep(clinic: Clinic) -> bytes:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(30))
    return sealed_by(clinic, Signing(clinic.sender()), nested + MARKER.encode())


def wrong_tag(clinic: Clinic) -> bytes:
    content = Signed(marked(clinic), [Signing(clinic.sender())]).entity()
    return clinic.sealed(content, encrypted=dataclasses.replace(gcm(SECRET, content), tag=bytes(16)))


def wrong_chacha_tag(clinic: Clinic) -> bytes:
    content = Signed(marked(clinic), [Signing(clinic.sender())]).entity()
    return clinic.sealed(content, encrypted=dataclasses.replace(chacha(SECRET, content), tag=bytes(16)))


def wrong_padding(clinic: Clinic) -> bytes:
    content = Signed(marked(clinic), [Signing(clinic.sender())]).entity()
    return clinic.sealed(content, encrypted=cbc(SECRET, content[: len(content) // 16 * 16] + bytes(16), pad=False))


def redirected(clinic: Clinic) -> bytes:
    inner = clinic.world.inner(to=[OTHER], subject=MARKER, text=MARKER)
    return sealed_by(clinic, Signing(clinic.sender()), wrapped_entity(inner))


REJECTED: list[tuple[Maker, Reason]] = [
    (bad_signature, Reason.BAD_SIGNATURE),
    (unsigned, Reason.NOT_SIGNED),
    (weak_digest, Reason.WEAK_ALGORITHM),
    (untrusted, Reason.UNTRUSTED),
    (not_bound, Reason.BINDING_MISMATCH),
    (two_from_fields, Reason.MALFORMED),
    (too_deep, Reason.RESOURCE_LIMIT),
    (wrong_tag, Reason.CANNOT_DECRYPT),
    (wrong_chacha_tag, Reason.CANNOT_DECRYPT),
    (wrong_padding, Reason.CANNOT_DECRYPT),
    (redirected, Reason.ROUTING_TAMPER),
]
_BY_NAME = pytest.mark.parametrize(("make", "reason"), REJECTED, ids=[make.__name__ for make, _ in REJECTED])


def texts(value: object) -> Iterator[bytes]:
    """Every string and every run of bytes in a judgement, however deep."""
    if isinstance(value, str):
        yield value.encode("utf-8", "surrogateescape")
    elif isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(key)
            yield from texts(item)
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from texts(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from texts(getattr(value, field.name))


@_BY_NAME
def test_a_rejected_judgement_holds_nothing_that_was_decrypted(clinic: Clinic, make: Maker, reason: Reason) -> None:
    """AS-58, AS-59: not in its text, not in its evidence."""
    judgement = clinic.judge(make(clinic))
    assert judgement.reason is reason, judgement.detail
    assert judgement.content is None
    found = list(texts(judgement))
    assert len(found) > 5, "else the walk saw nothing"
    assert not [text for text in found if MARKER.encode() in text]


def holders(marker: bytes) -> list[object]:
    """Whatever the interpreter still holds that has the marker in it."""
    gc.collect()
    found: list[object] = []
    known = gc.get_objects()
    for holder in known:
        if holder is known or holder is found:
            continue
        for held in gc.get_referents(holder):
            if isinstance(held, bytes | bytearray | memoryview) and len(held) > 200 and marker in bytes(held):
                found += [type(holder)]
    return found


@_BY_NAME
def test_nothing_decrypted_stays_in_memory_after_a_rejection(clinic: Clinic, make: Maker, reason: Reason) -> None:
    """No cache and no exception that is kept may hold on to it: the agent lives as long as the daemon."""
    raw = make(clinic)
    agent = clinic.agent()
    before = holders(MARKER.encode())
    judgement = clinic.world.judge(raw, agent)
    assert judgement.reason is reason
    assert holders(MARKER.encode()) == before


def test_the_search_in_memory_finds_what_is_there(clinic: Clinic) -> None:
    before = len(holders(MARKER.encode()))
    judgement = clinic.judge(sealed_by(clinic, Signing(clinic.sender())))
    assert judgement.accepted
    assert len(holders(MARKER.encode())) > before


class Watch:
    """An audit hook, which can never be taken away again, and so listens only while it is asked to."""

    def __init__(self) -> None:
        self.listening = False
        self.events: list[str] = []
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.listening:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & 0o3) if isinstance(flags, int) else any(c in str(mode) for c in "wax+")
            if writes:
                self.events.append(f"open {path}")
        elif event.startswith(("os.mkdir", "os.rename", "os.link", "tempfile.", "socket.connect", "subprocess.")):
            self.events.append(event)


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()


def test_no_file_is_written_and_nobody_is_called(clinic: Clinic, watch: Watch) -> None:
    """Neither for accepted messages nor for rejected ones: decryption happens in memory alone."""
    messages = [make(clinic) for make, _ in REJECTED] + [sealed_by(clinic, Signing(clinic.sender()))]
    agent = clinic.agent()
    clinic.world.judge(messages[-1], agent)
    watch.listening = True
    try:
        reasons = [clinic.world.judge(raw, agent).reason for raw in messages]
    finally:
        watch.listening = False
    assert reasons == [*(reason for _, reason in REJECTED), Reason.OK]
    assert watch.events == []


def test_the_audit_hook_hears_a_file_that_is_written(watch: Watch, tmp_path: Any) -> None:
    watch.listening = True
    try:
        (tmp_path / "x").write_bytes(b"x")
    finally:
        watch.listening = False
    assert len(watch.events) == 1
    watch.events.clear()


def test_rule_3_a_rejection_gives_nobody_anything_to_answer_with(clinic: Clinic) -> None:
    """No sender is taken from what was not verified, so that no notification can be addressed to an attacker.

    That the SMTP reply is the same for every message is tested at the door (``tests/protocol``).
    """
    for make, _ in REJECTED:
        judgement = clinic.judge(make(clinic))
        assert (judgement.sender, judgement.delivered_to, judgement.inner_sha256) == ("", (), "")
