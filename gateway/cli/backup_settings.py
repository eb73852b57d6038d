"""Which files of a practice go into a backup beside the store, and which its operator must keep himself.

In go ``gateway.toml``, which holds no secret, and what is public anyway: certificates, anchors, revocation lists,
public keys. A file goes in only when it is seen to be nothing else. Private keys, the keys of stored bodies, passwords
and tokens stay out: a backup travels, and whoever finds it must not be able to read mail, or to speak in the practice's
name. They are named, so that whoever keeps them apart can see that he has them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.cli.public_files import public_part
from gateway.settings import CREDENTIAL_PREFIX, Settings

CONFIG_NAME = "gateway.toml"
_MAX_BYTES = 32 << 20


def settings_files(settings: Settings, config: Path) -> tuple[dict[str, bytes], list[str]]:
    """What goes in, by its path from the folder of the settings; and what does not.

    Raises:
        OSError: a file that is there cannot be read.
    """
    base = settings.base_dir.resolve()
    taken = {CONFIG_NAME: config.read_bytes()}
    left: set[str] = set()
    for path in sorted(set(_files(settings))):
        inside = path.resolve().is_relative_to(base) and path.is_relative_to(base)
        data = _public_bytes(path) if inside else None
        if data is None:
            left.add(str(path.relative_to(base) if path.is_relative_to(base) else path))
        else:
            taken[path.relative_to(base).as_posix()] = data
    if settings.store.key_file.startswith(CREDENTIAL_PREFIX):
        left.add(settings.store.key_file)
    return taken, sorted(left)


def _files(settings: Settings) -> Iterator[Path]:
    from gateway.keys.head_signing import public_file_of  # noqa: PLC0415 - see gateway.cli.session

    trust, audit = settings.trust, settings.audit
    # The first one as init lays it out; the settings may name others.
    folders = (settings.base_dir / "certs", trust.identities_dir, trust.anchors_dir, trust.crls_dir)
    for folder in folders:
        if folder is not None and folder.is_dir():
            yield from (path for path in folder.rglob("*") if path.is_file())
    named: list[Path | None] = [
        settings.tls.certificate_file,
        settings.tls.key_file,
        settings.tls.certificate_file.with_name("ca.pem"),
        audit.signing_key_file,
        public_file_of(audit.signing_key_file),
        settings.store.password_file,
        settings.s3.credentials_file,
        settings.s3.ca_file,
        trust.key_password_file,
        trust.pkcs11_pin_file,
    ]
    if not settings.store.key_file.startswith(CREDENTIAL_PREFIX):
        named.append(Path(settings.store.key_file))
    for account in settings.fetch:
        named += [account.ca_file, account.password_file, account.oauth_token_file]
    yield from (path for path in named if path is not None and path.is_file())


def _public_bytes(path: Path) -> bytes | None:
    """What of the file anybody may have; None when it is not seen to hold nothing else."""
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES or b"PRIVATE" in data:
        return None
    return public_part(data)
