"""``bundle``: add, list, show, refresh, diff, acknowledge, disable, enable (TB-3, TB-6, TB-9, TB-11, TB-14)."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gateway.bundles.refresher import POLL_SECONDS
from gateway.cli.main import main
from gateway.core.trust import AnchorBundle, BundleSetting, Direction
from tests.support.bundle_files import Signing, certificate, der, p7b, p7m, pem
from tests.support.pki import Identity, rsa_key
from tests.support.web_sites import web_site
from tests.unit.cli.clinic_harness import DOMAIN, FRONT, Clinic

LONG_AGO, FAR = datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC)
Capture = pytest.CaptureFixture[str]


@cache
def anchor(number: int) -> Identity:
    return certificate(f"Community {number}", begins=LONG_AGO, ends=FAR)


@cache
def publisher(slot: int) -> Identity:
    return certificate(f"Publisher {slot}", key=rsa_key(610 + slot), is_ca=False, begins=LONG_AGO, ends=FAR)


def bundle(*numbers: int) -> bytes:
    return p7b(*map(anchor, numbers))


def signed(*numbers: int, year: int, slot: int = 1) -> bytes:
    return p7m(bundle(*numbers), publisher(slot), how=Signing(at=datetime(year, 1, 1, tzinfo=UTC)))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    file = tmp_path / "published.p7b"
    file.write_bytes(bundle(1, 2))
    return file


@pytest.fixture
def signer(tmp_path: Path) -> str:
    file = tmp_path / "publisher.pem"
    file.write_bytes(publisher(1).certificate_pem)
    return str(file)


def answer(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


def in_force(clinic: Clinic) -> list[AnchorBundle]:
    return clinic.write(lambda tx: tx.bundles.in_force())


def test_a_bundle_is_added_listed_and_shown(clinic: Clinic, capsys: Capture, published: Path) -> None:
    words = ["--for", DOMAIN.upper(), "--for", FRONT, "--direction", "inbound", "--refresh-hours", "6"]
    assert clinic.run("bundle", "add", "partners", str(published), *words) == 0
    assert (
        "partners: version 1 with 2 anchors (2 added, 0 removed, 0 kept); "
        f"the running gateway takes it up within {POLL_SECONDS:g} seconds\n"
    ) == capsys.readouterr().out
    [found] = in_force(clinic)
    assert (found.owners, found.directions) == ((DOMAIN, FRONT), frozenset({Direction.INBOUND}))
    assert found.anchors == (der(anchor(1)), der(anchor(2)))

    assert clinic.run("bundle", "list") == 0
    shown = capsys.readouterr().out
    for word in ("partners", "inbound", f"{DOMAIN}, {FRONT}", "ok"):
        assert word in shown
    assert clinic.run("bundle", "list", "--json") == 0
    [listed] = answer(capsys)
    assert (listed["version"], listed["anchors"], listed["for"]) == (1, 2, [DOMAIN, FRONT])
    assert (listed["directions"], listed["refresh_hours"], listed["error"], listed["alarm"]) == (["inbound"], 6, "", "")
    assert datetime.fromisoformat(listed["next"]) > datetime.fromisoformat(listed["last_success"])

    assert clinic.run("bundle", "show", "partners") == 0
    shown = capsys.readouterr().out
    assert "CN=Community 1" in shown
    assert "nobody (unsigned)" in shown
    assert clinic.run("bundle", "show", "partners", "--json") == 0
    assert [one["subject"] for one in answer(capsys)["members"]] == ["CN=Community 1", "CN=Community 2"]


def test_an_empty_list_says_how_to_begin(clinic: Clinic, capsys: Capture) -> None:
    assert clinic.run("bundle", "list") == 0
    assert "bundle add" in capsys.readouterr().out
    assert clinic.run("bundle", "list", "--json") == 0
    assert answer(capsys) == []


def test_a_path_may_be_relative(clinic: Clinic, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway that refreshes it runs in another folder."""
    monkeypatch.chdir(published.parent)
    assert clinic.run("bundle", "add", "partners", published.name) == 0
    assert clinic.write(lambda tx: tx.bundles.settings()[0].location) == str(published)


