"""The hashes that a certificate, a signature, OAEP or a key derivation may name, as the library's objects.

Whether one is allowed in a place is for the matrix to say (``algorithm_policy``); here stands what a name means.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - OAEP and key derivations use it, and old authorities are told apart by it
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
