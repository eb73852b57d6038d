"""The HL7 v2 adapter of the import hook: each link becomes an MDM document at the receiver (docs/hl7.md).

What an acknowledgement means (HL7-7): AA and CA are the receipt; AE and CE are tried again, as is no answer, or one
that is for another message; AR and CR are for good, and the link is set aside for a person.

Idempotent by MSH-10 and TXA-12 at the receiver: an attempt whose answer was lost is sent again octet for octet.

Failure modes: ImportFailedError and ImportRefusedError, whose texts hold no PHI. What the receiver writes in its
answers is not repeated anywhere: such texts quote patients.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.core.errors import ConfigurationError, ImportFailedError, ImportRefusedError
from gateway.core.import_settings import ImporterSettings
from gateway.hl7.acknowledgement import Answer, Code
from gateway.hl7.client import MLLPClient, Place
from gateway.hl7.mdm import MDMRules, control_id, import_message, retraction_message
from gateway.ports import IMPORTER_API_VERSION, ImporterCapabilities, ImportPreview, ImportRequest, Retraction


def make_mdm_importer(settings: ImporterSettings) -> MDMImporter:
    """The adapter of a target of kind ``mdm``. Touches nothing; its files are read when something is sent."""
    return MDMImporter(settings)


def client_context(settings: ImporterSettings) -> ssl.SSLContext | None:
    """TLS as the target has it; None: in the clear.

    Raises:
        ConfigurationError: a file cannot be used; the text names it.
    """
    if settings.tls == "none":
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError):
        raise ConfigurationError(f"{settings.ca_file} (ca_file) holds no certificates in PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate_file is not None:
        try:
            # An encrypted key would otherwise be asked for at the terminal of the daemon.
            context.load_cert_chain(settings.certificate_file, settings.key_file, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError):
            raise ConfigurationError(
                f"{settings.certificate_file} and {settings.key_file} do not make a TLS identity"
            ) from None
    return context


class MDMImporter:
    """A :class:`gateway.ports.PatientImporter` that speaks HL7 v2 over MLLP."""

    def __init__(self, settings: ImporterSettings) -> None:
        self._settings = settings
        self._rules = MDMRules(
            sending_facility=settings.sending_facility,
            receiving_application=settings.receiving_application,
            receiving_facility=settings.receiving_facility,
            assigning_authority=settings.assigning_authority,
            uses_mrn=settings.patient_number == "mrn",
            processing_id=settings.processing_id,
            document_type=settings.document_type,
            retract_event=settings.retract_event,
        )
        self._client: MLLPClient | None = None
        # Large attachments take a while to encode; neither the loop nor the threads that accept mail wait for that.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=f"mdm-{settings.name}")

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def api_version(self) -> int:
        return IMPORTER_API_VERSION

    @property
    def capabilities(self) -> ImporterCapabilities:
        return ImporterCapabilities(retract=True, preview=True, content=True)

    async def import_message(self, request: ImportRequest) -> str:
        """Send the document. Raises ImportFailedError, ImportRefusedError."""
        key = request.link.id
        return await self._send(lambda: import_message(request, self._rules), key)

    async def retract(self, retraction: Retraction) -> str:
        """Cancel the document. Raises ImportFailedError, ImportRefusedError."""
        return await self._send(lambda: retraction_message(retraction, self._rules), retraction.key)

    async def check(self) -> str | None:
        """Read the files, connect, and shake hands; no message is sent."""
        try:
            await self._connected().reach()
        except (ConfigurationError, ImportFailedError) as exc:
            return str(exc)
        return None

    async def preview(self, request: ImportRequest) -> ImportPreview:
        """The message as it would be sent, without its frame. Raises ImportRefusedError."""
        return ImportPreview("application/hl7-v2", await self._made(lambda: import_message(request, self._rules)))

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close()
        self._threads.shutdown(wait=False)

    async def _send(self, make: Callable[[], bytes], key: str) -> str:
        control = control_id(key)
        try:
            client = self._connected()
        except ConfigurationError as exc:
            raise ImportFailedError(str(exc), reason="settings") from None
        return _judged(await client.send(await self._made(make), control), control)

    async def _made(self, make: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, make)

    def _connected(self) -> MLLPClient:
        """The client. Raises ConfigurationError."""
        if self._client is None:
            settings = self._settings
            place = Place(settings.host, settings.port, client_context(settings))
            # The hook's own limit is the last word; this one tells a slow receiver from a slow queue.
            self._client = MLLPClient(place, answer_seconds=max(1.0, settings.timeout_seconds - 1.0))
        return self._client


def _judged(answer: Answer, control: str) -> str:
    """The receipt. Raises ImportFailedError, ImportRefusedError."""
    if answer.code in {Code.ACCEPT, Code.COMMIT_ACCEPT}:
        return f"mdm:{control}"
    reason = f"ack_{answer.code.value.lower()}"
    if answer.code in {Code.REJECT, Code.COMMIT_REJECT}:
        raise ImportRefusedError("the receiver rejects the document", reason=reason)
    raise ImportFailedError("the receiver cannot take the document now", reason=reason)
