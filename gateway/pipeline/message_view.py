"""Takes a verified message apart for the import hook: its text for people and its leaf parts, decoded.

Guarantee: raises nothing for what a message holds; the MIME reader's own limits bound what is read. File names
come as the sender gave them: an importer must never use one as a path.
"""

from __future__ import annotations

from gateway.core.mime.parts import leaf_parts, main_text
from gateway.core.mime.structure import parse_structure
from gateway.pipeline.import_request import MessageView
from gateway.ports import MessagePart


def view_message(content: bytes) -> MessageView:
    """The view of a complete RFC 5322 message."""
    root = parse_structure(content)
    leaves = leaf_parts(content, root)
    parts = tuple(MessagePart(leaf.filename, leaf.content_type, leaf.data(), leaf.path) for leaf in leaves)
    return MessageView(main_text(content, root), parts)
