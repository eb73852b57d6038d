"""Benchmarks: programs that measure, not tests. ``make bench`` runs them; pytest collects nothing here."""
