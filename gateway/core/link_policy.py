"""What a practice lets link without a person (matching policy 3): which grounds, and mail to whom."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

ADDRESS_BOOK, NUMBER, DEMOGRAPHICS = "address_book", "number", "demographics"
AUTOMATIC_BY = (ADDRESS_BOOK, NUMBER, DEMOGRAPHICS)
"""Each allows what stands before it as well."""


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """The policy. Without more it is that of the address book alone."""

    automatic: bool = True
    """False: even an exact match waits for a person."""
    by: str = ADDRESS_BOOK
    """One of ``AUTOMATIC_BY``."""
    recipients: frozenset[str] = frozenset()
    """The (normalised) addresses of the practice whose mail may be linked so. Empty: all."""

    @property
    def numbers(self) -> bool:
        """Whether a record number links, with birth date and family name."""
        return self.by in {NUMBER, DEMOGRAPHICS}

    @property
    def demographics(self) -> bool:
        """Whether names and birth date with a contact link."""
        return self.by == DEMOGRAPHICS

    def allows(self, delivered_to: Collection[str]) -> bool:
        """Whether mail to these may be linked by itself; of several recipients each must allow it."""
        return self.automatic and (not self.recipients or self.recipients.issuperset(delivered_to))
