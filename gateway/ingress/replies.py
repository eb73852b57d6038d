"""Every reply of the SMTP listener, fixed and with its enhanced status code (RFC 3463, RFC 2034).

A reply never repeats what the client sent and never carries a path, a class name or the text of an exception
(F16, finding 2). A fault of ours is never permanent: 5xx makes a sender give up, and clinical mail is lost.
The greeting, the answers to HELO and EHLO, and 354 carry no enhanced code (RFC 2034 section 4).
"""

from __future__ import annotations

import errno

from gateway.core.errors import GatewayError, StoreFullError
from gateway.ingress.data_reader import Problem

OK = "250 2.0.0 Ok"
SENDER_OK = "250 2.1.0 Sender ok"
RECIPIENT_OK = "250 2.1.5 Recipient ok"
CANNOT_VERIFY = "252 2.5.0 Cannot verify, but will accept a message and attempt delivery"
READY_FOR_TLS = "220 2.0.0 Ready to start TLS"
BYE = "221 2.0.0 Closing connection"
GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>"

SHUTTING_DOWN = "421 4.3.2 Service is shutting down, closing connection"
FAULT_IN_DATA = "421 4.3.0 Temporary failure, closing connection"
TIMED_OUT = "421 4.4.2 Timeout, closing connection"
TOO_MANY_CONNECTIONS = "421 4.7.0 Too many connections, try again later"
CONNECTION_RATE = "421 4.7.0 Too many connections in a short time, try again later"
EVICTED = "421 4.3.2 Too busy to wait for you, try again later"
TOO_MANY_MESSAGES = "421 4.7.0 Too many messages on this connection, open another"
TOO_MANY_COMMANDS = "421 4.7.0 Too many commands without mail, closing connection"
LINE_FLOOD = "421 4.7.0 Line far too long, closing connection"

FAULT = GatewayError.smtp_reply
NO_SPACE = StoreFullError.smtp_reply
RECIPIENT_RATE = "450 4.7.1 Too many recipients in a short time, try again later"
MESSAGE_RATE = "451 4.7.1 Too many messages in a short time, try again later"
NO_BUDGET = "452 4.3.1 Too much mail is being received, try again later"
TOO_MANY_RECIPIENTS = "452 4.5.3 Too many recipients, send the rest in another transaction"
TLS_UNAVAILABLE = "454 4.7.0 TLS is not available"

LINE_TOO_LONG = "500 5.5.2 Line too long"
BAD_LINE = "500 5.5.2 A line must end with CRLF and hold no control characters"
UNKNOWN_COMMAND = "500 5.5.2 Command not recognized"
BAD_ARGUMENT = "501 5.5.4 Syntax error in parameters"
BAD_SENDER = "501 5.1.7 Bad sender address syntax"
BAD_RECIPIENT = "501 5.1.3 Bad recipient address syntax"
NOT_IMPLEMENTED = "502 5.5.1 Command not implemented"
NO_GREETING = "503 5.5.1 Send EHLO first"
NESTED_MAIL = "503 5.5.1 Sender was given already"
NO_MAIL = "503 5.5.1 Send MAIL first"
NO_RECIPIENT = "503 5.5.1 Send RCPT first"
TLS_ACTIVE = "503 5.5.1 TLS is active already"
NO_VALID_RECIPIENT = "554 5.5.1 No valid recipients"
UNKNOWN_RECIPIENT = "550 5.1.1 No such address here"
RELAY_DENIED = "550 5.7.1 Relaying denied"
BARE_NEWLINE = "550 5.5.2 Bare CR or LF is not allowed in a message"
NUL_BYTE = "550 5.5.2 NUL is not allowed in a message"
TOO_LARGE = "552 5.3.4 Message is larger than the limit"
NEEDS_SMTPUTF8 = "553 5.6.7 An address beyond ASCII needs SMTPUTF8"
UNKNOWN_PARAMETER = "555 5.5.4 Parameter not recognized"

BY_PROBLEM = {
    Problem.TOO_LARGE: TOO_LARGE,
    Problem.BARE_NEWLINE: BARE_NEWLINE,
    Problem.NUL: NUL_BYTE,
    Problem.NO_BUDGET: NO_BUDGET,
    Problem.NO_SPACE: NO_SPACE,
    Problem.FAULT: FAULT,
}


def accepted(message_id: str) -> str:
    """The acknowledgement; said only after the durable commit (EP-14)."""
    return f"250 2.0.0 Accepted as {message_id}"


def for_fault(error: BaseException) -> str:
    """The reply for anything that went wrong on our side: always temporary."""
    if isinstance(error, GatewayError):
        return error.smtp_reply
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NO_SPACE
    return FAULT
