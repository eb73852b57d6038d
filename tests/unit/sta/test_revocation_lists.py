"""CRLs: what each kind of list proves, and what is recorded of it (AS-55, AS-69, AS-70; RFC 5280 6.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from asn1crypto import crl as asn1_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.core.errors import InputError
from gateway.sta.fetching.fetcher import Fetcher
from gateway.sta.paths.path_building import Path
from gateway.sta.revocation.crls import RevocationList
from gateway.sta.revocation.revocation import RevocationCheck, RevocationSource
from tests.support.pki import Identity, Key, rsa_key
from tests.unit.sta.conftest import Web
from tests.unit.sta.revocation_world import DAY, HOUR, ask, iso, operators
from tests.unit.sta.trust_world import CA, NOW, World, certificate_of, crl_at, name, usage

OFF = Fetcher()
HOLD = x509.ReasonFlags.certificate_hold
LIFTED = x509.ReasonFlags.remove_from_crl
Extensions = list[tuple[x509.ExtensionType, bool]]


def path_of(identity: Identity, *authorities: CA) -> Path:
    return (certificate_of(identity), *(ca.certificate for ca in authorities))


def number(value: int) -> tuple[x509.ExtensionType, bool]:
    return (x509.CRLNumber(value), False)


def delta_to(base: int, value: int) -> Extensions:
    return [number(value), (x509.DeltaCRLIndicator(base), True)]


def freshest(url: str) -> tuple[x509.ExtensionType, bool]:
    location = x509.UniformResourceIdentifier(url)
    return (x509.FreshestCRL([x509.DistributionPoint([location], None, None, None)]), False)


def scope(url: str | None = None, **options: object) -> tuple[x509.ExtensionType, bool]:
    values: dict[str, object] = {
        "full_name": [x509.UniformResourceIdentifier(url)] if url else None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return (x509.IssuingDistributionPoint(**{**values, **options}), True)  # type: ignore[arg-type]


# --- what is recorded ---


@pytest.mark.parametrize("form", [Encoding.DER, Encoding.PEM])
def test_a_fetched_list_is_recorded_with_its_url_its_dates_and_its_bytes(
    world: World, web: Web, form: Encoding
) -> None:
    signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False)])
    der = world.community.crl()
    web.replies["/c.crl"] = x509.load_der_x509_crl(der).public_bytes(form)
    finding = ask(RevocationSource(), path_of(signer, world.community))
    assert (finding.status, finding.data, finding.valid_until) == ("good", (der,), NOW + 6 * DAY)
    told = finding.answer
    assert (told.kind, told.origin, told.status) == ("crl", web.url("/c.crl"), "good")
    assert (told.this_update, told.next_update) == (iso(NOW - DAY), iso(NOW + 6 * DAY))
    assert told.data_sha256 == hashlib.sha256(der).hexdigest()
    assert told.revoked_at == ""


def test_an_operators_list_and_a_messages_list_are_told_apart(world: World) -> None:
    path = path_of(world.signer, world.community)
    der = world.community.crl([world.signer])
    by_operator = ask(operators(der), path, fetcher=OFF)
    assert (by_operator.status, by_operator.answer.origin) == ("revoked", "operator")
    assert by_operator.answer.revoked_at == iso(NOW - 2 * DAY)
    by_message = ask(RevocationSource(), path, own=[der], fetcher=OFF)
    assert (by_message.status, by_message.answer.origin) == ("revoked", "message")


def test_a_revocation_that_lies_ahead_bounds_how_long_the_finding_holds(world: World) -> None:
    der = world.community.crl([world.signer], revoked_at=NOW + HOUR)
    finding = ask(operators(der), path_of(world.signer, world.community), fetcher=OFF)
    assert (finding.status, finding.valid_until) == ("good", NOW + HOUR)
    assert ask(operators(der), path_of(world.signer, world.community), NOW + HOUR, fetcher=OFF).status == "revoked"


def test_nothing_known_is_told_as_such(world: World) -> None:
    finding = ask(RevocationSource(), path_of(world.signer, world.community), fetcher=OFF)
    assert (finding.status, finding.data, finding.valid_until) == ("unknown", (), None)
    assert finding.answer.certificate_sha256 == finding.certificate.sha256
    assert (finding.answer.status, finding.answer.kind, finding.answer.origin) == ("unknown", "", "")
    assert finding.answer.detail == finding.detail == "no CRL at hand"


def test_the_newest_complete_list_in_force_outweighs_older_ones(world: World) -> None:
    """What its issuer no longer says of a certificate is not held against it."""
    path = path_of(world.signer, world.community)
    old = world.community.crl([world.signer], begins=NOW - 2 * DAY, revoked_at=NOW - 3 * DAY)
    new = world.community.crl(begins=NOW - DAY)
    assert ask(operators(old), path, fetcher=OFF).status == "revoked"
    assert ask(operators(old, new), path, fetcher=OFF).status == "good"
    stale = world.community.crl(begins=NOW - DAY, ends=NOW - HOUR)
    assert ask(operators(old, stale), path, fetcher=OFF).status == "revoked", "a list that is out of date does not"


# --- the sender's choice of evidence ---


def test_a_sender_cannot_clear_himself_with_the_last_list_before_his_revocation(world: World, web: Web) -> None:
    """It is in force, signed and genuine; but the distribution point has a newer one."""
    signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False)])
    web.replies["/c.crl"] = world.community.crl([signer], begins=NOW - HOUR, revoked_at=NOW - 2 * HOUR)
    older = world.community.crl(begins=NOW - 3 * DAY)
    path = path_of(signer, world.community)
    assert ask(RevocationSource(), path, own=[older]).status == "revoked"
    del web.replies["/c.crl"]
    finding = ask(RevocationSource(), path, own=[older])
    assert (finding.status, finding.answer.origin) == ("good", "message"), "when nothing else can be had it counts"
    assert finding.valid_until is None, "for this message alone"


# --- the issuer ---


def test_a_list_under_another_name_with_the_same_key_does_not_count(world: World, web: Web) -> None:
    """AS-69: the name must match as well as the key."""
    signer = world.community.issue(extra=[(crl_at(web.url("/c.crl")), False)])
    alias = CA.root("Alias CA", 1)
    assert alias.certificate.public_key_der == world.community.certificate.public_key_der
    for crl in (alias.crl(), alias.crl([signer])):
        web.replies["/c.crl"] = crl
        assert ask(RevocationSource(), path_of(signer, world.community)).status == "unknown"


def test_a_list_whose_two_algorithm_fields_differ_is_not_signed(world: World) -> None:
    genuine = asn1_crl.CertificateList.load(world.community.crl([world.signer]))
    genuine["signature_algorithm"]["algorithm"] = "sha512_rsa"
    broken = genuine.dump(force=True)
    try:
        source = operators(broken)
    except InputError:
        return
    assert ask(source, path_of(world.signer, world.community), fetcher=OFF).status == "unknown"


def test_an_entry_that_is_not_understood_makes_the_list_silent_but_its_entries_count(world: World) -> None:
    """RFC 5280 5.3: it clears nobody; whom it names stays named."""
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

    def crl(revoked: Identity, *, critical: bool) -> bytes:
        entry = x509.RevokedCertificateBuilder().serial_number(revoked.certificate.serial_number)
        entry = entry.revocation_date(NOW - DAY).add_extension(odd, critical=critical)
        builder = x509.CertificateRevocationListBuilder(
            world.community.identity.certificate.subject, NOW - HOUR, NOW + DAY, [], [entry.build()]
        )
        return builder.sign(world.community.identity.key, hashes.SHA256()).public_bytes(Encoding.DER)

    other = world.community.issue(slot=53)
    path = path_of(world.signer, world.community)
    assert ask(operators(crl(other, critical=True)), path, fetcher=OFF).status == "unknown"
    assert ask(operators(crl(other, critical=False)), path, fetcher=OFF).status == "good"
    assert ask(operators(crl(world.signer, critical=True)), path, fetcher=OFF).status == "revoked"


def test_a_critical_extension_of_the_list_that_is_not_understood_likewise(world: World) -> None:
    """X.509 8.5: the certificates in it count as revoked, the others not as good."""
    odd: Extensions = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    path = path_of(world.signer, world.community)
    assert ask(operators(world.community.crl(extra=odd)), path, fetcher=OFF).status == "unknown"
    assert ask(operators(world.community.crl([world.signer], extra=odd)), path, fetcher=OFF).status == "revoked"


def _signed_again(der: bytes, key: Key, algorithm: str, digest: hashes.HashAlgorithm, **changes: None) -> bytes:
    """The list with another algorithm, or without a field."""
    whole = asn1_crl.CertificateList.load(der)
    for field, value in changes.items():
        whole["tbs_cert_list"][field] = value
    for place in (whole["tbs_cert_list"]["signature"], whole["signature_algorithm"]):
        place["algorithm"] = algorithm
    assert isinstance(key, rsa.RSAPrivateKey)
    whole["signature"] = key.sign(whole["tbs_cert_list"].dump(force=True), padding.PKCS1v15(), digest)
    return bytes(whole.dump(force=True))


def test_a_list_signed_with_sha1_clears_nobody(world: World) -> None:
    """AS-32. It still revokes: there is nothing to gain by forging one's own revocation."""
    path, key = path_of(world.signer, world.community), world.community.identity.key
    for extra in ([], [scope(only_contains_user_certs=True)]):
        weak = _signed_again(world.community.crl(extra=extra), key, "sha1_rsa", hashes.SHA1())  # noqa: S303
        assert ask(operators(weak), path, fetcher=OFF).status == "unknown"
        strong = _signed_again(world.community.crl(extra=extra), key, "sha384_rsa", hashes.SHA384())
        assert ask(operators(strong), path, fetcher=OFF).status == "good"
        weak = _signed_again(world.community.crl([world.signer], extra=extra), key, "sha1_rsa", hashes.SHA1())  # noqa: S303
        assert ask(operators(weak), path, fetcher=OFF).status == "revoked"


