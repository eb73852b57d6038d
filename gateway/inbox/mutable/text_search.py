"""SEARCH for text in messages in memory: on the texts of the indexer, as the store searches them."""

from __future__ import annotations

from gateway.inbox.service import TextTerm
from gateway.ports import IndexedMessage


def matches(term: TextTerm, row: IndexedMessage) -> bool:
    """Whether the message has the text; an empty one in a named field asks for the field."""
    needle = term.needle.casefold()
    if term.name is None:
        return (term.headers and needle in row.search_headers) or (term.body and needle in row.search_text)
    prefix = term.name.casefold() + ":"
    fields = (line.removeprefix(prefix) for line in row.search_headers.split("\n") if line.startswith(prefix))
    return any(needle in field for field in fields)
