"""The different names of all patients, and which of them are near a word that somebody typed.

There are far fewer different names than patients, and they grow more slowly: that is what makes a search that
tolerates typing errors grow more slowly than the index.

Guarantees: adding and removing a word costs its length. What is found is within two slips of the keyboard (one for
short words) or sounds alike, and begins with the word, the nearest first, at most ``MAX_NEAR``.
"""

from __future__ import annotations

from collections import Counter

from rapidfuzz import process
from rapidfuzz.distance import OSA

from gateway.matching.phonetic import sound

MAX_NEAR = 40
MAX_EXAMINED = 3_000
_EXACT, _SOUND, _BEGINNING = 0, 3, 2


class Vocabulary:
    """Words, each known as often as it was added."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._grams: dict[str, set[str]] = {}
        self._sounds: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, word: str) -> None:
        """Add a word once more."""
        self._counts[word] += 1
        if self._counts[word] == 1:
            for gram in _grams(word):
                self._grams.setdefault(gram, set()).add(word)
            self._sounds.setdefault(sound(word), set()).add(word)

    def remove(self, word: str) -> None:
        """Take back one :meth:`add`."""
        self._counts[word] -= 1
        if self._counts[word] > 0:
            return
        del self._counts[word]
        for gram in _grams(word):
            _discard(self._grams, gram, word)
        _discard(self._sounds, sound(word), word)

    def near(self, word: str) -> list[tuple[str, int]]:
        """Known words near the word, with how far: 0 the word itself, 1 and 2 slips or a beginning, 3 a sound."""
        found: dict[str, int] = {word: _EXACT} if word in self._counts else {}
        if len(word) >= 3:
            for other, distance in self._slips(word):
                found.setdefault(other, distance)
            for other in self._sounds.get(sound(word), ()):
                found.setdefault(other, _SOUND)
        ranked = sorted(found.items(), key=lambda item: (item[1], -self._counts[item[0]], item[0]))
        return ranked[:MAX_NEAR]

    def _slips(self, word: str) -> list[tuple[str, int]]:
        shared: Counter[str] = Counter()
        grams = _grams(word)
        for gram in grams:
            shared.update(self._grams.get(gram, ()))
        # One slip breaks three grams at most and two neighbours swapped break four; who shares one alone is far off.
        likely = [other for other, count in shared.most_common(MAX_EXAMINED) if count > 1 or len(grams) < 6]
        most = 2 if len(word) > 4 else 1
        slips = process.extract(word, likely, scorer=OSA.distance, score_cutoff=most, limit=MAX_NEAR)
        begun = [(other, _BEGINNING) for other in likely if other.startswith(word)][:MAX_NEAR]
        return [(other, int(distance)) for other, distance, _ in slips] + begun


def _grams(word: str) -> frozenset[str]:
    padded = f"\x00\x00{word}\x00"
    return frozenset(padded[at : at + 3] for at in range(len(padded) - 2))


def _discard(table: dict[str, set[str]], key: str, word: str) -> None:
    words = table[key]
    words.discard(word)
    if not words:
        del table[key]
