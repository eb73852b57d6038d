"""Every disagreement with the openssl command is explained, or it is a fault of one of us.

Valid messages are accepted by both. Of mutated ones each may refuse what the other takes, for the reasons of the two
tables below and for no other. The tables are the documentation of where the gateway is stricter than OpenSSL 3 and
where it is not; a new kind of disagreement fails the test until somebody has looked at it.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.core.verdict import Judgement, Reason
from gateway.sta.agent import SecurityTrustAgent
from tests.smime.clinic import SECRET, Clinic
from tests.smime.openssl_judge import OpenSSLJudge, Second
from tests.smime.specimens import Layer, Specimen, specimens
from tests.support.der_forge import read
from tests.support.forge_envelopes import gcm
from tests.support.forge_signatures import Signed, Signing
from tests.support.mutations import Mutator
from tests.support.pki import Identity

QUICK = 150
ALL = 3_000
ENVELOPE, MIME, SIGNED = Layer.ENVELOPE, Layer.MIME, Layer.SIGNED_DATA
CERTIFICATES, ATTRIBUTES, ISSUED = Layer.CERTIFICATES, Layer.ATTRIBUTES, Layer.CERTIFICATE
LAYERS = (ENVELOPE, MIME, SIGNED, CERTIFICATES, ATTRIBUTES, ISSUED)
ANY = frozenset(LAYERS)


@dataclass(frozen=True)
class Explained:
    """A kind of disagreement that is known: where, by what words, and why it is right."""

    layers: frozenset[Layer]
    words: str
    """Of our refusal, or of openssl's, as a regular expression."""
    why: str


def _on(*layers: Layer) -> frozenset[Layer]:
    return frozenset(layers)


WE_REFUSE = (
    Explained(_on(ATTRIBUTES, SIGNED), "has no signed attributes", "s01, s02: openssl lets them be left out"),
    Explained(
        _on(ATTRIBUTES, SIGNED),
        "signed content type|signed message digest is missing|is padded|cut short|is the signature|signed attribute",
        "signed attributes must be DER (RFC 5652 5.3) and the type must agree (s07); openssl writes them anew and "
        "does not compare the type",
    ),
    Explained(_on(SIGNED), "signature is wrong", "attributes that are not DER on the wire (RFC 5652 5.3)"),
    Explained(_on(SIGNED, MIME), "not of type data|exactly 2 parts|not of S/MIME|multipart", "rules 4 and 5"),
    Explained(_on(MIME), "two .* fields|parameter .* twice|has a NUL", "rule 9: openssl takes one of two"),
    Explained(_on(MIME), "stand after the ASN.1|base64|Transfer-Encoding|transfer encoding", "openssl passes over it"),
    Explained(
        _on(MIME),
        "PKCS #7 signature|not signed|unreadable Content-Type|control character|close",
        "openssl does not look at the type",
    ),
    Explained(
        _on(MIME, ISSUED, CERTIFICATES), "not the address in From|no From|two From|From ", "openssl binds nobody"
    ),
    Explained(
        _on(MIME, ENVELOPE), "no private key here opens", "what comes out is no MIME entity, or not of that type"
    ),
    Explained(_on(ENVELOPE), "no recipient entry is for", "an entry that breaks a bound, or has another name"),
    Explained(_on(ENVELOPE), "key transport algorithm .* is not allowed", "openssl takes any name for RSA v1.5"),
    Explained(
        _on(SIGNED), "(signature|digest) algorithm .* is not allowed", "openssl goes by the key, not by the name"
    ),
    Explained(ANY, "longer than|more than|out of bounds|nested deeper|too many", "rule 11: bounds"),
    Explained(
        _on(ENVELOPE, SIGNED),
        "wrong type|chunk of a string|stand after the ASN.1|end-of-contents|holds more|indefinite length|is empty",
        "strings that are short by nature are read in one piece; openssl joins them",
    ),
    Explained(ANY, "altered outside its signed part", "RFC 5280 4.1.1.2; openssl writes the outside anew"),
    Explained(_on(ISSUED), "not for mail|not for signatures|not meant for|certification authority", "purpose any"),
    Explained(
        _on(ISSUED, SIGNED, CERTIFICATES),
        "cannot be read|not in the message|ASN.1|missing or of the wrong type|serial number|same extension twice|names",
        "a certificate that is not DER, whoever issued it",
    ),
    Explained(_on(ISSUED), "outside its validity|critical extension|policy|constraint", "-purpose any asks for less"),
)
WE_ACCEPT = (
    Explained(
        _on(ENVELOPE, SIGNED, ISSUED, CERTIFICATES),
        "asn1|parameter|peer key error|shared info error|decode error|exit status|unsupported|cms lib",
        "openssl parses every field, also those that nothing rests on: versions, the parameters of the envelope, the "
        "listed digest algorithms (s16), whatever stands behind the fields that are read",
    ),
    Explained(
        _on(ATTRIBUTES, SIGNED),
        "verification failure|bad signature",
        "openssl does not sort signed attributes (s08), which we do, with the order on the wire as a noted second try",
    ),
    Explained(
        _on(ENVELOPE), "update error|unwrap error|decrypt error", "each entry that may be ours is tried, not one"
    ),
    Explained(_on(SIGNED), "unknown digest algorithm|no matching digest", "the list of digests is a hint (s16)"),
    Explained(_on(SIGNED), "signer certificate not found", "names are compared as RFC 5280 7.1 says"),
    Explained(
        _on(SIGNED, CERTIFICATES),
        "certificate signature failure",
        "of two certificates with the signer's name and number openssl takes the first, and we each: one is genuine",
    ),
)


def _explanation(table: tuple[Explained, ...], layer: Layer, words: str) -> str | None:
    return next((one.why for one in table if layer in one.layers and re.search(one.words, words)), None)


