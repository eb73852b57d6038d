"""ER7: reading, writing, limits, and what a PID says (HL7-1 to HL7-5)."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.claims import Identifier, NameKind
from gateway.core.hl7 import (
    MAX_FIELDS,
    MAX_REPETITIONS,
    MAX_SEGMENTS,
    STANDARD,
    Delimiters,
    HL7Error,
    read_message,
    split_messages,
    unescape,
)
from gateway.core.hl7_patient import PatientReading, read_moment, read_pid
from gateway.core.hl7_writing import Text, escape, escape_text, write_message, write_segment

MSH = b"MSH|^~\\&|A|F|B|G|20260101||ADT^A08|1|P|2.5.1"


def pid(fields: str, *, charset: str = "UNICODE UTF-8") -> bytes:
    return MSH + f"||||||{charset}\rPID|{fields}\r".encode()


def reading(fields: str) -> PatientReading:
    segment = read_message(pid(fields)).first("PID")
    assert segment is not None
    return read_pid(segment)


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_segments_end_with_cr_lf_or_both(end: bytes) -> None:
    message = read_message(end.join([MSH, b"EVN|A08|20260101", b"PID|1||7", b""]))
    assert [segment.name for segment in message.segments] == ["MSH", "EVN", "PID"]
    assert message.kind() == ("ADT", "A08")
    assert message.msh.text(3) == "A"
    assert message.msh.text(10) == "1"


def test_any_delimiters_are_taken_from_the_message() -> None:
    message = read_message(b"MSH#*!?@$#app#fac#x#y#20260101##ADT*A08#9#P#2.7\rPID#1##A@B*C!D?S?E\r")
    assert message.delimiters == Delimiters("#", "*", "!", "?", "@", "$")
    segment = message.first("PID")
    assert segment is not None
    assert [one.text(1) for one in segment.repetitions(3)] == ["A", "D*E"]
    assert segment.text(3, 1, 2) == "B"
    assert segment.text(3, 2) == "C"


@pytest.mark.parametrize(
    "start",
    [b"", b"PID|1", b"MSH", b"MSH|", b"MSH|^", b"MSH|^^\\&|A", b"MSHA^~\\&A", b"MSH|^~\\ |A", b"MSH\r^~\\&\r"],
)
def test_a_message_without_usable_delimiters_is_refused_by_name(start: bytes) -> None:
    with pytest.raises(HL7Error) as caught:
        read_message(start)
    assert caught.value.segment == "MSH"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"\X41c3A9\ ", "A\u00e9 "),
        (r"one\.br\two", "one\ntwo"),
        (r"one\.sp3\two", "one\n\n\ntwo"),
        (r"\H\bold\N\ ", "bold "),
        (r"\.in+4\x", "x"),
        (r"\Zlocal\ ", r"\Zlocal\ "),
        (r"C:\temp\F\x", r"C:\temp|x"),
        (r"open \F", r"open \F"),
        (r"\XZZ\ ", r"\XZZ\ "),
        (r"\Xff\ ", r"\Xff\ "),
        (r"\P\ ", "# "),
    ],
)
def test_escape_sequences_are_undone_and_unknown_ones_stay(written: str, meant: str) -> None:
    assert unescape(written, STANDARD) == meant


def test_an_escaped_delimiter_separates_nothing() -> None:
    segment = read_message(pid(r"1||7||O\S\Neil\T\Sons\R\x^An\F\n")).first("PID")
    assert segment is not None
    assert segment.text(5, 1) == "O^Neil&Sons~x"
    assert segment.text(5, 2) == "An|n"


@pytest.mark.parametrize(
    ("charset", "octets", "name"),
    [
        (b"UNICODE UTF-8", "M\u00fcller".encode(), "M\u00fcller"),
        (b"8859/1", "M\u00fcller".encode("latin-1"), "M\u00fcller"),
        (b"8859/15", "\u0152uvre".encode("iso8859-15"), "\u0152uvre"),
        (b"", "M\u00fcller".encode(), "M\u00fcller"),
        (b"ASCII", b"Mueller", "Mueller"),
        (b"8859/1~UNICODE UTF-8", "M\u00fcller".encode("latin-1"), "M\u00fcller"),
    ],
)
def test_the_character_set_is_that_of_msh_18(charset: bytes, octets: bytes, name: str) -> None:
    message = read_message(MSH + b"||||||" + charset + b"\rPID|1||7||" + octets + b"\r")
    found = message.first("PID")
    assert found is not None
    assert found.text(5) == name


@pytest.mark.parametrize(
    ("charset", "octets"),
    [(b"ASCII", b"M\xfcller"), (b"UNICODE UTF-8", b"M\xfcller"), (b"", b"M\xfcller"), (b"JAS2020", b"x")],
)
def test_bytes_of_another_character_set_are_refused_and_never_guessed(charset: bytes, octets: bytes) -> None:
    with pytest.raises(HL7Error) as caught:
        read_message(MSH + b"||||||" + charset + b"\rPID|1||7||" + octets + b"\r")
    assert (caught.value.segment, caught.value.field) == ("MSH", 18)
    assert "ller" not in str(caught.value)


def test_a_deletion_is_told_from_an_empty_field() -> None:
    segment = read_message(pid('1||7||""||')).first("PID")
    assert segment is not None
    assert segment.is_null(5)
    assert segment.text(5) == ""
    assert not segment.is_null(6)


@pytest.mark.parametrize(
    "octets",
    [
        MSH + b"\r" + b"NTE|1\r" * MAX_SEGMENTS,
        MSH + b"|" * MAX_FIELDS,
        b"MSH|^~\\&|A\rPID|1||" + b"a~" * MAX_REPETITIONS + b"a\r",
        b"MSH|^~\\&|A\rPID|1||" + b"a^" * 2_000 + b"a\r",
        b"MSH|^~\\&|A\rPID|1||" + b"a&" * 2_000 + b"a\r",
    ],
)
def test_every_kind_of_too_much_is_refused(octets: bytes) -> None:
    def read_all() -> None:
        segment = read_message(octets).first("PID")
        assert segment is not None
        for one in segment.repetitions(3):
            one.text(1)

    with pytest.raises(HL7Error):
        read_all()


def test_a_message_above_the_limit_of_bytes_is_refused() -> None:
    with pytest.raises(HL7Error, match="more than 10 bytes"):
        read_message(MSH, max_bytes=10)


@pytest.mark.parametrize("line", [b"pid|1", b"P", b"PIDX|1", b"MSH|^~\\&|", b"P\xc3\xa4D|1"])
def test_a_line_that_is_no_segment_is_refused(line: bytes) -> None:
    with pytest.raises(HL7Error, match="no segment"):
        read_message(MSH + b"\r" + line + b"\r")


def test_a_batch_is_cut_into_its_messages() -> None:
    batch = b"FHS|^~\\&\rBHS|^~\\&\r" + MSH + b"\rPID|1||7\r" + MSH + b"\rPID|1||8\rBTS|2\rFTS|1\r"
    found = [read_message(one) for one in split_messages(b"\xef\xbb\xbf" + batch)]
    assert [m.first("PID").text(3) for m in found] == ["7", "8"]  # type: ignore[union-attr]
    with pytest.raises(HL7Error, match="no MSH"):
        split_messages(b"BHS|^~\\&\r")


def test_random_bytes_and_mutated_messages_never_do_more_than_be_refused() -> None:
    rng = random.Random(20_260)
    good = pid("1||7^^^HOSP^MR~8^^^X&1.2.3&ISO||Fam^Giv^M~Old^^^^^^M||19700101|F||A|1 St^^C^S^12345||(555)123^^PH^a@b")
    for number in range(3_000):
        mutant = bytearray(good)
        for _ in range(rng.randint(1, 12)):
            place = rng.randrange(len(mutant))
            mutant[place] = rng.choice(b"|^~\\&\r\n\x00\x0b\x1cMSHPID#\xff\xc3") if number % 2 else rng.randrange(256)
        octets = bytes(mutant) if number % 5 else rng.randbytes(rng.randint(0, 300))
        try:
            message = read_message(octets)
            for segment in message.all("PID"):
                read_pid(segment)
        except HL7Error:
            continue


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.sampled_from([STANDARD, Delimiters("#", "*", "!", "?", "@", "$")]))
def test_what_is_written_is_read_again_and_holds_no_delimiter(value: str, delimiters: Delimiters) -> None:
    for written in (escape(value, delimiters), escape_text(value, delimiters)):
        assert not set(written) & {"\r", "\n", "\x0b", "\x1c", delimiters.field, delimiters.component}
        assert delimiters.repetition not in written
    clean = "".join(char for char in value if char.isprintable())
    assert unescape(escape(clean, delimiters), delimiters) == " ".join(clean.split())
    assert unescape(escape_text(clean, delimiters), delimiters) == clean


def test_hostile_values_begin_no_segment_field_or_frame() -> None:
    evil = 'x\rPID|1||EVIL\n\x0bMSH|^~\\&\x1c\r~^&\\.br\\"'
    octets = write_message(
        [
            write_segment("MSH", "A", evil, "", "", "", "", ("MDM", "T02"), "1", "P", "2.5.1"),
            write_segment("TXA", "1", ("CN", evil), [evil, (evil, (evil, evil))], Text(evil)),
        ]
    )
    assert octets.count(b"\r") == 2
    assert not set(octets) & set(b"\n\x0b\x1c")
    message = read_message(octets)
    assert [segment.name for segment in message.segments] == ["MSH", "TXA"]
    txa = message.segments[1]
    assert len(txa.fields) == 4
    assert txa.text(2, 2) == 'x PID|1||EVIL MSH|^~\\& ~^&\\.br\\"'
    assert txa.text(4).startswith("x\nPID|1||EVIL\n")


def test_two_quotes_as_a_value_are_no_order_to_delete() -> None:
    segment = read_message(write_message([write_segment("MSH", '""')])).msh
    assert not segment.is_null(3)
    assert segment.text(3) == '""'


def test_a_pid_gives_names_numbers_places_and_contacts() -> None:
    found = reading(
        "1||77^^^HOSP&1.2.3.4&ISO^MR~123-45-6789^^^USSSA^SS~5^^^OTHER^PI"
        "||Quimby^Ann^Q^Jr^^^L~Weber^Ann^^^^^M~Annie^A^^^^^N||19610203|F|Bird^Ann"
        "||1 Elm St&Elm^Apt 2^Town^MA^02139^US^H~9 Old Rd^^Far^NY^10001^^BA"
        "||(555) 123-4567^PRN^PH~^NET^Internet^ann@mail.example~^NET^DIRECT^Ann@patients.direct.example~"
        "urn:direct:two@patients.direct.example|^WPN^PH^^1^555^7654321||||||||||||||||Y"
    )
    claim = found.claim
    assert [(n.family, n.given, n.middle, n.suffix, n.kind) for n in claim.names] == [
        ("Quimby", ("Ann",), "Q", "Jr", NameKind.CURRENT),
        ("Weber", ("Ann",), "", "", NameKind.BIRTH),
        ("Annie", ("A",), "", "", NameKind.ALIAS),
        ("Bird", ("Ann",), "", "", NameKind.ALIAS),
    ]
    assert claim.identifiers == (Identifier("77", "1.2.3.4", "MR"), Identifier("5", "OTHER", "PI"))
    assert claim.birth_date == date(1961, 2, 3)
    assert claim.sex == "female"
    assert claim.phones == ("(555) 123-4567", "555 7654321")
    assert claim.emails == ("ann@mail.example",)
    assert claim.direct_addresses == ("ann@patients.direct.example", "two@patients.direct.example")
    assert [(a.lines, a.city, a.state, a.postal_code, a.is_old) for a in claim.addresses] == [
        (("1 Elm St", "Apt 2"), "Town", "MA", "02139", False),
        (("9 Old Rd",), "Far", "NY", "10001", True),
    ]
    assert claim.deceased is True
    assert not found.doubts


def test_an_incomplete_birth_date_is_kept_as_such_and_a_wrong_one_is_a_doubt_without_its_value() -> None:
    assert reading("1||7||A^B||197006").claim.birth_part == "1970-06"
    assert reading("1||7||A^B||19700601120000-0500").claim.birth_date == date(1970, 6, 1)
    for wrong in ("1970-06-01", "19701301", "06/01/70", "x"):
        found = reading(f"1||7||A^B||{wrong}")
        assert found.claim.birth_date is None
        assert [doubt.field for doubt in found.doubts] == [7]
        assert wrong not in str(found.doubts[0])


def test_a_moment_lies_between_what_its_precision_allows() -> None:
    day = read_moment("20260131")
    assert day is not None
    assert day.begin == datetime(2026, 1, 31, tzinfo=UTC)
    assert day.end == datetime(2026, 2, 1, tzinfo=UTC) - timedelta(microseconds=1)
    month = read_moment("202612")
    assert month is not None
    assert month.end == datetime(2027, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    exact = read_moment("20260131120000.5-0500")
    assert exact is not None
    assert exact.begin == exact.end == datetime(2026, 1, 31, 17, 0, 0, 500_000, tzinfo=UTC)
    assert read_moment("20260231") is None
    assert read_moment("x") is None
    assert read_moment("00010101000000+1400") is None
