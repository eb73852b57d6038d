"""A recipient whose address folds like that of another one was told 250 and got nothing (EP-14).

Case folding makes ``ss`` of a sharp s and ``k`` of the KELVIN SIGN; addresses are not compared so, and neither may the
recipients of one transaction be.
"""

from __future__ import annotations

import pytest

from gateway.ingress.recipients import LocalRecipients
from tests.unit.ingress.smtp_harness import bench

PAIRS = [
    ("strasse@direct.example.org", "stra\u00dfe@direct.example.org"),
    ("karl@direct.example.org", "\u212aarl@direct.example.org"),
]


@pytest.mark.parametrize("pair", PAIRS)
async def test_both_are_in_the_envelope(pair: tuple[str, str]) -> None:
    local = LocalRecipients(["direct.example.org"], pair)
    async with bench(is_local_recipient=local) as here, here.client() as client:
        await client.ehlo()
        assert (await client.cmd("MAIL FROM:<a@hisp.example.net> SMTPUTF8")).startswith("250 ")
        for address in (*pair, pair[0].upper().replace("\u1e9e", "\u00df")):
            assert (await client.cmd(f"RCPT TO:<{address}>")).startswith("250 ")
        assert (await client.cmd("DATA")).startswith("354 ")
        await client.send(b"a: b\r\n\r\nx\r\n.\r\n")
        assert (await client.reply()).startswith("250 ")
        [inbound] = here.accept.inbounds
        assert inbound.envelope.recipients == pair
