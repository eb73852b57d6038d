"""The table of commands: where each is allowed (RFC 3501 section 6) and what does it."""

from __future__ import annotations

from gateway.imap import authentication
from gateway.imap import commands_acl as acl
from gateway.imap import commands_change as change
from gateway.imap import commands_list as listing
from gateway.imap import commands_mailbox as mailbox
from gateway.imap import commands_message as message
from gateway.imap import commands_session as session
from gateway.imap.session import AFTER_LOGIN, ANY_STATE, BEFORE_LOGIN, WITH_MAILBOX, CommandRule

COMMANDS: dict[str, CommandRule] = {
    "CAPABILITY": CommandRule(ANY_STATE, session.capability),
    "NOOP": CommandRule(ANY_STATE, session.noop),
    "LOGOUT": CommandRule(ANY_STATE, session.logout),
    "ID": CommandRule(ANY_STATE, session.identify),
    "STARTTLS": CommandRule(BEFORE_LOGIN, session.starttls),
    "LOGIN": CommandRule(BEFORE_LOGIN, authentication.login),
    "AUTHENTICATE": CommandRule(BEFORE_LOGIN, authentication.authenticate),
    "ENABLE": CommandRule(AFTER_LOGIN, session.enable),
    "IDLE": CommandRule(AFTER_LOGIN, session.idle),
    "NAMESPACE": CommandRule(AFTER_LOGIN, listing.namespace),
    "LIST": CommandRule(AFTER_LOGIN, listing.list_mailboxes),
    "LSUB": CommandRule(AFTER_LOGIN, listing.list_mailboxes),
    "SUBSCRIBE": CommandRule(AFTER_LOGIN, listing.subscribe),
    "UNSUBSCRIBE": CommandRule(AFTER_LOGIN, listing.subscribe),
    "STATUS": CommandRule(AFTER_LOGIN, mailbox.status),
    "SELECT": CommandRule(AFTER_LOGIN, mailbox.select),
    "EXAMINE": CommandRule(AFTER_LOGIN, mailbox.select),
    "MYRIGHTS": CommandRule(AFTER_LOGIN, acl.my_rights),
    "GETACL": CommandRule(AFTER_LOGIN, acl.get_acl),
    "LISTRIGHTS": CommandRule(AFTER_LOGIN, acl.list_rights),
    "SETACL": CommandRule(AFTER_LOGIN, acl.refuse_rights),
    "DELETEACL": CommandRule(AFTER_LOGIN, acl.refuse_rights),
    "CREATE": CommandRule(AFTER_LOGIN, change.create),
    "DELETE": CommandRule(AFTER_LOGIN, change.delete),
    "RENAME": CommandRule(AFTER_LOGIN, change.rename),
    "APPEND": CommandRule(AFTER_LOGIN, change.append),
    "CHECK": CommandRule(WITH_MAILBOX, session.noop),
    "CLOSE": CommandRule(WITH_MAILBOX, change.close),
    "UNSELECT": CommandRule(WITH_MAILBOX, mailbox.unselect),
    "EXPUNGE": CommandRule(WITH_MAILBOX, change.expunge),
    "UID EXPUNGE": CommandRule(WITH_MAILBOX, change.expunge),
    "FETCH": CommandRule(WITH_MAILBOX, message.fetch),
    "UID FETCH": CommandRule(WITH_MAILBOX, message.fetch),
    "SEARCH": CommandRule(WITH_MAILBOX, message.search),
    "UID SEARCH": CommandRule(WITH_MAILBOX, message.search),
    "STORE": CommandRule(WITH_MAILBOX, message.store),
    "UID STORE": CommandRule(WITH_MAILBOX, message.store),
    "COPY": CommandRule(WITH_MAILBOX, change.copy),
    "UID COPY": CommandRule(WITH_MAILBOX, change.copy),
    "MOVE": CommandRule(WITH_MAILBOX, change.move),
    "UID MOVE": CommandRule(WITH_MAILBOX, change.move),
}
