"""The POP3 service over the same mailboxes as IMAP (RFC 1939), for programs that speak nothing else (EP-30)."""
