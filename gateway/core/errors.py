"""The error tree. Every error of ours that crosses a module boundary is one of these.

::

    GatewayError
    ├── ConfigurationError        the operator must change a setting (exit status 2)
    ├── ListenError               a port cannot be opened now; another start may succeed
    ├── NotFoundError             an id or a name that the store does not have
    ├── ConflictError             the request contradicts what is stored (a message already on another chart)
    ├── RefusedError              policy says no (deleting a message); never a fault
    ├── InputError                a file or a value from outside cannot be read; says where
    ├── ImportFailedError         an importer did not take a linked message; it is tried again
    ├── StoreError                the store could not commit; always temporary for the sender
    │   └── StoreFullError        no space left
    └── RejectionError            the Security/Trust Agent refuses a message, with a Reason

``smtp_reply`` is the fixed public text of an error at the SMTP boundary: it never carries detail (a path, an
address, a class name), and a fault of ours is never permanent (finding 2).
"""

from __future__ import annotations

from typing import ClassVar

from gateway.core.verdict import Reason


class GatewayError(Exception):
    """Base of all errors that the gateway raises on purpose."""

    smtp_reply: ClassVar[str] = "451 4.3.0 Temporary failure, please try again later"


class ConfigurationError(GatewayError):
    """A setting is missing, unknown or wrong; the text names the key and what to do."""


class ListenError(GatewayError):
    """A port cannot be opened; the text names the port and its setting.

    Not a ConfigurationError: the settings may be right and another program have the port for a moment, and a
    supervisor must start the gateway again.
    """

    def __init__(self, what: str, host: str, port: int, setting: str, reason: str) -> None:
        super().__init__(
            f"{what} cannot open {host} port {port}: {reason}; change {setting}, or stop the program that has the port"
        )


class NotFoundError(GatewayError):
    """No such message, patient, link, mailbox or account."""


class ConflictError(GatewayError):
    """The request contradicts what is stored already."""


class RefusedError(GatewayError):
    """Policy refuses the request; the text says why in a form fit for the person who asked."""


class InputError(GatewayError):
    """A file or value from outside cannot be understood; the text says where and why."""


class ImportFailedError(GatewayError):
    """An importer did not take a linked message. The job is tried again by its schedule."""


class StoreError(GatewayError):
    """The store could not commit. Nothing was acknowledged; the sender retries."""


class StoreFullError(StoreError):
    """No space is left for a commit."""

    smtp_reply: ClassVar[str] = "452 4.3.1 Insufficient system storage"


class RejectionError(GatewayError):
    """The Security/Trust Agent refuses the message.

    ``reason`` is the precise cause and ``detail`` a sentence for the operator. Both stay inside: all
    rejections look alike from outside (S/MIME rule 3).
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