def test_a_bundle_is_added_from_a_server_in_a_listed_network(clinic: Clinic, capsys: Capture) -> None:
    with web_site() as site:
        site.answers["/p.p7b"] = bundle(1)
        assert clinic.run("bundle", "add", "partners", site.url("/p.p7b")) == 2
        assert "trust.allow_fetch_cidrs" in capsys.readouterr().err
        assert in_force(clinic) == []
        config = Path(clinic.config)
        config.write_text(config.read_text().replace("allow_fetch_cidrs = []", 'allow_fetch_cidrs = ["127.0.0.0/8"]'))
        assert clinic.run("bundle", "add", "partners", site.url("/p.p7b")) == 0
        assert len(in_force(clinic)) == 1
        del site.answers["/p.p7b"]
        assert clinic.run("bundle", "refresh", "partners") == 1
        error = capsys.readouterr().err
        assert "404" in error
        assert "unsigned" not in error, "a server that lacks the file is no matter of https"
        assert len(in_force(clinic)) == 1


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (["x", "{file}", "--for", "direct.other.example"], (2, FRONT)),
        (["x", "{file}", "--for", "not an address@"], (2, "--for")),
        (["x", "{file}", "--for", "nobody@direct.clinic.test"], (2, DOMAIN)),
        (["X!", "{file}"], (2, "name of a bundle")),
        (["x", "{file}", "--refresh-hours", "-3"], (2, "hours")),
        (["x", "{file}", "--signer", "{file}"], (2, "one certificate")),
        (["x", "{file}", "--signer", "{config}"], (2, "--signer")),
        (["x", "{file}.none"], (1, "cannot read")),
        (["x", "{config}"], (1, "no trust bundle")),
        (["x", "http://bundles.example/p"], (2, "--signer")),
        (["x", "ftp://bundles.example/p"], (2, "not fetched")),
        (["x", "file:///srv/p.p7b"], (2, "the path of a file")),
        (["x", "bundles.example/p.p7b"], (1, "a URL begins with https://")),
        (["x", "{file}", "--signer", "nofile.pem"], (2, "--signer: cannot read nofile.pem: No such file")),
        (["x", "{file}", "--signer", "/"], (2, "--signer: cannot read /: Is a directory")),
        (["x", "{file}", "--for", "everyone", "--for", DOMAIN], (2, "--for everyone")),
        (["x", "https://10.0.0.5/p"], (2, "trust.allow_fetch_cidrs")),
        (["x", "{file}", "--change"], (1, "no trust bundle 'x'")),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_added(
    clinic: Clinic, capsys: Capture, published: Path, words: list[str], outcome: tuple[int, str]
) -> None:
    status, said = outcome
    filled = [word.format(file=published, config=clinic.config) for word in words]
    assert clinic.run("bundle", "add", *filled) == status
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert clinic.write(lambda tx: tx.bundles.settings()) == []


def test_a_configured_signer_must_have_signed(clinic: Clinic, capsys: Capture, published: Path, signer: str) -> None:
    assert clinic.run("bundle", "add", "partners", str(published), "--signer", signer) == 1
    assert "not signed" in capsys.readouterr().err
    published.write_bytes(signed(1, year=2024))
    assert clinic.run("bundle", "add", "partners", str(published), "--signer", signer) == 0
    assert clinic.run("bundle", "show", "partners") == 0
    assert "CN=Publisher 1, valid until 2049-01-01" in capsys.readouterr().out
    published.write_bytes(signed(1, 2, year=2025, slot=2))
    assert clinic.run("bundle", "refresh", "partners", "--json") == 1
    [result] = answer(capsys)
    assert (result["outcome"], "not by the configured signer" in result["error"]) == ("failed", True)
    assert clinic.run("bundle", "list") == 1
    assert "ALARM" in capsys.readouterr().out


def test_a_replayed_bundle_needs_a_word(clinic: Clinic, capsys: Capture, published: Path, signer: str) -> None:
    published.write_bytes(signed(1, 2, year=2025))
    assert clinic.run("bundle", "add", "partners", str(published), "--signer", signer) == 0
    published.write_bytes(signed(1, 2, 3, year=2024))
    assert clinic.run("bundle", "refresh", "partners") == 1
    assert "--accept-older" in capsys.readouterr().err
    assert clinic.run("bundle", "refresh", "partners", "--accept-older") == 0
    assert len(in_force(clinic)[0].anchors) == 3


def test_an_unchecked_signature_is_pointed_out(clinic: Clinic, capsys: Capture, published: Path) -> None:
    published.write_bytes(signed(1, year=2025))
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    assert "its signature was not checked" in capsys.readouterr().err
    assert clinic.run("bundle", "show", "partners") == 0
    shown = capsys.readouterr().out
    assert "signed, but its signature is not checked" in shown
    assert "(unsigned)" not in shown
    assert clinic.run("bundle", "show", "partners", "--json") == 0
    found = answer(capsys)
    assert (found["signed"], found["signer_sha256"]) == (True, None)


