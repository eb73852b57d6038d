"""The one HTML page of this release: what this is, and how to read the inbox.

Guarantees: static text and the listeners' ports; no PHI, no script, no link to another server. The only style is
allowed by its hash, so the policy needs no ``unsafe-inline``.
"""

from __future__ import annotations

import base64
import hashlib
import html

from gateway.settings import IMAPSettings, POP3Settings

_STYLE = (
    "body{font:1.05rem/1.55 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;"
    "color:#1c2733;background:#fff}code{background:#eef2f5;padding:.1em .3em;border-radius:3px}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.3rem 1rem .3rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{color:#e3e9ee;background:#14191e}code{background:#26303a}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _where(settings: IMAPSettings | POP3Settings) -> str:
    """Server and ports, as a table; empty when the listener is off."""
    rows = [
        (f"port <code>{port}</code>", security)
        for port, security in ((settings.tls_port, "TLS from the first byte (SSL/TLS)"), (settings.port, "STARTTLS"))
        if port
    ]
    ports = "".join(f"<tr><th scope=row>{port}</th><td>{security}</td></tr>" for port, security in rows)
    server = f"<tr><th scope=row>server</th><td><code>{html.escape(settings.host)}</code></td></tr>"
    return f"<table>{server}{ports}</table>" if rows else ""


def home(imap: IMAPSettings, pop3: POP3Settings) -> str:
    """The page, as HTML."""
    where = _where(imap) or "<p>The IMAP listener is switched off in the configuration.</p>"
    if pop3_where := _where(pop3):
        where += f"<p>Or, for programs that speak nothing else, over POP3:</p>{pop3_where}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>direct-gateway</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>direct-gateway</h1>
<p>This is a gateway for Direct Secure Messaging. It receives encrypted and signed messages from other
organisations, verifies them, keeps them in a store from which nothing is removed, and shows them in an inbox.</p>
<h2>Reading the inbox</h2>
<p>A web inbox is not part of this release. Read the inbox with a mail client, over IMAP:</p>
{where}
<p>Log in with the user name and the password that <code>direct-gateway init</code> printed. If the client warns
of an unknown certificate, compare it with the certificate in the folder <code>certs/tls</code> of the practice.
Messages cannot be deleted.</p>
<h2>For the operator</h2>
<table>
<tr><th scope=row><a href="/healthz"><code>/healthz</code></a></th><td>the process is alive</td></tr>
<tr><th scope=row><a href="/readyz"><code>/readyz</code></a></th><td>it can do its work, and if not, why</td></tr>
</table>
</main>
</body>
</html>
"""
