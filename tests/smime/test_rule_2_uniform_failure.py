"""S/MIME rule 2: whoever sends wrong keys, paddings and ciphertexts learns nothing by it (Bleichenbacher, Vaudenay).

The judgements are equal to the last letter; what leaves (SMTP replies, notifications) is tested where it is sent. Time
is counted in operations, not in seconds: the same primitives run the same number of times whatever was wrong.
"""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import algorithms

from gateway.core.verdict import Judgement, Reason
from gateway.sta.cms import enveloped as enveloped_module
from tests.smime.clinic import SECRET, Clinic, KeyWatch
from tests.support.der_forge import NULL, algorithm
from tests.support.forge_envelopes import (
    cbc,
    chacha,
    gcm,
    ktri,
    v15,
)
from tests.support.forge_names import RSA


def outcome(judgement: Judgement) -> tuple[object, ...]:
    """All of a judgement that anybody outside could be shown."""
    return (
        judgement.reason,
        judgement.detail,
        judgement.content,
        judgement.delivered_to,
        judgement.sender,
        judgement.signer,
        judgement.wrapped,
        judgement.inner_sha256,
        judgement.checks,
        judgement.certificates,
        judgement.trust,
    )


def raw_rsa(clinic: Clinic, block: bytes) -> bytes:
    """An entry whose decrypted block is exactly this, padded well or not."""
    numbers: Any = clinic.recipient().certificate.public_key()
    public = numbers.public_numbers()
    value = pow(int.from_bytes(block, "big"), public.e, public.n)
    return ktri(clinic.recipient().certificate, value.to_bytes(256, "big"), algorithm(RSA, NULL))


def block(key: bytes, *, kind: bytes = b"\x02", filler: bytes = b"\x11") -> bytes:
    """A PKCS #1 block of 256 octets."""
    return b"\0" + kind + filler * (253 - len(key)) + b"\0" + key


def wrong_keys(clinic: Clinic) -> dict[str, bytes]:
    """Entries that fail in every way in which Bleichenbacher's oracle could tell them apart."""
    wrong = bytes(range(32))
    return {
        "another key of the right length": raw_rsa(clinic, block(wrong)),
        "a key one byte short": raw_rsa(clinic, block(wrong[:31])),
        "a key one byte long": raw_rsa(clinic, block(wrong + b"x")),
        "a key of half the length": raw_rsa(clinic, block(wrong[:16])),
        "no key at all": raw_rsa(clinic, block(b"")),
        "block type 1": raw_rsa(clinic, block(wrong, kind=b"\x01", filler=b"\xff")),
        "block type 0": raw_rsa(clinic, block(wrong, kind=b"\x00")),
        "first octet 1": raw_rsa(clinic, b"\x01" + block(wrong)[1:]),
        "no zero behind the filler": raw_rsa(clinic, b"\0\x02" + b"\x11" * 254),
        "a zero in the first eight octets of filler": raw_rsa(clinic, b"\0\x02\x11\0" + b"\x11" * 252),
        "random": ktri(
            clinic.recipient().certificate, secrets.token_bytes(255).rjust(256, b"\0"), algorithm(RSA, NULL)
        ),
        "all zero": ktri(clinic.recipient().certificate, bytes(256), algorithm(RSA, NULL)),
        "beyond the modulus": ktri(clinic.recipient().certificate, b"\xff" * 256, algorithm(RSA, NULL)),
        "cut short": ktri(clinic.recipient().certificate, bytes(255), algorithm(RSA, NULL)),
        "empty": ktri(clinic.recipient().certificate, b"", algorithm(RSA, NULL)),
    }


