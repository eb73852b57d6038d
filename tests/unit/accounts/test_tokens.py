"""Access tokens: which speak for somebody (RFC 9068, RFC 8725), where keys come from, what it costs to be wrong."""

from __future__ import annotations

import asyncio
import hmac
import json
import ssl
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from gateway.accounts import jwks
from gateway.accounts.jwks import FetchedKeys, FileKeys, fetch, read_keys
from gateway.accounts.token_judge import TokenRefusedError
from gateway.accounts.tokens import MAX_TOKEN_BYTES, TokenVerifier, token_verifier
from gateway.core.errors import ConfigurationError, KeyUnavailableError
from gateway.settings import OAuthSettings, from_document
from tests.support.pki import ec_key, rsa_key
from tests.support.store_samples import open_store
from tests.support.tokens import AUDIENCE, ISSUER, claims, forged, key_of, key_set, public_jwk, token
from tests.support.web_sites import redirect, site_identity, web_site
from tests.unit.accounts.test_app_passwords import NURSE, PASSWORD, PEER, Office

SETTINGS = OAuthSettings(issuer=ISSUER, audience=AUDIENCE)


class Keys:
    """A source that a test fills."""

    def __init__(self, document: bytes) -> None:
        self.found = read_keys(document)
        self.wanted: list[str] = []

    async def keys(self, *, wanted: str = "") -> tuple[jwks.PublicKey, ...]:
        self.wanted.append(wanted)
        return self.found


def verifier(settings: OAuthSettings = SETTINGS, document: bytes | None = None) -> TokenVerifier:
    return TokenVerifier(settings, Keys(document or key_set()))


async def reason(given: str, judge: TokenVerifier | None = None) -> str:
    with pytest.raises(TokenRefusedError) as caught:
        await (judge or verifier()).login_of(given)
    assert not given or given not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_good_token_speaks_for_its_login(algorithm: str) -> None:
    document = key_set(public_jwk(key_of(algorithm), algorithm))
    assert await verifier(document=document).login_of(token(NURSE, algorithm)) == NURSE


async def test_what_issuers_do_differently_is_taken() -> None:
    judge = verifier()
    for kind in ("JWT", "jwt", "application/at+jwt", None):
        assert await judge.login_of(token(NURSE, header={"typ": kind})) == NURSE
    assert await judge.login_of(token(NURSE, aud=["other", AUDIENCE], email_verified=True)) == NURSE
    assert await judge.login_of(token(NURSE, exp=int(time.time()) - 30)) == NURSE, "within the skew"
    one = verifier(document=key_set(public_jwk(key_of("RS256"), "RS256")))
    assert await one.login_of(token(NURSE, header={"kid": None})) == NURSE, "the only key that fits"
    by_name = verifier(replace(SETTINGS, login_claim="preferred_username"))
    assert await by_name.login_of(token("x", preferred_username="nurse")) == "nurse"


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("expired", {"exp": int(time.time()) - 120}),
        ("not_yet", {"nbf": int(time.time()) + 86_400}),
        ("not_yet", {"iat": int(time.time()) + 86_400}),
        ("audience", {"aud": "another-service"}),
        ("audience", {"aud": ["a", "b"]}),
        ("issuer", {"iss": ISSUER + "/"}),
        ("issuer", {"iss": ISSUER[:-1]}),
        ("claims", {"exp": None}),
        ("claims", {"iss": None}),
        ("claims", {"aud": None}),
        ("no_login", {"email": None}),
        ("no_login", {"email": "  "}),
        ("no_login", {"email": [NURSE]}),
        ("email_not_verified", {"email_verified": False}),
        ("type", {"header": {"typ": "logout+jwt"}}),
        ("no_key", {"header": {"kid": "another"}}),
        ("header", {"header": {"jku": "https://evil.example/keys"}}),
        ("header", {"header": {"x5u": "https://evil.example/chain"}}),
        ("header", {"header": {"jwk": {"kty": "RSA"}}}),
        ("header", {"header": {"x5c": ["MII"]}}),
        ("malformed", {"header": {"crit": ["exp"], "exp": 1}}),
        ("signature", {"key": rsa_key(42)}),
    ],
)
async def test_a_token_that_is_wrong_in_one_thing_speaks_for_nobody(why: str, changes: dict[str, Any]) -> None:
    assert await reason(token(NURSE, **changes)) == why


