"""What an operator may decide about judging messages, as one value. None of it lowers the floor of version 1.3.

``version`` names the matrix and every decision that differs from the default; it is kept with each verdict, so that
somebody who judges the message again later knows whether the rules were the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.trust import Direction, FetchedMail
from gateway.sta.algorithm_policy import DEFAULT_POLICY, POLICY_VERSION, AlgorithmPolicy


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """The decisions of one gateway."""

    algorithms: AlgorithmPolicy = DEFAULT_POLICY
    hard_revocation: frozenset[Direction] = frozenset()
    """Where an unknown revocation status refuses; elsewhere it is recorded and passes (AS-70)."""
    accept_unwrapped: bool = True
    fetched_mail: FetchedMail = FetchedMail.UNCHECKED
    version: str = field(init=False, compare=False)
    """For instance ``direct-1.3/2; revocation hard inbound; refuses aes-128-cbc``."""

    def __post_init__(self) -> None:
        # Every message is judged under it and names it; nothing that it is made of can change.
        object.__setattr__(self, "version", self._told())

    def _told(self) -> str:
        parts = [POLICY_VERSION]
        parts += [f"revocation hard {direction.value}" for direction in sorted(self.hard_revocation)]
        parts += [f"refuses {name}" for name in sorted(self.algorithms.refused)]
        if self.algorithms.min_rsa_bits != DEFAULT_POLICY.min_rsa_bits:
            parts.append(f"RSA from {self.algorithms.min_rsa_bits} bits")
        if self.algorithms.gcm_in_enveloped_data:
            parts.append("GCM in EnvelopedData tolerated")
        if not self.accept_unwrapped:
            parts.append("unwrapped refused")
        if self.fetched_mail is not FetchedMail.UNCHECKED:
            parts.append(f"fetched mail by {self.fetched_mail.value}")
        return "; ".join(parts)