def test_a_list_without_next_update_clears_nobody(world: World) -> None:
    path, key = path_of(world.signer, world.community), world.community.identity.key
    recent = world.community.crl(begins=NOW - timedelta(minutes=5))
    endless = _signed_again(recent, key, "sha256_rsa", hashes.SHA256(), next_update=None)
    assert RevocationList(endless).next_update is None
    assert ask(operators(endless), path, fetcher=OFF).status == "unknown"


# --- delta lists ---


class Deltas:
    """A base list, number 5, at ``/base`` that names its delta list at ``/delta``."""

    def __init__(self, world: World, web: Web) -> None:
        self.authority = world.community
        self.web = web
        self.signer = world.community.issue(extra=[(crl_at(web.url("/base")), False)])
        self.base_extensions: Extensions = [number(5), freshest(web.url("/delta"))]
        self.base()

    def base(self, revoked: Sequence[Identity] = (), **options: object) -> None:
        self.web.replies["/base"] = self.authority.crl(revoked, extra=self.base_extensions, **options)  # type: ignore[arg-type]

    def delta(self, revoked: Sequence[Identity] = (), base: int = 5, value: int = 7, **options: object) -> None:
        values: dict[str, object] = {"begins": NOW - HOUR, "ends": NOW + HOUR, "revoked_at": NOW - 2 * HOUR}
        self.web.replies["/delta"] = self.authority.crl(
            revoked,
            extra=delta_to(base, value),
            **{**values, **options},  # type: ignore[arg-type]
        )

    def ask(self) -> tuple[str, str]:
        finding = ask(RevocationSource(), path_of(self.signer, self.authority))
        self.finding = finding
        return finding.status, finding.answer.origin.rpartition("/")[2]


