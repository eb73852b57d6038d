"""The error tree. Every error of ours that crosses a module boundary is one of these.

::

    GatewayError
    ├── ConfigurationError        the operator must change a setting (exit status 2)
    │   └── SelfTestError         the installed cryptographic library does not do what the verdict rests on
    ├── ListenError               a port cannot be opened now; another start may succeed
    ├── NotFoundError             an id or a name that the store does not have
    ├── ConflictError             the request contradicts what is stored (a message already on another chart)
    ├── RefusedError              policy says no (deleting a message); never a fault
    ├── TooManySessionsError      an account that may log in has as many sessions as it may have
    ├── InputError                a file or a value from outside cannot be read; says where
    │   └── HL7Error              an HL7 v2 message; names segment and field (gateway.core.hl7)
    ├── BundleError               a trust bundle cannot be had or must not be taken over; the last good one stays
    ├── KeyUnavailableError       a private key cannot be reached now (its token is gone); it is tried again
    ├── SealBrokenError           sealed bytes do not open under their key and name; the store says which message
    ├── TamperedError             a proof or a signature over the audit log does not hold
    ├── ImportFailedError         an importer does not take a linked message now; it is tried again
    ├── ImportRefusedError        an importer will never take this message; a person must look
    │   └── ImporterGoneError     ... nor any other, until a person says so
    ├── StoreError                the store could not commit; always temporary for the sender
    │   ├── StoreFullError        no space left
    │   └── StoreUnavailableError the database does not answer now; a commit may have been done all the same
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


class SelfTestError(ConfigurationError):
    """The start-up self-test failed: the gateway must not judge with this library."""

    def __init__(self, check: str) -> None:
        super().__init__(
            f"the cryptographic library fails the start-up self-test ({check}); install the published wheel: "
            f"pip install --force-reinstall --only-binary :all: 'cryptography>=50'"
        )
        self.check = check


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


class TooManySessionsError(GatewayError):
    """The account has as many sessions at this moment as it may. Nothing is wrong with what the client gave."""


class InputError(GatewayError):
    """A file or value from outside cannot be understood; the text says where and why."""


class BundleError(GatewayError):
    """A trust bundle cannot be fetched, read or believed. What was in force stays in force (TB-8).

    ``cause`` is one word, for logs and programs; the text is for the operator and says what to do. ``alarming``:
    the bundle did arrive, and what it holds is a reason to look at it at once (TB-14).
    """

    def __init__(self, cause: str, text: str, *, alarming: bool = False) -> None:
        super().__init__(text)
        self.cause = cause
        self.alarming = alarming


class KeyUnavailableError(GatewayError):
    """A private key cannot be used at this moment: its token is gone, does not answer or will not let us in.

    A fault on our side. It says nothing about any message, so it must never become a verdict: a judgement that meets
    it is abandoned and tried again. The text is for the operator and names the token, never a key or a PIN.
    """


class SealBrokenError(GatewayError):
    """Sealed bytes are damaged, of another place or of another key. Nothing of them is ever shown."""


class TamperedError(GatewayError):
    """A proof or a signature over the audit log does not hold: the log, or what was kept of it, was altered."""


class ImportFailedError(GatewayError):
    """The nack for now: an importer does not take a linked message. It is tried again by the schedule of the target.

    ``reason`` is one word for programs and people (``unreachable``, ``http_503``, ``exit_75``); it holds no PHI and
    is all that is kept of the failure. ``retry_after_seconds``: the other side asked for at least this much patience.
    """

    def __init__(self, text: str, *, reason: str = "failed", retry_after_seconds: float | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class ImportRefusedError(GatewayError):
    """The nack for good: an importer will not take this message, however often it is asked.

    ``reason`` as with :class:`ImportFailedError`.
    """

    def __init__(self, text: str, *, reason: str = "refused") -> None:
        super().__init__(text)
        self.reason = reason


class ImporterGoneError(ImportRefusedError):
    """The other side wants no more requests at all (HTTP 410). The target is stopped until a person starts it."""


class StoreError(GatewayError):
    """The store could not commit. Nothing was acknowledged; the sender retries."""


class StoreFullError(StoreError):
    """No space is left for a commit."""

    smtp_reply: ClassVar[str] = "452 4.3.1 Insufficient system storage"


class StoreUnavailableError(StoreError):
    """The database cannot be used at this moment, or was lost at a COMMIT whose outcome is not known.

    Says nothing against the work: whoever comes again meets what is there.
    """


class RejectionError(GatewayError):
    """The Security/Trust Agent refuses the message.

    ``reason`` is the precise cause and ``detail`` a sentence for the operator. Both stay inside: all
    rejections look alike from outside (S/MIME rule 3).
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
