"""Finds the identities of a token: which private key goes with which certificate.

Two ways, which may be mixed:

* A certificate object on the token whose CKA_ID is that of a private key: nothing else is needed.
* ``NAME.cert.pem`` in the folder of identities, with ``NAME.pkcs11`` beside it. That file has one line, a PKCS#11 URI
  (RFC 7512) with the ``id``, the ``object`` (CKA_LABEL) of the key, or both: ``pkcs11:object=clinic-2026`` or
  ``pkcs11:id=%0a%01``. Further certificates in ``NAME.cert.pem`` are the chain, as beside a key file.

Guarantees: a key is offered only after it has decrypted, or signed, for us what only the key of that certificate can
(a known answer), so a certificate beside the wrong key is found at the start and not by lost mail.

Failure modes: :class:`ConfigurationError` for a reference that cannot be read or whose key is missing, ambiguous or
another one; :class:`KeyUnavailableError` when the token is lost meanwhile. What is doubtful on the token itself, which
may serve others too, is left out with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.core.errors import ConfigurationError, RefusedError
from gateway.keys.certificate_facts import CertificateFacts, read_facts
from gateway.keys.key_files import TokenReference, doubts
from gateway.keys.token_connection import KeyReference, TokenConnection, TokenOperationError
from gateway.keys.token_keys import CURVES, TokenKey, known_answers, oaep_answer
from gateway.keys.token_login import pkcs11_library

_OAEP_ANSWERS = (("sha1", b""), ("sha256", b""), ("sha384", b""), ("sha512", b""), ("sha1", b"label"))


@dataclass(frozen=True, slots=True)
class _PrivateKey:
    """What the token says of a private key."""

    id: bytes
    label: str
    key_type: int
    decrypts: bool
    signs: bool
    modulus: int | None
    """Of an RSA key, as far as the token shows it."""
    always_asks: bool
    """Whether the token wants the PIN again for each operation (CKA_ALWAYS_AUTHENTICATE)."""


@dataclass(frozen=True, slots=True)
class _StoredCertificate:
    id: bytes
    label: str
    der: bytes


def find_identities(
    connection: TokenConnection, references: Sequence[TokenReference]
) -> tuple[tuple[TokenKey, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the keys of the token that have a certificate, warnings, and notes on what the token cannot do.

    Raises:
        ConfigurationError, KeyUnavailableError: see the module's header.
    """
    finder = _Finder(connection)
    for reference in references:
        finder.take_reference(reference)
    finder.take_stored()
    finder.try_oaep()
    return tuple(finder.keys), tuple(finder.warnings), tuple(finder.notes)


def _missing_oaep(plain: Sequence[str], labelled: Sequence[str]) -> str:
    """For instance ``sha256, sha384 or sha512, nor with sha1 together with a label``."""
    parts = [" or ".join(part for part in (", ".join(plain[:-1]), plain[-1]) if part)] if plain else []
    # Without the digest there is nothing to say of the digest with a label.
    parts += [f"{digest} together with a label" for digest in labelled if digest not in plain]
    return ", nor with ".join(parts)


