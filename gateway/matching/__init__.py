"""Which patient is meant: the index of patients in memory, search, and the findings on which a link is decided.

The rule itself is :mod:`gateway.core.matching`; this room measures how the claims of a message stand to the patients.
It knows no store and does no I/O: who uses it brings the patients.
"""
