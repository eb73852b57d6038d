"""Header fields of the verdict in what mail clients read, through the real daemon: ours, and none that came in."""

from __future__ import annotations

import imaplib
import poplib
import re
from email import message_from_bytes
from email.policy import compat32

import pytest

from gateway.core.mime.structure import parse_structure
from gateway.core.shown_message import without_fields
from gateway.inbox.indexer import Indexer
from gateway.inbox.sections import encode_sections, section
from tests.support.direct_messages import CryptographyStack, direct_message, inner_message
from tests.support.gateway_process import Practice, free_ports
from tests.support.pki import Authority
from tests.support.postgresql import ENGINES, shared_cluster

pytestmark = pytest.mark.timeout(300)
"""Several daemons start one after the other."""
SENDER = "jane.doe@phr.example"
HEAD = f"From: {SENDER}\r\nTo: inbox@clinic.example\r\nSubject: forged\r\n".encode()
FORGED = b"Direct-Gateway-Verdict: forged by the sender\r\n"
FORGING = {
    "at the top": FORGED + HEAD + b"\r\nbody\r\n",
    "at the end": HEAD + FORGED + b"\r\nbody\r\n",
    "folded": HEAD + b"Direct-Gateway-Sender:\r\n boss@bank.example\r\n\tforged\r\nX-After: 1\r\n\r\nbody\r\n",
    "upper case": b"DIRECT-GATEWAY-LINK-AT-FILING: forged\r\n" + HEAD + b"\r\nbody\r\n",
    "blanks before the colon": HEAD + b"Direct-Gateway-Message-Id \t: forged\r\n\r\nbody\r\n",
    "no body": HEAD + FORGED + b"\r\n",
    "no empty line": HEAD + FORGED,
    "in the text": HEAD + b"\r\n" + FORGED,
    "in an attachment": HEAD + FORGED + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
    b"Content-Type: text/plain\r\n\r\nplain\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n"
    b"From: x@y.example\r\nDirect-Gateway-Verdict: within\r\nSubject: within\r\n\r\nbody within\r\n--o--\r\n",
    "none": inner_message(SENDER, ["inbox@clinic.example"], subject="ordinary \u00e9"),
}
NAMES = [
    "Direct-Gateway-Verdict", "Direct-Gateway-Sender", "Direct-Gateway-Signer", "Direct-Gateway-Signer-Certificate",
    "Direct-Gateway-Anchor", "Direct-Gateway-Policy", "Direct-Gateway-Verified-At", "Direct-Gateway-Message-Id",
    "Direct-Gateway-Link-At-Filing",
]  # fmt: skip


def deliver(practice: Practice, partner: Authority, inner: bytes, number: int) -> None:
    raw = direct_message(
        CryptographyStack(), inner, sender=SENDER, recipients=practice.addresses,
        signer=partner.issue(address=SENDER), to=[practice.identity()], message_id=f"<{number}@phr.example>",
    )  # fmt: skip
    assert practice.send(raw, SENDER, practice.addresses)[0] == 250


def by_uid(client: imaplib.IMAP4_SSL, uids: str, items: str) -> dict[int, tuple[bytes, bytes]]:
    """Line and literal of each message."""
    answer = client.uid("FETCH", uids, f"({items})")[1]
    pairs = [item if isinstance(item, tuple) else (item, b"") for item in answer if item != b")"]
    return {int(re.search(rb"UID (\d+)", line)[1]): (line, literal) for line, literal in pairs}  # type: ignore[index]


def subject(message: bytes) -> str:
    return str(message_from_bytes(message, policy=compat32)["Subject"])


def ours(message: bytes) -> tuple[dict[str, str], bytes]:
    """The fields of the gateway, which stand in front, and the rest."""
    fields: dict[str, str] = {}
    while match := re.match(rb"(?i)(direct-gateway-[a-z-]+):((?:[^\r\n]|\r\n[ \t])*)\r\n", message):
        name = match[1].decode()
        assert name not in fields
        fields[name] = match[2].replace(b"\r\n", b"").decode().strip()
        message = message[match.end() :]
    return fields, message