class _Finder:
    """One pass over the objects of a token."""

    def __init__(self, connection: TokenConnection) -> None:
        pkcs11 = pkcs11_library()
        kinds = pkcs11.ObjectClass
        self._connection = connection
        self._private = connection.objects(
            {pkcs11.Attribute.CLASS: kinds.PRIVATE_KEY}, lambda found: [_describe(key) for key in found]
        )
        self._stored = connection.objects(
            {pkcs11.Attribute.CLASS: kinds.CERTIFICATE}, lambda found: [_read_certificate(one) for one in found]
        )
        self.keys: list[TokenKey] = []
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def take_reference(self, reference: TokenReference) -> None:
        """Find the key that a file of the folder names."""
        wanted_id, wanted_label = parse_key_uri(reference.text, self._connection.label, reference.source)
        facts = read_facts(reference.leaf, reference.source)
        matching = [
            key
            for key in self._private
            if key.id == (wanted_id or key.id)
            and key.label == (wanted_label or key.label)
            and key.key_type == _key_type(facts)
        ]
        if len(matching) != 1:
            count = "no private key" if not matching else f"{len(matching)} private keys"
            raise ConfigurationError(
                f"the token {self._connection.label!r} has {count} of the kind that {reference.source} needs with the "
                "id or label in the .pkcs11 file beside it"
            )
        chain = tuple(one.public_bytes(serialization.Encoding.DER) for one in reference.chain)
        key = self._usable(matching[0], facts, chain, reference.source)
        if isinstance(key, str):
            raise ConfigurationError(f"{reference.source}: {key}")
        self._keep(key)

    def take_stored(self) -> None:
        """Pair the certificates on the token with the private keys of the same CKA_ID."""
        for stored in self._stored:
            source = f"certificate {stored.label or stored.id.hex()} on token {self._connection.label}"
            beside = [key for key in self._private if stored.id and key.id == stored.id]
            if not beside:
                continue  # The certificate of an authority, or of somebody else.
            try:
                facts = read_facts(x509.load_der_x509_certificate(stored.der), source)
            except (ConfigurationError, ValueError):
                self.warnings.append(f"{source} cannot be read, or has a key that is not used; it is left out")
                continue
            matching = [key for key in beside if key.key_type == _key_type(facts)]
            key = self._usable(matching[0], facts, (), source) if len(matching) == 1 else "no single key has its CKA_ID"
            if isinstance(key, str):
                self.warnings.append(f"{source} is left out: {key}")
            else:
                self._keep(key)
        spoken_of = {key.reference.id for key in self.keys} | {stored.id for stored in self._stored}
        idle = sum(key.id not in spoken_of for key in self._private)
        if idle:
            self.warnings.append(
                f"{idle} private keys on token {self._connection.label} have no certificate; to use one, put the "
                "certificate on the token with the same CKA_ID, or into NAME.cert.pem with NAME.pkcs11 beside it"
            )

    def try_oaep(self) -> None:
        """Tell the digests of OAEP that the token does not know, by the first RSA key that decrypts (AS-36)."""
        key = next((one for one in self.keys if one.known_answer and _is_rsa(one.facts)), None)
        if key is None or not isinstance(key.facts.public_key, rsa.RSAPublicKey):
            return
        plain: list[str] = []
        labelled: list[str] = []
        for digest, label in _OAEP_ANSWERS:
            answer = oaep_answer(key.facts.public_key, digest, label)
            try:
                right = answer.ask(key) == answer.answer
            except TokenOperationError:
                right = False
            if not right:
                (labelled if label else plain).append(digest)
        if plain or labelled:
            self.notes.append(
                f"token {self._connection.label} does not do RSA-OAEP with {_missing_oaep(plain, labelled)}: messages "
                "that are encrypted so cannot be opened with its keys"
            )

    def _keep(self, key: TokenKey) -> None:
        if all(key.certificate != other.certificate for other in self.keys):
            self.keys.append(key)
            self.warnings += doubts(key.facts, key.source)

    def _usable(
        self, private: _PrivateKey, facts: CertificateFacts, chain: tuple[bytes, ...], source: str
    ) -> TokenKey | str:
        """Return the key after it has shown that it is the certificate's, or why it cannot be used."""
        if private.always_asks:
            return "its key asks for the PIN at every use (CKA_ALWAYS_AUTHENTICATE), which the gateway does not do"
        public = facts.public_key
        if not _is_rsa(facts) and not (isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in CURVES):
            return "on a token only RSA, P-256 and P-384 keys can be used"
        key = TokenKey(
            facts,
            chain,
            source,
            self._connection,
            KeyReference(private.id, private.label, private.key_type),
            private.decrypts,
            private.signs,
        )
        another = "its key is another one than the certificate's"
        if isinstance(public, rsa.RSAPublicKey) and private.modulus not in (None, public.public_numbers().n):
            return another
        if private.decrypts:
            answers = known_answers(facts)
            never = True
            for answer in answers:
                try:
                    right = answer.ask(key) == answer.answer
                except TokenOperationError as error:
                    never = never and error.unsupported
                    continue
                return replace(key, known_answer=answer) if right else another
            if never:
                self.warnings.append(f"the token does not decrypt with a key of the kind of {source}")
            elif facts.may_decrypt:
                # It may be a passing fault. A key that is left out for it would have its mail refused; a key whose
                # question stays unanswered makes the mail wait.
                self.warnings.append(f"the token did not decrypt a test with the key of {source}; see that it can")
                return replace(key, known_answer=answers[0])
        if not private.signs:
            return "its key neither decrypts nor signs; see CKA_DECRYPT, CKA_DERIVE and CKA_SIGN"
        try:
            return replace(key, token_decrypts=False) if key.proves_itself() else another
        except RefusedError:
            return "the token neither decrypts nor signs with a key of its kind"


