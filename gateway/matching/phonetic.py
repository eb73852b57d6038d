"""A key under which names that sound alike in American English stand together (Soundex with a few rules more)."""

from __future__ import annotations

import re
from functools import lru_cache

_CODES = {c: code for letters, code in (
    ("bfpv", "1"), ("cgjkqsxz", "2"), ("dt", "3"), ("l", "4"), ("mn", "5"), ("r", "6"),
) for c in letters}  # fmt: skip
_STARTS = (
    (re.compile(r"^(?:kn|gn|pn)"), "n"), (re.compile(r"^wr"), "r"), (re.compile(r"^ps"), "s"),
    (re.compile(r"^(?:ph|pf)"), "f"), (re.compile(r"^x"), "s"), (re.compile(r"^c(?=[aouklr])"), "k"),
    (re.compile(r"^(?:c|z)(?=[eiy])"), "s"), (re.compile(r"^(?:gh)"), "g"), (re.compile(r"^wh"), "w"),
)  # fmt: skip
_INNER = ((re.compile(r"ph"), "f"), (re.compile(r"ght"), "t"), (re.compile(r"(.)\1"), r"\1"))


@lru_cache(maxsize=65_536)
def sound(word: str) -> str:
    """The key of a word in lower case: its first sound and up to four consonants; empty for an empty word."""
    text = word
    for pattern, replacement in (*_STARTS, *_INNER):
        text = pattern.sub(replacement, text)
    if not text:
        return ""
    codes = [text[0]]
    last = _CODES.get(text[0], "")
    for char in text[1:]:
        code = _CODES.get(char, "")
        if code and code != last:
            codes.append(code)
        # H and W do not part two like consonants; a vowel does.
        if char not in "hw":
            last = code
    return "".join(codes[:5])