@pytest.fixture
def second(clinic: Clinic, tmp_path: Path) -> OpenSSLJudge:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not here")
    return OpenSSLJudge(tmp_path, clinic)


def _comparable(clinic: Clinic) -> list[Specimen]:
    """Those that openssl 3 can read; of two signers it wants both trusted, where AS-50 asks for one."""
    return [one for one in specimens(clinic) if one.kind != "x25519" and one.name != "two signers"]


def _both(
    clinic: Clinic, second: OpenSSLJudge, raw: bytes, kind: str = "rsa", agent: SecurityTrustAgent | None = None
) -> tuple[Judgement, Second]:
    der = base64.b64decode(raw.partition(b"\r\n\r\n")[2])
    return clinic.world.judge(raw, agent or clinic.agent(kind)), second.judge(der, kind)


def _differ(clinic: Clinic, second: OpenSSLJudge, numbers: range) -> Counter[str]:
    known = _comparable(clinic)
    agents = {kind: clinic.agent(kind) for kind in ("rsa", "p256")}
    explained: Counter[str] = Counter()
    unexplained: list[str] = []
    for number in numbers:
        specimen, layer = known[number % len(known)], LAYERS[number // len(known) % len(LAYERS)]
        broken = specimen.broken(layer, Mutator(f"differential/{specimen.name}/{layer}/{number}"))
        ours, theirs = _both(clinic, second, broken.raw, specimen.kind, agents[specimen.kind])
        protected = (ours.content or b"")[ours.protected_offset :]
        assert protected in broken.signed, (number, "altered content was accepted")
        if ours.accepted == theirs.accepted:
            explained["agreed"] += 1
            continue
        words = theirs.complaint if ours.accepted else ours.detail
        why = _explanation(WE_ACCEPT if ours.accepted else WE_REFUSE, layer, words)
        if why is None:
            side = "we accept" if ours.accepted else f"we refuse ({ours.reason})"
            unexplained.append(f"{number} ({specimen.name}, {layer}): {side}: {words}")
        else:
            explained[why] += 1
    assert unexplained == []
    return explained


def test_both_accept_the_valid_ones_and_read_the_same_content(clinic: Clinic, second: OpenSSLJudge) -> None:
    known = _comparable(clinic)
    assert len(known) == 5
    for specimen in known:
        ours, theirs = _both(clinic, second, specimen.valid(), specimen.kind)
        assert ours.accepted, specimen.name
        assert theirs.content == specimen.entity, theirs.complaint


def test_a_portion_of_the_mutations(clinic: Clinic, second: OpenSSLJudge) -> None:
    explained = _differ(clinic, second, range(QUICK))
    assert explained["agreed"] > QUICK * 3 // 4


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thousands_of_mutations(clinic: Clinic, second: OpenSSLJudge) -> None:
    explained = _differ(clinic, second, range(QUICK, QUICK + ALL))
    assert explained["agreed"] > ALL * 9 // 10


# --- the disagreements that the gateway exists for, each by itself ---


def _message(clinic: Clinic, content: bytes, second: OpenSSLJudge) -> tuple[Judgement, Second]:
    return _both(clinic, second, clinic.sealed(content))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no signed attributes", Reason.BAD_SIGNATURE),
        ("attributes replayed as content", Reason.BAD_SIGNATURE),
        ("another content type", Reason.BAD_SIGNATURE),
        ("SHA-1", Reason.WEAK_ALGORITHM),
        ("somebody else", Reason.BINDING_MISMATCH),
    ],
)
def test_openssl_accepts_what_we_refuse(clinic: Clinic, second: OpenSSLJudge, name: str, reason: Reason) -> None:
    """s01, s02, s07, s17, i01: what the vectors say of openssl is still so, and still refused here."""
    sender = clinic.sender()
    entity = clinic.entity
    genuine = Signing(sender).info(entity)
    eve = clinic.world.community.issue("eve@direct.sender.example", slot=53)
    contents = {
        "no signed attributes": Signed(entity, [Signing(sender, attributes=())]).entity(),
        "attributes replayed as content": _replayed(sender, genuine),
        "another content type": Signed(entity, [Signing(sender, content_type="1.2.840.113549.1.7.2")]).entity(),
        "SHA-1": Signed(entity, [Signing(sender, digest="sha1")]).entity(),
        "somebody else": Signed(entity, [Signing(eve)]).entity(),
    }
    ours, theirs = _message(clinic, contents[name], second)
    assert theirs.accepted, theirs.complaint
    assert (ours.reason, ours.content) == (reason, None)


def _replayed(sender: Identity, genuine: bytes) -> bytes:
    attributes = next(node for node in read(genuine).inside if node.tag == 0xA0)
    attributes.tag = 0x31
    return Signed(attributes.encode(), [Signing(sender, attributes=())], opaque=True).entity()


def test_openssl_takes_a_tag_of_four_bytes(clinic: Clinic, second: OpenSSLJudge) -> None:
    """e05."""
    content = clinic.signed()
    raw = clinic.sealed(content, encrypted=gcm(SECRET, content, tag_bytes=4))
    ours, theirs = _both(clinic, second, raw)
    assert (ours.reason, theirs.accepted) == (Reason.WEAK_ALGORITHM, True)


def test_both_refuse_what_is_plainly_wrong(clinic: Clinic, second: OpenSSLJudge) -> None:
    content = clinic.signed()
    altered = clinic.sealed(content.replace(b"Please see", b"Please pay"))
    stranger = clinic.sealed(clinic.signed(Signing(clinic.world.stranger.issue(slot=53))))
    for raw in (altered, stranger):
        ours, theirs = _both(clinic, second, raw)
        assert not ours.accepted
        assert not theirs.accepted
