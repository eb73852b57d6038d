"""EP-5 to EP-17 against the real daemon: the SMTP cases of the Edge Testing Tool, with raw sockets and with swaks."""

from __future__ import annotations

import io
import shutil
import smtplib
import socket
import ssl
import subprocess
import time
import zipfile
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from tests.support.direct_messages import CDA, CryptographyStack, direct_message
from tests.support.gateway_process import Practice
from tests.support.intake_faults import Wire
from tests.support.pki import Authority

SENDER = "lab@partner.example"
PLAIN = b"Subject: a\r\n\r\nb\r\n"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, partner_ca: Authority) -> Iterator[Practice]:
    made = Practice.make(tmp_path_factory.mktemp("edge") / "practice")
    made.trust(partner_ca.pem)
    text = made.config.read_text()
    for key, value in {"max_message_mib": 2, "command_timeout_seconds": 3, "stress_timeout_seconds": 3}.items():
        line = next(one for one in text.splitlines() if one.startswith(f"{key} ="))
        text = text.replace(line, f"{key} = {value}")
    made.config.write_text(text)
    made.start()
    try:
        yield made
    finally:
        assert made.stop() == 0


@pytest.fixture
def client(edge: Practice) -> Iterator[Wire]:
    with Wire(edge.smtp_port) as made:
        yield made


def capabilities(edge: Practice) -> list[str]:
    with socket.create_connection(("127.0.0.1", edge.smtp_port), timeout=5) as raw:
        raw.recv(1000)
        raw.sendall(b"EHLO a.example\r\n")
        answer = b""
        while not answer.splitlines() or answer.splitlines()[-1][3:4] != b" ":
            answer += raw.recv(4000)
    return [line[4:].decode() for line in answer.splitlines()[1:]]


def test_ep5_every_command(edge: Practice, client: Wire) -> None:
    to = edge.addresses[0]
    said = [
        client.ask(line)[:3]
        for line in (
            "HELO a.example",
            "NOOP",
            "VRFY someone",
            f"MAIL FROM:<{SENDER}>",
            f"RCPT TO:<{to}>",
            "RSET",
            "NOOP x",
        )
    ]
    assert said == ["250", "250", "252", "250", "250", "250", "250"]
    # RSET has ended the transaction.
    assert client.ask("DATA").startswith("503 5.5.1")
    assert client.deliver(PLAIN, SENDER, to).startswith("250 2.0.0")
    # Commands are read without regard to case, and the null sender is taken (a notice of a failure has it).
    assert client.ask("mail from:<>").startswith("250 2.1.0")
    assert client.ask(f"rcpt to:<{to}>").startswith("250 2.1.5")
    assert client.ask("quit").startswith("221 2.0.0")
    assert client.reply() == ""