def test_members_that_are_left_out_are_named(clinic: Clinic, capsys: Capture, published: Path) -> None:
    published.write_bytes(p7b(anchor(1), certificate("Old", begins=LONG_AGO, ends=datetime(2021, 1, 1, tzinfo=UTC))))
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    captured = capsys.readouterr()
    assert "with 1 anchor (" in captured.out
    assert "left out: CN=Old" in captured.err
    assert "expired on 2021-01-01" in captured.err


def test_refresh_diff_and_dry_run(clinic: Clinic, capsys: Capture, published: Path, tmp_path: Path) -> None:
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    assert clinic.run("bundle", "diff", "partners") == 0
    assert "0 added, 0 removed, 2 kept" in capsys.readouterr().out
    (tmp_path / "next.pem").write_bytes(pem(anchor(2), anchor(3)))
    assert clinic.run("bundle", "diff", "partners", str(tmp_path / "next.pem")) == 1
    shown = capsys.readouterr().out
    assert "1 added, 1 removed, 1 kept" in shown
    assert any(line.startswith("+  CN=Community 3") for line in shown.splitlines())
    assert any(line.startswith("-  CN=Community 1") for line in shown.splitlines())
    published.write_bytes(bundle(2, 3))
    assert clinic.run("bundle", "diff", "partners", "--json") == 1
    found = answer(capsys)
    assert ([one["subject"] for one in found["added"]], found["version"]) == (["CN=Community 3"], 1)
    assert clinic.run("bundle", "refresh", "partners", "--dry-run") == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert in_force(clinic)[0].version == 1
    assert clinic.run("bundle", "refresh", "--all") == 1, "half of the anchors are gone"
    captured = capsys.readouterr()
    assert "1 of 2 anchors of version 1 is gone" in captured.err
    assert "bundle acknowledge partners" in captured.out
    assert in_force(clinic)[0].anchors == (der(anchor(2)), der(anchor(3)))
    assert clinic.run("bundle", "refresh", "--all") == 0
    assert clinic.run("bundle", "list") == 1
    shown = capsys.readouterr().out
    today = f"{clinic.write(lambda tx: tx.bundles.status('partners').last_attempt):%Y-%m-%d}"
    assert f"ALARM: 1 of 2 anchors of version 1 is gone ({today})" in shown
    assert shown.endswith("\nhaving looked: direct-gateway bundle acknowledge partners\n")
    assert clinic.run("bundle", "show", "partners") == 1
    assert capsys.readouterr().out.endswith("\nhaving looked: direct-gateway bundle acknowledge partners\n")
    assert clinic.run("bundle", "acknowledge", "partners") == 0
    capsys.readouterr()
    assert clinic.run("bundle", "list") == 0
    assert "having looked" not in capsys.readouterr().out
    assert clinic.run("bundle", "acknowledge", "partners") == 0
    assert "has no alarm" in capsys.readouterr().out


