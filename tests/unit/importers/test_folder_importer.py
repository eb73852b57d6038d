"""The folder importer: exact bytes, idempotent, crash-safe, and deaf to hostile names (S34, S46, promise 5)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConflictError, StoreError
from gateway.importers.file_names import MAX_NAME_BYTES, folder_name, part_name
from gateway.importers.folder import FolderImporter
from gateway.ports import ImportRequest, Link, MessagePart, Patient, PatientImporter

CONTENT = b"From: a@x.example\r\nSubject: caf\xc3\xa9\r\n\r\nbody \x00\xff bare\nline\rend"
AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LINK = Link("01J00000000000000000000001", "01M", "p-1", "automatic", "gateway", "address-book-1:sole_patient", AT)
PARTS = (
    MessagePart("", "text/plain", b"hello\r\n"),
    MessagePart("../../etc/passwd", "application/octet-stream", b"\x00\x01"),
    MessagePart("CCD.xml", "text/xml", b"<a/>"),
    MessagePart("ccd.XML", "text/xml", b"<b/>"),
)
REQUEST = ImportRequest(
    link=LINK,
    patient=Patient("p-1", mrn="M1", family="Lee", given="Ann", birth_date=date(1970, 2, 28), sex="female"),
    sender="a@x.example",
    recipients=("dr@practice.example",),
    subject="caf\u00e9 \u202e",
    sent_at=AT,
    received_at=AT,
    rfc822_message_id="<1@x.example>",
    content_sha256=hashlib.sha256(CONTENT).hexdigest(),
    content=CONTENT,
    text="hello",
    parts=PARTS,
)
RECEIPT = "p-1/01J00000000000000000000001"


def tree(base: Path) -> dict[str, bytes]:
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def run(base: Path, request: ImportRequest = REQUEST) -> str:
    return asyncio.run(FolderImporter(base).import_message(request))


def test_it_is_an_importer() -> None:
    importer: PatientImporter = FolderImporter(Path("x"))
    assert importer.name == "folder"


def test_what_is_written(tmp_path: Path) -> None:
    base = tmp_path / "deep" / "charts"
    assert run(base) == RECEIPT
    files = {name.removeprefix(RECEIPT + "/"): data for name, data in tree(base).items()}
    record = json.loads(files.pop("record.json"))
    assert files.pop("message.eml") == CONTENT
    assert files == {
        "parts/01-part.txt": b"hello\r\n",
        "parts/02-passwd.bin": b"\x00\x01",
        "parts/03-CCD.xml": b"<a/>",
        "parts/04-ccd.XML": b"<b/>",
    }
    assert record["format"] == "direct-gateway/chart-record"
    assert record["version"] == 1
    assert record["link"] == {
        "id": LINK.id,
        "mode": "automatic",
        "actor": "gateway",
        "rule": "address-book-1:sole_patient",
        "linked_at": "2026-05-01T12:00:00+00:00",
        "part": "",
    }
    assert record["patient"]["id"] == "p-1"
    assert record["patient"]["birth_date"] == "1970-02-28"
    assert record["message"]["sender"] == "a@x.example"
    assert record["message"]["recipients"] == ["dr@practice.example"]
    assert record["message"]["subject"] == "caf\u00e9 \u202e"
    assert record["message"]["text"] == "hello"
    for described in record["files"]:
        data = (base / RECEIPT / described["path"]).read_bytes()
        assert described["sha256"] == hashlib.sha256(data).hexdigest()
        assert described["size_bytes"] == len(data)
    assert [f["filename"] for f in record["files"]] == ["", "", "../../etc/passwd", "CCD.xml", "ccd.XML"]
    assert (base / RECEIPT / "record.json").read_bytes().isascii()


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    base = tmp_path / "charts"
    run(base)
    for path in [base, *base.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_second_call_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")}
    assert run(tmp_path, replace(REQUEST, subject="other")) == RECEIPT
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.rglob("*")} == before


async def test_parallel_calls_make_one_folder(tmp_path: Path) -> None:
    importer = FolderImporter(tmp_path / "charts")
    links = [replace(LINK, id=f"01J0000000000000000000000{n}") for n in range(4)]
    requests = [replace(REQUEST, link=link) for link in links for _ in range(5)]
    receipts = await asyncio.gather(*(importer.import_message(request) for request in requests))
    assert sorted(set(receipts)) == [f"p-1/{link.id}" for link in links]
    assert sorted(p.name for p in (tmp_path / "charts" / "p-1").iterdir()) == [link.id for link in links]


def test_content_with_another_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        run(tmp_path, replace(REQUEST, content=CONTENT + b"x"))
    assert tree(tmp_path) == {}


class PowerCutError(BaseException):
    """The machine stops here: nothing of ours catches it."""


STEPS = ("mkdir", "open", "write", "fsync", "rename")


def cut_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[int]:
    """Stop before the system call with that number; a write stops in its middle."""
    count = [0]

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            count[0] += 1
            if count[0] > calls:
                if name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise PowerCutError
            return real(*args, **keywords)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, wrapped(name, getattr(os, name)))
    return count


def test_a_crash_at_every_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    """F06 for the import step: stop before each system call in turn, then try again."""
    whole = tmp_path / "whole"
    FolderImporter(whole)._write(REQUEST)
    expected = tree(whole)
    calls = 0
    while True:
        base = tmp_path / f"cut{calls}"
        with pytest.MonkeyPatch.context() as monkeypatch:
            cut_after(monkeypatch, calls)
            try:
                FolderImporter(base)._write(REQUEST)
                done = True
            except PowerCutError:
                done = False
        if (base / RECEIPT).exists():
            assert tree(base / RECEIPT) == tree(whole / RECEIPT), calls
        assert FolderImporter(base)._write(REQUEST) == RECEIPT
        assert tree(base) == expected, calls
        if done:
            break
        calls += 1
    assert calls > 30


def test_everything_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_fsync(descriptor)

    def rename(old: str, new: str) -> None:
        partial = str(old)
        everything = {partial, *(str(p) for p in Path(partial).rglob("*"))}
        assert everything <= set(synced)
        # A folder is synced after the last file in it.
        assert synced.index(partial + "/parts") > max(i for i, name in enumerate(synced) if "/parts/" in name)
        synced.clear()
        real_rename(old, new)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the names of open files are not to be had here (/proc)")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    FolderImporter(tmp_path / "charts")._write(REQUEST)
    assert synced == [str(tmp_path / "charts" / "p-1")]


def test_the_folder_of_something_else_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / RECEIPT).mkdir(parents=True)
    with pytest.raises(ConflictError):
        run(tmp_path)
    (tmp_path / RECEIPT / "record.json").write_text(json.dumps({"link": {"id": "another"}}))
    with pytest.raises(ConflictError):
        run(tmp_path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tmp_path / "charts"
    base.mkdir()
    (base / "p-1").symlink_to(outside)
    with pytest.raises(ConflictError):
        run(base)
    assert list(outside.iterdir()) == []


# --- names ---

HOSTILE = [
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "..\\..\\windows\\system32\\x.dll",
    "a\0b.pdf",
    "con",
    "NUL.txt",
    "x" * 300 + ".pdf",
    "\U0001f600" * 300,
    "\u6f22" * 300 + ".pdf",
    "invoice\u202efdp.exe",
    "trailing.pdf...",
    "trailing.pdf ",
    "a\nb.txt",
    "\ud800.txt",
    "-rf",
    "a/b/../c.txt",
    "C:x.txt",
    "name.txt:stream",
    ".bashrc",
    "~",
    "\x1b[2J.txt",
    "a." + "b" * 300,
]
RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


def assert_safe(name: str) -> None:
    assert name not in {"", ".", ".."}
    assert not set(name) & set('/\\\0:*?"<>|\n\r\t')
    assert len(name.encode("utf-8")) <= MAX_NAME_BYTES
    assert name[-1] not in ". "
    assert name[0] != "."
    assert name.isprintable()
    assert name.split(".", maxsplit=1)[0].lower() not in RESERVED


@pytest.mark.parametrize("filename", HOSTILE)
def test_hostile_file_names_stay_inside_and_keep_their_bytes(tmp_path: Path, filename: str) -> None:
    part = MessagePart(filename, "application/pdf", b"%PDF")
    run(tmp_path / "charts", replace(REQUEST, parts=(part, part)))
    written = sorted((tmp_path / "charts" / RECEIPT / "parts").iterdir())
    assert [p.read_bytes() for p in written] == [b"%PDF"] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["charts"]
    for path in written:
        assert_safe(path.name)
    record = json.loads((tmp_path / "charts" / RECEIPT / "record.json").read_text())
    assert record["files"][1]["filename"] == filename


@given(st.integers(1, 2000), st.text(max_size=400) | st.sampled_from(HOSTILE), st.text(max_size=40))
def test_every_part_name_is_safe(number: int, filename: str, content_type: str) -> None:
    name = part_name(number, filename, content_type)
    assert_safe(name)
    assert name.startswith(f"{number:02d}-")


@given(st.text(min_size=1, max_size=128) | st.sampled_from(HOSTILE[:-1]))
def test_every_folder_name_is_safe(identifier: str) -> None:
    assert_safe(folder_name(identifier))


@given(st.lists(st.text("aA.bB~_-/1 é", min_size=1, max_size=6), unique=True, max_size=40))
def test_different_ids_never_share_a_folder_even_without_case(ids: list[str]) -> None:
    assert len({folder_name(identifier).casefold() for identifier in ids}) == len(ids)


@pytest.mark.parametrize("identifier", ["p-1", "018f428e-34f6-4707-8009-5ad742f901e7", "mrn_7.2"])
def test_plain_ids_are_their_own_folder(identifier: str) -> None:
    assert folder_name(identifier) == identifier


@pytest.mark.parametrize("identifier", ["P-1", "con", "nul.x", "..", "a/b", "a.", ".a", "x" * 65, "a~b", "é"])
def test_other_ids_get_a_digest(identifier: str) -> None:
    assert "~" in folder_name(identifier)


def test_hostile_patient_ids_stay_inside(tmp_path: Path) -> None:
    for identifier in ("../../x", "..", "A", "a"):
        run(tmp_path / "charts", replace(REQUEST, patient=Patient(identifier)))
    assert [p.name for p in tmp_path.iterdir()] == ["charts"]
    assert len(list((tmp_path / "charts").iterdir())) == 4
