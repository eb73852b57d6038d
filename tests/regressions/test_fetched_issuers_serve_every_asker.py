"""What was fetched for one sender must not be cut to that one's needs and served to the others (AS-66)."""

from __future__ import annotations

import pytest
from asn1crypto import algos as asn1_algos
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.sta.certificates import Certificate
from gateway.sta.fetching.authority_access import MAX_ISSUERS_IN_REPLY, fetch_issuers
from gateway.sta.fetching.reply_cache import ReplyCache
from tests.support.bundle_files import p7b
from tests.support.pki import Identity, rsa_key
from tests.unit.sta.conftest import Web, web
from tests.unit.sta.revocation_world import loopback
from tests.unit.sta.trust_world import CA, NOW, certificate_of, issuers_at

__all__ = ["web"]


@pytest.fixture(scope="module")
def members() -> list[CA]:
    root = CA.root("Community", 1)
    return [root.below(f"Member CA {n}", 10 + n % 3) for n in range(24)]


class Desk:
    """Asks for issuers as one message after another does."""

    def __init__(self, web: Web, members: list[CA]) -> None:
        self.web, self.cache = web, ReplyCache()
        self.url = web.url("/issuers.p7c")
        web.replies["/issuers.p7c"] = p7b(*(m.identity for m in members))

    def sender(self, issuer: CA, address: str = "jane@direct.sender.example") -> Certificate:
        return certificate_of(issuer.issue(address, extra=[(issuers_at(self.url), False)]))

    def ask(self, certificate: Certificate) -> list[Certificate]:
        return fetch_issuers(certificate, loopback().session().share(), [], self.cache, NOW)


@pytest.fixture
def desk(web: Web, members: list[CA]) -> Desk:
    return Desk(web, members)


def test_every_member_finds_its_issuer_in_one_reply(desk: Desk, members: list[CA]) -> None:
    for member in members:
        found = desk.ask(desk.sender(member))
        assert found[0] == member.certificate
        assert len(found) == MAX_ISSUERS_IN_REPLY
    assert len(desk.web.asked) == 1


def _of_unknown_algorithm(identity: Identity) -> Certificate:
    whole = asn1_x509.Certificate.load(identity.certificate.public_bytes(Encoding.DER))
    algorithm = asn1_algos.SignedDigestAlgorithm({"algorithm": "1.3.6.1.4.1.99999.1"})
    whole["tbs_certificate"]["signature"] = algorithm
    whole["signature_algorithm"] = algorithm
    return Certificate(whole.dump(force=True))


def test_a_certificate_that_nobody_can_check_keeps_no_reply(desk: Desk, members: list[CA]) -> None:
    forger = CA(Identity(members[0].identity.certificate, rsa_key(77)))
    extra = [(issuers_at(desk.url), False)]
    desk.ask(_of_unknown_algorithm(forger.issue("mallory@evil.example", extra=extra)))
    assert desk.ask(desk.sender(members[20]))[0] == members[20].certificate
    assert len(desk.web.asked) == 2
    desk.ask(desk.sender(members[20]))
    assert len(desk.web.asked) == 2


def test_a_forged_authority_in_the_reply_does_not_hide_the_real_one_for_a_day(desk: Desk, members: list[CA]) -> None:
    """Somebody on the way puts an authority of the same name in its place, and proves it with a message of theirs."""
    forged = CA.root("Member CA 3", 78)
    genuine = desk.web.replies["/issuers.p7c"]
    desk.web.replies["/issuers.p7c"] = p7b(forged.identity)
    assert desk.ask(desk.sender(forged)) == [forged.certificate]
    desk.web.replies["/issuers.p7c"] = genuine
    victim = desk.sender(members[3])
    assert desk.ask(victim)[0] == members[3].certificate
    asked = len(desk.web.asked)
    assert desk.ask(victim)[0] == members[3].certificate
    assert len(desk.web.asked) == asked, "and that is kept for the next message"


def test_what_is_kept_is_offered_when_the_server_is_gone(desk: Desk, members: list[CA]) -> None:
    """Nothing kept shows who made this one; a search may still find a way, so what there is is handed out."""
    desk.ask(desk.sender(members[0]))
    del desk.web.replies["/issuers.p7c"]
    unknown = CA(Identity(members[5].identity.certificate, rsa_key(77)))
    assert desk.ask(desk.sender(unknown))[0] == members[5].certificate


def test_the_one_that_made_the_certificate_comes_before_its_namesakes(web: Web) -> None:
    namesakes = [CA.root("Twin", 100 + n % 4) for n in range(4)]
    desk = Desk(web, namesakes)
    assert desk.ask(desk.sender(namesakes[2]))[0].public_key_der == namesakes[2].certificate.public_key_der


def test_an_issuer_that_signs_with_pss_is_kept_as_well(web: Web) -> None:
    authority = CA.root("PSS CA", 79)
    desk = Desk(web, [authority])
    plain = authority.issue(extra=[(issuers_at(desk.url), False)])
    whole = asn1_x509.Certificate.load(plain.certificate.public_bytes(Encoding.DER))
    digest = {"algorithm": "sha256"}
    algorithm = asn1_algos.SignedDigestAlgorithm(
        {
            "algorithm": "rsassa_pss",
            "parameters": {
                "hash_algorithm": digest,
                "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": digest},
                "salt_length": 32,
            },
        }
    )
    whole["tbs_certificate"]["signature"] = algorithm
    whole["signature_algorithm"] = algorithm
    key = authority.identity.key
    assert isinstance(key, rsa.RSAPrivateKey)
    body = whole["tbs_certificate"].dump(force=True)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    whole["signature_value"] = key.sign(body, pss, hashes.SHA256())
    certificate = Certificate(whole.dump(force=True))
    for _ in range(2):
        assert desk.ask(certificate) == [authority.certificate]
    assert len(web.asked) == 1
