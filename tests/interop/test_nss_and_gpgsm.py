"""Messages signed and encrypted by NSS (Thunderbird's library) and by GnuPG's gpgsm are accepted.

The tools are those of the Debian packages libnss3-tools and gpgsm; what is not installed is skipped by name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import PrivateFormat, pkcs12

from gateway.core.verdict import Reason
from tests.smime.clinic import SECRET, Clinic
from tests.support.direct_messages import outer_message
from tests.support.forge_envelopes import cbc, enveloped, v15
from tests.support.forge_names import der_of
from tests.support.forge_signatures import Signed, Signing, multipart_signed, opaque_entity
from tests.support.pki import Identity
from tests.unit.sta.trust_world import RCPT, SENDER, World, usage

_PASSWORD = "secret"


@dataclass
class Office:
    """The certificates of a sender and a recipient as both tools want them, and a folder to run them in."""

    clinic: Clinic
    folder: Path
    signer: Identity
    recipient: Identity
    environment: dict[str, str]

    def run(self, *words: str, data: bytes = b"") -> bytes:
        done = subprocess.run(
            words, input=data, cwd=self.folder, env=self.environment, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, (words[0], done.stderr.decode(errors="replace")[-500:])
        return done.stdout

    def pkcs12(self, identity: Identity, name: str) -> str:
        """A PKCS #12 file with what old programs can read."""
        how = PrivateFormat.PKCS12.encryption_builder()
        how = how.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(hashes.SHA1())  # noqa: S303
        data = pkcs12.serialize_key_and_certificates(
            name.encode(), identity.key, identity.certificate, None, how.build(_PASSWORD.encode())
        )
        (self.folder / f"{name}.p12").write_bytes(data)
        return f"{name}.p12"

    def accepts(self, envelope: bytes) -> None:
        raw = outer_message(envelope, SENDER, [RCPT])
        agent = self.clinic.world.agent(ring=self.clinic.world.ring(self.recipient))
        judgement = self.clinic.world.judge(raw, agent)
        assert (judgement.reason, judgement.detail, judgement.content) == (Reason.OK, "", self.clinic.inner)

    def accepts_signature(self, signature: bytes, *, detached: bool) -> None:
        content = multipart_signed(self.clinic.entity, signature) if detached else opaque_entity(signature)
        self.accepts(enveloped([v15(self.recipient, SECRET)], cbc(SECRET, content)))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    clinic = Clinic(World())
    both = usage(digital_signature=True, key_encipherment=True)
    signer = clinic.world.community.issue(SENDER, slot=50, subject="Jane", key_usage=both)
    recipient = clinic.world.clinic.issue(RCPT, slot=51, subject="Ann", key_usage=both)
    (tmp_path / "entity").write_bytes(clinic.entity)
    (tmp_path / "signed").write_bytes(Signed(clinic.entity, [Signing(signer)]).entity())
    for name, authority in (("community", clinic.world.community), ("clinic", clinic.world.clinic)):
        (tmp_path / f"{name}.pem").write_bytes(authority.identity.certificate_pem)
    return Office(clinic, tmp_path, signer, recipient, dict(os.environ))


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


# --- NSS ---


@pytest.fixture
def nss(office: Office) -> Office:
    for program in ("certutil", "pk12util", "cmsutil"):
        _need(program)
    (office.folder / "nss").mkdir()
    office.run("certutil", "-N", "-d", "sql:nss", "--empty-password")
    for name in ("community", "clinic"):
        office.run("certutil", "-A", "-d", "sql:nss", "-n", name, "-t", "CT,C,C", "-i", f"{name}.pem")
    for identity, name in ((office.signer, "jane"), (office.recipient, "ann")):
        office.run("pk12util", "-d", "sql:nss", "-i", office.pkcs12(identity, name), "-W", _PASSWORD)
    return office


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize("options", [("SHA256",), ("SHA384", "-G"), ("SHA512", "-G", "-P", "-Y", "jane")])
def test_nss_signs(nss: Office, options: tuple[str, ...], detached: bool) -> None:
    how = ["-T"] if detached else []
    made = nss.run("cmsutil", "-S", "-d", "sql:nss", "-N", "jane", *how, "-H", *options, "-i", "entity")
    nss.accepts_signature(made, detached=detached)


def test_nss_encrypts(nss: Office) -> None:
    nss.accepts(nss.run("cmsutil", "-E", "-d", "sql:nss", "-r", RCPT, "-i", "signed"))


# --- gpgsm ---


@pytest.fixture
def gpgsm(office: Office) -> Iterator[Callable[..., bytes]]:
    for program in ("gpgsm", "gpgconf"):
        _need(program)
    # The socket of the agent has a path of about 100 characters at most, which a test's own folder may exceed.
    home = Path("/tmp") / f"gpgsm-{os.getpid()}"
    home.mkdir(mode=0o700)
    office.environment["GNUPGHOME"] = str(home)
    (home / "gpgsm.conf").write_text("disable-crl-checks\nfaked-system-time 20261120T120000\nno-common-certs-import\n")
    (home / "gpg-agent.conf").write_text("allow-loopback-pinentry\n")
    roots = [office.clinic.world.community.identity, office.clinic.world.clinic.identity]
    prints = [hashlib.sha1(der_of(root)).hexdigest().upper() for root in roots]  # noqa: S324 - the tool's own format
    (home / "trustlist.txt").write_text("".join(f"{one} S relax\n" for one in prints))

    def run(*words: str, secret: bool = False) -> bytes:
        asked = ["--pinentry-mode", "loopback", "--passphrase-fd", "0"] if secret else []
        return office.run("gpgsm", "--batch", *asked, *words, data=f"{_PASSWORD}\n".encode() if secret else b"")

    for name in ("community", "clinic"):
        run("--import", f"{name}.pem")
    for identity, name in ((office.signer, "jane"), (office.recipient, "ann")):
        run("--import", office.pkcs12(identity, name), secret=True)
    try:
        yield run
    finally:
        office.run("gpgconf", "--kill", "gpg-agent")
        shutil.rmtree(home, ignore_errors=True)


def test_gpgsm_signs_and_encrypts(office: Office, gpgsm: Callable[..., bytes]) -> None:
    for detached in (True, False):
        for digest in ("SHA256", "SHA512"):
            how = "--detach-sign" if detached else "--sign"
            made = gpgsm("--digest-algo", digest, "-u", SENDER, how, "--output", "-", "entity", secret=True)
            office.accepts_signature(made, detached=detached)
    for cipher in ("AES", "AES192", "AES256"):
        office.accepts(gpgsm("--cipher-algo", cipher, "--encrypt", "-r", RCPT, "--output", "-", "signed"))
