"""The readable text of an HTML part, for search and for the text of a chart entry. Not a renderer.

Guarantees: never raises, linear time, no tag and no script is left in the result. It is text: whoever shows it
as HTML must still escape it.
"""

from __future__ import annotations

import re
from html import unescape

_NAME = re.compile(r"/?([a-zA-Z][a-zA-Z0-9]*)")
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "dfn", "em", "font", "i", "ins", "kbd", "mark", "q", "s"}
    | {"samp", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "var"}
)
_DROPPED = frozenset({"script", "style", "title"})
_SPACES = re.compile(r"[ \t\r\f\v\u00a0]+")
_LINES = re.compile(r" ?\n[ \n]*")


def html_to_text(html: str) -> str:
    """Strip the tags: inline ones vanish, the others become line breaks; scripts and styles are left out."""
    out: list[str] = []
    lowered = html.lower() if len(html.lower()) == len(html) else html
    position = 0
    while (opened := html.find("<", position)) >= 0:
        out.append(html[position:opened])
        if html.startswith("<!--", opened):
            end = html.find("-->", opened + 4)
            position = len(html) if end < 0 else end + 3
            continue
        name = _NAME.match(html, opened + 1)
        if name is None and not html.startswith(("<!", "<?"), opened):
            out.append("<")  # A lone sign, as in "HbA1c < 7".
            position = opened + 1
            continue
        close = html.find(">", opened)
        tag = name.group(1).lower() if name else ""
        position = len(html) if close < 0 else close + 1
        if tag in _DROPPED and html[opened + 1] != "/":
            # Everything up to the end tag goes, all the rest when there is none: browsers do the same.
            end = lowered.find("</" + tag, position)
            position = len(html) if end < 0 else end
        elif tag not in _INLINE:
            out.append("\n")
    out.append(html[position:])
    text = _SPACES.sub(" ", unescape("".join(out)))
    return _LINES.sub("\n", text).strip()
