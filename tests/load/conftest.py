"""No measurement leaves a process behind."""

from __future__ import annotations

from tests.support.fault_report import no_node_stays

__all__ = ["no_node_stays"]
