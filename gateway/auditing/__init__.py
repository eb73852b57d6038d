"""Keeping the audit log honest: signed tree heads, starts and stops, jumps of the clock, its export."""
