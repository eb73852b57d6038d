"""The CMS examples with the keys of RFC 9216, all ten of them, and the whole way through the agent with these keys.

The examples are bare CMS objects around a line of text, no mail; what a message is made of them must be, is made here:
Alice and Carlos sign, Bob and Dana receive. Their certificates were issued by one authority, which is not among the
samples, so that each is pinned as its own anchor (AS-65).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.core.errors import RejectionError
from gateway.core.message import Envelope
from gateway.core.verdict import Reason
from gateway.keys.file_key import FileKey
from gateway.keys.key_ring import KeyRing
from gateway.sta.agent import SecurityTrustAgent
from gateway.sta.certificates import Certificate
from gateway.sta.cms.content_info import content_type
from gateway.sta.cms.enveloped import open_enveloped
from gateway.sta.cms.signature import verify_signer
from gateway.sta.cms.signed import read_signed_data
from gateway.sta.trust_anchors.anchors import AnchorStore
from tests.smime.clinic import SECRET
from tests.support.direct_messages import inner_message, outer_message, wrapped_entity
from tests.support.forge_envelopes import Encrypted, cbc, chacha, enveloped, gcm, kari, oaep, v15
from tests.support.forge_names import der_of
from tests.support.forge_signatures import Signed, Signing
from tests.support.pki import Identity, Key

CONTENT = b"This is some sample content."
MOMENT = datetime(2026, 11, 20, tzinfo=UTC)
OUTCOMES: dict[str, tuple[str, ...]] = {
    "authEnvelopedForBobChaCha20Poly1305": ("bob opens",),
    "authEnvelopedForDanaX25519HKDF": ("dana opens",),
    "encryptedForBobAndDana": ("bob opens", "dana opens"),
    "encryptedForBobRSAOaep": ("bob opens",),
    "encryptedKekri": (),
    "signedByAliceAndCarlosNoCerts": (),
    "signedByAliceRSA": (),
    "signedByAliceRSAPSS": ("alice signed",),
    "signedByCarlosDetached": (),
    "signedByCarlosEd25519": ("carlos signed",),
}
"""Who opens or has signed what. encryptedKekri is for a shared key; those that nobody is said to have signed have no
signed attributes, which is refused (s01)."""


def _identity(examples: Path, who: str, *, decrypts: bool) -> Identity:
    folder = examples / "certs-and-keys"
    names = (f"lamps-{who}.encrypt.crt", f"lamps-{who}.decrypt.p8.pem") if decrypts else (f"lamps-{who}.crt",) * 2
    certificate = x509.load_pem_x509_certificate((folder / names[0]).read_bytes())
    file = folder / (names[1] if decrypts else f"lamps-{who}.p8.pem")
    return Identity(certificate, cast("Key", serialization.load_pem_private_key(file.read_bytes(), None)))


def _key(identity: Identity) -> FileKey:
    certificate = Certificate(der_of(identity))
    names = tuple(name.value for name in certificate.names)
    return FileKey(certificate.der, names, (), certificate.not_before, "RFC 9216", identity.key)


def _facts(examples: Path, name: str) -> set[str]:
    der = (examples / "binary-files" / f"{name}.p7m").read_bytes()
    found: set[str] = set()
    if content_type(der) == "signed-data":
        signed = read_signed_data(der)
        content = CONTENT if signed.econtent is None else bytes(signed.econtent)
        assert content == CONTENT
        for who in ("alice", "carlos"):
            certificate = der_of(_identity(examples, who, decrypts=False))
            for signer in signed.signers:
                try:
                    verify_signer(signer, certificate, content, signed.econtent_type)
                except RejectionError:
                    continue
                found.add(f"{who} signed")
        return found
    for who in ("bob", "dana"):
        try:
            opened = open_enveloped(der, [_key(_identity(examples, who, decrypts=True))])
        except RejectionError:
            continue
        found.add(f"{who} opens" if bytes(opened.content) == CONTENT else f"{who} reads something else")
    return found


def test_each_of_the_ten_comes_out_as_it_should(examples: Path) -> None:
    files = {path.stem for path in (examples / "binary-files").glob("*.p7m")}
    assert files == set(OUTCOMES)
    assert len(files) == 10
    for name, expected in OUTCOMES.items():
        assert _facts(examples, name) == set(expected), name


@pytest.mark.parametrize("seal", [cbc, gcm, chacha])
@pytest.mark.parametrize("receiver", ["bob", "dana"])
@pytest.mark.parametrize("sender", ["alice", "carlos"])
def test_a_message_between_these_people_is_accepted(examples: Path, sender: str, receiver: str, seal: Any) -> None:
    """RSA and Ed25519 signers; RSA and X25519 recipients; separate certificates for signing and for encryption."""
    signer, recipient = _identity(examples, sender, decrypts=False), _identity(examples, receiver, decrypts=True)
    address, rcpt = (_names(one)[0].lower() for one in (signer, recipient))
    inner = inner_message(address, [rcpt])
    digest = "sha256" if isinstance(signer.key, rsa.RSAPrivateKey) else "sha512"
    content = Signed(wrapped_entity(inner), [Signing(signer, digest)]).entity()
    is_rsa = isinstance(recipient.key, rsa.RSAPrivateKey)
    assert is_rsa or type(recipient.key).__name__ == "X25519PrivateKey"
    sealed: Encrypted = seal(SECRET, content)
    agent = SecurityTrustAgent(KeyRing([_key(recipient)]), AnchorStore((Certificate(der_of(signer)),)))
    for entry in [hide(recipient, SECRET) for hide in ((v15, oaep) if is_rsa else (kari,))]:
        raw = outer_message(enveloped([entry], sealed), address, [rcpt])
        judgement = agent.judge(raw, Envelope(address, (rcpt,)), MOMENT)
        assert (judgement.reason, judgement.detail, judgement.content) == (Reason.OK, "", inner)
    other = _identity(examples, "dana" if receiver == "bob" else "bob", decrypts=True)
    wrong = SecurityTrustAgent(KeyRing([_key(other)]), agent.anchors)
    assert not wrong.judge(raw, Envelope(address, (rcpt,)), MOMENT).accepted


def _names(identity: Identity) -> list[str]:
    return [name.value for name in Certificate(der_of(identity)).names]
