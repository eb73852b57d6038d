"""By what a message and its documents are known again."""

from gateway.core.claims import Document
from gateway.core.document_marks import MAX_MARKS, MarkKind, marks_of

SHA = "ab" * 32


def test_each_thing_has_a_mark() -> None:
    marks = marks_of("a@x.example", " <1@x> ", [Document("2.1", SHA, "1.2.3", "7"), Document("3", "cd" * 32)])
    assert [(mark.kind, mark.path) for mark in marks] == [
        (MarkKind.MESSAGE, ""),
        (MarkKind.DOCUMENT, "2.1"),
        (MarkKind.DOCUMENT_ID, "2.1"),
        (MarkKind.DOCUMENT, "3"),
    ]
    assert marks[1].sha256 == SHA
    assert all(len(mark.sha256) == 64 for mark in marks)
    assert marks[0] == marks_of("a@x.example", "<1@x>", [])[0]


def test_what_says_nothing_has_none() -> None:
    assert marks_of("", "<1@x>", []) == marks_of("a@x.example", " ", []) == ()


def test_values_do_not_run_into_each_other() -> None:
    one, two = (marks_of("", "", [Document("1", SHA, *parts)])[1] for parts in (("1.2", "3"), ("1.23", "")))
    assert one.sha256 != two.sha256
    same, alike = (marks_of("", "", [Document("1", SHA, root, "x")])[1] for root in ("2ABC", "2abc"))
    assert same == alike


def test_hostile_texts_and_numbers_are_bounded() -> None:
    many = [Document(str(n), f"{n:064x}", "1.2", f"\ud800{n}") for n in range(1_000)]
    assert len(marks_of("a@x.example", "\ud800" * 9, many)) == MAX_MARKS
    assert len(marks_of("", "", [Document("1", SHA), Document("2", SHA)])) == 1
