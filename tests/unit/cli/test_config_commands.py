"""``config check``, ``config show``, ``health`` and the checks before ``serve`` opens a port."""

import json
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from gateway import daemon
from gateway.agents import load_keys
from gateway.cli import try_out
from gateway.cli.main import main
from gateway.core.errors import StoreError
from gateway.core.trust import BOTH_DIRECTIONS, BundleSetting
from gateway.keys.development_pki import DevelopmentCA
from gateway.keys.key_ring import KeyRing
from gateway.settings import Settings, TrustSettings, load
from tests.support.pki import Authority
from tests.unit.cli.clinic_harness import DOMAIN, Clinic

ROOT = Path(__file__).parents[3]


def _set(clinic: Clinic, line: str, instead: str) -> None:
    path = Path(clinic.config)
    text = path.read_text(encoding="utf-8")
    assert text.count(line) == 1, line
    path.write_text(text.replace(line, instead), encoding="utf-8")


def test_a_new_practice_is_good(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    assert clinic.run("config", "check") == 0
    assert "good" in capsys.readouterr().out
    _trust_a_community(clinic)
    assert clinic.run("config", "check", "--strict") == 0
    assert "good" in capsys.readouterr().out
    assert clinic.run("config", "check", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"config": clinic.config, "errors": [], "warnings": []}


def _trust_a_community(clinic: Clinic) -> None:
    """Another authority in place of the one that init made."""
    anchors = clinic.directory / "certs" / "anchors"
    for path in anchors.iterdir():
        path.unlink()
    community = DevelopmentCA.create("Community Root", now=datetime.now(UTC))
    (anchors / "community.pem").write_bytes(community.certificate_pem)


def test_a_development_authority_is_for_trying_out_only(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    certs = clinic.directory / "certs"
    assert clinic.run("config", "check") == 0
    assert "for trying out only" in capsys.readouterr().err
    assert clinic.run("config", "check", "--strict") == 1
    capsys.readouterr()
    # Its key and folder are gone, but another practice's one is trusted: by its subject.
    for path in (certs / "ca").iterdir():
        path.unlink()
    (certs / "anchors" / f"front-desk@{DOMAIN}").mkdir()
    (certs / "anchors" / "development-ca.cert.pem").rename(certs / "anchors" / f"front-desk@{DOMAIN}" / "x.pem")
    assert clinic.run("config", "check", "--json") == 0
    assert ["for trying out only" in text for text in json.loads(capsys.readouterr().out)["warnings"]] == [True]
    _trust_a_community_in(certs / "ca", certs / "anchors", clinic)
    assert clinic.run("config", "check", "--strict") == 1
    assert "for trying out only" in capsys.readouterr().err, "the one in certs/ca, whatever its name"


def _trust_a_community_in(ca: Path, anchors: Path, clinic: Clinic) -> None:
    shutil.rmtree(anchors / f"front-desk@{DOMAIN}")
    _trust_a_community(clinic)
    (ca / "ca.cert.pem").write_bytes((anchors / "community.pem").read_bytes())


def test_check_reads_what_serve_would_read(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    certs = Path(clinic.config).parent / "certs"
    (certs / "anchors" / "partner.pem").write_text("no certificate", encoding="utf-8")
    (certs / "tls" / "server.key.pem").write_text("no key", encoding="utf-8")
    assert clinic.run("config", "check") == 2
    said = capsys.readouterr().err
    assert "partner.pem holds no readable certificate" in said
    assert "do not make a TLS identity" in said


@pytest.mark.parametrize(
    "mistake",
    [
        ("port = 2525", "prot = 2525", "did you mean port"),
        ("port = 2525", 'port = "many"', "whole number"),
        ('revocation_inbound = "soft"', 'revocation_inbound = "off"', "hard, soft"),
        ("port = 2525", "port = 1143", "both 1143"),
        ('key_file = "certs/tls/server.key.pem"', 'key_file = "nowhere.pem"', "tls.key_file: there is no file"),
        ('anchors_dir = "certs/anchors"', 'anchors_dir = "nowhere"', "trust.anchors_dir: there is no folder"),
        ("bundle_alarm_percent = 20", "bundle_alarm_percent = 101", "bundle_alarm_percent must be between 1 and 100"),
        ("bundle_alarm_percent = 20", "bundle_alarm_percent = 0", "bundle_alarm_percent must be between 1 and 100"),
        ('domains = ["direct.clinic.test"]', "domains = []", "practice.domains is empty"),
        ('domains = ["direct.clinic.test"]', 'domains = ["other.test"]', "is not in practice.domains"),
        ('identities_dir = "certs/identities"', 'identities_dir = "', "not valid TOML"),
    ],
)
def test_a_wrong_file_stops_check_and_serve_with_status_2(
    clinic: Clinic,
    mistake: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line, instead, said = mistake
    monkeypatch.setattr(daemon, "serve", _must_not_run)
    _set(clinic, line, instead)
    assert clinic.run("config", "check") == 2
    assert said in capsys.readouterr().err
    assert clinic.run("serve") == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


async def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("the daemon was started")


def test_warnings_are_findings_only_when_strict(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    key = next((clinic.directory / "certs" / "identities").glob("*.key.pem"))
    key.chmod(0o644)
    assert clinic.run("config", "check") == 0
    assert capsys.readouterr().err.count(f"chmod 600 {key}") == 1
    assert clinic.run("config", "check", "--strict") == 1


def test_empty_trust_folders_are_told(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    for path in [*clinic.directory.glob("certs/anchors/*"), *clinic.directory.glob("certs/identities/*")]:
        path.unlink()
    assert clinic.run("config", "check", "--strict") == 1
    told = capsys.readouterr().err
    assert "holds no anchor" in told
    assert "holds no identity" in told


def test_a_trust_bundle_in_force_is_trust_without_a_folder(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    anchors = clinic.directory / "certs" / "anchors"
    for path in anchors.iterdir():
        path.unlink()
    assert clinic.run("config", "check", "--strict") == 1
    assert "no trust bundle is in force: nobody is trusted" in capsys.readouterr().err
    community = Authority.root("Community Root").identity.certificate.public_bytes(Encoding.DER)
    at = datetime.now(UTC)
    setting = BundleSetting("community", "https://bundles.example/c.p7b", None, (), BOTH_DIRECTIONS, 24)
    clinic.write(lambda tx: tx.bundles.set(setting, at))
    clinic.write(lambda tx: tx.bundles.add_version("community", at, b"x", [community]))
    assert clinic.run("config", "check", "--strict") == 0
    assert "holds no anchor" not in capsys.readouterr().err
    database = clinic.directory / "data" / "gateway.db"
    for path in database.parent.glob("gateway.db*"):
        path.unlink()
    database.write_bytes(b"no database" * 1000)
    assert clinic.run("config", "check", "--strict") == 2
    said = capsys.readouterr().err
    assert "the database cannot be opened" in said
    assert "the database cannot tell" in said
    database.unlink()
    assert clinic.run("config", "check", "--strict") == 1
    assert "nobody is trusted" in capsys.readouterr().err
    assert not database.exists()


def test_what_would_have_mail_refused_is_told(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    _trust_a_community(clinic)
    _set(clinic, 'domains = ["direct.clinic.test"]', 'domains = ["direct.clinic.test", "keyless.test"]')
    _set(clinic, '"lab@direct.clinic.test"', '"lab@direct.clinic.test", "new@keyless.test"')
    anchors = clinic.directory / "certs" / "anchors"
    community = (anchors / "community.pem").read_bytes()
    for owner in ("keyless.test", DOMAIN.upper(), f"lab@{DOMAIN}", "direct.clinc.test", f"labb@{DOMAIN}"):
        (anchors / owner).mkdir()
        (anchors / owner / "own.pem").write_bytes(community)
    assert clinic.run("config", "check", "--json") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert "practice.addresses: new@keyless.test has no key: mail to it is refused" in warnings
    strangers = [text for text in warnings if "the sub-folder" in text]
    assert len(warnings) == 1 + len(strangers)
    assert [text.split()[3] for text in strangers] == ["direct.clinc.test", f"labb@{DOMAIN}"]


def test_a_revocation_list_out_of_date_is_told_unless_it_has_a_successor(
    clinic: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    _trust_a_community(clinic)
    folder = clinic.directory / "certs" / "crls"
    folder.mkdir(exist_ok=True)
    authority, now = Authority.root("Partner CA"), datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.identity.certificate.subject)
        .last_update(now - timedelta(days=9))
        .next_update(now - timedelta(days=2))
    )
    old = builder.sign(authority.identity.key, hashes.SHA256())
    (folder / "old.crl").write_bytes(old.public_bytes(Encoding.DER))
    (folder / "other.pem").write_bytes(Authority.root("Other CA", 1).crl([]))
    assert clinic.run("config", "check", "--strict") == 1
    said = capsys.readouterr().err
    assert "the revocation list of CN=Partner CA" in said
    assert "is out of date since" in said
    assert "Other CA" not in said
    (folder / "new.pem").write_bytes(authority.crl([]))
    assert clinic.run("config", "check", "--strict") == 0


def test_a_note_of_a_token_is_told_and_is_no_finding(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can mend what a token does not do; --strict must not fail for ever."""
    _trust_a_community(clinic)

    def with_note(settings: TrustSettings) -> KeyRing:
        ring = load_keys(settings)
        assert isinstance(ring, KeyRing)
        return KeyRing(ring.keys, (), ("token clinic does not do RSA-OAEP with sha512",))

    monkeypatch.setattr("gateway.agents.load_keys", with_note)
    assert clinic.run("config", "check", "--strict") == 0
    captured = capsys.readouterr()
    assert "note: token clinic does not do RSA-OAEP with sha512\n" in captured.err
    assert "warning" not in captured.err
    assert "with warnings" not in captured.out


def test_an_address_without_a_mailbox_stops_serve(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mail would get a 250 and could never be filed."""
    monkeypatch.setattr(daemon, "serve", _must_not_run)
    _set(
        clinic,
        'addresses = ["front-desk@direct.clinic.test", "lab@direct.clinic.test"]',
        'addresses = ["front-desk@direct.clinic.test", "new@direct.clinic.test"]',
    )
    assert clinic.run("serve") == 2
    assert "new@direct.clinic.test has no mailbox" in capsys.readouterr().err
    assert clinic.run("user", "add", "newcomer", "--inbox", "new") == 0
    monkeypatch.setattr(daemon, "serve", _nothing)
    assert clinic.run("serve") == 0


async def _nothing(_settings: Settings, **_: object) -> None:
    return


def test_a_dead_store_ends_serve_with_75(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(_settings: Settings, **_: object) -> None:
        raise StoreError("the store stopped")

    monkeypatch.setattr(daemon, "serve", die)
    assert clinic.run("serve") == 75


def test_show_prints_what_is_in_force(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIRECTGW__SMTP__PORT", "2626")
    assert clinic.run("config", "show") == 0
    assert "port = 2626" in capsys.readouterr().out
    assert clinic.run("config", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["smtp"]["port"] == 2626


class _Ready(BaseHTTPRequestHandler):
    status = 200
    body = b"all good"

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def health_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_health(
    clinic: Clinic, health_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIRECTGW__HTTP__PORT", str(health_port))
    assert clinic.run("health") == 0
    assert capsys.readouterr().out == "ready: all good\n"
    answer = {"status": "ready", "checks": {"store": "ok", "disk_space": "ok"}}
    monkeypatch.setattr(_Ready, "body", json.dumps(answer).encode())
    assert clinic.run("health") == 0
    assert capsys.readouterr().out == "ready\n  store:      ok\n  disk space: ok\n"
    assert clinic.run("health", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ready": True, "answer": answer}
    monkeypatch.setattr(_Ready, "status", 503)
    monkeypatch.setattr(_Ready, "body", b'{"checks": {"disk_space": "\x1b[2J is low"}}'.replace(b"\x1b", b"\\u001b"))
    assert clinic.run("health") == 1
    assert capsys.readouterr().out == "not ready\n  disk space: \ufffd[2J is low\n"
    monkeypatch.setattr(_Ready, "body", b"[]")
    assert clinic.run("health") == 1
    assert capsys.readouterr().out == "not ready: []\n"
    assert clinic.run("health", "--json") == 1
    assert json.loads(capsys.readouterr().out)["ready"] is False
    monkeypatch.setenv("DIRECTGW__HTTP__PORT", "0")
    assert clinic.run("health") == 2


def test_health_that_is_degraded(
    clinic: Clinic, health_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIRECTGW__HTTP__PORT", str(health_port))
    warnings = {"trust_files": "old keys", "database": "ok"}
    answer = {"status": "degraded", "checks": {"store": "ok"}, "warnings": warnings}
    monkeypatch.setattr(_Ready, "body", json.dumps(answer).encode())
    assert clinic.run("health") == 1
    assert capsys.readouterr().out == (
        "degraded: mail goes on, but something waits for you\n"
        "  store:       ok\n  trust files: old keys\n  database:    ok\n"
    )
    assert clinic.run("health", "--ready") == 0, "for a supervisor, which would only stop the mail"
    capsys.readouterr()
    assert clinic.run("health", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {"ready": True, "degraded": True, "answer": answer}
    monkeypatch.setattr(_Ready, "status", 503)
    assert clinic.run("health", "--ready") == 1
    assert capsys.readouterr().out.startswith("not ready\n")


def test_health_without_a_daemon(clinic: Clinic, health_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRECTGW__HTTP__HOST", "127.0.0.2")
    monkeypatch.setenv("DIRECTGW__HTTP__PORT", str(health_port))
    assert clinic.run("health") == 1


def test_the_example_file_works_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first serve makes the try-out practice; the second finds it."""
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "gateway.toml"
    config.write_bytes((ROOT / "config" / "gateway.toml").read_bytes())
    monkeypatch.setattr(daemon, "serve", _nothing)
    assert main(["config", "check", "--config", str(config)]) == 0
    assert "not made yet" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["config"], "a check touches nothing"
    assert main(["serve", "--config", str(config)]) == 0
    assert "made the try-out practice" in capsys.readouterr().err
    assert (tmp_path / "practice" / "imap-login.txt").is_file()
    daemon.tls_context(load(config, {}))
    assert main(["serve", "--config", str(config)]) == 0
    assert "made" not in capsys.readouterr().err
    assert main(["config", "check", "--config", str(config)]) == 0
    assert "for trying out only" in capsys.readouterr().err


def test_a_real_domain_never_gets_keys_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "gateway.toml"
    text = (ROOT / "config" / "gateway.toml").read_text(encoding="utf-8")
    config.write_text(text.replace("direct.example.org", "direct.clinic.org"), encoding="utf-8")
    monkeypatch.setattr(daemon, "serve", _must_not_run)
    assert main(["serve", "--config", str(config)]) == 2
    assert not (tmp_path / "practice").exists()


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("direct.example.org", True),
        ("example.com", True),
        ("clinic.example", True),
        ("a.b.test", True),
        ("notexample.org", False),
        ("example.org.evil.net", False),
        ("contest", False),
    ],
)
def test_only_reserved_names_are_examples(domain: str, expected: bool) -> None:
    assert try_out.is_example(domain) is expected