def test_one_that_fails_does_not_keep_the_others_from_being_refreshed(
    clinic: Clinic, capsys: Capture, published: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.p7b"
    other.write_bytes(bundle(5))
    assert clinic.run("bundle", "add", "a", str(other)) == 0
    assert clinic.run("bundle", "add", "b", str(published)) == 0
    other.unlink()
    published.write_bytes(bundle(1, 2, 3))
    assert clinic.run("bundle", "refresh", "--all", "--dry-run") == 1
    assert "cannot read" in capsys.readouterr().err
    assert clinic.run("bundle", "refresh", "--all", "--json") == 1
    assert [one["outcome"] for one in answer(capsys)] == ["failed", "applied"]


@pytest.mark.parametrize("words", [[], ["partners", "--all"]])
def test_refresh_takes_one_name_or_all(clinic: Clinic, capsys: Capture, words: list[str]) -> None:
    assert clinic.run("bundle", "refresh", *words) == 2
    assert "--all" in capsys.readouterr().err


def test_disable_and_enable(clinic: Clinic, capsys: Capture, published: Path) -> None:
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    assert clinic.run("bundle", "disable", "partners") == 0
    assert in_force(clinic) == []
    assert f"within {POLL_SECONDS:g} seconds" in capsys.readouterr().out
    assert clinic.run("bundle", "list") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert row.endswith("disabled")
    assert row[heading.index("NEXT") :].split()[0] == "-"
    assert clinic.run("bundle", "refresh", "partners") == 1
    assert "bundle enable partners" in capsys.readouterr().err
    assert clinic.run("bundle", "refresh", "--all") == 0
    published.write_bytes(bundle(2))
    assert clinic.run("bundle", "enable", "partners") == 1, "half of the anchors are gone"
    assert in_force(clinic)[0].anchors == (der(anchor(2)),)
    assert clinic.run("bundle", "disable", "partners") == 0
    published.unlink()
    assert clinic.run("bundle", "enable", "partners") == 1
    assert in_force(clinic) == []
    capsys.readouterr()
    assert clinic.run("bundle", "enable", "partners", "--no-fetch") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("partners: enabled, with version 2 with 1 anchor")
    assert "stays in force" not in shown
    assert len(in_force(clinic)) == 1


def test_a_setting_is_changed_on_purpose(clinic: Clinic, capsys: Capture, published: Path) -> None:
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    assert clinic.run("bundle", "add", "partners", str(published), "--for", FRONT) == 1
    assert "--change" in capsys.readouterr().err
    assert clinic.run("bundle", "add", "partners", str(published), "--for", FRONT, "--change") == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == f"for: everyone here -> {FRONT}"
    assert "changed, with version 1 with 2 anchors as before" in shown
    assert in_force(clinic)[0].owners == (FRONT,)


def setting(clinic: Clinic) -> BundleSetting:
    return clinic.write(lambda tx: tx.bundles.settings()[0])


@pytest.fixture
def narrow(clinic: Clinic, capsys: Capture, published: Path, signer: str) -> list[str]:
    """A bundle with a signer, for one address and one direction, disabled; the words that change it."""
    published.write_bytes(signed(1, 2, year=2024))
    words = ["--signer", signer, "--for", FRONT, "--direction", "inbound"]
    assert clinic.run("bundle", "add", "partners", str(published), *words) == 0
    assert clinic.run("bundle", "disable", "partners") == 0
    capsys.readouterr()
    return ["bundle", "add", "partners", str(published), "--change"]


def test_what_a_change_does_not_name_stays_as_it_was(clinic: Clinic, capsys: Capture, narrow: list[str]) -> None:
    """Above all the signer, the owners, the direction, and that nobody is trusted because of it."""
    before = setting(clinic)
    assert clinic.run(*narrow, "--refresh-hours", "12") == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "refresh: 24 -> 12 hours"
    assert "it stays disabled" in shown
    assert "takes it up" not in shown
    assert setting(clinic) == replace(before, refresh_hours=12)
    assert (before.signer, before.owners, before.enabled) == (der(publisher(1)), (FRONT,), False)
    assert in_force(clinic) == []
    assert clinic.run(*narrow, "--no-fetch") == 0
    assert capsys.readouterr().out.startswith("no setting is another than before\n")
    assert setting(clinic) == replace(before, refresh_hours=12)


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (
            ["--unsigned"],
            ({"signer": None}, "must be signed by: CN=Publisher 1, valid until 2049-01-01 -> nobody (unsigned)"),
        ),
        (["--for", "everyone"], ({"owners": ()}, f"for: {FRONT} -> everyone here")),
        (["--for", DOMAIN], ({"owners": (DOMAIN,)}, f"for: {FRONT} -> {DOMAIN}")),
        (["--direction", "both"], ({"directions": frozenset(Direction)}, "direction: inbound -> both")),
        (["--refresh-hours", "0"], ({"refresh_hours": 0}, "refresh: 24 -> by hand")),
        (["--refresh-hours", "1"], ({"refresh_hours": 1}, "refresh: 24 -> 1 hour")),
    ],
)
def test_each_option_changes_its_own_setting_only(
    clinic: Clinic, capsys: Capture, narrow: list[str], words: list[str], outcome: tuple[dict[str, Any], str]
) -> None:
    change, line = outcome
    before = setting(clinic)
    assert clinic.run(*narrow, *words, "--json") == 0
    assert answer(capsys)["changed"] == [line]
    assert setting(clinic) == replace(before, **change)