def check_reading(practice: Practice, shown: dict[int, bytes], folder: str = "INBOX") -> None:
    """Every way to read a message says the same, and what it says is of the message as it is shown."""
    with practice.imap() as client:
        assert client.select(folder, readonly=True)[0] == "OK"
        everything = ",".join(map(str, shown))
        sizes = by_uid(client, everything, "RFC822.SIZE")
        spelt = by_uid(client, everything, "ENVELOPE BODYSTRUCTURE")
        assert all(f"RFC822.SIZE {len(shown[uid])})".encode() in line for uid, (line, _) in sizes.items())
        for uid, message in shown.items():
            index = Indexer().index(message)
            whole = b"ENVELOPE %b BODYSTRUCTURE %b)" % (index.envelope, index.bodystructure)
            assert whole == spelt[uid][0].partition(b"UID %d " % uid)[2] + spelt[uid][1], uid
        names = ("DIRECT-GATEWAY-VERDICT", "direct-gateway-sender", "Subject")
        kinds = [("", ()), ("HEADER", ()), ("TEXT", ()), ("HEADER.FIELDS", names), ("HEADER.FIELDS.NOT", names)]
        for path in ((), (1,), (2,), (2, 1)):
            for kind, fields in kinds if path in {(), (2,)} else kinds[:1]:
                wanted = f" ({' '.join(fields)})" if fields else ""
                name = ".".join([*map(str, path), *([kind] if kind else [])]) + wanted
                read = {uid: literal for uid, (_, literal) in by_uid(client, everything, f"BODY.PEEK[{name}]").items()}
                for uid, message in shown.items():
                    offsets = encode_sections(parse_structure(message))
                    expected = section(offsets, message, path, kind, tuple(field.lower() for field in fields))
                    assert read[uid] == (expected or b""), (uid, name)
        pieces = [by_uid(client, everything, f"BODY.PEEK[]<{start}.100>") for start in range(0, 1_000, 100)]
        for uid, message in shown.items():
            assert b"".join(piece[uid][1] for piece in pieces) == message[:1_000]


def check_pop3(practice: Practice, shown: dict[int, bytes], port: int) -> None:
    client = poplib.POP3_SSL("localhost", port, context=practice.tls(), timeout=30)
    client.user(practice.login)
    client.pass_(practice.password)
    listed = [int(line.split()[1]) for line in client.list()[1]]
    assert listed == [len(message) for message in shown.values()]
    assert client.stat() == (len(shown), sum(listed))
    for number, message in enumerate(shown.values(), 1):
        ended = message if message.endswith(b"\r\n") else message + b"\r\n"
        assert b"\r\n".join([*client.retr(number)[1], b""]) == ended
        top = b"\r\n".join([*client.top(number, 0)[1], b""])
        assert top == ended[: len(top)]
        assert top.startswith(ended.partition(b"\r\n\r\n")[0])
    client.quit()


