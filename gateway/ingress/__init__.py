"""Bytes from outside: the SMTP listener of the STA."""
