"""direct-gateway: a Direct Secure Messaging gateway (a Security/Trust Agent with an inbox behind it).

The folder list reads as the life of a message: ``ingress`` takes the bytes, ``pipeline`` moves them from state
to state, ``sta`` judges them, ``store`` keeps them for ever, ``inbox`` and ``imap`` show them, ``charts`` links
them to a patient. ``core`` holds the rules without any I/O and ``daemon`` is the only place that knows everyone.
"""

__version__ = "0.1.0"