def parse_key_uri(text: str, token: str, source: str) -> tuple[bytes, str]:
    """Return CKA_ID and CKA_LABEL out of a PKCS#11 URI (RFC 7512 section 2.3); what it does not name is empty.

    Raises:
        ConfigurationError: it is none, names neither, names another token, or brings more than a path.
    """
    hint = f"the .pkcs11 file beside {source} must hold one line like pkcs11:object=LABEL or pkcs11:id=%01%02"
    scheme, colon, path = text.strip().partition(":")
    if scheme != "pkcs11" or not colon or any(mark in path for mark in "?\n"):
        raise ConfigurationError(hint + "; a PIN belongs into trust.pkcs11_pin_file")
    values: dict[str, bytes] = {}
    for part in filter(None, path.split(";")):
        name, equals, value = part.partition("=")
        if not equals or name in values or name not in {"id", "object", "type", "token"}:
            raise ConfigurationError(f"{hint}; {name!r} cannot stand there")
        values[name] = unquote_to_bytes(value)
    if values.get("type", b"private") != b"private" or values.get("token", token.encode()) != token.encode():
        raise ConfigurationError(f"{hint}; this one names another kind of object or another token than {token!r}")
    label = values.get("object", b"").decode("utf-8", "replace")
    if not values.get("id") and not label:
        raise ConfigurationError(hint)
    return values.get("id", b""), label


def _key_type(facts: CertificateFacts) -> int:
    kinds = pkcs11_library().KeyType
    return int(kinds.RSA if _is_rsa(facts) else kinds.EC)


def _is_rsa(facts: CertificateFacts) -> bool:
    return isinstance(facts.public_key, rsa.RSAPublicKey)


def _describe(key: Any) -> _PrivateKey:
    pkcs11 = pkcs11_library()
    attribute = pkcs11.Attribute
    key_type = int(_value(key, attribute.KEY_TYPE, 0))
    return _PrivateKey(
        _value(key, attribute.ID, b""),
        _value(key, attribute.LABEL, ""),
        key_type,
        bool(_value(key, attribute.DECRYPT if key_type == pkcs11.KeyType.RSA else attribute.DERIVE, default=False)),
        bool(_value(key, attribute.SIGN, default=False)),
        int.from_bytes(_value(key, attribute.MODULUS, b""), "big") or None,
        bool(_value(key, attribute.ALWAYS_AUTHENTICATE, default=False)),
    )


def _read_certificate(stored: Any) -> _StoredCertificate:
    attribute = pkcs11_library().Attribute
    return _StoredCertificate(
        _value(stored, attribute.ID, b""), _value(stored, attribute.LABEL, ""), _value(stored, attribute.VALUE, b"")
    )


def _value(found: Any, attribute: Any, default: Any) -> Any:
    """An attribute of an object, or the default when the object has none."""
    pkcs11 = pkcs11_library()
    try:
        return found[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, ValueError):
        return default