async def test_nobody_makes_a_token_without_the_private_key() -> None:
    good, body = {"typ": "at+jwt", "kid": "RS256"}, claims(NURSE)
    for name in ("none", "None", "nOnE", "HS256", "HS512", "RS1", "", 7, None):
        assert await reason(forged({**good, "alg": name}, body)) in {"algorithm", "malformed"}
    # The oldest trick: the public key as a shared secret.
    public = (
        key_of("RS256")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    unsigned = forged({**good, "alg": "HS256"}, body).rsplit(".", 1)[0]
    mac = hmac.digest(public, unsigned.encode(), "sha256")
    assert await reason(unsigned + "." + forged({}, {}, mac).rsplit(".", 1)[1]) == "algorithm"
    # A shared secret that somebody put into the key set is no key.
    assert read_keys(json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "RS256"}]}).encode()) == ()
    # A key of one kind under an algorithm of another.
    assert await reason(token(NURSE, "ES256", header={"kid": "RS256"})) == "no_key"
    # A good signature over other claims.
    head, _, signature = token(NURSE).split(".")
    assert await reason(f"{head}.{forged({}, claims('doctor')).split('.')[1]}.{signature}") == "signature"


async def test_only_the_algorithms_of_the_settings_are_taken() -> None:
    judge = verifier(replace(SETTINGS, algorithms=("ES256",)))
    assert await reason(token(NURSE), judge) == "algorithm"
    assert await judge.login_of(token(NURSE, "ES256")) == NURSE


@pytest.mark.parametrize(
    "given",
    ["", ".", "..", "a.b.c", "x" * 100, "é", "a.b.c.d.e", "A" * (MAX_TOKEN_BYTES + 1), "\0", "[]", "e30.e30.e30",
     forged({"alg": "RS256", "kid": ["RS256"]}, {}), "W10.e30.e30", "[" * 9000],
)  # fmt: skip
async def test_what_is_no_token_is_refused_without_a_fault(given: str) -> None:
    assert await reason(given) in {"malformed", "algorithm", "type"}


async def test_two_keys_that_fit_are_none() -> None:
    document = key_set(public_jwk(rsa_key(41), "a"), public_jwk(rsa_key(42), "b"))
    assert await reason(token(NURSE, header={"kid": None}), verifier(document=document)) == "no_key"
    doubled = key_set(public_jwk(rsa_key(41), "RS256"), public_jwk(rsa_key(42), "RS256"))
    assert await reason(token(NURSE), verifier(document=doubled)) == "no_key"


def test_keys_that_must_not_sign_tokens_are_passed_over() -> None:
    good = public_jwk(rsa_key(41), "good")
    weak = public_jwk(rsa_key(43, 1024), "weak")
    others: list[Any] = [
        {**good, "use": "enc"}, {**good, "key_ops": ["encrypt"]}, {**good, "alg": "RS512"}, {**good, "n": "!"},
        {**public_jwk(ec_key(41), "p"), "crv": "P-384"}, {"kty": "EC"}, {}, 7, None, weak, {**good, "key_ops": 7},
    ]  # fmt: skip
    assert [key.kid for key in read_keys(json.dumps({"keys": [*others, good]}).encode())] == ["good"]
    for document in (b"", b"[]", b"{}", b'{"keys": {}}', b"\xff"):
        with pytest.raises(ValueError):
            read_keys(document)


# --- keys in a file ---


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(public_jwk(rsa_key(41), "RS256")))
    judge = token_verifier(replace(SETTINGS, jwks_file=path))
    assert await judge.login_of(token(NURSE)) == NURSE
    path.write_bytes(key_set(public_jwk(rsa_key(42), "RS256", note="another")))
    assert await reason(token(NURSE), judge) == "signature"
    assert await judge.login_of(token(NURSE, key=rsa_key(42))) == NURSE
    path.write_bytes(b"half a fi")
    assert await judge.login_of(token(NURSE, key=rsa_key(42))) == NURSE, "the last good one goes on"
    path.unlink()
    assert await judge.login_of(token(NURSE, key=rsa_key(42))) == NURSE
    path.write_bytes(key_set(public_jwk(rsa_key(41), "RS256", note="back again")))
    assert await judge.login_of(token(NURSE)) == NURSE


def test_a_file_that_cannot_be_used_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    for content in (None, b"", b"not json", key_set({"kty": "oct", "k": "c2VjcmV0"}), b" " * (jwks.MAX_BYTES + 1)):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"oauth\.jwks_file"):
            FileKeys(path)


# --- keys behind a URL ---


