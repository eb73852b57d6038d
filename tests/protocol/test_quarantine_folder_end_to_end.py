"""The Quarantine folder through the real daemon: an operator reads why, mends it, and the report is gone."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, wait_for
from tests.support.pki import Authority

SENDER = "jane.doe@phr.example"
STACK = CryptographyStack()


def test_an_operator_reads_why_mends_it_and_the_report_is_gone(tmp_path: Path, partner_ca: Authority) -> None:
    practice = Practice.make(tmp_path / "clinic")
    (practice.directory / "secret").write_text("correct horse battery")
    secret = ("--password-file", str(practice.directory / "secret"))
    practice.run("user", "add", "it.desk", "--share-inbox", "--rights", "reader", *secret)
    practice.run("user", "grant", "it.desk", "Quarantine")
    practice.start()
    try:
        inner = inner_message(SENDER, practice.addresses)
        raw = direct_message(
            STACK, inner, sender=SENDER, recipients=practice.addresses, signer=partner_ca.issue(address=SENDER),
            to=[practice.identity()],
        )  # fmt: skip
        assert practice.send(raw, SENDER, practice.addresses)[0] == 250
        [message] = practice.settled(1)
        assert message["state"] == "refused"
        with practice.imap() as other:
            assert not [line for line in other.list()[1] if isinstance(line, bytes) and b"uarantine" in line]
            assert other.select("Quarantine", readonly=True)[0] == "NO"
        with practice.imap("it.desk", "correct horse battery") as operator:
            assert operator.select("Quarantine", readonly=True) == ("OK", [b"1"])
            _, answer = operator.fetch("1", "(BODY.PEEK[])")
            [report] = [bytes(item[1]) for item in answer if isinstance(item, tuple)]
            assert re.search(rb"quarantine retry " + message["id"].encode(), report)
            assert SENDER.encode() in report
            assert inner not in report
            assert raw not in report
            practice.trust(partner_ca.pem)
            assert practice.process is not None
            practice.stop()
            practice.start()
        with practice.imap("it.desk", "correct horse battery") as operator:
            assert operator.select("Quarantine", readonly=True) == ("OK", [b"1"])
            practice.run("quarantine", "retry", message["id"])

            def gone() -> bool:
                operator.noop()
                return operator.response("EXPUNGE")[1] == [b"1"]

            wait_for(gone, what="the end of the report")
            assert operator.status("Quarantine", "(MESSAGES)") == ("OK", [b"Quarantine (MESSAGES 0)"])
        assert practice.inbox().count(inner) == 1
        assert practice.run("audit", "verify", "--bodies", "all").returncode == 0
    finally:
        practice.stop()
