"""Logs free of PHI, and the clock."""