async def test_keys_are_fetched_once_and_again_for_one_that_is_not_known(tmp_path: Path) -> None:
    identity, now = site_identity(), [1_000.0]
    ca = tmp_path / "ca.pem"
    ca.write_bytes(identity.certificate_pem)
    with web_site(identity, tmp_path) as site:
        site.answers["/keys"] = key_set(public_jwk(rsa_key(41), "one"))
        source = FetchedKeys(site.url("/keys"), ca, 3_600, monotonic=lambda: now[0])
        found = await asyncio.gather(*(source.keys(wanted="one") for _ in range(10)))
        assert [[key.kid for key in keys] for keys in found] == [["one"]] * 10
        assert len(site.asked) == 1
        site.answers["/keys"] = key_set(public_jwk(rsa_key(41), "one"), public_jwk(rsa_key(42), "two"))
        for _ in range(20):
            assert len(await source.keys(wanted="two")) == 1
        assert len(site.asked) == 1, "made-up tokens do not make the gateway ask"
        now[0] += jwks.RETRY_SECONDS
        assert len(await source.keys(wanted="two")) == 2
        now[0] += 3_599
        assert len(await source.keys(wanted="two")) == 2
        assert len(site.asked) == 2
        now[0] += 1
        site.answers["/keys"] = b"nonsense"
        assert len(await source.keys(wanted="two")) == 2, "the last good ones go on"
        assert len(site.asked) == 3
        now[0] += jwks.KEEP_SECONDS
        with pytest.raises(KeyUnavailableError):
            await source.keys(wanted="two")


async def test_only_whom_the_authorities_vouch_for_is_believed(tmp_path: Path) -> None:
    identity = site_identity()
    other = tmp_path / "other.pem"
    other.write_bytes(site_identity(91).certificate_pem)
    with web_site(identity, tmp_path) as site:
        site.answers["/keys"] = key_set()
        for ca in (other, None):
            with pytest.raises(KeyUnavailableError):
                await FetchedKeys(site.url("/keys"), ca, 3_600).keys()
        assert site.asked == []
    with pytest.raises(ConfigurationError, match=r"oauth\.ca_file"):
        FetchedKeys("https://login.example/keys", tmp_path / "none.pem", 60)


def test_an_answer_has_bounds(tmp_path: Path) -> None:
    identity = site_identity()

    def drips(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(100):
            request.wfile.write(b" ")
            request.wfile.flush()
            time.sleep(0.05)

    with web_site(identity, tmp_path) as site:
        site.answers |= {
            "/large": b" " * (jwks.MAX_BYTES + 1),
            "/elsewhere": redirect(site.url("/keys")),
            "/drips": drips,
            "/keys": key_set(),
        }
        context = ssl.create_default_context(cadata=identity.certificate_pem.decode())
        assert fetch(site.url("/keys"), context) == key_set()
        with pytest.raises(ValueError, match="too large"):
            fetch(site.url("/large"), context)
        with pytest.raises(ValueError, match="status 302"):
            fetch(site.url("/elsewhere"), context)
        with pytest.raises(ValueError, match="status 404"):
            fetch(site.url("/none"), context)
        begun = time.monotonic()
        with pytest.raises(OSError, match=r"^$|timed out"):
            fetch(site.url("/drips"), context, seconds=0.5)
        assert time.monotonic() - begun < 4


# --- settings ---


def test_half_an_authority_is_a_mistake(tmp_path: Path) -> None:
    good = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "https://login.example/keys"}
    assert from_document({"oauth": good}, tmp_path).oauth.issuer == ISSUER
    assert from_document({}, tmp_path).oauth.issuer == ""
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("oauth.audience", {"audience": ""}),
        ("oauth.issuer", {"issuer": ""}),
        ("jwks_url and oauth.jwks_file", {"jwks_url": ""}),
        ("jwks_url and oauth.jwks_file", {"jwks_file": "keys.json"}),
        ("oauth.jwks_url", {"jwks_url": "http://login.example/keys"}),
        ("oauth.jwks_url", {"jwks_url": "https://user:secret@login.example/keys"}),
        ("oauth.algorithms", {"algorithms": ["HS256"]}),
        ("oauth.algorithms", {"algorithms": ["RS256", "none"]}),
        ("oauth.algorithms", {"algorithms": []}),
        ("oauth.login_claim", {"login_claim": ""}),
        ("oauth.clock_skew_seconds", {"clock_skew_seconds": 601}),
    ]
    for words, change in wrong:
        with pytest.raises(ConfigurationError, match=words):
            from_document({"oauth": good | change}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"accounts\.imap_password"):
        from_document({"accounts": {"imap_password": "none"}}, tmp_path)


# --- logins ---