@pytest.fixture
def deltas(world: World, web: Web) -> Deltas:
    return Deltas(world, web)


def test_the_delta_list_of_a_base_list_is_fetched_and_counts(deltas: Deltas) -> None:
    deltas.delta([deltas.signer])
    assert deltas.ask() == ("revoked", "delta")
    deltas.delta()
    assert deltas.ask() == ("good", "base")
    assert deltas.finding.data == (deltas.web.replies["/base"], deltas.web.replies["/delta"])
    assert deltas.finding.valid_until == NOW + HOUR, "the nextUpdate that comes first"


def test_the_certificate_may_name_the_delta_list(world: World, web: Web, deltas: Deltas) -> None:
    deltas.signer = world.community.issue(extra=[(crl_at(web.url("/base")), False), freshest(web.url("/delta"))])
    deltas.base_extensions = [number(5)]
    deltas.base()
    deltas.delta([deltas.signer])
    assert deltas.ask() == ("revoked", "delta")


def test_a_hold_is_lifted_and_set_by_the_delta_list(deltas: Deltas) -> None:
    deltas.base([deltas.signer], reason=HOLD)
    deltas.delta()
    assert deltas.ask() == ("revoked", "base")
    deltas.delta([deltas.signer], reason=LIFTED)
    assert deltas.ask() == ("good", "base")
    deltas.base()
    deltas.delta([deltas.signer], reason=HOLD)
    assert deltas.ask() == ("revoked", "delta")
    deltas.delta([deltas.signer], reason=HOLD, begins=NOW - 3 * HOUR, ends=NOW - HOUR)
    assert deltas.ask()[0] == "good", "a hold in a delta list that is out of date holds no more"


