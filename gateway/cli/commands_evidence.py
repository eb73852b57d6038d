"""``message evidence``: what a filed message says of its patient, by source and strength, and what could not be read.

It shows what the message holds, so it is recorded like ``message show`` before anything is printed; neither the audit
log nor the process log gets more than counts.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.cli.message_lookup import find_message
from gateway.cli.output import out, print_json, print_record, print_table
from gateway.cli.session import OK, SubCommands, audit, with_services
from gateway.core.claims import Claim, Contradiction, Evidence, NameKind, PersonName, PostalAddress, contradictions
from gateway.core.errors import NotFoundError
from gateway.core.lifecycle import State
from gateway.ports import StoredContent, UnitOfWork

if TYPE_CHECKING:
    from gateway.services import Services

_STRENGTHS = {
    "signature": "proved by the signature",
    "sender": "the sender says so",
    "author": "the author of the document says so",
    "packager": "the packager says so",
}


def register(group: SubCommands) -> None:
    """Add the command to ``message``."""
    command = group.add(
        "evidence",
        "tell what a message says of its patient",
        "Every place that names the patient: the signed From, Direct Context, C-CDA headers, XDM metadata, HL7 v2 PID\n"
        "and FHIR Patients; how far each can be trusted, what could not be read, and what contradicts what.\n"
        "Nothing is decided or changed. Social security numbers are never shown.\n"
        "ID may be shortened to any beginning that is unique.",
        "message evidence 01J9\nmessage evidence 01J9 --json",
        run=_evidence,
    )
    command.add_argument("id", metavar="ID")
    command.add_argument("--json", action="store_true", help="print as JSON")


def _evidence(args: argparse.Namespace) -> int:
    async def work(services: Services) -> int:
        stored = await services.store.read(lambda tx: content_of(tx, args.id))
        evidence = services.evidence(stored.content, stored.sender)
        counts = {"claims": len(evidence.claims), "problems": len(evidence.problems)}
        await audit(services, "message.evidence", stored.message_id, counts)
        if args.json:
            print_json(_document(stored.message_id, evidence))
        else:
            _print(evidence)
        return OK

    return with_services(args, work)


def content_of(tx: UnitOfWork, wanted: str) -> StoredContent:
    """What was verified of the message whose id begins so. Raises NotFoundError, ConflictError."""
    message_id = find_message(tx, wanted)
    try:
        return tx.messages.content(message_id)
    except NotFoundError:
        state = tx.messages.state(message_id)
        if state is State.KEPT:
            raise NotFoundError("the message is a mail client's copy of what was sent: nobody verified it") from None
        raise NotFoundError(
            f"the message is {state}: only what was verified is evidence; see: direct-gateway message show {message_id}"
        ) from None


def _document(message_id: str, evidence: Evidence) -> dict[str, Any]:
    """The evidence as JSON; a contradiction names its claims by their place in the list, from 0."""
    claims = list(evidence.claims)
    return {
        "id": message_id,
        "is_complete": evidence.is_complete,
        "claims": [asdict(claim) for claim in claims],
        "contradictions": [
            {"field": str(found.field), "left": claims.index(found.left), "right": claims.index(found.right)}
            for found in contradictions(claims)
        ],
        "problems": [asdict(problem) for problem in evidence.problems],
        "documents": [asdict(document) for document in evidence.documents],
    }


def _print(evidence: Evidence) -> None:
    if not evidence.claims:
        out("the message says nothing of a patient")
    for number, claim in enumerate(evidence.claims, 1):
        out(f"{'' if number == 1 else chr(10)}{number}. {claim.source.value}: {_STRENGTHS[claim.strength.value]}")
        print_record([("  " + name, value) for name, value in _pairs(claim) if value])
    found = contradictions(evidence.claims)
    out("\ncontradictions:" if found else "\ncontradictions: none")
    for one in found:
        out(f"  {_told(one, list(evidence.claims))}")
    if evidence.documents:
        out("\ndocuments:")
        print_table(
            ("PART", "ID", "CODE", "TITLE", "SHA256"),
            [(d.path, " ".join(filter(None, (d.id_root, d.id_extension))), d.code, d.title, d.sha256[:16])
             for d in evidence.documents],
        )  # fmt: skip
    out("\nproblems:" if evidence.problems else "\nproblems: none")
    if evidence.problems:
        print_table(
            ("SOURCE", "PART", "PROBLEM", "DETAIL"),
            [(p.source.value if p.source else "message", p.path, p.code, p.detail) for p in evidence.problems],
            whole_last=True,
        )
    if not evidence.is_complete:
        out("the evidence is incomplete: a claim may have gone unread")


def _told(found: Contradiction, claims: list[Claim]) -> str:
    left, right = claims.index(found.left) + 1, claims.index(found.right) + 1
    return f"{found.field.value}: claim {left}" + (f" and claim {right}" if right != left else "")


def _pairs(claim: Claim) -> list[tuple[str, str]]:
    numbers = [f"{i.value} ({', '.join(filter(None, (i.kind, i.assigner))) or 'assigner unknown'})"
               for i in claim.identifiers]  # fmt: skip
    deceased = {True: "yes", False: "no", None: ""}[claim.deceased]
    return [
        ("part", claim.path),
        ("patient", f"number {claim.ordinal} of several" if claim.ordinal > 1 else ""),
        ("doubtful", "the document is not the one that the package describes" if claim.is_doubtful else ""),
        ("Direct address", ", ".join(claim.direct_addresses)),
        ("name", "; ".join(map(_name, claim.names))),
        ("birth date", claim.birth_date.isoformat() if claim.birth_date else claim.birth_part),
        ("sex", claim.sex),
        ("identifiers", ", ".join(numbers)),
        ("phones", ", ".join(claim.phones)),
        ("e-mail", ", ".join(claim.emails)),
        ("address", "; ".join(map(_address, claim.addresses))),
        ("deceased", deceased),
    ]


def _name(name: PersonName) -> str:
    whole = " ".join(filter(None, (*name.given, name.middle, name.family, name.suffix)))
    return whole if name.kind is NameKind.CURRENT else f"{whole} ({name.kind.value})"


def _address(address: PostalAddress) -> str:
    parts = (*address.lines, address.city, address.state, address.postal_code, address.country)
    return ", ".join(filter(None, parts)) + (" (old)" if address.is_old else "")