def test_a_change_of_place_or_signer_is_shown(
    clinic: Clinic, capsys: Capture, narrow: list[str], tmp_path: Path
) -> None:
    before = setting(clinic)
    other, renewed = tmp_path / "other.p7m", tmp_path / "renewed.pem"
    other.write_bytes(signed(1, year=2025, slot=2))
    renewed.write_bytes(publisher(2).certificate_pem)
    words = ["bundle", "add", "partners", str(other), "--signer", str(renewed), "--change"]
    assert clinic.run(*words) == 1, "half of the anchors are gone"
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"from: {before.location} -> {other}"
    assert "CN=Publisher 1" in shown[1].partition(" -> ")[0]
    assert "CN=Publisher 2" in shown[1].partition(" -> ")[2]
    assert setting(clinic) == replace(before, location=str(other), signer=der(publisher(2)))


def test_no_signer_and_a_signer_contradict_each_other(clinic: Clinic, narrow: list[str], signer: str) -> None:
    with pytest.raises(SystemExit) as caught:
        clinic.run(*narrow, "--unsigned", "--signer", signer)
    assert caught.value.code == 2


def test_the_way_to_a_file_is_kept_without_detours(
    clinic: Clinic, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to the file stays one: whoever points it elsewhere publishes another bundle."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.p7b").symlink_to(published)
    monkeypatch.chdir(tmp_path / "sub")
    assert clinic.run("bundle", "add", "partners", "./../link.p7b") == 0
    assert setting(clinic).location == str(tmp_path / "link.p7b")


def test_a_command_tells_people_and_logs_nothing(clinic: Clinic, capsys: Capture, published: Path) -> None:
    """The events of the log are for the daemon. In a process of its own: pytest takes the log in."""
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    published.write_bytes(bundle(1))
    words = [sys.executable, "-m", "gateway.cli.main", "--config", clinic.config, "bundle", "refresh", "partners"]
    shrunk = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    published.unlink()
    failed = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    for done, said in ((shrunk, "1 of 2 anchors"), (failed, "cannot read")):
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("warning: partners: ")
        assert said in line


def test_without_fetching_the_list_says_so(clinic: Clinic, capsys: Capture, published: Path) -> None:
    assert clinic.run("bundle", "add", "partners", str(published), "--no-fetch") == 0
    assert "not fetched yet" in capsys.readouterr().out
    assert clinic.run("bundle", "list") == 1
    shown = capsys.readouterr().out
    assert "never fetched" in shown
    assert "now" in shown


@pytest.mark.parametrize("action", ["show", "refresh", "diff", "acknowledge", "disable", "enable"])
def test_an_unknown_name_is_answered_with_the_known_ones(
    clinic: Clinic, capsys: Capture, published: Path, action: str
) -> None:
    assert clinic.run("bundle", "add", "partners", str(published)) == 0
    assert clinic.run("bundle", action, "nobody") == 1
    assert "there are: partners" in capsys.readouterr().err


def test_every_change_is_audited_with_the_person_and_without_addresses(clinic: Clinic, published: Path) -> None:
    assert clinic.run("bundle", "add", "partners", str(published), "--for", FRONT) == 0
    published.write_bytes(bundle(1))
    clinic.run("bundle", "refresh", "partners")
    clinic.run("bundle", "acknowledge", "partners")
    clinic.run("bundle", "disable", "partners")

    def look(tx: Any) -> list[Any]:
        return [event for event in tx.audit.events() if event.action.startswith("bundle.")]

    events = clinic.write(look)
    assert [event.action for event in events] == [
        "bundle.added",
        "bundle.refreshed",
        "bundle.refreshed",
        "bundle.acknowledged",
        "bundle.disabled",
    ]
    assert all(event.actor.startswith("cli:") and event.subject == "partners" for event in events)
    assert all("@" not in event.detail for event in events)
    assert json.loads(events[2].detail)["removed"] == 1


@pytest.mark.parametrize("action", ["add", "list", "show", "refresh", "diff", "acknowledge", "disable", "enable"])
def test_help_teaches(capsys: Capture, action: str) -> None:
    with pytest.raises(SystemExit):
        main(["bundle", action, "--help"])
    shown = capsys.readouterr().out
    assert f"direct-gateway bundle {action}" in shown
    assert "examples:" in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_the_help_says_what_a_change_keeps_and_that_nothing_is_removed(capsys: Capture) -> None:
    for action, words in (("add", ("--change", "--unsigned", "everyone", "stays as it was")), ("disable", ("never",))):
        with pytest.raises(SystemExit):
            main(["bundle", action, "--help"])
        shown = capsys.readouterr().out
        assert all(word in shown for word in words)
