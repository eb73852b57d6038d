"""Which folder of a login shows which mailbox, with which rights; granted and taken away.

Grants are append-only: the newest of each folder counts, and one without rights takes the folder away. Each change is
an event of the audit log in the same transaction, and holds from then on, for sessions that are open, too
(:mod:`gateway.inbox.rights_in_force`).

A folder name never comes to mean another mailbox under the same UIDVALIDITY: a mail client would take the messages of
the one for those of the other (RFC 3501 2.3.1.1).

Failure modes: InputError, NotFoundError and ConflictError that say what to do; nothing is written then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.cli.logins import SHARED_MAILBOX, mailbox_of, the_mailbox
from gateway.cli.right_sets import NAMED_RIGHTS, QUARANTINE_FOLDER
from gateway.core.address import normalise
from gateway.core.errors import ConflictError, InputError, NotFoundError
from gateway.core.standing import View
from gateway.inbox.flags import visible_rights
from gateway.inbox.sent_folders import SENT_FOLDER, SENT_USE, sent_rights
from gateway.ports import Account, Folder, UnitOfWork

INBOX = "INBOX"
MAX_NAME_CHARS = 200
GRANTED = "user.granted"
REVOKED = "user.revoked"
RESERVED = frozenset({*(view.value for view in View), QUARANTINE_FOLDER.casefold()})
"""First or last parts of names that the gateway gives itself, in lower case."""


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What an operator asks for."""

    login: str
    folder: str
    of: str
    """``INBOX`` (the practice's shared one) or an address of the practice."""
    rights: str
    sent: bool = False
    """The Sent that goes with that mailbox, in its place."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The folders that a command gave or took, and those that the login sees now."""

    changed: tuple[Folder, ...]
    folders: tuple[Folder, ...]


def grant_folder(tx: UnitOfWork, wanted: GrantRequest, addresses: Sequence[str], actor: str, at: datetime) -> Changed:
    """Show a mailbox to a login; with its INBOX a login that has no Sent gets that, too.

    Args:
        tx: the unit of work.
        wanted: what is asked for; ``rights`` as :func:`gateway.cli.right_sets.parse_rights` gives them.
        addresses: of the practice.
        actor: who grants.
        at: when.

    Raises:
        InputError: no such address, or no such name for a folder. NotFoundError: no such login.
        ConflictError: the folder shows, or showed, another mailbox.
    """
    account = account_of(tx, wanted.login)
    name = folder_name(wanted.folder)
    is_sent = wanted.sent or name == SENT_FOLDER
    source = the_mailbox(tx, _source(wanted.of, addresses), addresses, at)
    mailbox_id = tx.kept.make_sent(source, at) if is_sent else source
    rights = wanted.rights
    _check_name(tx, account, name, mailbox_id)
    before = {folder.name: folder for folder in tx.accounts.folders(account.id)}
    changed = [_grant(tx, account, (name, mailbox_id, rights), actor, at)]
    has_sent = any(folder.special_use == SENT_USE for folder in before.values())
    if name == INBOX and not has_sent:
        sent_id = tx.kept.make_sent(source, at)
        _check_name(tx, account, SENT_FOLDER, sent_id)
        changed.append(_grant(tx, account, (SENT_FOLDER, sent_id, sent_rights(rights)), actor, at))
    return Changed(tuple(changed), tuple(tx.accounts.folders(account.id)))


def grant_quarantine(tx: UnitOfWork, login: str, actor: str, at: datetime) -> Changed:
    """Show the reports about refused messages to a login, to read. Raises NotFoundError: no such login."""
    account = account_of(tx, login)
    mailbox_id = tx.quarantine_folder.make(at)
    _check_name(tx, account, QUARANTINE_FOLDER, mailbox_id)
    given = _grant(tx, account, (QUARANTINE_FOLDER, mailbox_id, NAMED_RIGHTS["reader"]), actor, at)
    return Changed((given,), tuple(tx.accounts.folders(account.id)))


