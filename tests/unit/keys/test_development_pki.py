"""The development PKI (AS-5..9, AS-12)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from gateway.core.errors import InputError
from gateway.keys.development_pki import BACKDATE, DevelopmentCA, Issued

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> DevelopmentCA:
    return DevelopmentCA.create("Test CA", now=NOW)


def leaf(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def root(authority: DevelopmentCA) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.certificate_pem)


def test_an_address_certificate_is_as_direct_wants_it(authority: DevelopmentCA) -> None:
    certificate = leaf(authority.issue_address("Nurse@Clinic.example.org"))
    certificate.verify_directly_issued_by(root(authority))
    extensions = certificate.extensions
    san = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [x509.RFC822Name("nurse@clinic.example.org")]
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment
    assert not usage.value.key_cert_sign
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.EMAIL_PROTECTION
    ]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    issuer = root(authority).extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == issuer.digest
    assert own.digest != issuer.digest
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    assert certificate.not_valid_before_utc == NOW - BACKDATE
    assert certificate.not_valid_after_utc > NOW


def test_a_domain_certificate_names_the_domain_alone(authority: DevelopmentCA) -> None:
    certificate = leaf(authority.issue_domain("Clinic.example.org", key_type="p256"))
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(san) == [x509.DNSName("clinic.example.org")]
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_agreement
    assert not usage.key_encipherment


def test_tls_certificates_satisfy_an_independent_verifier() -> None:
    authority = DevelopmentCA.create("TLS CA", now=NOW)
    issued = authority.issue_tls(["localhost", "mail.clinic.example.org", "127.0.0.1", "::1"])
    builder = PolicyBuilder().store(Store([root(authority)])).time(NOW)
    for name in (x509.DNSName("mail.clinic.example.org"), x509.IPAddress(ip_address("::1"))):
        chain = builder.build_server_verifier(name).verify(leaf(issued), [])
        assert chain == [leaf(issued), root(authority)]


def test_serials_are_random(authority: DevelopmentCA) -> None:
    assert authority.issue_domain("a.example").serial != authority.issue_domain("a.example").serial


def test_a_ca_can_be_written_and_read(authority: DevelopmentCA) -> None:
    again = DevelopmentCA.load(authority.certificate_pem, authority.key_pem, now=NOW + timedelta(days=400))
    certificate = leaf(again.issue_domain("clinic.example.org"))
    certificate.verify_directly_issued_by(root(authority))
    assert certificate.not_valid_before_utc == NOW + timedelta(days=400) - BACKDATE
    other = DevelopmentCA.create("Other", now=NOW)
    with pytest.raises(InputError):
        DevelopmentCA.load(authority.certificate_pem, other.key_pem, now=NOW)
    with pytest.raises(InputError):
        DevelopmentCA.load(b"rubbish", other.key_pem, now=NOW)


def test_intermediate(authority: DevelopmentCA) -> None:
    intermediate = authority.intermediate("Issuing CA", aia_url="http://pki.example/ca.cer")
    root(intermediate).verify_directly_issued_by(root(authority))
    leaf(intermediate.issue_domain("clinic.example.org")).verify_directly_issued_by(root(intermediate))
    constraints = root(intermediate).extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca
    assert constraints.path_length == 0


def test_options_for_tests(authority: DevelopmentCA) -> None:
    certificate = leaf(
        authority.issue_address(
            "nurse@clinic.example.org",
            not_before=NOW - timedelta(days=9),
            not_after=NOW - timedelta(days=1),
            key_usage=("key_encipherment",),
            extended_key_usage=(ExtendedKeyUsageOID.CODE_SIGNING,),
            san=(x509.DNSName("*.example.org"),),
            crl_url="http://pki.example/ca.crl",
            aia_url="http://pki.example/ca.cer",
            digest="sha512",
        )
    )
    assert certificate.not_valid_after_utc < NOW
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    assert certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == "sha512"
    bare = leaf(authority.issue_domain("a.example", san=(), key_usage=(), extended_key_usage=()))
    for kind in (x509.SubjectAlternativeName, x509.KeyUsage, x509.ExtendedKeyUsage):
        with pytest.raises(x509.ExtensionNotFound):
            bare.extensions.get_extension_for_class(kind)


def test_a_key_may_be_given(authority: DevelopmentCA) -> None:
    first = authority.issue_domain("a.example")
    second = authority.issue_domain("a.example", key_pem=first.key_pem)
    assert leaf(first).public_key() == leaf(second).public_key()
    assert second.key_pem == first.key_pem


def test_revocation_list(authority: DevelopmentCA) -> None:
    issued = authority.issue_domain("a.example")
    crl = x509.load_pem_x509_crl(authority.crl([issued.serial], number=7))
    key = root(authority).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert crl.is_signature_valid(key)
    assert crl.get_revoked_certificate_by_serial_number(issued.serial) is not None
    assert crl.get_revoked_certificate_by_serial_number(1) is None
    assert crl.last_update_utc <= NOW
    assert crl.next_update_utc is not None
    assert crl.next_update_utc > NOW
    stale = x509.load_pem_x509_crl(authority.crl(next_update=NOW - timedelta(days=2)))
    assert stale.next_update_utc == NOW - timedelta(days=2)


def test_at_another_time(authority: DevelopmentCA) -> None:
    later = authority.at(NOW + timedelta(days=1))
    assert leaf(later.issue_domain("a.example")).not_valid_before_utc == NOW + timedelta(days=1) - BACKDATE


def test_every_signature_algorithm_of_a_ca() -> None:
    for key_type in ("rsa2048", "p256", "p384", "ed25519"):
        authority = DevelopmentCA.create("CA", now=NOW, key_type=key_type)
        leaf(authority.issue_domain("a.example", key_type=key_type)).verify_directly_issued_by(root(authority))
        assert x509.load_pem_x509_crl(authority.crl()).issuer == root(authority).subject


def test_wrong_names_are_refused(authority: DevelopmentCA) -> None:
    with pytest.raises(InputError):
        authority.issue_address("clinic.example.org")
    for domain in ("*.example.org", "nurse@clinic.example.org"):
        with pytest.raises(InputError):
            authority.issue_domain(domain)
    with pytest.raises(InputError):
        authority.issue_tls([])


def test_long_names_fit_the_subject(authority: DevelopmentCA) -> None:
    address = "n" * 64 + "@" + "d" * 60 + ".example.org"
    certificate = leaf(authority.issue_address(address))
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.RFC822Name) == [address]


def test_keys_are_pkcs8(authority: DevelopmentCA) -> None:
    for pem in (authority.key_pem, authority.issue_domain("a.example").key_pem):
        assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
        assert serialization.load_pem_private_key(pem, None)