def wrong_contents(clinic: Clinic) -> dict[str, bytes]:
    """Messages whose key is right and whose content is not: padding probes, cut and altered ciphertext, bad tags."""
    content = clinic.signed()
    sealed = cbc(SECRET, content)
    entry = [v15(clinic.recipient(), SECRET)]

    def probe(last: bytes) -> bytes:
        body = content[: len(content) // 16 * 16]
        return clinic.sealed(content, entry, cbc(SECRET, body + last, pad=False))

    tagged = gcm(SECRET, content)
    assert tagged.tag is not None
    lengths = (b"", sealed.content[:-1], sealed.content[:-7], sealed.content[:15])
    return {
        "padding zero": probe(bytes(16)),
        "padding 17": probe(b"\x11" * 16),
        "padding that does not agree": probe(b"a" * 12 + b"\x03\x04\x04\x04"),
        "padding 255": probe(b"\xff" * 16),
        **{f"a length of {len(c)}": clinic.sealed(content, entry, replace(sealed, content=c)) for c in lengths},
        "a last block that was altered": clinic.sealed(
            content, entry, replace(sealed, content=sealed.content[:-20] + secrets.token_bytes(20))
        ),
        "another tag": clinic.sealed(content, entry, replace(tagged, tag=bytes(16))),
        "altered under a tag": clinic.sealed(content, entry, replace(tagged, content=b"\0" + tagged.content[1:])),
        "cut under a tag": clinic.sealed(content, entry, replace(tagged, content=tagged.content[:-1])),
        "chacha altered": clinic.sealed(content, entry, replace(chacha(SECRET, content), tag=bytes(16))),
    }


def test_rule_2_every_failure_to_recover_a_key_or_content_is_one_and_the_same(clinic: Clinic) -> None:
    """Whatever is wrong with key or content, what can be told of it is equal to the last letter (e08 to e10, e15)."""
    content = clinic.signed()
    outcomes = {
        name: outcome(clinic.judge(clinic.sealed(content, [entry]))) for name, entry in wrong_keys(clinic).items()
    }
    outcomes |= {name: outcome(clinic.judge(raw)) for name, raw in wrong_contents(clinic).items()}
    assert len(outcomes) == 28
    [only] = set(outcomes.values())
    assert only[0] is Reason.CANNOT_DECRYPT
    assert only[2] is None


@pytest.mark.parametrize("broken", ["raises", "empty", "short", "long", "wrong"])
def test_rule_2_a_token_that_fails_in_its_own_way_looks_no_different(clinic: Clinic, broken: str) -> None:
    def answer(recovered: bytes) -> bytes:
        if broken == "raises":
            raise OSError("CKR_ENCRYPTED_DATA_INVALID")
        return {"empty": b"", "short": recovered[:-1], "long": recovered + b"x", "wrong": bytes(len(recovered))}[broken]

    raw = clinic.sealed(clinic.signed())
    told = clinic.judge(raw, watch=KeyWatch(answer=answer))
    wrong_padding = clinic.judge(clinic.sealed(clinic.signed(), [wrong_keys(clinic)["block type 1"]]))
    assert outcome(told) == outcome(wrong_padding)


def primitives(run: Callable[[], object]) -> Counter[str]:
    """How often each primitive of the cryptographic library ran, by the interpreter's own profile of calls."""
    calls: Counter[str] = Counter()

    def profile(_frame: object, event: str, called: Any) -> None:
        if event == "c_call":
            owner = type(getattr(called, "__self__", None))
            if "_rust" in owner.__module__:
                calls[f"{owner.__name__}.{called.__name__}"] += 1

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def test_rule_2_as_many_operations_for_good_padding_as_for_bad(clinic: Clinic) -> None:
    """One private-key operation and one decryption of the whole content, however the padding came out."""
    content = clinic.signed()
    counted: dict[str, Counter[str]] = {}
    for name, entry in wrong_keys(clinic).items():
        raw, watch = clinic.sealed(content, [entry]), KeyWatch()
        agent = clinic.agent(watch=watch)
        counted[name] = primitives(partial(clinic.world.judge, raw, agent))
        assert sum(watch.asked.values()) >= 1, name
        assert set(watch.asked) == {"decrypt_rsa_pkcs1v15"}, name
    reference = counted["another key of the right length"]
    assert any("decrypt" in call.lower() for call in reference), reference
    assert any("update" in call.lower() for call in reference), reference
    assert {name: calls - reference for name, calls in counted.items() if calls != reference} == {}


def recorded_keys(clinic: Clinic, raw: bytes, monkeypatch: pytest.MonkeyPatch, watch: KeyWatch) -> list[bytes]:
    """The content-encryption keys that were used for the message."""
    keys: list[bytes] = []
    real = algorithms.AES

    def recording(key: bytes) -> algorithms.AES:
        keys.append(bytes(key))
        return real(key)

    with monkeypatch.context() as patched:
        patched.setattr(algorithms, "AES", recording)
        clinic.judge(raw, watch=watch)
    return keys


def test_rule_2_the_random_key_is_the_same_for_the_same_entry_and_for_no_other(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else asking twice would tell a recovered key from a made-up one. Nobody outside can compute it either."""

    def fail(_: bytes) -> bytes:
        raise ValueError

    one, other = (clinic.sealed(clinic.signed(), [v15(clinic.recipient(), SECRET)]) for _ in range(2))
    used = [set(recorded_keys(clinic, raw, monkeypatch, KeyWatch(answer=fail))) for raw in (one, one, other)]
    assert [len(keys) for keys in used] == [1, 1, 1]
    assert used[0] == used[1] != used[2]
    assert used[0] != {SECRET}
    assert len(next(iter(used[0]))) == 32
    monkeypatch.setattr(enveloped_module, "_FALLBACK_SECRET", secrets.token_bytes(32))
    assert set(recorded_keys(clinic, one, monkeypatch, KeyWatch(answer=fail))) != used[0]


def test_rule_2_the_work_for_one_message_is_bounded(clinic: Clinic) -> None:
    """e16: private-key operations are what an attacker can make us do."""
    entry = wrong_keys(clinic)["another key of the right length"]
    watch = KeyWatch()
    clinic.judge(clinic.sealed(clinic.signed(), [entry] * 900), watch=watch)
    assert 1 <= watch.asked.total() <= 2 * enveloped_module.MAX_PRIVATE_OPERATIONS
    assert clinic.judge(clinic.sealed(clinic.signed(), [entry] * 1001)).reason is Reason.RESOURCE_LIMIT


def test_the_samples_are_what_they_say(clinic: Clinic) -> None:
    """A block made by hand opens like any other, so that the wrong ones are wrong only where they say so."""
    content = clinic.signed()
    assert clinic.judge(clinic.sealed(content, [raw_rsa(clinic, block(SECRET))])).reason is Reason.OK
