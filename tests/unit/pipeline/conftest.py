"""The store of :mod:`tests.unit.pipeline.link_harness`."""

from tests.unit.pipeline.link_harness import charts, store

__all__ = ["charts", "store"]
