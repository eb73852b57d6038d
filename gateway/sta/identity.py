"""Who sent the message, and whether the signer's certificate is theirs.

The sender is the one address in From, parsed strictly (AS-2, AS-62): a display name, quoting and a trailing
comment are fine; a second address, a group, a route, a comment or a control character inside the address, or
anything else that two mail programs could read differently, refuses the message. ``Sender`` never takes From's
place (i11). The binding is by subject alternative name alone (AS-5..AS-9, AS-52): ``rfc822Name`` equals the
address, ``dNSName`` equals the domain exactly; no wildcard, no parent domain, no subject DN. A domain beyond ASCII is
compared in A-labels, however From or the certificate writes it (RFC 9598 section 5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.core.address import DirectAddress
from gateway.core.errors import InputError, RejectionError
from gateway.core.mime.headers import HeaderBlock, unfold
from gateway.sta.certificates import Certificate, CertificateError, SubjectName
from gateway.sta.domain_names import parse_any_address
from gateway.sta.mime.mime_entity import malformed

MAX_ADDRESS_FIELD_BYTES = 65_536
MAX_ADDRESSES = 2_000
MAX_REMEMBERED_BYTES = 256
"""Of an address field: longer ones are read each time."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\u0080-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_TOKENS = re.compile(
    r"""(?P<white>[ \t]+)|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<atom>[^\s()<>\[\]:;@\\,"]+)|(?P<special>[<>\[\]:;@\\,])""",
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address as written and as compared."""

    written: str
    address: DirectAddress
    normalised: str = field(init=False, repr=False, compare=False)
    """The address in the form in which addresses are compared (AS-4)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "normalised", str(self.address))


def the_sender(headers: HeaderBlock) -> Mailbox:
    """The one address of the one From field.

    Raises:
        RejectionError: MALFORMED; the detail says what is wrong with From.
    """
    found = headers.all(b"from")
    if not found:
        raise malformed("the message has no From field")
    if len(found) > 1:
        raise malformed("the message has two From fields")
    return _single(found[0].value, "From")


def optional_sender_field(headers: HeaderBlock) -> Mailbox | None:
    """The address of the Sender field, when there is one (AS-44).

    Raises:
        RejectionError: MALFORMED for a second field or an address that cannot be read.
    """
    found = headers.all(b"sender")
    if len(found) > 1:
        raise malformed("the message has two Sender fields")
    return _single(found[0].value, "Sender") if found else None


def named_recipients(headers: HeaderBlock) -> tuple[str, ...]:
    """Every normalised address in To and Cc, in order (Bcc does not count, AS-45). Unreadable ones are left out.

    A recipient that cannot be read is thereby not named, and the envelope check refuses what went to it.
    """
    found: dict[str, None] = {}
    for _, value in (*headers.all(b"to"), *headers.all(b"cc")):
        found |= dict.fromkeys(_remembered_list(value) if len(value) <= MAX_REMEMBERED_BYTES else _listed(value))
    return tuple(found)


def _listed(value: bytes) -> tuple[str, ...]:
    """Every normalised address in the value of a To or Cc field; none when the field cannot be read."""
    try:
        text = _field_text(value, "To", strict=False)
        return tuple([mailbox.normalised for mailbox in _mailboxes(text, groups=True, skip_unreadable=True)])
    except RejectionError:
        return ()


_remembered_list = lru_cache(maxsize=1_024)(_listed)


def _single(value: bytes, name: str) -> Mailbox:
    return _remembered_mailbox(value, name) if len(value) <= MAX_REMEMBERED_BYTES else _read_single(value, name)


@lru_cache(maxsize=1_024)
def _remembered_mailbox(value: bytes, name: str) -> Mailbox:
    """Correspondents write again."""
    return _read_single(value, name)


def _read_single(value: bytes, name: str) -> Mailbox:
    text = _field_text(value, name)
    mailboxes = _mailboxes(text, groups=False, skip_unreadable=False)
    if len(mailboxes) != 1:
        raise malformed(f"{name} must hold exactly one address")
    return mailboxes[0]


def _field_text(value: bytes, name: str, *, strict: bool = True) -> str:
    """The unfolded text; unless ``strict``, a byte that is not UTF-8 (an old display name) becomes U+FFFD."""
    if len(value) > MAX_ADDRESS_FIELD_BYTES:
        raise malformed(f"{name} is too long")
    try:
        text = unfold(value).decode("utf-8", "strict" if strict else "replace")
    except UnicodeDecodeError:
        raise malformed(f"{name} is not UTF-8") from None
    if _CONTROL.search(text):
        raise malformed(f"{name} holds a control character")
    return text


