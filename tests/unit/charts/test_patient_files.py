"""Reading patients from FHIR and CSV (S42)."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.charts import fhir
from gateway.charts.fhir import DIRECT_EXTENSION
from gateway.charts.patient_files import FileKind, PatientRow, RowProblem, kind_of, read_patients
from gateway.core.errors import InputError
from gateway.ports import Patient

TODAY = date(2026, 6, 1)
FLAG = {"url": DIRECT_EXTENSION, "valueBoolean": True}


def resource(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "resourceType": "Patient",
        "id": "p-1",
        "identifier": [
            {"type": {"coding": [{"code": "SS"}]}, "value": "999-99-9999"},
            {"type": {"coding": [{"code": "MR"}]}, "value": "MRN7"},
        ],
        "name": [
            {"use": "maiden", "family": "Old", "given": ["Ann"]},
            {"use": "official", "family": "García-López", "given": ["Ann", "Mary"]},
        ],
        "birthDate": "1970-02-28",
        "gender": "female",
        "telecom": [
            {"system": "phone", "value": "555-1"},
            {"system": "email", "value": "ann@gmail.com"},
            {"system": "email", "value": "Ann@Patients.Direct.example", "extension": [FLAG]},
        ],
        "address": [{"line": ["1 Road", "Unit 2"], "city": "Salem", "postalCode": "01940"}],
    }
    base.update(changes)
    return {key: value for key, value in base.items() if value is not None}


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "patients"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(tmp_path: Path, content: str | bytes) -> list[PatientRow | RowProblem]:
    return list(read_patients(write(tmp_path, content), TODAY))


def patients(rows: list[PatientRow | RowProblem]) -> list[Patient]:
    return [row.patient for row in rows if isinstance(row, PatientRow)]


def problems(rows: list[PatientRow | RowProblem]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, RowProblem)]


def one(tmp_path: Path, **changes: Any) -> Patient:
    rows = read(tmp_path, json.dumps(resource(**changes)))
    assert problems(rows) == []
    return patients(rows)[0]


ANN = Patient(
    id="p-1",
    mrn="MRN7",
    family="García-López",
    given="Ann Mary",
    birth_date=date(1970, 2, 28),
    sex="female",
    phone="555-1",
    address_line="1 Road, Unit 2",
    city="Salem",
    postal_code="01940",
    direct_addresses=("ann@patients.direct.example",),
)


# --- FHIR ---


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_ndjson_with_every_line_end_and_bom(tmp_path: Path, bom: bytes, end: str) -> None:
    text = "\n".join(json.dumps(resource(id=name), ensure_ascii=False) for name in ("p-1", "p-2")) + "\n"
    rows = read(tmp_path, bom + text.replace("\n", end or "\n").encode())
    assert [row.line for row in rows] == [1, 2]
    assert patients(rows)[0] == ANN


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("shape", ["patient", "array", "bundle"])
def test_one_document_in_any_shape(tmp_path: Path, shape: str, indent: int | None) -> None:
    observation = {"resourceType": "Observation", "id": "o"}
    document: Any = {
        "patient": resource(),
        "array": [resource()],
        "bundle": {"resourceType": "Bundle", "entry": [{"resource": observation}, {"resource": resource()}]},
    }[shape]
    rows = read(tmp_path, json.dumps(document, indent=indent))
    assert patients(rows) == [ANN]
    assert problems(rows) == []


def test_bad_lines_are_named_and_the_others_read(tmp_path: Path) -> None:
    lines = [
        "{broken",
        json.dumps(resource()),
        "",
        json.dumps({"resourceType": "Observation", "id": "x"}),
        json.dumps(resource(id=None)),
        json.dumps(resource(id="p 1")),
        json.dumps(resource(id="p-7", birthDate="1970-02-31")),
        '{"resourceType":"Patient","id":"' + "x" * 200 + '"}',
        '"text"',
        "[" * 100_000,
        json.dumps(resource(id="p-11")),
    ]
    rows = read(tmp_path, "\n".join(lines))
    assert [p.id for p in patients(rows)] == ["p-1", "p-11"]
    assert [line for line, _ in problems(rows)] == [1, 4, 5, 6, 7, 8, 9, 10]
    assert "not valid JSON" in problems(rows)[0][1]
    assert "birth date" in problems(rows)[4][1]


def test_bytes_that_are_not_utf8_refuse_their_line(tmp_path: Path) -> None:
    good = json.dumps(resource()).encode()
    rows = read(tmp_path, good + b"\n" + good.replace(b"Salem", b"Sal\xe9m") + b"\n")
    assert problems(rows) == [(2, "not valid UTF-8")]


def test_reasons_never_repeat_a_value(tmp_path: Path) -> None:
    lines = [json.dumps(resource(birthDate="secret-value")), json.dumps(resource(id="secret value"))]
    assert not any("secret" in reason for _, reason in problems(read(tmp_path, "\n".join(lines))))


def test_a_line_beyond_the_limit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir, "MAX_LINE_BYTES", 2000)
    long = json.dumps(resource(id="long", text="x" * 9000))
    rows = read(tmp_path, "\n".join([json.dumps(resource()), long, json.dumps(resource(id="p-3"))]))
    assert [p.id for p in patients(rows)] == ["p-1", "p-3"]
    assert [line for line, _ in problems(rows)] == [2]


def test_a_spread_out_document_that_is_broken_or_too_large_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        read(tmp_path, json.dumps(resource(), indent=1)[:-3])
    monkeypatch.setattr(fhir, "MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(InputError, match="NDJSON"):
        read(tmp_path, json.dumps(resource(), indent=1))


@pytest.mark.parametrize(
    ("contact", "expected"),
    [
        ({"system": "email", "value": "a@d.example", "extension": [FLAG]}, ("a@d.example",)),
        ({"system": "direct", "value": "a@d.example"}, ("a@d.example",)),
        ({"system": "url", "value": "urn:direct:a@d.example"}, ("a@d.example",)),
        ({"system": "email", "value": "mailto:a@d.example", "extension": [FLAG]}, ("a@d.example",)),
        # An ordinary e-mail address is no Direct address, however it looks.
        ({"system": "email", "value": "a@direct.d.example"}, ()),
        ({"system": "email", "use": "mobile", "value": "a@d.example"}, ()),
        ({"system": "email", "value": "a@d.example", "extension": [{**FLAG, "valueBoolean": False}]}, ()),
        ({"system": "email", "value": "a@d.example", "extension": [{**FLAG, "valueBoolean": "true"}]}, ()),
        ({"system": "email", "value": "a@d.example", "extension": [{"url": "http://x/us-core-direct"}]}, ()),
        # Old ones are not documented any more.
        ({"system": "email", "use": "old", "value": "a@d.example", "extension": [FLAG]}, ()),
        ({"system": "email", "value": "a@d.example", "extension": [FLAG], "period": {"end": "2026-05-31"}}, ()),
        ({"system": "email", "value": "a@d.example", "extension": [FLAG], "period": {"end": "2025"}}, ()),
        ({"system": "email", "value": "a@d.example", "extension": [FLAG], "period": {"end": "2026"}}, ("a@d.example",)),
        (
            {"system": "email", "value": "a@d.example", "extension": [FLAG], "period": {"end": "2026-06-01T10:00:00Z"}},
            ("a@d.example",),
        ),
    ],
)
def test_what_counts_as_a_direct_address(tmp_path: Path, contact: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert one(tmp_path, telecom=[contact]).direct_addresses == expected


@pytest.mark.parametrize("value", ["no address", "a@b", '"a b"@d.example', "a@d.example\u202e", "a\u00a0b@d.example"])
def test_an_unreadable_direct_address_is_left_out_and_noticed(tmp_path: Path, value: str) -> None:
    rows = read(tmp_path, json.dumps(resource(telecom=[{"system": "email", "value": value, "extension": [FLAG]}])))
    row = rows[0]
    assert isinstance(row, PatientRow)
    assert row.patient.direct_addresses == ()
    assert "left out" in row.notices[0]
    assert value not in row.notices[0]


@pytest.mark.parametrize(
    ("changes", "active", "deceased"),
    [
        ({}, True, False),
        ({"active": False}, False, False),
        ({"deceasedBoolean": True}, True, True),
        ({"deceasedBoolean": False}, True, False),
        ({"deceasedDateTime": "2022-07-22"}, True, True),
        ({"link": [{"type": "replaced-by", "other": {"reference": "Patient/2"}}]}, False, False),
        ({"link": [{"type": "replaces", "other": {"reference": "Patient/2"}}]}, True, False),
    ],
)
def test_standing(tmp_path: Path, changes: dict[str, Any], active: bool, deceased: bool) -> None:
    patient = one(tmp_path, **changes)
    assert (patient.active, patient.deceased) == (active, deceased)


@pytest.mark.parametrize(
    "changes",
    [
        {"active": "yes"},
        {"deceasedBoolean": "no"},
        {"deceasedDateTime": True},
        {"gender": "nobody"},
        {"birthDate": 1970},
        {"name": "Ann"},
        {"telecom": [1]},
        {"identifier": {}},
        {"address": [{"line": "1 Road"}]},
        {"name": [{"given": [1]}]},
        {"name": [{"family": "x" * 300}]},
        {"name": [{"family": "\u001b[2J"}]},
        {"name": [{"family": "a\u202eb"}]},
        {"name": [{"family": "\ud800"}]},
        {"link": [None]},
        {"telecom": [{"value": f"a{n}@d.example", "extension": [FLAG]} for n in range(40)]},
    ],
)
def test_values_of_the_wrong_kind_refuse_the_row(tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = read(tmp_path, json.dumps(resource(**changes)))
    assert [line for line, _ in problems(rows)] == [1]


def test_a_partial_birth_date_is_unknown_and_noticed(tmp_path: Path) -> None:
    row = read(tmp_path, json.dumps(resource(birthDate="1970")))[0]
    assert isinstance(row, PatientRow)
    assert row.patient.birth_date is None
    assert "birth date" in row.notices[0]


def test_a_name_that_is_only_text_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "patients.ndjson"
    path.write_text('{"resourceType":"Patient","id":"p1","name":[{"text":"Ann Leigh"}]}\n', encoding="utf-8")
    [row] = [row for row in read_patients(path, TODAY) if isinstance(row, PatientRow)]
    assert (row.patient.family, row.patient.given) == ("Ann Leigh", "")


def test_names_prefer_official_then_usual_and_skip_old_ones(tmp_path: Path) -> None:
    names = [{"use": "old", "family": "A"}, {"use": "nickname", "family": "B"}, {"use": "usual", "family": "C"}]
    assert one(tmp_path, name=names).family == "C"
    assert one(tmp_path, name=names[:1]).family == "A"
    assert one(tmp_path, name=None).family == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*sorted(resource()), "active", "link", "deceasedBoolean"]), json_values))
def test_no_resource_makes_the_reader_fail(tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = read(tmp_path, json.dumps(resource() | changes))
    assert all(isinstance(row, PatientRow | RowProblem) for row in rows)


# --- CSV ---

HEADER = "id,mrn,family,given,dob,sex,phone,line,city,zip,direct\n"
ROW = 'p-1,MRN7,García-López,Ann Mary,1970-02-28,F,555-1,"1 Road, Unit 2",Salem,01940,Ann@Patients.Direct.example\n'


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_with_every_line_end_and_bom(tmp_path: Path, bom: bytes, end: str) -> None:
    rows = read(tmp_path, bom + (HEADER + ROW).replace("\n", end).encode())
    assert patients(rows) == [ANN]
    assert rows[0].line == 2


@pytest.mark.parametrize(
    "header",
    [
        "ID,MRN,Last,First,Birth_Date,Gender,Telephone,Address,Town,Postal_Code,Direct_Address",
        "Patient ID,medical record number,Last Name,First-Name,Birthday,Sex,Phone Number,Street,City,Zip Code,Direct",
    ],
)
def test_headers_have_other_spellings(tmp_path: Path, header: str) -> None:
    assert patients(read(tmp_path, header + "\n" + ROW)) == [ANN]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    content = f"id,family,direct\np1,Lee,{'a@d.example b@d.example'}\n".replace(",", separator)
    assert patients(read(tmp_path, content))[0].direct_addresses == ("a@d.example", "b@d.example")


@pytest.mark.parametrize("cell", ["a@d.example;B@d.example", "a@d.example b@d.example", '"a@d.example; b@d.example,"'])
def test_several_direct_addresses_in_a_cell(tmp_path: Path, cell: str) -> None:
    assert patients(read(tmp_path, f"id,direct\np1,{cell}\n"))[0].direct_addresses == ("a@d.example", "b@d.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-02-28", date(1970, 2, 28)),
        ("1970-02-28T00:00:00Z", date(1970, 2, 28)),
        ("19700228", date(1970, 2, 28)),
        ("2/28/1970", date(1970, 2, 28)),
        ("", None),
    ],
)
def test_spellings_of_a_birth_date(tmp_path: Path, text: str, expected: date | None) -> None:
    assert patients(read(tmp_path, f"id,dob\np1,{text}\n"))[0].birth_date == expected


@pytest.mark.parametrize(
    "text", ["28/02/1970", "28.2.1970", "2/28/70", "1970-13-01", "soon", "1970", "\u0661970-01-01"]
)
def test_dates_are_not_guessed(tmp_path: Path, text: str) -> None:
    assert [line for line, _ in problems(read(tmp_path, f"id,dob\np1,{text}\n"))] == [2]


@pytest.mark.parametrize(
    ("header", "cell", "active", "deceased"),
    [
        ("active", "false", False, False),
        ("active", "", True, False),
        ("deceased", "yes", True, True),
        ("deceased", "0", True, False),
        ("deceased", "2020-01-01", True, True),
        ("DEATHDATE", "1976-07-25", True, True),
        ("DEATHDATE", "", True, False),
    ],
)
def test_standing_in_csv(tmp_path: Path, header: str, cell: str, active: bool, deceased: bool) -> None:
    patient = patients(read(tmp_path, f"id,{header}\np1,{cell}\n"))[0]
    assert (patient.active, patient.deceased) == (active, deceased)


def test_without_an_id_column_the_mrn_is_the_id(tmp_path: Path) -> None:
    patient = patients(read(tmp_path, "mrn,family\nM1,Lee\n"))[0]
    assert (patient.id, patient.mrn) == ("M1", "M1")


@pytest.mark.parametrize("header", ["family,given", "id,first,given", "id,id", '"id'])
def test_a_header_that_cannot_be_used_is_one_error(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError):
        read(tmp_path, header + "\np1,Lee\n")


def test_bad_rows_are_named_and_the_others_read(tmp_path: Path) -> None:
    content = (
        b"id,family,dob,active\n"
        b"p1,Lee,,\n"
        b",Lee,,\n"
        b"p3,Lee,,,extra\n"
        b"p4,Lee\n"
        b"\n"
        b",,,\n"
        b"p7,L\xe9e,,\n"
        b'p8,"Lee"x,,\n'
        b"p9,Lee,,perhaps\n"
        b"p10,Lee,,\n"
    )
    rows = read(tmp_path, content)
    assert [p.id for p in patients(rows)] == ["p1", "p10"]
    assert [line for line, _ in problems(rows)] == [3, 4, 5, 8, 9, 10]


def test_an_open_quote_is_reported_with_its_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, 'id,family\np1,"Lee\np2,Lee\np3,Lee\n')
    assert patients(rows) == []
    assert problems(rows)[0][0] == 2
    assert "lines 2 to 4" in problems(rows)[0][1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(tmp_path: Path, data: bytes) -> None:
    for start in (b"", b"id,family,dob\n", b"{"):
        try:
            rows = read(tmp_path, start + data)
        except InputError:
            continue
        assert all(isinstance(row, PatientRow | RowProblem) for row in rows)


# --- kinds, and the public samples ---


def test_the_first_character_tells_the_kind(tmp_path: Path) -> None:
    assert kind_of(write(tmp_path, b"\xef\xbb\xbf\r\n {}")) is FileKind.FHIR
    assert kind_of(write(tmp_path, b"[1]")) is FileKind.FHIR
    assert kind_of(write(tmp_path, b"id,name")) is FileKind.CSV


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a file"):
        kind_of(tmp_path / "absent")
    with pytest.raises(InputError, match="not a file"):
        kind_of(tmp_path)
    with pytest.raises(InputError, match="empty"):
        kind_of(write(tmp_path, b"\xef\xbb\xbf \n"))
    with pytest.raises(InputError, match="not a file"):
        kind_of(Path(os.devnull))


def test_synthea_fhir_patients(shared_data: Path) -> None:
    rows = list(read_patients(shared_data / "clinical/synthea/patients_r4.ndjson", TODAY))
    assert problems(rows) == []
    assert len({p.id for p in patients(rows)}) == 615
    assert sum(p.deceased for p in patients(rows)) == 124
    assert all(p.mrn and p.family and p.given and p.birth_date for p in patients(rows))


def test_synthea_registry(shared_data: Path) -> None:
    rows = list(read_patients(shared_data / "clinical/synthea/match_registry.csv", TODAY))
    assert problems(rows) == []
    assert len(rows) == 665
    assert sum(len(p.direct_addresses) for p in patients(rows)) == 375


def test_synthea_csv_export(shared_data: Path) -> None:
    rows = list(read_patients(shared_data / "clinical/synthea/csv/patients.csv", TODAY))
    assert problems(rows) == []
    gene = next(p for p in patients(rows) if p.given == "Gene733")
    assert (gene.family, gene.sex, gene.deceased, gene.postal_code) == ("Mann644", "male", True, "02653")


def test_us_core_examples(shared_data: Path) -> None:
    for path in sorted((shared_data / "clinical/fhir-us-core/examples").glob("patient-*.json")):
        rows = list(read_patients(path, TODAY))
        assert problems(rows) == [], path.name
        assert patients(rows)[0].direct_addresses == ()
