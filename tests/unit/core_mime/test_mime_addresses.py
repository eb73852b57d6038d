"""Address lists: the samples of RFC 5322, what real senders write, and hostile input."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.mime.addresses import MAX_ADDRESSES, Group, Mailbox, addr_specs, parse_address_list


def box(mailbox: str, host: str, name: str = "", route: str = "") -> Mailbox:
    return Mailbox(name, route, mailbox, host)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # RFC 5322 appendix A.
        ("John Doe <jdoe@machine.example>", [box("jdoe", "machine.example", "John Doe")]),
        ('"Joe Q. Public" <john.q.public@example.com>', [box("john.q.public", "example.com", "Joe Q. Public")]),
        (
            "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
            [box("mary", "x.test", "Mary Smith"), box("jdoe", "example.org"), box("one", "y.test", "Who?")],
        ),
        (
            '<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>',
            [box("boss", "nil.test"), box("sysservices", "example.net", 'Giant; "Big" Box')],
        ),
        (
            "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
            [
                Group(
                    "A Group",
                    (box("c", "a.test", "Ed Jones"), box("joe", "where.test"), box("jdoe", "one.test", "John")),
                )
            ],
        ),
        ("Undisclosed recipients:;", [Group("Undisclosed recipients", ())]),
        (
            "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
            [box("pete", "silly.test", "Pete")],
        ),
        (
            (
                "A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n"
                " joe@example.org,\r\n  John <jdoe@one.test> (my dear friend); (the end of the group)"
            ),
            [
                Group(
                    "A Group",
                    (
                        box("c", "public.example", "Chris Jones"),
                        box("joe", "example.org"),
                        box("jdoe", "one.test", "John"),
                    ),
                )
            ],
        ),
        ("Joe Q. Public <john.q.public@example.com>", [box("john.q.public", "example.com", "Joe Q. Public")]),
        (
            "Mary Smith <@node.test,@x.test:mary@example.net>, , jdoe@test  . example",
            [box("mary", "example.net", "Mary Smith", "@node.test,@x.test"), box("jdoe", "test.example")],
        ),
        ("John Doe <jdoe@machine(comment).  example>", [box("jdoe", "machine.example", "John Doe")]),
        # What real senders write.
        ("user@domain (Real Name)", [box("user", "domain", "Real Name")]),
        (
            "group: g1@d1.org; , group2: g3@d3.org;",
            [Group("group", (box("g1", "d1.org"),)), Group("group2", (box("g3", "d3.org"),))],
        ),
        ("a@b.org <a@b.org>", [box("a", "b.org", "a@b.org")]),
        ("a@b.org; c@d.org", [box("a", "b.org"), box("c", "d.org")]),
        ('"john doe"@x.org', [box("john doe", "x.org")]),
        ("=?utf-8?q?J=C3=BC?= <j@x.org>", [box("j", "x.org", "=?utf-8?q?J=C3=BC?=")]),
        ("x@[192.0.2.1]", [box("x", "[192.0.2.1]")]),
        ("Jane Doe jane@x.org", [box("jane", "x.org", "Jane Doe")]),
        ("root", [box("root", "")]),
        ("MAILER-DAEMON <>", [box("", "", "MAILER-DAEMON")]),
        # Broken, yet nothing is hidden.
        ("<a@b.org> <c@d.org>", [box("a", "b.org"), box("c", "d.org")]),
        ("<a@b.org> e@f.org <c@d.org>", [box("a", "b.org"), box("e", "f.org"), box("c", "d.org")]),
        ("<a@b.org, c@d.org", [box("a", "b.org"), box("c", "d.org")]),
        ('"unclosed <a@b.org>', [box("a", "b.org", '" unclosed')]),
        ("G: a@b.org", [Group("G", (box("a", "b.org"),))]),
        ("a@b@c.org", [box("a@b", "c.org")]),
        ("", []),
        (" , ;, ", []),
    ],
)
def test_address_lists(value: str, expected: list[Mailbox | Group]) -> None:
    assert list(parse_address_list(value.encode())) == expected


def test_addr_specs_are_candidates_in_order() -> None:
    text = 'Dr. A <A@X.example>, g: b@y.example, "c d"@z.example;, nobody, <>'
    assert addr_specs(text) == ("A@X.example", "b@y.example", "c d@z.example")


def test_the_display_name_is_decoded_and_8_bit_names_survive() -> None:
    (one,) = parse_address_list(b"=?utf-8?q?J=C3=BCrgen?= <j@x.org>")
    (two,) = parse_address_list("Jürgen <j@x.org>".encode("latin-1"))
    assert isinstance(one, Mailbox)
    assert isinstance(two, Mailbox)
    assert one.display_name == two.display_name == "Jürgen"
    assert one.addr_spec == "j@x.org"


@pytest.mark.parametrize(
    "piece",
    ['"\\', '("', "(", "<", "<a,", "[,", "@", "a@", " . ", "<@", "a@b <", ":", "a:;", '"a" ', "<@a ", "\\", "(\\"],
)
def test_time_is_linear(piece: str) -> None:
    begun = time.perf_counter()
    entries = parse_address_list((piece * (300_000 // len(piece))).encode())
    assert time.perf_counter() - begun < 3
    assert sum(isinstance(entry, Mailbox) for entry in entries) <= MAX_ADDRESSES


@given(st.binary(max_size=300) | st.text('<>@,;:."\\()[] ab\r\n').map(str.encode))
def test_any_bytes_give_mailboxes_without_line_breaks(value: bytes) -> None:
    for entry in parse_address_list(value):
        for member in entry.members if isinstance(entry, Group) else (entry,):
            text = member.name + member.route + member.mailbox + member.host
            assert "\r" not in text
            assert "\n" not in text
            assert "\0" not in text