def test_without_its_delta_list_a_base_list_is_relied_on_for_an_hour(deltas: Deltas) -> None:
    assert deltas.ask() == ("good", "base")
    assert "without its delta list" in deltas.finding.detail
    assert deltas.finding.valid_until == NOW + HOUR
    deltas.base([deltas.signer])
    assert deltas.ask() == ("revoked", "base"), "whom the base list names is revoked whatever became of the delta"


def test_a_delta_list_to_another_base_is_not_combined(deltas: Deltas) -> None:
    """RFC 5280 5.2.4: what happened between the two bases is in neither."""
    deltas.base([deltas.signer], reason=HOLD)
    deltas.delta([deltas.signer], base=6, reason=LIFTED)
    assert deltas.ask() == ("revoked", "base")
    deltas.delta([deltas.signer], base=4, value=5, reason=LIFTED)
    assert deltas.ask() == ("revoked", "base"), "nor one that is no newer than the base"
    deltas.delta([deltas.signer], base=4, value=6, reason=LIFTED)
    assert deltas.ask() == ("good", "base")


def test_a_delta_list_of_another_scope_is_not_combined(deltas: Deltas) -> None:
    """One for users alone does not go with a list of everybody's; the number alone would let it pass."""
    lifting = [*delta_to(5, 7), scope(only_contains_user_certs=True)]
    deltas.base([deltas.signer], reason=HOLD)
    deltas.web.replies["/delta"] = deltas.authority.crl([deltas.signer], reason=LIFTED, extra=lifting)
    assert deltas.ask() == ("revoked", "base")
    deltas.base_extensions.append(scope(only_contains_user_certs=True))
    deltas.base([deltas.signer], reason=HOLD)
    assert deltas.ask() == ("good", "base")


def test_a_forged_delta_list_lifts_and_revokes_nothing(deltas: Deltas) -> None:
    deltas.delta([deltas.signer], key=rsa_key(66))
    assert deltas.ask() == ("good", "base")
    deltas.base([deltas.signer], reason=HOLD)
    deltas.delta([deltas.signer], reason=LIFTED, key=rsa_key(66))
    assert deltas.ask() == ("revoked", "base")


def test_a_delta_list_alone_clears_nobody_and_still_revokes(world: World) -> None:
    path = path_of(world.signer, world.community)
    silent = world.community.crl(extra=delta_to(1, 2))
    assert ask(operators(silent), path, fetcher=OFF).status == "unknown"
    naming = world.community.crl([world.signer], extra=delta_to(1, 2))
    assert ask(operators(naming), path, fetcher=OFF).status == "revoked"


# --- partitioned lists ---


def test_a_partition_counts_for_the_certificates_of_its_distribution_point(world: World, web: Web) -> None:
    here, there = web.url("/a.crl"), web.url("/b.crl")
    signer = world.community.issue(extra=[(crl_at(here), False)])
    path = path_of(signer, world.community)
    web.replies["/a.crl"] = world.community.crl(extra=[scope(here)])
    assert ask(RevocationSource(), path).status == "good"
    web.replies["/a.crl"] = world.community.crl(extra=[scope(there)])
    assert ask(RevocationSource(), path).status == "unknown", "another partition put in its place"


def test_a_partition_is_for_the_kind_of_certificate_that_it_says(world: World) -> None:
    below = world.community.below("Below", 54)
    leaf, authority = path_of(world.signer, world.community), path_of(below.identity, world.community)
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"only_contains_user_certs": True}, "good", "unknown"),
        ({"only_contains_ca_certs": True}, "unknown", "good"),
        ({"only_contains_attribute_certs": True}, "unknown", "unknown"),
    ]
    for options, for_leaf, for_authority in cases:
        source = operators(world.community.crl(extra=[scope(**options)]))
        assert ask(source, leaf, fetcher=OFF).status == for_leaf, options
        assert ask(source, authority, fetcher=OFF).status == for_authority, options


