"""What a message says of its patient: a reader for each place that may name one (CX-12).

``message.py`` is the entrance: exact verified bytes and verified sender in, :class:`gateway.core.claims.Evidence` out.
Nothing here decides anything, stores anything or does any I/O. docs/evidence.md tells what is read and what is not.
"""