def test_ep5_extensions_are_offered_and_kept(edge: Practice, client: Wire) -> None:
    offered = capabilities(edge)
    assert {"SIZE 2097152", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS"} <= set(offered)
    assert client.ask(f"MAIL FROM:<{SENDER}> BODY=8BITMIME SMTPUTF8 SIZE=100").startswith("250 2.1.0")
    assert client.ask("RCPT TO:<jürgen@clinic.example>".encode().decode("latin-1")).startswith(("501", "550"))
    client.ask("RSET")
    client.send(f"MAIL FROM:<müller@partner.example> SMTPUTF8\r\nRCPT TO:<{edge.addresses[0]}>\r\nDATA\r\n".encode())
    assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
    client.send("Subject: ü\r\n\r\nß\r\n.\r\n".encode())
    assert client.reply().startswith("250 2.0.0")
    client.send("MAIL FROM:<müller@partner.example>\r\n".encode())
    assert client.reply().startswith("553 5.6.7")


def test_ep5_a_pipelined_session_is_answered_in_order(edge: Practice, client: Wire) -> None:
    to = edge.addresses[0]
    ahead = ("RSET", f"MAIL FROM:<{SENDER}>", f"RCPT TO:<nobody@{edge.domain}>", f"RCPT TO:<{to}>", "DATA")
    client.send("".join(f"{line}\r\n" for line in ahead).encode())
    assert [client.reply()[:9] for _ in range(4)] == ["250 2.0.0", "250 2.1.0", "550 5.1.1", "250 2.1.5"]
    assert client.reply().startswith("354")
    client.send(PLAIN + b".\r\nQUIT\r\n")
    assert [client.reply()[:3] for _ in range(2)] == ["250", "221"]


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n\nb\r\n", b"a\x00b\r\n"])
def test_ep6_bare_line_ends_are_refused_and_not_delivered(edge: Practice, content: bytes) -> None:
    before = len(edge.messages())
    with Wire(edge.smtp_port) as client:
        assert client.deliver(b"Subject: a\r\n\r\n" + content, SENDER, edge.addresses[0]).startswith("550 5.5.2")
        assert client.ask("NOOP").startswith("250")
    assert len(edge.messages()) == before


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        (["NONSENSE"], "500 5.5.2"),
        (["EXPN list"], "502 5.5.1"),
        (["RCPT TO:<a@b.example>"], "503 5.5.1"),
        (["DATA"], "503 5.5.1"),
        ([f"MAIL FROM:<{SENDER}>", f"MAIL FROM:<{SENDER}>"], "503 5.5.1"),
        ([f"MAIL FROM:<{SENDER}>", "DATA"], "503 5.5.1"),
        (["MAIL FROM:no-brackets"], "501 5.1.7"),
        (["MAIL TO:<a@b.example>"], "501 5.5.4"),
        ([f"MAIL FROM:<{SENDER}> FOO=bar"], "555 5.5.4"),
        ([f"MAIL FROM:<{SENDER}>", "RCPT TO:<far@elsewhere.example>"], "550 5.7.1"),
    ],
)
def test_ep7_wrong_and_untimely_commands(client: Wire, lines: Sequence[str], reply: str) -> None:
    assert [client.ask(line) for line in lines][-1].startswith(reply)
    assert client.ask("NOOP").startswith("250")


def test_ep7_mail_before_a_greeting(edge: Practice) -> None:
    with Wire(edge.smtp_port, greet=False) as client:
        assert client.reply().startswith("220")
        assert client.ask(f"MAIL FROM:<{SENDER}>").startswith("503 5.5.1")


