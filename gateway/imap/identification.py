"""The argument of ID (RFC 2971): what a client says of itself, of which only the program is looked at."""

from __future__ import annotations

from gateway.imap.scanner import ParseError, Scanner

MAX_FIELDS = 30
MAX_NAME_BYTES = 30
MAX_VALUE_BYTES = 1_024
KNOWN_PROGRAMS = (
    "thunderbird",
    "offlineimap",
    "alpine",
    "mbsync",
    "isync",
    "k-9",
    "fairemail",
    "outlook",
    "mac os x mail",
    "iphone",
    "getmail",
    "fetchmail",
    "neomutt",
    "mutt",
    "imapflow",
    "javamail",
    "roundcube",
)
"""Programs that are told apart in the log. What else a client says of itself is not logged: anything may be in it."""
UNKNOWN_PROGRAM = "other"


def parse_identification(scanner: Scanner) -> str:
    """NIL or pairs of strings (3.3). Gives the program, as far as it is a known one. Raises ParseError."""
    program = UNKNOWN_PROGRAM
    scanner.space()
    if not scanner.accept(b"("):
        if scanner.keyword() != "NIL":
            raise ParseError("Expected a list or NIL")
        scanner.end()
        return program
    count = 0
    while not scanner.accept(b")"):
        if count:
            scanner.space()
        field_name = scanner.string()
        scanner.space()
        value = scanner.nstring()
        count += 1
        if count > MAX_FIELDS or len(field_name) > MAX_NAME_BYTES or len(value or b"") > MAX_VALUE_BYTES:
            raise ParseError("Too many or too long fields")
        if field_name.lower() == b"name":
            said = (value or b"").lower()
            program = next((known for known in KNOWN_PROGRAMS if known.encode("ascii") in said), UNKNOWN_PROGRAM)
    scanner.end()
    return program
