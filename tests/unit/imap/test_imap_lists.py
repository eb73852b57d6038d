"""LIST in every form: RFC 3501 6.3.8 and 6.3.9, RFC 5258, RFC 5819, RFC 6154."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.ports import Account, Folder
from tests.unit.imap.imap_harness import Bench, bench, plain_message
from tests.unit.imap.mutable_harness import MutableBench, mutable_bench


def with_sent(here: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account has a folder of sent mail below another name."""

    async def folders(_: Account) -> list[Folder]:
        return [
            Folder("INBOX", here.practice.inbox_id, "lrsw"),
            Folder("Mail/Sent", here.practice.nested_id, "lrswi", special_use="\\Sent"),
            Folder("Secret", here.practice.nested_id, "l"),
        ]

    monkeypatch.setattr(here.inbox, "folders", folders)


INBOX = b'* LIST (\\HasNoChildren) "/" INBOX'
MAIL = b'* LIST (\\Noselect \\HasChildren) "/" Mail'
SENT = b'* LIST (\\HasNoChildren \\Sent) "/" Mail/Sent'
SECRET = b'* LIST (\\HasNoChildren) "/" Secret'


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('"" "*"', [INBOX, MAIL, SENT, SECRET]),
        ('"" %', [INBOX, MAIL, SECRET]),
        ('"" %/%', [SENT]),
        ('"Mail/" "*"', [SENT]),
        ('Mail "/*"', [SENT]),
        ('"" ""', [b'* LIST (\\Noselect) "/" ""']),
        ('"Mail/" ""', [b'* LIST (\\Noselect) "/" ""']),
        ('() "" ""', []),
        ('"" ("" INBOX)', [INBOX]),
        ('() "" *', [INBOX, MAIL.replace(b"Noselect", b"NonExistent"), SENT, SECRET]),
        ('(REMOTE) "" inbox', [INBOX]),
        ('"" (INBOX INBOX I*)', [INBOX]),
        ('"" (Secret INBOX) RETURN ()', [INBOX, SECRET]),
        ('(SPECIAL-USE) "" "*"', [SENT]),
        ('(SPECIAL-USE) "" "*" RETURN (SPECIAL-USE)', [SENT]),
        ('(SPECIAL-USE SUBSCRIBED) "" "*"', [b'* LIST (\\Subscribed \\HasNoChildren \\Sent) "/" Mail/Sent']),
        ('"" "M*" RETURN (SPECIAL-USE)', [MAIL.replace(b"Noselect", b"NonExistent"), SENT]),
        ('"" Secret RETURN (SUBSCRIBED CHILDREN)', [b'* LIST (\\Subscribed \\HasNoChildren) "/" Secret']),
        (
            '(SPECIAL-USE RECURSIVEMATCH) "" "%"',
            [b'* LIST (\\NonExistent \\HasChildren) "/" Mail ("CHILDINFO" ("SPECIAL-USE"))'],
        ),
        (
            '(RECURSIVEMATCH SPECIAL-USE SUBSCRIBED REMOTE) "" "M%"',
            [b'* LIST (\\NonExistent \\HasChildren) "/" Mail ("CHILDINFO" ("SPECIAL-USE" "SUBSCRIBED"))'],
        ),
    ],
)
async def test_forms_of_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, expected: list[bytes]
) -> None:
    """RFC 5258 section 3, RFC 6154 section 2."""
    async with bench(tmp_path) as here, here.client() as client:
        with_sent(here, monkeypatch)
        await client.login()
        assert await client.ok(f"LIST {arguments}") == expected


