"""Logins and the mailboxes that they see.

A practice has one shared mailbox, ``INBOX``, which receives what is delivered to any of its addresses. With more
than one address each has a mailbox of its own as well (``Addresses/a@d``). A login that was added for certain
addresses has an INBOX of exactly these: for one address its own mailbox, which others may see too; for several a
new one, into which the mail that came before is filed as well, in the same transaction. A login may also share the
practice's INBOX. With its INBOX each login gets the Sent that goes with it (:mod:`gateway.inbox.sent_folders`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from gateway.core.address import normalise
from gateway.core.errors import InputError
from gateway.inbox.sent_folders import SENT_FOLDER, sent_rights
from gateway.ports import MailboxEntry, UnitOfWork

if TYPE_CHECKING:
    from gateway.services import Services

RIGHTS = "lrsw"
"""RFC 4314: see, read, keep Seen, set other flags. Nobody can insert, delete or expunge."""
SHARED_MAILBOX = "INBOX"


def mailbox_of(address: str) -> str:
    """Name of the mailbox that receives what is delivered to one address alone."""
    return f"Addresses/{address}"


async def add_first_login(services: Services, addresses: Sequence[str], login: str, password: str) -> None:
    """Make the practice's mailboxes and the login that sees them all."""
    at = services.clock.now()

    def make(tx: UnitOfWork) -> list[tuple[str, int, str]]:
        folders = [("INBOX", tx.mailboxes.create(SHARED_MAILBOX, at, addresses), RIGHTS)]
        if len(addresses) > 1:
            for address in addresses:
                name = mailbox_of(address)
                folders.append((name, tx.mailboxes.create(name, at, [address]), RIGHTS))
        folders.append(_sent_of(tx, folders[0][1], RIGHTS, at))
        return folders

    await services.accounts.add(login, password, folders=await services.store.write(make))


async def add_login(services: Services, login: str, password: str, addresses: Sequence[str], actor: str) -> int:
    """Add a login whose INBOX holds what is delivered to the addresses; return how many messages it begins with.

    Raises:
        InputError: an address that is not the practice's.
        ConflictError: the login exists.
    """
    wanted = list(dict.fromkeys(normalise(address) for address in addresses))
    known = services.settings.practice.addresses
    for address in wanted:
        if address not in known:
            raise InputError(f"{address} is not an address of this practice; its addresses: {', '.join(known)}")
    at = services.clock.now()

    def make(tx: UnitOfWork) -> tuple[list[tuple[str, int, str]], int]:
        mailbox_id = _mailbox_for(tx, at, wanted, login)
        tx.audit.add(at, actor, "user.mailbox", str(mailbox_id), {"addresses": len(wanted)})
        folders = [("INBOX", mailbox_id, RIGHTS), _sent_of(tx, mailbox_id, RIGHTS, at)]
        return folders, len(tx.mailboxes.entries(mailbox_id))

    await _refuse_known_login(services, login)
    folders, count = await services.store.write(make)
    await services.accounts.add(login, password, folders=folders)
    return count


async def add_shared_login(services: Services, login: str, password: str, rights: str, actor: str) -> int:
    """Add a login whose INBOX is the practice's shared one, with these rights; return how many messages it holds.

    Raises:
        ConflictError: the login exists.
    """
    at, addresses = services.clock.now(), services.settings.practice.addresses

    def make(tx: UnitOfWork) -> tuple[list[tuple[str, int, str]], int]:
        mailbox_id = the_mailbox(tx, SHARED_MAILBOX, addresses, at)
        tx.audit.add(at, actor, "user.mailbox", str(mailbox_id), {"rights": rights})
        folders = [("INBOX", mailbox_id, rights), _sent_of(tx, mailbox_id, rights, at)]
        return folders, tx.mailboxes.get(mailbox_id).uid_next - 1

    await _refuse_known_login(services, login)
    folders, count = await services.store.write(make)
    await services.accounts.add(login, password, folders=folders)
    return count


def the_mailbox(tx: UnitOfWork, name: str, addresses: Sequence[str], at: datetime) -> int:
    """The practice's shared mailbox, or that of one of its addresses; made and filled when it is not there yet.

    A practice of one address has no mailbox of that address, and one whose tables were made by ``store init`` has
    neither.
    """
    found = tx.mailboxes.find(name)
    if found is not None:
        return found
    wanted = list(addresses) if name == SHARED_MAILBOX else [one for one in addresses if mailbox_of(one) == name]
    sources = sorted({mailbox for address in wanted for mailbox in tx.mailboxes.for_recipient(address)})
    made = tx.mailboxes.create(name, at, wanted)
    _fill(tx, made, sources, frozenset(wanted))
    return made


def _sent_of(tx: UnitOfWork, inbox_id: int, rights: str, at: datetime) -> tuple[str, int, str]:
    return SENT_FOLDER, tx.kept.make_sent(inbox_id, at), sent_rights(rights)


async def _refuse_known_login(services: Services, login: str) -> None:
    if await services.store.read(lambda tx: tx.accounts.by_login(login)) is not None:
        raise InputError(f"there is a login {login} already; another password: direct-gateway user password {login}")


def _mailbox_for(tx: UnitOfWork, at: datetime, wanted: list[str], login: str) -> int:
    """Find the one address's own mailbox, or make a mailbox and fill it.

    The shared INBOX is never lent, not even for all addresses of today: it may hold mail of an address that the
    practice has given up since.
    """
    sources = sorted({mailbox for address in wanted for mailbox in tx.mailboxes.for_recipient(address)})
    if len(wanted) == 1:
        for source in sources:
            if tx.mailboxes.get(source).name == mailbox_of(wanted[0]):
                return source
    mailbox_id = tx.mailboxes.create(f"Logins/{login}/{at.isoformat()}", at, wanted)
    _fill(tx, mailbox_id, sources, frozenset(wanted))
    return mailbox_id


def _fill(tx: UnitOfWork, target: int, sources: Iterable[int], wanted: frozenset[str]) -> None:
    """File what was delivered to the addresses before the mailbox existed, in the order of arrival."""
    found: dict[str, tuple[int, MailboxEntry]] = {}
    for source in sources:
        for entry in tx.mailboxes.entries(source):
            found.setdefault(entry.message_id, (source, entry))
    ordered = sorted(found.values(), key=lambda pair: (pair[1].internal_date, pair[1].message_id))
    for source, entry in ordered:
        content = tx.messages.content(entry.message_id)
        if not wanted.isdisjoint(content.delivered_to):
            indexed = tx.mailboxes.indexed(source, [entry.uid])[entry.uid]
            standing = tx.standings.of(entry.message_id)
            sha256 = content.content_sha256
            tx.mailboxes.add(target, entry.message_id, sha256, indexed, entry.internal_date, standing=standing)
