"""S/MIME rules 4, 9 and 10: what is delivered is what was verified, and nothing slips in on the way."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from gateway.core.verdict import Reason
from tests.smime.clinic import SECRET, Clinic
from tests.support.direct_messages import wrapped_entity
from tests.support.forge_envelopes import cbc, chacha, gcm
from tests.support.forge_names import der_of
from tests.support.forge_signatures import BOUNDARY, Signed, Signing
from tests.unit.sta.trust_world import SENDER

# --- rule 4: what is delivered is what was verified ---


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("seal", [cbc, gcm, chacha])
def test_rule_4_the_delivered_bytes_are_a_slice_of_the_signed_ones(clinic: Clinic, seal: Any, opaque: bool) -> None:
    """CVE-2018-18509 and its kin: one program verifies this range, another shows that one."""
    inner = clinic.world.inner(text="line\r\n.\r\n--x\r\n \t\r\nend  \r\n")
    entity = wrapped_entity(inner)
    content = Signed(entity, [Signing(clinic.sender())], opaque=opaque).entity()
    judgement = clinic.judge(clinic.sealed(content, encrypted=seal(SECRET, content)))
    assert judgement.content == inner
    assert judgement.inner_sha256 == hashlib.sha256(inner).hexdigest()
    assert judgement.protected_offset == 0
    assert judgement.content == entity[len(entity) - len(inner) :]


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    "entity",
    [
        b"Content-Type: text/plain\r\n\r\nx\r\n",
        b"Content-Type: text/plain\r\n\r\n",
        b"\r\nno header at all\r\n",
        b"Content-Type: text/plain\r\n\r\nblanks at the end  \t\r\n\r\n\r\n",
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\r\n\x00",
    ],
)
def test_rule_4_of_an_unwrapped_message_the_signed_entity_is_the_end(
    clinic: Clinic, entity: bytes, opaque: bool
) -> None:
    content = Signed(entity, [Signing(clinic.sender())], opaque=opaque).entity()
    judgement = clinic.judge(clinic.sealed(content))
    assert (judgement.reason, judgement.detail) == (Reason.OK, "")
    assert judgement.content is not None
    assert judgement.content[judgement.protected_offset :] == entity
    assert judgement.inner_sha256 == hashlib.sha256(entity).hexdigest()


def test_rule_4_what_stands_around_the_parts_is_never_delivered(clinic: Clinic) -> None:
    """m04: preamble and epilogue are nobody's word."""
    content = clinic.signed().replace(b"\r\n\r\n--" + BOUNDARY, b"\r\n\r\nPLANTED before\r\n--" + BOUNDARY, 1)
    judgement = clinic.judge(clinic.sealed(content + b"PLANTED behind\r\n"))
    assert (judgement.reason, judgement.content) == (Reason.OK, clinic.inner)
    assert "PLANTED" not in repr(judgement)


# --- rules 9 and 10 ---


@pytest.mark.parametrize("name", ["From", "Content-Type", "Content-Transfer-Encoding", "Sender", "Message-ID"])
def test_rule_9_a_doubled_header_is_refused_where_two_programs_could_differ(clinic: Clinic, name: str) -> None:
    inner = clinic.inner
    field = next((line for line in inner.split(b"\r\n") if line.lower().startswith(name.lower().encode())), None)
    field = field or f"{name}: {SENDER if name == 'Sender' else '7bit'}".encode()
    doubled = field + b"\r\n" + field + b"\r\n" + inner
    entity = wrapped_entity(doubled)
    raw = clinic.sealed(Signed(entity, [Signing(clinic.sender())]).entity())
    judgement = clinic.judge(raw)
    assert (judgement.reason, judgement.content) == (Reason.MALFORMED, None)


@pytest.mark.parametrize("control", [b"\x00", b"\rBcc: x", b"\x0b"])
@pytest.mark.parametrize("name", [b"Subject", b"To", b"Date", b"Message-ID"])
def test_rule_9_no_control_character_reaches_the_delivered_header(clinic: Clinic, name: bytes, control: bytes) -> None:
    """The outer header of an unwrapped message is copied; a NUL or a bare CR could begin a field of its own."""
    entity = b"Content-Type: text/plain\r\n\r\nx\r\n"
    raw = clinic.sealed(Signed(entity, [Signing(clinic.sender())]).entity())
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(name + b":")]
    value = b"<a@b.example>" if name != b"To" else b"ann@direct.clinic.example"
    planted = b"\r\n".join([*lines, name + b": " + value + control])
    judgement = clinic.judge(planted + b"\r\n\r\n" + rest)
    if judgement.content is not None:
        assert b"\x00" not in judgement.content
        assert b"\r" not in judgement.content.replace(b"\r\n", b"")
        assert not any(line.startswith(b"Bcc") for line in judgement.content.replace(b"\r", b"\n").split(b"\n"))
    else:
        assert judgement.reason in {Reason.MALFORMED, Reason.ROUTING_TAMPER}


def test_rule_10_bare_line_ends_are_a_second_try_that_is_noted(clinic: Clinic) -> None:
    """m01: what is delivered is then what verified, with CRLF, not what came."""
    content = clinic.signed()
    judgement = clinic.judge(clinic.sealed(content.replace(b"\r\n", b"\n")))
    assert (judgement.reason, judgement.content) == (Reason.OK, clinic.inner)
    assert any("CRLF" in check.detail for check in judgement.checks if check.outcome == "noted")


@pytest.mark.parametrize("change", [(b"well", b"well "), (b"summary.\r\n", b"summary. \r\n"), (b"\r\n", b"\r")])
def test_rule_10_blanks_are_never_trimmed(clinic: Clinic, change: tuple[bytes, bytes]) -> None:
    """m02: the signature covers them."""
    entity = clinic.entity
    content = clinic.signed()
    altered = content.replace(entity, entity.replace(*change)) if entity.replace(*change) != entity else content + b""
    if altered == content:
        altered = content.replace(entity, entity + b" ")
    assert clinic.judge(clinic.sealed(altered)).reason in {Reason.BAD_SIGNATURE, Reason.MALFORMED}


def test_opaque_content_gets_no_second_try(clinic: Clinic) -> None:
    entity = clinic.entity.replace(b"\r\n", b"\n")
    info = Signing(clinic.sender()).info(clinic.entity)
    content = Signed(entity, [info], certificates=[der_of(clinic.sender())], opaque=True).entity()
    assert clinic.judge(clinic.sealed(content)).reason is Reason.BAD_SIGNATURE