def test_ep7_connections_that_break_harm_nobody(edge: Practice) -> None:
    before = len(edge.messages())
    for step in ([], [f"MAIL FROM:<{SENDER}>"], [f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{edge.addresses[0]}>", "DATA"]):
        with Wire(edge.smtp_port) as client:
            for line in step:
                client.ask(line)
            client.send(b"Subject: half")
    with Wire(edge.smtp_port) as client:
        assert client.deliver(PLAIN + b"whole\r\n", SENDER, edge.addresses[0]).startswith("250")
    assert len(edge.messages()) == before + 1


def test_ep8_sizes(edge: Practice, client: Wire) -> None:
    to = edge.addresses[0]
    longest = f"MAIL FROM:<{'a' * 64}@{'.'.join(['b' * 59] * 3)}.example>"
    assert client.ask(longest).startswith("250")
    assert client.ask("RSET").startswith("250")
    assert client.ask(f"MAIL FROM:<{'a' * 65}@partner.example>").startswith("501 5.1.7")
    assert client.ask("NOOP " + "x" * 505).startswith("250")
    assert client.ask("NOOP " + "x" * 506).startswith("500 5.5.2")
    assert client.ask(f"MAIL FROM:<{SENDER}> SIZE=2097153").startswith("552 5.3.4")
    # A line of a message may be as long as 1,000 bytes and, here, longer: nothing of it is changed.
    assert client.deliver(b"Subject: a\r\n\r\n" + b"x" * 998 + b"\r\n", SENDER, to).startswith("250")
    # What is larger than the limit is refused after its end, although its size was not declared, and the session lives.
    assert client.deliver(b"Subject: a\r\n\r\n" + b"x" * 2_100_000 + b"\r\n", SENDER, to).startswith("552 5.3.4")
    assert client.ask(f"MAIL FROM:<{SENDER}>").startswith("250")
    replies = [client.ask(f"RCPT TO:<{to}>") for _ in range(50)]
    assert all(reply.startswith("250") for reply in replies)


@pytest.mark.parametrize("where", ["greeting", "command", "data"])
def test_ep9_silence_ends_with_421(edge: Practice, where: str) -> None:
    with Wire(edge.smtp_port, greet=where != "greeting") as client:
        if where == "greeting":
            assert client.reply().startswith("220")
        if where == "data":
            for line in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{edge.addresses[0]}>", "DATA"):
                client.ask(line)
            client.send(b"Subject: never en")
        began = time.monotonic()
        assert client.reply().startswith("421 4.4.2")
        assert client.reply() == ""
        assert 2 < time.monotonic() - began < 15


def test_ep10_starttls(edge: Practice) -> None:
    with smtplib.SMTP("localhost", edge.smtp_port, timeout=10) as client:
        client.ehlo()
        client.mail(SENDER)
        assert client.starttls(context=edge.tls())[0] == 220
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.version() in {"TLSv1.2", "TLSv1.3"}
        # Nothing of before is known any more (RFC 3207 section 4.2).
        assert client.docmd("MAIL", f"FROM:<{SENDER}>")[0] == 503
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.docmd("STARTTLS")[0] == 503
        assert client.docmd("RCPT", f"TO:<{edge.addresses[0]}>")[0] == 503


def test_ep10_injected_plaintext_is_dropped(edge: Practice, client: Wire) -> None:
    client.send(b"STARTTLS\r\nNOOP\r\n")
    assert client.reply().startswith("220")
    with edge.tls().wrap_socket(client.socket, server_hostname="localhost") as inside:
        inside.sendall(b"EHLO a.example\r\n")
        assert inside.recv(4000).startswith(b"250-")
        inside.settimeout(0.5)
        with pytest.raises(TimeoutError):
            inside.recv(100)


def test_ep11_ep12_no_password_is_taken_and_nothing_relayed(edge: Practice, client: Wire) -> None:
    """The STA listener knows no logins at all; submission is a listener of its own."""
    assert not [line for line in capabilities(edge) if line.startswith("AUTH")]
    for mechanism in ("PLAIN AGEAYg==", "LOGIN", "DIGEST-MD5", "CRAM-MD5"):
        assert client.ask(f"AUTH {mechanism}").startswith("502 5.5.1")
    client.ask(f"MAIL FROM:<{edge.addresses[0]}>")
    assert client.ask("RCPT TO:<somebody@elsewhere.example>").startswith("550 5.7.1")


def test_ep14_what_was_acknowledged_is_there_after_a_kill(edge: Practice, client: Wire) -> None:
    answer = client.deliver(PLAIN + b"ep14\r\n", SENDER, edge.addresses[0])
    edge.kill()
    edge.start()
    assert answer.rsplit(" ", 1)[1] in {one["id"] for one in edge.messages()}


def xdm(*, index: bytes = b"<html><body>ok</body></html>", mime_type: str = "text/xml") -> bytes:
    """A minimal XDM archive (IHE XDM: INDEX.HTM, IHE_XDM/SUBSET01/METADATA.XML and a document)."""
    packed = io.BytesIO()
    metadata = f'<SubmitObjectsRequest><ExtrinsicObject mimeType="{mime_type}"/></SubmitObjectsRequest>'
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in {
            "INDEX.HTM": index,
            "IHE_XDM/SUBSET01/METADATA.XML": metadata.encode(),
            "IHE_XDM/SUBSET01/DOC0001.XML": CDA,
        }.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


PDF = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n" + bytes(range(256)) * 40
STYLED = CDA.replace(b"?>", b'?>\r\n<?xml-stylesheet type="text/xsl" href="http://127.0.0.1:9/gone.xsl"?>', 1)
BROKEN_STYLE = CDA.replace(b"?>", b'?>\r\n<?xml-stylesheet type="text/xsl" href="\\\\no where"?>', 1)
Part = tuple[str, bytes, str]
PARTS: dict[str, list[Part]] = {
    "EP-15 text and C-CDA": [("text/plain", b"see\r\n", ""), ("text/xml", CDA, "a.xml")],
    "EP-15 C-CDA and text": [("text/xml", CDA, "a.xml"), ("text/plain", b"see\r\n", "")],
    "EP-15 PDF and C-CDA": [("application/pdf", PDF, "a.pdf"), ("text/xml", CDA, "a.xml")],
    "EP-15 C-CDA and PDF": [("text/xml", CDA, "a.xml"), ("application/pdf", PDF, "a.pdf")],
    "EP-15 text and XDM": [("text/plain", b"see\r\n", ""), ("application/zip", xdm(), "a.zip")],
    "EP-15 XDM and text": [("application/zip", xdm(), "a.zip"), ("text/plain", b"see\r\n", "")],
    "EP-16 a stylesheet that is not there": [("text/xml", STYLED, "a.xml")],
    "EP-16 a stylesheet that cannot be named": [("text/xml", BROKEN_STYLE, "a.xml")],
    "EP-17 a bad index": [("application/zip", xdm(index=b"<html><p>not closed & bad"), "a.zip")],
    "EP-17 of type octet-stream": [("application/octet-stream", xdm(), "a.zip")],
    "EP-17 application/xml in the metadata": [("application/zip", xdm(mime_type="application/xml"), "a.zip")],
}


def composed(parts: list[Part], to: str, number: str) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = SENDER, to, number
    message["Date"] = "Mon, 05 Jan 2026 12:00:00 +0000"
    message["Message-ID"] = f"<{number.replace(' ', '-')}@partner.example>"
    message.make_mixed()
    for kind, data, name in parts:
        maintype, _, subtype = kind.partition("/")
        if name:
            message.add_attachment(data, maintype=maintype, subtype=subtype, filename=name)
        else:
            inline = EmailMessage(policy=SMTP)
            inline.set_content(data.decode())
            message.attach(inline)
    message.set_boundary("=_edge")
    return bytes(message)


def test_ep15_to_ep17_whatever_it_carries_passes_unchanged(edge: Practice, partner_ca: Authority) -> None:
    signer, sent = partner_ca.issue(address=SENDER), []
    before = len(edge.messages())
    for name, parts in PARTS.items():
        inner = composed(parts, edge.addresses[0], name)
        raw = direct_message(
            CryptographyStack(), inner, sender=SENDER, recipients=edge.addresses, signer=signer, to=[edge.identity()],
            message_id=f"<{name.replace(' ', '-')}@partner.example>",
        )  # fmt: skip
        assert edge.send(raw, SENDER, edge.addresses)[0] == 250, name
        sent.append(inner)
    listed = edge.settled(before + len(PARTS))
    assert {one["reason"] for one in listed[: len(PARTS)]} == {"ok"}
    inbox = edge.inbox()
    assert [inbox.count(inner) for inner in sent] == [1] * len(sent)


def test_a_real_client_delivers(edge: Practice, tmp_path_factory: pytest.TempPathFactory) -> None:
    """swaks, with STARTTLS and pipelining: a program that knows nothing of ours (EP-5, EP-10)."""
    if shutil.which("swaks") is None:
        pytest.skip("swaks is not installed")
    if subprocess.run(["perl", "-MNet::SSLeay", "-e", "1"], capture_output=True, check=False).returncode:
        pytest.skip("Net::SSLeay is not installed, so swaks has no TLS")
    before = len(edge.messages())
    done = subprocess.run(
        ["swaks", "--server", "localhost", "--port", str(edge.smtp_port), "--from", SENDER, "--to", edge.addresses[0],
         "--tls", "--pipeline", "--body", "from swaks"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "250 2.0.0 Accepted as" in done.stdout
    assert len(edge.messages()) == before + 1