@pytest.fixture
async def office(tmp_path: Path) -> Any:
    with open_store(tmp_path) as store:
        made = Office.open(store, tmp_path, tokens=verifier())
        await made.accounts.add(NURSE, PASSWORD, [])
        await made.accounts.add("doctor", PASSWORD, [])
        yield made
        made.accounts.close()


async def by_token(office: Office, given: str, hint: str = "", peer: str = PEER) -> str | None:
    account = await office.accounts.authenticate_token(given, hint, peer, "imap")
    return None if account is None else account.login


async def test_a_token_logs_in_and_begins_a_session(office: Office) -> None:
    assert office.accounts.takes_tokens
    assert await by_token(office, token(NURSE.lower())) == NURSE
    assert await by_token(office, token(NURSE), NURSE.upper()) == NURSE
    assert office.hasher.verified == []
    assert {(row.method, row.app_password) for row in await office.operator.sessions()} == {("token", 0)}
    assert [detail[:17] for _, _, detail in await office.events("login.succeeded")] == ['{"method":"token"'] * 2


async def test_failed_tokens_look_alike_count_and_are_audited(office: Office) -> None:
    await office.operator.disable("doctor", "gone")
    wrong = [
        (token(NURSE), "doctor", "other_login"),
        (token(NURSE), "nobody", "other_login"),
        (token(NURSE), "\0", "other_login"),
        (token("nobody"), "", "unknown_login"),
        (token("no\nbody"), NURSE, "unknown_login"),
        (token("doctor"), "", "disabled"),
        (token(NURSE, exp=1), NURSE, "expired"),
        ("rubbish", "", "malformed"),
    ]
    for number, (given, hint, _) in enumerate(wrong):
        assert await by_token(office, given, hint, f"203.0.113.{number}") is None
    events = await office.events("login.failed")
    assert [json.loads(detail)["reason"] for _, _, detail in events] == [why for _, _, why in wrong]
    assert events[-1][0] == "(token)"
    assert not [event for event in events if "rubbish" in str(event)]
    assert office.sessions.count == 0


async def test_guesses_with_tokens_wait_as_those_with_passwords_do(office: Office) -> None:
    for number in range(4):
        assert await by_token(office, f"rubbish {number}", peer="198.51.100.1") is None
    assert office.time.slept[-1] == 8, "one address"
    office.time.slept.clear()
    for number in range(4):
        assert await by_token(office, f"rubbish {number}", NURSE, f"203.0.113.{number}") is None
    assert office.time.slept == [2, 4, 8], "one account"
    office.time.slept.clear()
    assert await office.login("a wrong password", peer="203.0.113.77") is None
    assert office.time.slept == [15], "the count is one, whatever was tried"
    office.time.slept.clear()
    for number in range(3):
        assert await by_token(office, f"rubbish {number}", peer=f"192.0.2.{number + 50}") is None
    assert office.time.slept == [], "those who name nobody do not wait for each other"
    assert await by_token(office, token(NURSE), NURSE, "192.0.2.99") == NURSE, "who has a token does not wait"
    assert office.time.slept == []


async def test_a_crowd_of_tokens_has_one_turn_at_a_time(office: Office) -> None:
    guesses = [by_token(office, f"rubbish {n}", peer="198.51.100.1") for n in range(10)]
    assert await asyncio.gather(*guesses) == [None] * 10
    assert office.time.slept == [2, 4, 8, *[15] * 6]
    assert office.accounts._delay._turns == {}


async def test_without_an_authority_no_token_is_taken(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        office = Office.open(store, tmp_path)
        await office.accounts.add(NURSE, PASSWORD, [])
        assert not office.accounts.takes_tokens
        assert await by_token(office, token(NURSE)) is None
        office.accounts.close()


async def test_keys_that_cannot_be_had_are_not_the_clients_fault(tmp_path: Path) -> None:
    class Away:
        async def keys(self, *, wanted: str = "") -> tuple[jwks.PublicKey, ...]:
            raise KeyUnavailableError("away")

    with open_store(tmp_path) as store:
        office = Office.open(store, tmp_path, tokens=TokenVerifier(SETTINGS, Away()))
        await office.accounts.add(NURSE, PASSWORD, [])
        with pytest.raises(KeyUnavailableError):
            await by_token(office, token(NURSE))
        assert office.accounts._delay.peer_delay(PEER) == 0
        office.accounts.close()


def test_the_library_is_as_strict_as_we_need_it() -> None:
    """Issuers are compared whole since 2.10.1, and ``crit`` is looked at since 2.12."""
    assert tuple(map(int, jwt.__version__.split(".")[:2])) >= (2, 12)
