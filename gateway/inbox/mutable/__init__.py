"""An ordinary mail server in memory, behind the gateway's own IMAP engine: for conformance tests, never for mail.

The scripts of an IMAP tester make, fill and empty mailboxes, which the gateway's inbox refuses for good reasons. So
the engine is tested over these mailboxes: the same listener, sessions, parser, views, search and FETCH, and the
messages are indexed as those of the gateway are. ``direct-gateway serve --imap-test-policy`` runs it; it is refused
where anybody else could reach it and where there is mail already.

Guarantees: nothing of it touches the store; every account has mailboxes of its own; they are gone with the process.
Failure modes: none of the store's. Messages that left stay in memory, for the sessions that were not told yet: such a
process is for a test and not to be left running.
"""
