"""Helpers that tests share: an independent PKI, message factories of independent stacks, the real daemon."""