@pytest.mark.parametrize(
    "engine", [pytest.param(one, marks=[pytest.mark.slow] if one == "postgresql" else []) for one in ENGINES]
)
def test_fields_of_the_verdict_are_shown_while_the_setting_is_on_and_stay(
    engine: str, practice: Practice, partner_ca: Authority
) -> None:
    practice.stop()
    if engine == "postgresql":
        settings = shared_cluster().settings()
        practice.use_postgresql(settings.url, settings.schema)
    [pop3] = free_ports(1)
    practice.set("pop3", tls_port=pop3)
    practice.start()
    sent: list[bytes] = [FORGING["at the top"].replace(b"body", b"before")]
    deliver(practice, partner_ca, sent[0], 0)
    practice.settled(1)
    practice.stop()

    practice.set("imap", verdict_headers=True)
    practice.start()
    for number, (how, inner) in enumerate(FORGING.items(), 1):
        sent.append(inner.replace(b"Subject: forged", b"Subject: forged %b" % how.encode()))
        deliver(practice, partner_ca, sent[-1], number)
    practice.settled(len(sent))
    with practice.imap() as client:
        client.select("INBOX", readonly=True)
        shown = {uid: literal for uid, (_, literal) in by_uid(client, "1:*", "BODY.PEEK[]").items()}
    assert list(shown) == list(range(1, len(sent) + 1))
    # Those that came side by side are filed in any order.
    sent = sorted(sent, key=lambda inner: [*map(subject, shown.values())].index(subject(inner)))
    # What came before is as it was; in all others stand our fields, and then the message without any of theirs.
    assert shown[1] == sent[0]
    ids = {one["id"] for one in practice.messages()}
    for uid, inner in enumerate(sent[1:], 2):
        fields, rest = ours(shown[uid])
        assert list(fields) == NAMES
        assert rest == without_fields(inner)
        assert fields["Direct-Gateway-Verdict"] == "accepted"
        assert fields["Direct-Gateway-Sender"] == fields["Direct-Gateway-Signer"] == SENDER
        assert fields["Direct-Gateway-Link-At-Filing"] == "unlinked"
        assert fields["Direct-Gateway-Message-Id"] in ids
        mild = message_from_bytes(shown[uid], policy=compat32)
        assert [name for name in mild if name.lower().startswith("direct-gateway-")] == NAMES
        if b"forged" in inner:
            assert "forged" not in " ".join(fields.values())
    by_subject = {subject(message): uid for uid, message in shown.items()}
    assert b"Direct-Gateway-Verdict: within\r\n" in shown[by_subject["forged in an attachment"]]
    in_text = by_subject["forged in the text"]
    assert shown[in_text].endswith(b"\r\n\r\n" + FORGED)
    # The store keeps what was verified.
    at_end = by_subject["forged at the end"]
    about = ours(shown[at_end])[0]["Direct-Gateway-Message-Id"]
    exported = practice.directory / "exported.eml"
    practice.run("message", "export", about, str(exported))
    assert exported.read_bytes() == sent[at_end - 1]
    check_reading(practice, shown)
    with practice.imap() as client:
        client.select("INBOX", readonly=True)

        def search(*criteria: str) -> list[int]:
            return [int(uid) for uid in client.uid("SEARCH", *criteria)[1][0].split()]

        assert search("HEADER", "Direct-Gateway-Verdict", "accepted") == list(range(2, len(sent) + 1))
        assert search("HEADER", "Direct-Gateway-Verdict", "forged") == [1]
        assert search("HEADER", "Direct-Gateway-Sender", "bank") == []
        assert search("TEXT", '"forged by the sender"') == [1, in_text]
        for uid, message in shown.items():
            assert uid in search("LARGER", str(len(message) - 1), "SMALLER", str(len(message) + 1))
    check_reading(practice, shown, "Unlinked")
    check_pop3(practice, shown, pop3)

    # Linked now, and the setting off again: what was read under a UID is what is read.
    listing = practice.directory / "patients.csv"
    listing.write_text("id,given,family,dob\np-9,Ann,Moe,1960-05-06\n")
    practice.run("patient", "import", str(listing))
    practice.run("link", "add", fields["Direct-Gateway-Message-Id"], "p-9")
    assert practice.inbox("Linked") == [shown[len(sent)]]
    practice.stop()
    practice.set("imap", verdict_headers=False)
    practice.start()
    deliver(practice, partner_ca, FORGING["folded"].replace(b"body", b"after"), 99)
    practice.settled(len(sent) + 1)
    shown[len(sent) + 1] = FORGING["folded"].replace(b"body", b"after")
    assert practice.inbox() == list(shown.values())
    check_reading(practice, shown)
    check_pop3(practice, shown, pop3)
    assert practice.run("audit", "verify").returncode == 0