def _mailboxes(text: str, *, groups: bool, skip_unreadable: bool) -> list[Mailbox]:
    """Split a list at its commas, outside quoting, brackets and comments, and read each mailbox."""
    found: list[Mailbox] = []
    for item in _items(_tokens(text), groups=groups):
        if not item:
            continue
        try:
            found.append(_mailbox(item))
        except RejectionError:
            if not skip_unreadable:
                raise
        if len(found) > MAX_ADDRESSES:
            raise malformed("too many addresses")
    return found


Token = tuple[str, str]


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if text[position] == "(":
            position = _comment_end(text, position)
            tokens.append(("comment", ""))
            continue
        match = _TOKENS.match(text, position)
        if match is None:
            raise malformed("an address field cannot be read")
        tokens.append((str(match.lastgroup), match.group()))
        position = match.end()
    return tokens


def _comment_end(text: str, start: int) -> int:
    depth = 0
    position = start
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    raise malformed("an address field has an open comment")


def _items(tokens: list[Token], *, groups: bool) -> list[list[Token]]:
    items: list[list[Token]] = [[]]
    angle = False
    for token in tokens:
        kind, text = token
        if kind == "special" and text == "<":
            angle = True
        elif kind == "special" and text == ">":
            angle = False
        elif kind == "special" and not angle:
            if text == ",":
                items.append([])
                continue
            if groups and text == ":":
                # ``name: a@b, c@d;`` - the name of a group is dropped, its members count.
                items[-1] = []
                continue
            if groups and text == ";":
                items.append([])
                continue
        items[-1].append(token)
    return [_trim(item, "white", "comment") for item in items]


def _trim(item: list[Token], *kinds: str) -> list[Token]:
    """The tokens without those of the kinds at either end."""
    while item and item[0][0] in kinds:
        item = item[1:]
    while item and item[-1][0] in kinds:
        item = item[:-1]
    return item


def _mailbox(item: list[Token]) -> Mailbox:
    """Read ``addr-spec`` or ``[display-name] <addr-spec>`` (RFC 5322 3.4 without its obsolete forms)."""
    if item[-1] == ("special", ">"):
        opened = item.index(("special", "<")) if ("special", "<") in item else -1
        if opened < 0 or not all(kind in {"white", "quoted", "atom", "comment"} for kind, _ in item[:opened]):
            raise malformed("an address has an unreadable display name")
        # ``< a@b >`` is RFC 5322 itself (dot-atom), and nobody reads two addresses in it.
        inside = _trim(item[opened + 1 : -1], "white")
    else:
        inside = item
    # White space and comments inside an addr-spec are legal only in obsolete syntax, and programs differ on them.
    if any(kind not in {"atom", "special"} or (kind == "special" and text != "@") for kind, text in inside):
        raise malformed("an address is not a plain addr-spec")
    written = "".join(text for _, text in inside)
    try:
        return Mailbox(written, parse_any_address(written))
    except InputError:
        raise malformed("an address is not a Direct address") from None


def binding(certificate: Certificate, sender: Mailbox) -> str | None:
    """The SAN value that binds the certificate to the sender, or None.

    Letter case is folded on both sides (AS-4). A name with a NUL, a wildcard or any other character that the
    sender's strictly parsed address cannot have never matches.
    """
    try:
        names = certificate.names
    except CertificateError:
        return None
    for name in names:
        value = name.value
        if not value or "\x00" in value:
            continue
        if _mailbox_of(name) == sender.normalised:
            return sender.normalised
        if name.kind == "dns" and value.isascii() and value.lower() == sender.address.domain:
            return sender.address.domain
    return None


def _mailbox_of(name: SubjectName) -> str | None:
    """The address that a name binds, in the form in which addresses are compared; None when it binds none."""
    if name.kind == "rfc822":
        # It is ASCII. Other characters stand for bytes that cannot be one's address.
        return name.value.lower() if name.value.isascii() else None
    if name.kind != "utf8":
        return None
    try:
        return str(parse_any_address(name.value))
    except InputError:
        return None


def name_count(certificate: Certificate) -> int:
    """How many names the certificate carries (AS-8: more than one is noted)."""
    try:
        return len(certificate.names)
    except CertificateError:
        return 0


def first_identity(certificate: Certificate) -> str:
    """The certificate's first name, to describe a signer that is bound to nobody here."""
    try:
        return next((name.value for name in certificate.names if "\x00" not in name.value), "")
    except CertificateError:
        return ""
