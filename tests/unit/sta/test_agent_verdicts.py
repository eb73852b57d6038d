"""One message, one fault, one reason: the verdicts of the agent (item 6 of the contract; AS-42..AS-62)."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.core.verdict import Reason
from gateway.sta import agent as agent_module
from gateway.sta.mime.mime_entity import decode_body, read_entity
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.support.direct_messages import outer_message, wrapped_entity
from tests.support.pki import Identity, ec_key, rsa_key
from tests.unit.sta.trust_world import (
    CA,
    NOW,
    OTHER,
    RCPT,
    SENDER,
    STACK,
    World,
    certificate_of,
    notes,
    resigned_with_sha1,
    usage,
)


def test_a_good_wrapped_message_is_accepted_and_its_bytes_are_those_that_were_signed(world: World) -> None:
    inner = world.inner()
    judgement = world.judge(world.message(inner))
    assert (judgement.reason, judgement.delivered_to) == (Reason.OK, (RCPT,))
    assert judgement.content == inner
    assert judgement.protected_offset == 0
    assert judgement.inner_sha256 == hashlib.sha256(inner).hexdigest()
    assert judgement.wrapped is True
    assert judgement.sender == SENDER
    assert judgement.message_id == "<m1@test.example>"
    assert judgement.subject == "Referral"
    assert judgement.signer is not None
    assert judgement.signer.identity == SENDER
    assert judgement.algorithms == {
        "content_encryption": "aes-256-cbc",
        "key_transport": "rsa-pkcs1v15",
        "digest": "sha256",
        "signature": "rsa-pkcs1v15-sha256",
    }
    assert judgement.certificates[0] == certificate_of(world.signer).der
    [trust] = judgement.trust
    assert trust.anchor_sha256 == world.community.certificate.sha256
    assert trust.chain_sha256 == (certificate_of(world.signer).sha256, world.community.certificate.sha256)


def test_an_unwrapped_message_gets_the_outer_headers_in_front_and_its_entity_untouched(world: World) -> None:
    """AS-43."""
    entity = b"Content-Type: text/plain\r\n\r\nHello.\r\n"
    judgement = world.judge(world.message(entity=entity))
    assert judgement.reason is Reason.OK
    assert judgement.wrapped is False
    assert judgement.inner_sha256 == hashlib.sha256(entity).hexdigest()
    assert judgement.content is not None
    assert judgement.content[judgement.protected_offset :] == entity
    prefix = judgement.content[: judgement.protected_offset]
    assert prefix.startswith(b"From: jane@direct.sender.example\r\n")
    assert prefix.endswith(b"MIME-Version: 1.0\r\n")
    assert b"\r\n\r\n" not in prefix
    assert b"pkcs7" not in prefix


def test_opaque_signed_data_is_read_as_well(world: World) -> None:
    """AS-47."""
    inner = world.inner()
    builder = pkcs7.PKCS7SignatureBuilder().set_data(wrapped_entity(inner))
    signed = builder.add_signer(world.signer.certificate, rsa_key(50), hashes.SHA256()).sign(
        Encoding.DER, [pkcs7.PKCS7Options.Binary]
    )
    head = b"Content-Type: application/x-pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    judgement = world.judge(world.sealed(head + base64.encodebytes(signed)))
    assert (judgement.reason, judgement.content) == (Reason.OK, inner)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "7bit", "8bit", "binary", "BASE64 "])
def test_the_wrapper_s_transfer_encoding_is_undone_and_nothing_else(world: World, encoding: str) -> None:
    """AS-48: the digest is that of the enclosed message."""
    inner = world.inner(text="A line =\r\nand trailing blanks   \r\n")
    body = inner
    if "64" in encoding:
        body = base64.encodebytes(inner).replace(b"\n", b"\r\n")
    elif encoding.startswith("quoted"):
        body = inner.replace(b"=", b"=3D")
    head = f"content-TYPE:  Message/RFC822 ; name=x\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    judgement = world.judge(world.message(entity=head + body))
    assert judgement.reason is Reason.OK
    assert judgement.inner_sha256 == hashlib.sha256(inner).hexdigest()
    assert judgement.content == inner


def test_the_triple_wrap_is_decided_by_its_innermost_signature(world: World) -> None:
    inner = world.inner()
    sealed = world.message(inner)
    cms = sealed[sealed.index(b"Content-Type: application/pkcs7-mime") :]
    outside = STACK.sign(cms, world.signer)
    judgement = world.judge(b"From: x@y.example\r\nTo: " + RCPT.encode() + b"\r\n" + outside)
    assert (judgement.reason, judgement.content) == (Reason.OK, inner)
    assert notes(judgement, "structure")


def plain(world: World) -> bytes:
    return world.inner()


def signed_only(world: World) -> bytes:
    return f"From: {SENDER}\r\nTo: {RCPT}\r\n".encode() + STACK.sign(wrapped_entity(world.inner()), world.signer)


def opaque_signed_only(world: World) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(wrapped_entity(world.inner()))
    signed = builder.add_signer(world.signer.certificate, rsa_key(50), hashes.SHA256()).sign(
        Encoding.DER, [pkcs7.PKCS7Options.Binary]
    )
    return outer_message(signed, SENDER, [RCPT], smime_type="signed-data")


def encrypted_part_of_a_larger_message(world: World) -> bytes:
    part = world.message()
    head = f"From: {SENDER}\r\nTo: {RCPT}\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n".encode()
    return head + b'Content-Type: text/html\r\n\r\n<img src="http://evil.example/\r\n--o\r\n' + part + b"\r\n--o--\r\n"


def encrypted_only(world: World) -> bytes:
    return world.sealed(wrapped_entity(world.inner()))


def encrypted_text_without_headers(world: World) -> bytes:
    return world.sealed(b"just some text\r\n")


def signature_in_one_part_of_the_decrypted_content(world: World) -> bytes:
    signed = STACK.sign(wrapped_entity(world.inner()), world.signer)
    return world.sealed(
        b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nlead-in\r\n--o\r\n" + signed + b"\r\n--o--\r\n"
    )


def encrypted_to_somebody_else(world: World) -> bytes:
    return world.message(to=[world.clinic.issue(RCPT, key=rsa_key(60))])


def truncated(world: World) -> bytes:
    raw = world.message()
    return raw[: len(raw) // 2]


def stray_characters_in_base64(world: World) -> bytes:
    return world.message().rstrip() + b"\r\n-- \r\nThis mail was scanned.\r\n"


def two_content_types(world: World) -> bytes:
    return b"Content-Type: text/plain\r\n" + world.message()


def two_from_fields(world: World) -> bytes:
    return world.message(b"From: " + SENDER.encode() + b"\r\n" + world.inner())


def no_from(world: World) -> bytes:
    return world.message(world.inner().replace(b"From: ", b"X-From: ", 1))


def content_changed_after_signing(world: World) -> bytes:
    signed = STACK.sign(wrapped_entity(world.inner()), world.signer)
    return world.sealed(signed.replace(b"Please see", b"Please pay"))


def three_parts(world: World) -> bytes:
    signed = STACK.sign(wrapped_entity(world.inner()), world.signer)
    return world.sealed(signed.replace(b"_1--", b"_1\r\n\r\nmore\r\n--=_test_boundary_1--"))


def signed_by_somebody_else(world: World) -> bytes:
    return world.message(signer=world.community.issue("eve@direct.sender.example", slot=53))


def signer_of_the_parent_domain(world: World) -> bytes:
    return world.message(signer=world.community.issue("sender.example", slot=53))


def signer_with_a_wildcard(world: World) -> bytes:
    return world.message(signer=world.community.issue([x509.DNSName("*.sender.example")], slot=53))


def signer_bound_by_subject_only(world: World) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.EMAIL_ADDRESS, SENDER)])
    built = world.community.issue((), slot=53)
    builder = x509.CertificateBuilder(
        world.community.identity.certificate.subject,
        subject,
        rsa_key(53).public_key(),
        4711,
        built.certificate.not_valid_before_utc,
        built.certificate.not_valid_after_utc,
    )
    return world.message(signer=Identity(builder.sign(world.community.identity.key, hashes.SHA256()), rsa_key(53)))


def only_the_display_name_is_the_signer(world: World) -> bytes:
    return world.message(world.inner(sender=f'"{SENDER}" <eve@evil.example>'), outer_from="eve@evil.example")


def untrusted_issuer(world: World) -> bytes:
    return world.message(signer=world.stranger.issue(), chain=[world.stranger])


def impostor_with_the_anchor_s_name(world: World) -> bytes:
    return world.message(signer=CA.root("Community CA", 61).issue())


def expired(world: World) -> bytes:
    return world.message(signer=world.community.issue(ends=NOW - timedelta(seconds=1)))


def not_yet_valid(world: World) -> bytes:
    return world.message(signer=world.community.issue(begins=NOW + timedelta(hours=1)))


def expired_and_untrusted(world: World) -> bytes:
    return world.message(signer=world.stranger.issue(ends=NOW - timedelta(days=1)))


def expired_intermediate(world: World) -> bytes:
    below = world.community.below("Old", 54, ends=NOW - timedelta(days=1))
    return world.message(signer=below.issue(), chain=[below])


def intermediate_that_is_no_ca(world: World) -> bytes:
    below = CA(world.community.issue(slot=54, subject="No CA"))
    return world.message(signer=below.issue(), chain=[below])


def path_longer_than_allowed(world: World) -> bytes:
    first = world.community.below("One", 54, path_length=0)
    second = first.below("Two", 55)
    return world.message(signer=second.issue(), chain=[first, second])


def name_constraint_broken(world: World) -> bytes:
    excluded = x509.NameConstraints(None, [x509.RFC822Name("direct.sender.example")])
    below = CA(world.community.issue((), slot=54, is_ca=True, purposes=(), subject="Bound", extra=[(excluded, True)]))
    return world.message(signer=below.issue(), chain=[below])


def key_only_for_encryption(world: World) -> bytes:
    return world.message(signer=world.community.issue(key_usage=usage(key_encipherment=True)))


def certificate_of_a_server(world: World) -> bytes:
    return world.message(signer=world.community.issue(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]))


def certificate_of_an_authority(world: World) -> bytes:
    return world.message(signer=world.community.issue(is_ca=True))


def critical_extension_unknown(world: World) -> bytes:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    return world.message(signer=world.community.issue(extra=[(odd, True)]))


def short_rsa_key(world: World) -> bytes:
    return world.message(signer=world.community.issue(key=rsa_key(9, 1024)))


def chain_signed_with_sha1(world: World) -> bytes:
    return world.message(signer=resigned_with_sha1(world.community.issue(), world.community.identity.key))


def deep_mime(world: World) -> bytes:
    depth = 40
    head = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(depth))
    inner = world.inner(attachment=None)
    fields = inner[: inner.index(b"Content-Type")]
    return world.message(fields + head + b"\r\nend\r\n")


def huge_header(world: World) -> bytes:
    return world.message(b"X-Pad: " + b"a" * 70_000 + b"\r\n" + world.inner())


def five_layers(world: World) -> bytes:
    content = STACK.sign(wrapped_entity(world.inner()), world.signer)
    for _ in range(3):
        content = world.sealed(content)
    return content


def garbage(world: World) -> bytes:
    del world
    return bytes(range(256)) * 40


def empty(world: World) -> bytes:
    del world
    return b""


CASES: list[tuple[Callable[[World], bytes], Reason]] = [
    (plain, Reason.NOT_ENCRYPTED),
    (signed_only, Reason.NOT_ENCRYPTED),
    (opaque_signed_only, Reason.NOT_ENCRYPTED),
    (encrypted_part_of_a_larger_message, Reason.NOT_ENCRYPTED),
    (encrypted_only, Reason.NOT_SIGNED),
    (encrypted_text_without_headers, Reason.NOT_SIGNED),
    (signature_in_one_part_of_the_decrypted_content, Reason.NOT_SIGNED),
    (encrypted_to_somebody_else, Reason.CANNOT_DECRYPT),
    (truncated, Reason.MALFORMED),
    (stray_characters_in_base64, Reason.MALFORMED),
    (two_content_types, Reason.MALFORMED),
    (two_from_fields, Reason.MALFORMED),
    (no_from, Reason.MALFORMED),
    (three_parts, Reason.MALFORMED),
    (garbage, Reason.MALFORMED),
    (empty, Reason.MALFORMED),
    (content_changed_after_signing, Reason.BAD_SIGNATURE),
    (signed_by_somebody_else, Reason.BINDING_MISMATCH),
    (signer_of_the_parent_domain, Reason.BINDING_MISMATCH),
    (signer_with_a_wildcard, Reason.BINDING_MISMATCH),
    (signer_bound_by_subject_only, Reason.BINDING_MISMATCH),
    (only_the_display_name_is_the_signer, Reason.BINDING_MISMATCH),
    (untrusted_issuer, Reason.UNTRUSTED),
    (impostor_with_the_anchor_s_name, Reason.UNTRUSTED),
    (expired_and_untrusted, Reason.UNTRUSTED),
    (intermediate_that_is_no_ca, Reason.UNTRUSTED),
    (path_longer_than_allowed, Reason.UNTRUSTED),
    (name_constraint_broken, Reason.UNTRUSTED),
    (critical_extension_unknown, Reason.UNTRUSTED),
    (expired, Reason.EXPIRED),
    (not_yet_valid, Reason.EXPIRED),
    (expired_intermediate, Reason.EXPIRED),
    (key_only_for_encryption, Reason.KEY_USAGE),
    (certificate_of_a_server, Reason.KEY_USAGE),
    (certificate_of_an_authority, Reason.KEY_USAGE),
    (short_rsa_key, Reason.WEAK_ALGORITHM),
    (chain_signed_with_sha1, Reason.WEAK_ALGORITHM),
    (deep_mime, Reason.RESOURCE_LIMIT),
    (huge_header, Reason.RESOURCE_LIMIT),
    (five_layers, Reason.RESOURCE_LIMIT),
]


@pytest.mark.parametrize(("make", "reason"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_each_fault_has_its_reason_and_nothing_is_released(
    world: World, make: Callable[[World], bytes], reason: Reason
) -> None:
    judgement = world.judge(make(world))
    assert (judgement.reason, judgement.verdict) == (reason, "rejected")
    assert judgement.detail
    assert judgement.content is None
    assert judgement.delivered_to == ()
    assert judgement.inner_sha256 == ""
    assert judgement.subject in {"", "Referral" if make is plain else ""}, "else it is inside the encryption"


def test_a_domain_certificate_binds_every_address_of_exactly_its_domain(world: World) -> None:
    """AS-6."""
    judgement = world.judge(world.message(signer=world.community.issue("direct.sender.example")))
    assert judgement.reason is Reason.OK
    assert judgement.signer is not None
    assert judgement.signer.identity == "direct.sender.example"


def test_letter_case_does_not_matter_to_the_binding(world: World) -> None:
    """AS-4."""
    inner = world.inner(sender="Jane <JANE@Direct.Sender.Example>")
    judgement = world.judge(world.message(inner, signer=world.community.issue("Jane@direct.SENDER.example")))
    assert (judgement.reason, judgement.sender) == (Reason.OK, SENDER)


def test_a_certificate_with_several_names_is_taken_and_noted(world: World) -> None:
    """AS-8."""
    several = [x509.RFC822Name("else@direct.sender.example"), x509.RFC822Name(SENDER)]
    judgement = world.judge(world.message(signer=world.community.issue(several)))
    assert judgement.reason is Reason.OK
    assert any("2 names" in note for note in notes(judgement, "binding"))


def test_an_ec_signer_is_accepted(world: World) -> None:
    """AS-38."""
    judgement = world.judge(world.message(signer=world.community.issue(key=ec_key(1))))
    assert (judgement.reason, judgement.algorithms["signature"]) == (Reason.OK, "ecdsa-p256-sha256")


def test_the_signer_s_dates_are_judged_as_of_the_given_moment(world: World) -> None:
    raw = world.message(signer=world.community.issue(ends=NOW - timedelta(days=1)))
    assert world.judge(raw).reason is Reason.EXPIRED
    assert world.judge(raw, at=NOW - timedelta(days=2)).reason is Reason.OK


# --- several signers (AS-50) ---


def _signed_by_all(world: World, *signers: Identity) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(wrapped_entity(world.inner()))
    for signer in signers:
        builder = builder.add_signer(signer.certificate, signer.key, hashes.SHA256())
    der = builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])
    head = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return world.sealed(head + base64.encodebytes(der))


@pytest.mark.parametrize("good_first", [True, False])
@pytest.mark.parametrize("bad", ["expired", "untrusted", "other", "encryption"])
def test_one_good_signer_is_enough_in_any_order(world: World, bad: str, good_first: bool) -> None:
    companions = {
        "expired": world.community.issue(slot=53, ends=NOW - timedelta(days=1)),
        "untrusted": world.stranger.issue(slot=53),
        "other": world.community.issue("eve@direct.sender.example", slot=53),
        "encryption": world.community.issue(slot=53, key_usage=usage(key_encipherment=True)),
    }
    pair = [world.signer, companions[bad]]
    judgement = world.judge(_signed_by_all(world, *(pair if good_first else pair[::-1])))
    assert judgement.reason is Reason.OK
    assert judgement.signer is not None
    assert judgement.signer.sha256 == certificate_of(world.signer).sha256


def test_two_bad_signers_do_not_make_a_good_one(world: World) -> None:
    untrusted = world.stranger.issue(slot=53)
    stale = world.community.issue(slot=54, ends=NOW - timedelta(days=1))
    assert world.judge(_signed_by_all(world, untrusted, stale)).reason is Reason.EXPIRED


# --- trust per recipient (AS-56..58) ---


def test_only_recipients_whose_own_anchors_accept_get_the_message(world: World) -> None:
    anchors = AnchorStore((), {OTHER: (world.community.certificate,)})
    raw = world.message(world.inner(to=[RCPT, OTHER]), to=[world.rcpt, world.other])
    judgement = world.judge(raw, world.agent(anchors=anchors), rcpt=(RCPT, OTHER))
    assert (judgement.reason, judgement.delivered_to) == (Reason.OK, (OTHER,))
    assert [(t.recipient, t.reason) for t in judgement.trust] == [(RCPT, Reason.UNTRUSTED), (OTHER, Reason.OK)]


def test_a_message_that_no_recipient_trusts_is_refused_whole(world: World) -> None:
    anchors = AnchorStore((), {"direct.elsewhere.example": (world.community.certificate,)})
    judgement = world.judge(world.message(), world.agent(anchors=anchors))
    assert (judgement.reason, judgement.delivered_to) == (Reason.UNTRUSTED, ())


def test_recipients_that_are_not_local_are_not_delivered_to(world: World) -> None:
    raw = world.message(world.inner(to=[RCPT, "far@elsewhere.example"]))
    judgement = world.judge(raw, rcpt=(RCPT, "far@elsewhere.example"))
    assert (judgement.reason, judgement.delivered_to) == (Reason.OK, (RCPT,))


def test_an_intermediate_may_be_the_anchor(world: World) -> None:
    """AS-65: it need not be self-signed, and what stands above it does not matter."""
    below = world.stranger.below("Agency", 54)
    agent = world.agent(anchors=AnchorStore((below.certificate,)))
    assert world.judge(world.message(signer=below.issue()), agent).reason is Reason.OK
    assert world.judge(world.message(signer=world.stranger.issue()), agent).reason is Reason.UNTRUSTED


def test_a_correspondent_s_own_certificate_may_be_the_anchor_but_keeps_its_dates(world: World) -> None:
    signer = world.stranger.issue()
    agent = world.agent(anchors=AnchorStore((certificate_of(signer),)))
    raw = world.message(signer=signer)
    assert world.judge(raw, agent).reason is Reason.OK
    assert world.judge(raw, agent, at=NOW + timedelta(days=400)).reason is Reason.EXPIRED


def test_an_anchor_outside_its_dates_is_refused(world: World) -> None:
    old = CA.root("Old Community", 54, ends=NOW - timedelta(days=1))
    agent = world.agent(anchors=AnchorStore((old.certificate,)))
    assert world.judge(world.message(signer=old.issue()), agent).reason is Reason.EXPIRED


def test_a_chain_through_an_intermediate_in_the_message_is_found(world: World) -> None:
    first = world.community.below("One", 54)
    second = first.below("Two", 55)
    judgement = world.judge(world.message(signer=second.issue(), chain=[second, first]))
    assert judgement.reason is Reason.OK
    assert len(judgement.trust[0].chain_sha256) == 4
    assert judgement.certificates[:2] == (judgement.certificates[0], second.certificate.der)


# --- the envelope (AS-44, AS-45, AS-46, AS-89) ---


@pytest.mark.parametrize(
    ("mail_from", "rcpt", "reason"),
    [
        (SENDER, (RCPT,), Reason.OK),
        (SENDER.upper(), (RCPT.upper(),), Reason.OK),
        ("bounce@direct.sender.example", (RCPT,), Reason.ROUTING_TAMPER),
        ("not an address", (RCPT,), Reason.ROUTING_TAMPER),
        ("", (RCPT,), Reason.ROUTING_TAMPER),
        (SENDER, (RCPT, OTHER), Reason.ROUTING_TAMPER),
        (None, (OTHER,), Reason.ROUTING_TAMPER),
        (SENDER, (OTHER,), Reason.ROUTING_TAMPER),
        (None, (RCPT, OTHER), Reason.ROUTING_TAMPER),
        (None, (), Reason.OK),
    ],
)
def test_the_envelope_must_agree_with_the_signed_headers(
    world: World, mail_from: str | None, rcpt: tuple[str, ...], reason: Reason
) -> None:
    assert world.judge(world.message(), mail_from=mail_from, rcpt=rcpt).reason is reason


def test_without_an_envelope_the_signed_to_and_cc_say_who_gets_it(world: World) -> None:
    """AS-46: and it is recorded that the envelope could not be compared."""
    raw = world.message(world.inner(to=["far@elsewhere.example"], headers=[("Cc", f"Ann <{RCPT}>")]))
    judgement = world.judge(raw, mail_from=None, rcpt=())
    assert judgement.delivered_to == (RCPT,)
    assert [c.name for c in judgement.checks if c.outcome == "skipped"] == ["reverse path", "forward paths"]


def test_a_message_that_names_nobody_local_is_not_delivered(world: World) -> None:
    raw = world.message(world.inner(to=["far@elsewhere.example"]))
    assert world.judge(raw, mail_from=None, rcpt=()).reason is Reason.ROUTING_TAMPER


def test_bcc_does_not_count_as_a_named_recipient(world: World) -> None:
    """AS-45."""
    raw = world.message(world.inner(to=["far@elsewhere.example"], headers=[("Bcc", RCPT)]))
    assert world.judge(raw).reason is Reason.ROUTING_TAMPER


def test_the_sender_field_may_be_the_reverse_path_but_never_the_identity(world: World) -> None:
    """AS-44, i11."""
    raw = world.message(world.inner(headers=[("Sender", "desk@direct.sender.example")]))
    assert world.judge(raw, mail_from="desk@direct.sender.example").reason is Reason.OK
    eve = world.inner(sender="eve@evil.example", headers=[("Sender", SENDER)])
    assert world.judge(world.message(eve)).reason is Reason.BINDING_MISMATCH


@pytest.mark.parametrize("mail_from", ["", "system@direct.sender.example", SENDER])
def test_a_notification_may_come_from_the_null_or_another_sender(world: World, mail_from: str) -> None:
    """AS-89."""
    fields = world.inner(attachment=None)
    head = fields[: fields.index(b"Content-Type")]
    report = head + b"Content-Type: multipart/report; report-type=disposition-notification; boundary=r\r\n\r\n--r--\r\n"
    assert world.judge(world.message(report), mail_from=mail_from).reason is Reason.OK


def test_the_inner_headers_are_authoritative_when_the_outer_ones_differ(world: World) -> None:
    """AS-62."""
    raw = world.message(outer_from="relay@hisp.example", outer_to=["list@hisp.example"])
    judgement = world.judge(raw, mail_from=None, rcpt=())
    assert (judgement.reason, judgement.sender, judgement.delivered_to) == (Reason.OK, SENDER, (RCPT,))


def test_an_unwrapped_message_with_a_forged_outer_from_is_refused(world: World) -> None:
    raw = world.message(entity=b"Content-Type: text/plain\r\n\r\nHello.\r\n", outer_from="boss@direct.sender.example")
    assert world.judge(raw, mail_from="boss@direct.sender.example").reason is Reason.BINDING_MISMATCH


# --- the last line of defence ---


def test_a_fault_of_our_own_is_a_rejection_and_a_log_event_without_content(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("PHI-CANARY")

    monkeypatch.setattr(agent_module, "unwrap", broken)
    with caplog.at_level(logging.ERROR):
        judgement = world.judge(world.message())
    assert judgement.reason is Reason.MALFORMED
    assert "message_not_examined" in caplog.text
    assert "KeyError" in caplog.text
    assert "PHI-CANARY" not in caplog.text
    assert "PHI-CANARY" not in judgement.detail


def test_a_message_beyond_the_size_limit_is_not_even_parsed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "MAX_MESSAGE_BYTES", 1_000)
    assert world.judge(world.message()).reason is Reason.RESOURCE_LIMIT


def test_a_judgement_is_the_same_when_it_is_made_again(world: World) -> None:
    """But for a note that the path was validated before, when one agent judges twice."""
    raw, agent = world.message(), world.agent()
    first, again = world.judge(raw, agent), world.judge(raw, agent)
    assert [c.detail for c in again.checks if c not in first.checks] == [
        f"path and revocation as validated at {NOW.isoformat()}"
    ]
    assert replace(again, checks=first.checks) == first
    assert world.judge(raw, world.agent()) == first


def test_every_truncation_and_flipped_byte_is_a_rejection_never_an_exception(world: World) -> None:
    """Structure mutations of the signed content: whatever they hit, the verdict is a rejection or the same bytes."""
    inner = world.inner(attachment=None)
    signed = STACK.sign(wrapped_entity(inner), world.signer)
    agent = world.agent()
    for position in range(0, len(signed), 37):
        flipped = bytearray(signed)
        flipped[position] ^= 0x15
        for content in (bytes(flipped), signed[:position]):
            judgement = world.judge(world.sealed(content), agent)
            assert judgement.detail != "the message could not be examined", content
            if judgement.accepted:
                assert judgement.content == inner
                assert replace(judgement, content=None).inner_sha256 == hashlib.sha256(inner).hexdigest()


def test_the_moment_may_be_in_any_time_zone(world: World) -> None:
    assert world.judge(world.message(), at=datetime(2026, 11, 20, tzinfo=UTC)).reason is Reason.OK


def test_the_decoded_cms_of_the_test_messages_is_what_the_stack_made(world: World) -> None:
    """The tests above would prove nothing if the outer message were not an encrypted one."""
    entity = read_entity(world.message(), what="x")
    assert decode_body(entity, what="x")[:1] == b"\x30"


@pytest.mark.parametrize("entity", [None, b"Content-Type: text/plain\r\n\r\nold style\r\n"])
def test_the_digest_of_the_content_is_that_of_the_bytes_that_are_delivered(world: World, entity: bytes | None) -> None:
    judgement = world.judge(world.message(entity=entity))
    assert judgement.content is not None
    assert judgement.content_sha256 == hashlib.sha256(judgement.content).hexdigest()
    assert judgement.inner_sha256 == hashlib.sha256(judgement.content[judgement.protected_offset :]).hexdigest()