def test_a_large_partition_is_read_as_fast_as_a_complete_list(world: World, web: Web) -> None:
    """Beyond the size that the library is trusted with."""
    signer = world.community.issue(extra=[(crl_at(web.url("/big.crl")), False)])
    entries = [
        x509.RevokedCertificateBuilder().serial_number(10**17 + n).revocation_date(NOW - DAY).build()
        for n in range(50_000)
    ]
    extension, critical = scope(web.url("/big.crl"))
    builder = x509.CertificateRevocationListBuilder(
        world.community.identity.certificate.subject, NOW - DAY, NOW + DAY, [], entries
    ).add_extension(extension, critical)
    der = builder.sign(world.community.identity.key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert len(der) > 1024 * 1024
    web.replies["/big.crl"] = der
    assert ask(RevocationSource(), path_of(signer, world.community)).status == "good"


def test_lists_of_some_reasons_must_cover_all_of_them(world: World) -> None:
    """The library decides, and the finding names every list that it needed."""
    url = "http://pki.example/all"
    signer = world.community.issue(extra=[(crl_at(url), False)])
    some = frozenset({x509.ReasonFlags.key_compromise, x509.ReasonFlags.ca_compromise})
    others = frozenset(x509.ReasonFlags) - some - {x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl}
    first = world.community.crl(extra=[scope(url, only_some_reasons=some)], ends=NOW + 2 * DAY)
    second = world.community.crl(extra=[scope(url, only_some_reasons=others)], ends=NOW + 3 * DAY)
    unrelated = world.community.crl(extra=[scope("http://pki.example/other")])
    path = path_of(signer, world.community)
    assert ask(operators(first), path, fetcher=OFF).status == "unknown"
    finding = ask(operators(unrelated, first, second), path, fetcher=OFF)
    assert finding.status == "good"
    assert set(finding.data) == {first, second}
    assert finding.valid_until == NOW + 2 * DAY
    named = world.community.crl([signer], extra=[scope(url, only_some_reasons=some)])
    revoked = ask(operators(second, named), path, fetcher=OFF)
    assert (revoked.status, revoked.data[0]) == ("revoked", named)


# --- indirect lists ---


class Indirect:
    """A list whose issuer is another: its certificate is in the message, and the certificate checked names it."""

    def __init__(self, world: World, web: Web) -> None:
        self.authority = world.community
        self.web = web
        self.lister = CA(
            world.community.issue(
                [], slot=78, subject="CRL issuer", key_usage=usage(crl_sign=True), purposes=[], is_ca=False
            )
        )
        point = x509.DistributionPoint(
            [x509.UniformResourceIdentifier(web.url("/i.crl"))], None, None, [x509.DirectoryName(name("CRL issuer"))]
        )
        self.signer = world.community.issue(extra=[(x509.CRLDistributionPoints([point]), False)])
        self.source = operators(world.community.crl())

    def crl(self, *serials: int, key: CA | None = None) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name("CRL issuer"))
            .last_update(NOW - DAY)
            .next_update(NOW + DAY)
            .add_extension(scope(self.web.url("/i.crl"), indirect_crl=True)[0], critical=True)
        )
        for serial in serials:
            of = x509.CertificateIssuer([x509.DirectoryName(self.authority.identity.certificate.subject)])
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - 2 * DAY)
            builder = builder.add_revoked_certificate(entry.add_extension(of, critical=True).build())
        by = (key or self.lister).identity.key
        return builder.sign(by, hashes.SHA256()).public_bytes(Encoding.DER)


def test_an_indirect_list_is_judged_attributed_and_kept(world: World, web: Web) -> None:
    indirect = Indirect(world, web)
    path = path_of(indirect.signer, world.community)
    source = RevocationSource()
    others = [certificate_of(indirect.lister.identity)]
    der = web.replies["/i.crl"] = indirect.crl(4711)
    assert ask(source, path).status == "unknown", "the list's issuer is not at hand"
    finding = ask(source, path, others=others, hard=False)
    assert finding.status == "good", finding.detail
    assert (finding.data[0], finding.answer.origin) == (der, web.url("/i.crl"))
    assert finding.valid_until == NOW + DAY
    asked = len(web.asked)
    assert ask(source, path, others=others, hard=False).status == "good"
    assert len(web.asked) == asked, "once the library has relied on it, it is kept"


