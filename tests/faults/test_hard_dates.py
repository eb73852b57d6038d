"""F12 the whole way: genuine mail whose dates are hard to read is filed as it came, once, and SEARCH knows its day.

How each date is read is in ``tests/unit/inbox/test_indexer.py``, whose table this is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice
from tests.support.pki import Authority
from tests.unit.inbox.test_indexer import DATES

SENDER = "lab@partner.example"
IN_MAIL = [(value, moment) for value, moment in DATES if value.isascii() and len(value) < 900]
"""Eight bits or an endless line in a header are another fault, and are refused as such."""


@pytest.fixture
def clinic(tmp_path: Path, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path / "practice")
    made.trust(partner_ca.pem)
    made.start()
    yield made
    made.kill()


def test_f12_mail_with_hard_dates_is_filed_once_as_it_came(
    clinic: Practice, partner_ca: Authority, report: Callable[[str], None]
) -> None:
    signer, us, stack, sent = partner_ca.issue(address=SENDER), clinic.identity(), CryptographyStack(), []
    for number, (value, _) in enumerate(IN_MAIL):
        name = f"<{number}@partner.example>"
        plain = inner_message(SENDER, clinic.addresses, message_id=name, attachment=None)
        inner = re.sub(rb"(?m)^Date: [^\r]*", lambda _, value=value: b"Date: " + value, plain, count=1)  # type: ignore[misc]
        raw = direct_message(
            stack, inner, sender=SENDER, recipients=clinic.addresses, signer=signer, to=[us], message_id=name
        )
        assert clinic.send(raw, SENDER, clinic.addresses)[0] == 250
        sent.append(inner)
    clinic.settled(len(sent))
    inbox = clinic.inbox()
    lost = sum(one not in inbox for one in sent)
    with clinic.imap() as client:
        client.select("INBOX", readonly=True)
        told = {}
        for day in ("19-Jan-2038", "7-Feb-2106", "29-Feb-2028", "29-Mar-2026"):
            told[day] = client.search(None, "SENTON", day)[1][0].split()
    report(f"F12: points={len(sent)} lost={lost} duplicated={len(inbox) - len(set(inbox))}")
    assert lost == 0
    assert len(inbox) == len(sent)
    assert {day: len(found) for day, found in told.items()} == {
        "19-Jan-2038": 2,
        "7-Feb-2106": 1,
        "29-Feb-2028": 1,
        "29-Mar-2026": 1,
    }