def revoke_folder(tx: UnitOfWork, login: str, folder: str, actor: str, at: datetime) -> Changed:
    """Take a folder away from a login, and the Sent that goes with it unless the login still sees that INBOX.

    Raises NotFoundError: no such login, or it does not see such a folder.
    """
    account = account_of(tx, login)
    name = INBOX if folder.upper() == INBOX else folder
    before = {one.name: one for one in tx.accounts.folders(account.id)}
    if name not in before:
        known = ", ".join(sorted(before)) or "none"
        raise NotFoundError(f"{account.login} sees no folder {folder}; its folders: {known}")
    gone = [before.pop(name)]
    if all(one.mailbox_id != gone[0].mailbox_id for one in before.values()):
        sent_id = tx.kept.sent_of(gone[0].mailbox_id)
        gone += [one for one in before.values() if one.mailbox_id == sent_id]
    for one in gone:
        tx.accounts.grant(account.id, one.name, one.mailbox_id, "")
        tx.audit.add(at, actor, REVOKED, account.login, {"account": account.id, "mailbox": one.mailbox_id})
    return Changed(tuple(gone), tuple(tx.accounts.folders(account.id)))


def account_of(tx: UnitOfWork, login: str) -> Account:
    """Raises NotFoundError."""
    account = tx.accounts.by_login(login)
    if account is None:
        raise NotFoundError(f"there is no login {login}; add it with: direct-gateway user add {login}")
    return account


def folder_name(text: str) -> str:
    """The name of a folder as it is kept. Raises InputError: no mail client could show it, or the gateway gives it."""
    if text.upper() == INBOX:
        return INBOX
    if text.casefold() == SENT_FOLDER.casefold():
        return SENT_FOLDER
    parts = text.split("/")
    if not all(part and part == part.strip() for part in parts) or not text.isprintable() or len(text) > MAX_NAME_CHARS:
        raise InputError(
            f"FOLDER: a name has 1 to {MAX_NAME_CHARS} printable characters; a / stands between two parts of it only"
        )
    if {"*", "%", "\\"} & set(text):
        raise InputError("FOLDER: a name holds no * % or \\, which mail clients use for patterns")
    if {parts[0].casefold(), parts[-1].casefold()} & RESERVED:
        raise InputError(f"FOLDER: {text} is a name that the gateway gives itself; choose another one")
    return text


def _source(of: str, addresses: Sequence[str]) -> str:
    """The name of the mailbox that ``--of`` means."""
    if of.upper() == INBOX:
        return SHARED_MAILBOX
    address = normalise(of)
    if address not in addresses:
        raise InputError(f"{address} is not an address of this practice; its addresses: {', '.join(addresses)}")
    return mailbox_of(address)


def _check_name(tx: UnitOfWork, account: Account, name: str, mailbox_id: int) -> None:
    shown = next((one for one in tx.accounts.folders(account.id) if one.name == name), None)
    if shown is not None and shown.mailbox_id != mailbox_id:
        raise ConflictError(
            f"{account.login} has a folder {name} that shows another mailbox; choose another name for this one, "
            f"or take that away first: direct-gateway user revoke {account.login} {name}"
        )
    validity = tx.mailboxes.get(mailbox_id).uid_validity
    for other in set(tx.accounts.shown_as(account.id, name)) - {mailbox_id}:
        if tx.mailboxes.get(other).uid_validity == validity:
            mend = "add another login for it" if name == INBOX else "choose another name for this one"
            raise ConflictError(
                f"the folder {name} showed another mailbox to {account.login} once, and mail clients could not tell "
                f"the two apart; {mend}"
            )


def _grant(tx: UnitOfWork, account: Account, given: tuple[str, int, str], actor: str, at: datetime) -> Folder:
    name, mailbox_id, rights = given
    tx.accounts.grant(account.id, name, mailbox_id, rights)
    detail = {"account": account.id, "mailbox": mailbox_id, "rights": visible_rights(rights)}
    tx.audit.add(at, actor, GRANTED, account.login, detail)
    return Folder(name, mailbox_id, rights)
