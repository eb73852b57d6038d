"""Any bytes, in any place that is read, give evidence and never raise. The guard of the room is taken away first."""

import io
import json
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.claims import contradictions, given_names_differ
from gateway.evidence import collecting
from gateway.evidence import message as evidence_message
from gateway.evidence.collecting import Collector, Piece
from gateway.evidence.context import read_context
from gateway.evidence.message import read_evidence, read_piece
from gateway.evidence.recognising import Kind
from gateway.evidence.transfer import uudecoded
from tests.unit.evidence.evidence_messages import PID_INFO, cda, message, metadata, package, part, xdm
from tests.unit.evidence.test_cda_header import RICH
from tests.unit.evidence.test_direct_context import CONTEXT, HEADER
from tests.unit.evidence.test_fhir_evidence import PATIENT, XML
from tests.unit.evidence.test_hl7v2_evidence import ADT

QUICK, SLOW = 150, 20_000

SAMPLES = {
    Kind.XML: [cda(RICH).encode(), XML.encode(), cda().encode("utf-16")],
    Kind.ZIP: [xdm(cda().encode()), package({"a.xml": cda(RICH).encode(), "b.hl7": ADT.encode()})],
    Kind.HL7V2: [ADT.encode(), ADT.replace("|", " | ").encode()],
    Kind.JSON: [json.dumps(PATIENT).encode(), json.dumps({"resourceType": "Bundle", "entry": [PATIENT]}).encode()],
}
WHOLE = message(
    part(CONTEXT, "text/plain", encoding="8bit", content_id="ctx@hobo.lab"),
    part(cda().encode(), "text/xml"),
    part(xdm(cda().encode()), "application/zip"),
    part(ADT.encode(), "application/hl7-v2", encoding="8bit"),
    header=HEADER,
)

TOKENS = [
    b"<", b">", b"&", b'"', b"|", b"~", b"\\", b"\r", b"PK\x01\x02", b"\0", b"[", b"{", b"}", b"null",
    b"\xff\xff\xff\xff",
    b"urn:hl7-org:v3", b";", b"=", b" ", b"\n", b"<!DOCTYPE a>",
]  # fmt: skip
"""What means something in one of the formats."""


@pytest.fixture(autouse=True)
def _no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(_found: object, _source: object, _path: object, work: Callable[[], None]) -> None:
        work()

    monkeypatch.setattr(evidence_message, "guarded", unguarded)


@st.composite
def _mutated(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """A sample with some pieces cut, doubled, exchanged or overwritten; or any bytes."""
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        new = draw(st.one_of(st.binary(max_size=12), st.just(data[at : at + length] * 2), st.sampled_from(TOKENS)))
        data = data[:at] + new + data[at + length :]
    return draw(st.one_of(st.just(data), st.binary(max_size=60))) if draw(st.integers(0, 9)) == 0 else data


def _check(found: Collector) -> None:
    evidence = found.evidence()
    contradictions(evidence.claims)
    given_names_differ(evidence.claims)
    assert len(evidence.claims) <= collecting.MAX_CLAIMS
    assert all(problem.code and problem.detail for problem in evidence.problems)


def _any_piece(kind: Kind, data: bytes) -> None:
    found = Collector()
    read_piece(found, Piece("2", data, "", ""), kind)
    _check(found)


def _any_package(entries: list[bytes], size: str, sha1: str, uri: str, info: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        safe = [text.replace("&", "").replace("<", "") for text in (uri, info)]
        archive.writestr(
            "IHE_XDM/S/METADATA.XML",
            metadata(safe[0], b"", sha1=sha1, size=size, info=(safe[1], *PID_INFO)).encode("utf-8", "replace"),
        )
        for number, data in enumerate(entries):
            archive.writestr(f"IHE_XDM/S/{number}", data)
    _any_piece(Kind.ZIP, buffer.getvalue())


def _any_context(data: bytes, charset: str) -> None:
    found = Collector()
    read_context(found, data, "2", charset)
    _check(found)
    uudecoded(data)
    uudecoded(b"begin 644 x\n" + data)


def _any_message(data: bytes, sender: str) -> None:
    evidence = read_evidence(data, sender)
    contradictions(evidence.claims)


PIECES = given(kind_and_data=st.sampled_from(list(Kind)).flatmap(lambda k: st.tuples(st.just(k), _mutated(SAMPLES[k]))))
PACKAGES = given(
    entries=st.lists(_mutated(SAMPLES[Kind.XML] + SAMPLES[Kind.HL7V2] + SAMPLES[Kind.JSON]), max_size=3),
    size=st.sampled_from(["", "0", "x"]),
    sha1=st.sampled_from(["", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "0" * 40]),
    uri=st.one_of(st.sampled_from(["0", "1|0", "..", "../S/0", "2|a"]), st.text("0123/.\\| ", max_size=8)),
    info=st.text("PID-0123456789|^~&\\X. ", max_size=30),
)
CONTEXTS = given(data=_mutated([CONTEXT]), charset=st.sampled_from(["", "utf-8", "utf-16", "idna", "x"]))
MESSAGES = given(data=_mutated([WHOLE]), sender=st.one_of(st.just("ada@direct.phr.test"), st.text(max_size=20)))


@settings(max_examples=QUICK)
@PIECES
def test_any_piece(kind_and_data: tuple[Kind, bytes]) -> None:
    _any_piece(*kind_and_data)


@settings(max_examples=QUICK)
@PACKAGES
def test_any_package(entries: list[bytes], size: str, sha1: str, uri: str, info: str) -> None:
    _any_package(entries, size, sha1, uri, info)


@settings(max_examples=QUICK)
@CONTEXTS
def test_any_context(data: bytes, charset: str) -> None:
    _any_context(data, charset)


@settings(max_examples=QUICK)
@MESSAGES
def test_any_message(data: bytes, sender: str) -> None:
    _any_message(data, sender)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@settings(max_examples=SLOW)
@PIECES
def test_very_many_pieces(kind_and_data: tuple[Kind, bytes]) -> None:
    _any_piece(*kind_and_data)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@settings(max_examples=SLOW)
@PACKAGES
def test_very_many_packages(entries: list[bytes], size: str, sha1: str, uri: str, info: str) -> None:
    _any_package(entries, size, sha1, uri, info)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@settings(max_examples=SLOW)
@CONTEXTS
def test_very_many_contexts(data: bytes, charset: str) -> None:
    _any_context(data, charset)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@settings(max_examples=SLOW)
@MESSAGES
def test_very_many_messages(data: bytes, sender: str) -> None:
    _any_message(data, sender)