def test_an_indirect_list_revokes_whom_it_names_of_the_right_issuer(world: World, web: Web) -> None:
    indirect = Indirect(world, web)
    serial = indirect.signer.certificate.serial_number
    others = [certificate_of(indirect.lister.identity)]
    der = web.replies["/i.crl"] = indirect.crl(4711, serial)
    finding = ask(RevocationSource(), path_of(indirect.signer, world.community), others=others, hard=False)
    assert (finding.status, finding.data[0]) == ("revoked", der)
    assert finding.answer.revoked_at == iso(NOW - 2 * DAY)
    # The same list says nothing of a certificate with that serial number of the list's own issuer's.
    assert RevocationList(der).is_indirect


def test_an_indirect_list_signed_with_sha1_clears_nobody(world: World, web: Web) -> None:
    """The library does not ask the algorithm policy about lists (AS-32)."""
    indirect = Indirect(world, web)
    others = [certificate_of(indirect.lister.identity)]
    for algorithm, digest, status in (("sha1_rsa", hashes.SHA1(), "unknown"), ("sha512_rsa", hashes.SHA512(), "good")):  # noqa: S303
        web.replies["/i.crl"] = _signed_again(indirect.crl(), indirect.lister.identity.key, algorithm, digest)
        finding = ask(RevocationSource(), path_of(indirect.signer, world.community), others=others, hard=False)
        assert finding.status == status


def test_a_forged_indirect_list_proves_nothing(world: World, web: Web) -> None:
    indirect = Indirect(world, web)
    others = [certificate_of(indirect.lister.identity)]
    serial = indirect.signer.certificate.serial_number
    for crl in (indirect.crl(key=world.stranger), indirect.crl(serial, key=world.stranger)):
        web.replies["/i.crl"] = crl
        finding = ask(RevocationSource(), path_of(indirect.signer, world.community), others=others, hard=False)
        assert finding.status == "unknown"


@pytest.mark.parametrize(
    "extra", [[], [scope(only_contains_user_certs=True)], delta_to(1, 2)], ids=["plain", "scoped", "delta"]
)
def test_every_single_byte_of_a_list_counts(world: World, extra: Extensions) -> None:
    """Whatever byte is changed, a certificate in it does not become good by it, and nothing but our error is raised."""
    der = world.community.crl([world.signer], reason=HOLD, extra=extra)
    path = path_of(world.signer, world.community)
    for position in range(0, len(der), 3):
        for bit in (0x01, 0x80):
            broken = bytearray(der)
            broken[position] ^= bit
            try:
                source = operators(bytes(broken))
            except InputError:
                continue
            assert ask(source, path, fetcher=OFF).status != "good", position


# --- the whole chain ---


def test_each_certificate_of_the_chain_has_its_own_answer(world: World, web: Web) -> None:
    below = world.community.below("Below", 54)
    signer = below.issue(extra=[(crl_at(web.url("/below.crl")), False)])
    web.replies["/below.crl"] = below.crl()
    source = operators(world.community.crl())
    check = RevocationCheck(source, Fetcher.within(["127.0.0.0/8"]).session(), NOW, hard=True)
    upper, lower = check.check(path_of(signer, below, world.community))
    assert (upper.certificate, upper.answer.origin) == (below.certificate, "operator")
    assert (lower.certificate, lower.answer.origin) == (certificate_of(signer), web.url("/below.crl"))
    revoked = RevocationCheck(operators(world.community.crl([below.identity])), Fetcher().session(), NOW)
    assert [f.status for f in revoked.check(path_of(signer, below, world.community))] == ["revoked"]


def test_a_list_made_a_moment_after_the_message_counts_and_one_of_tomorrow_does_not(world: World) -> None:
    path = path_of(world.signer, world.community)
    for begins, status in ((timedelta(minutes=4), "good"), (timedelta(minutes=6), "unknown")):
        assert ask(operators(world.community.crl(begins=NOW + begins)), path, fetcher=OFF).status == status