async def test_status_comes_behind_each_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5819 section 2: none for a name that cannot be selected or read, which is no error."""
    async with bench(tmp_path, contents=[plain_message(1)]) as here, here.client() as client:
        with_sent(here, monkeypatch)
        await client.login()
        assert await client.ok('LIST "" "*" RETURN (STATUS (MESSAGES UNSEEN) SPECIAL-USE)') == [
            INBOX,
            b"* STATUS INBOX (MESSAGES 1 UNSEEN 1)",
            MAIL.replace(b"Noselect", b"NonExistent"),
            SENT,
            b"* STATUS Mail/Sent (MESSAGES 0 UNSEEN 0)",
            SECRET,
        ]


@pytest.mark.parametrize(
    "arguments",
    [
        '(RECURSIVEMATCH) "" *',
        '(REMOTE RECURSIVEMATCH) "" *',
        '(BOGUS) "" *',
        '"" * RETURN (BOGUS)',
        '"" * RETURN',
        '"" * RETURN (STATUS)',
        '"" * RETURN (STATUS ())',
        '"" * RETURN (STATUS (BOGUS))',
        '"" * RETURN (CHILDREN  SUBSCRIBED)',
        '"" ()',
        '"" (INBOX',
        '"" (INBOX) x',
        '""',
        "",
        '"" (' + " ".join(["a"] * 30) + ")",
        '"" * RETURN (' + " ".join(["CHILDREN"] * 600) + ")",
    ],
)
async def test_bad_forms_of_list(tmp_path: Path, arguments: str) -> None:
    """RFC 5258 section 6: unknown options and broken lists are BAD."""
    async with bench(tmp_path) as here, here.client() as client:
        await client.login()
        assert (await client.cmd(f"LIST {arguments}"))[-1].startswith(b"BAD")


async def tree(here: MutableBench) -> None:
    """The mailboxes of the examples of RFC 5258: some subscribed, one of those gone."""
    for name in ("Fruit", "Fruit/Apple", "Fruit/Banana", "Vegetable", "Vegetable/Broccoli", "Tofu/Smoked"):
        await here.mutable.create((await here.grant()).account, name)
    account = (await here.grant()).account
    for name in ("INBOX", "Fruit/Banana", "Vegetable", "Vegetable/Broccoli", "Tofu/Smoked"):
        await here.mutable.subscribe(account, name)
    await here.mutable.delete(account, "Vegetable/Broccoli")


async def test_subscribed_names_and_those_above_them() -> None:
    """RFC 5258 section 5, examples 3 and 8: what is subscribed and gone is listed so, and CHILDINFO leads to it."""
    async with mutable_bench() as here, here.client() as client:
        await tree(here)
        await client.login()
        assert await client.ok('LIST (SUBSCRIBED) "" "*"') == [
            b'* LIST (\\Subscribed \\HasNoChildren) "/" INBOX',
            b'* LIST (\\Subscribed \\HasNoChildren) "/" Fruit/Banana',
            b'* LIST (\\Subscribed \\HasNoChildren) "/" Tofu/Smoked',
            b'* LIST (\\Subscribed \\HasNoChildren) "/" Vegetable',
            b'* LIST (\\NonExistent \\Subscribed \\HasNoChildren) "/" Vegetable/Broccoli',
        ]
        assert await client.ok('LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"') == [
            b'* LIST (\\Subscribed \\HasNoChildren) "/" INBOX',
            b'* LIST (\\HasChildren) "/" Fruit ("CHILDINFO" ("SUBSCRIBED"))',
            b'* LIST (\\NonExistent \\HasChildren) "/" Tofu ("CHILDINFO" ("SUBSCRIBED"))',
            b'* LIST (\\Subscribed \\HasNoChildren) "/" Vegetable ("CHILDINFO" ("SUBSCRIBED"))',
        ]


async def test_a_name_that_is_listed_needs_nobody_to_lead_to_it() -> None:
    """RFC 5258 section 5, example 9: what is above it is left out."""
    async with mutable_bench() as here, here.client() as client:
        await tree(here)
        await client.login()
        listed = await client.ok('LIST (RECURSIVEMATCH SUBSCRIBED) "" "Fru*"')
        assert listed == [b'* LIST (\\Subscribed \\HasNoChildren) "/" Fruit/Banana']


async def test_no_status_of_a_name_that_only_leads_to_others() -> None:
    """RFC 5819 section 2: the status of what meets the selection options."""
    async with mutable_bench() as here, here.client() as client:
        await tree(here)
        await client.login()
        listed = await client.ok('LIST (SUBSCRIBED RECURSIVEMATCH) "" "F%" RETURN (STATUS (MESSAGES))')
        assert listed == [b'* LIST (\\HasChildren) "/" Fruit ("CHILDINFO" ("SUBSCRIBED"))']


async def test_lsub() -> None:
    """RFC 3501 6.3.9: with ``%`` a name above a subscribed one is shown and cannot be selected; with ``*`` not."""
    async with mutable_bench() as here, here.client() as client:
        await tree(here)
        await client.login()
        assert await client.ok('LSUB "" "*"') == [
            b'* LSUB (\\HasNoChildren) "/" INBOX',
            b'* LSUB (\\HasNoChildren) "/" Fruit/Banana',
            b'* LSUB (\\HasNoChildren) "/" Tofu/Smoked',
            b'* LSUB (\\HasNoChildren) "/" Vegetable',
            b'* LSUB (\\Noselect \\HasNoChildren) "/" Vegetable/Broccoli',
        ]
        assert await client.ok('LSUB "" "F%"') == [b'* LSUB (\\Noselect \\HasChildren) "/" Fruit']
        assert await client.ok('LSUB "" ""') == []
        await client.ok("UNSUBSCRIBE Fruit/Banana")
        assert await client.ok('LSUB "" "F*"') == []


async def test_children_follow_the_folders() -> None:
    """RFC 3348, RFC 5258 section 4."""
    async with mutable_bench() as here, here.client() as client:
        await client.login()
        await client.ok("CREATE One")
        assert await client.ok('LIST "" One') == [b'* LIST (\\HasNoChildren) "/" One']
        await client.ok("CREATE One/Two")
        assert await client.ok('LIST "" One RETURN (CHILDREN)') == [b'* LIST (\\HasChildren) "/" One']
        await client.ok("DELETE One")
        assert await client.ok('LIST "" One') == [b'* LIST (\\Noselect \\HasChildren) "/" One']
