"""A clinic that judges what the forge makes: the whole agent, real keys, real anchors, no stand-in.

``Clinic.judge`` is what the daemon calls. Messages are wrapped, signed and encrypted like any other; a test replaces
the one part that it is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.core.verdict import Judgement
from gateway.keys.file_key import FileKey
from gateway.keys.key_ring import KeyRing
from gateway.sta.agent import SecurityTrustAgent
from tests.support.direct_messages import outer_message, wrapped_entity
from tests.support.forge_envelopes import Encrypted, cbc, enveloped, v15
from tests.support.forge_names import other_key
from tests.support.forge_signatures import Signed, Signing
from tests.support.pki import Identity, Key
from tests.unit.sta.trust_world import RCPT, SENDER, World

SECRET = bytes(range(100, 132))
"""The content-encryption key of forged messages; shorter ones are cut from it."""


@dataclass
class Clinic:
    """One recipient, one trusted sender, of any kind of key."""

    world: World
    _issued: dict[tuple[str, str], Identity] = field(default_factory=dict)

    @property
    def inner(self) -> bytes:
        """The message that a clinician wrote."""
        return self.world.inner()

    @property
    def entity(self) -> bytes:
        """What is signed."""
        return wrapped_entity(self.inner)

    def sender(self, kind: str = "rsa") -> Identity:
        """The trusted sender with that kind of key."""
        return self._identity("sender", kind)

    def recipient(self, kind: str = "rsa") -> Identity:
        """The recipient with that kind of key."""
        return self._identity("recipient", kind)

    def _identity(self, who: str, kind: str) -> Identity:
        if kind == "rsa":
            return self.world.signer if who == "sender" else self.world.rcpt
        if (who, kind) not in self._issued:
            issue = self.world.community.issue if who == "sender" else self.world.clinic.issue
            self._issued[who, kind] = issue(SENDER if who == "sender" else RCPT, key=cast("Key", other_key(kind)))
        return self._issued[who, kind]

    def signed(self, *signers: Signing | bytes, opaque: bool = False, **options: Any) -> bytes:
        """The signed entity."""
        chosen = signers or (Signing(self.sender()),)
        return Signed(self.entity, chosen, opaque=opaque, **options).entity()

    def sealed(
        self, content: bytes, entries: Sequence[bytes] | None = None, encrypted: Encrypted | None = None
    ) -> bytes:
        """The outer message around encrypted content (RSA v1.5 and AES-256-CBC unless told otherwise)."""
        chosen = [v15(self.recipient(), SECRET)] if entries is None else entries
        return outer_message(enveloped(chosen, encrypted or cbc(SECRET, content)), SENDER, [RCPT])

    def agent(self, kind: str = "rsa", watch: KeyWatch | None = None, **options: Any) -> SecurityTrustAgent:
        """The agent with the recipient's key of that kind; ``watch`` sees each use of it."""
        ring = self.world.ring(self.recipient(kind))
        if watch is not None:
            ring = KeyRing([cast("FileKey", WatchedKey(key, watch)) for key in ring.keys])
        return self.world.agent(ring=ring, **options)

    def judge(self, raw: bytes, kind: str = "rsa", **options: Any) -> Judgement:
        """The verdict of a fresh agent."""
        return self.world.judge(raw, self.agent(kind, **options))


@dataclass
class KeyWatch:
    """What was asked of a private key, and what it is made to answer instead."""

    asked: Counter[str] = field(default_factory=Counter)
    answer: Callable[[bytes], bytes] | None = None
    """Takes what the key recovered; may raise."""


class WatchedKey:
    """A private key that counts; everything else is the key itself."""

    def __init__(self, key: object, watch: KeyWatch) -> None:
        self._key = key
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._key, name)
        if not name.startswith(("decrypt_", "agree")):
            return found

        def counted(*args: Any, **options: Any) -> bytes:
            self._watch.asked[name] += 1
            recovered = found(*args, **options)
            return recovered if self._watch.answer is None else self._watch.answer(recovered)

        return counted
