"""Names of folders and files made from what strangers wrote.

Guarantees: a name never leaves its folder, is no special name on Linux, macOS or Windows, fits every usual file
system, and two different ids never share a folder, not even where upper and lower case are the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_STEM_CHARS = 80
MAX_NAME_BYTES = 200
_PLAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d)(?:\..*)?\Z", re.IGNORECASE)
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,10}\Z")
_DIGEST_CHARS = 32
_EXTENSIONS = {
    "application/hl7-v2": ".hl7",
    "application/json": ".json",
    "application/fhir+json": ".json",
    "application/pdf": ".pdf",
    "application/xml": ".xml",
    "application/zip": ".zip",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/tiff": ".tif",
    "message/rfc822": ".eml",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/plain": ".txt",
    "text/rtf": ".rtf",
    "text/xml": ".xml",
}


def folder_name(identifier: str) -> str:
    """Return the folder name of an id (a patient's, a link's).

    A short id of lower-case letters, digits, dot, dash and underscore is its own name. Any other becomes a
    readable stem, ``~`` and 128 bits of its SHA-256; ``~`` stands in no plain id, so the two kinds never meet.
    """
    if _PLAIN.match(identifier) and not _RESERVED.match(identifier):
        return identifier
    stem = re.sub(r"[^a-z0-9-]+", "_", identifier.lower())[:40].strip("_-") or "id"
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{stem}~{digest[:_DIGEST_CHARS]}"


def part_name(number: int, filename: str, content_type: str) -> str:
    """Return ``NN-safe-name.ext`` for the number-th part (from 1).

    The number makes the name unique, whatever the sender wrote; letters and digits of any script stay, the rest
    becomes ``_``. Without a usable extension the content type gives one, ``.bin`` when it is unknown.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", filename))[-1]
    kept = "".join(char if char.isalnum() or char in "._-" else "_" for char in last).strip("._-")
    found = _EXTENSION.search(kept)
    if found:
        extension, stem = found.group(), kept[: found.start()]
    else:
        extension, stem = _EXTENSIONS.get(content_type.lower(), ".bin"), kept
    # The bound is in bytes: a letter may take four, and file systems count bytes.
    stem = stem[:MAX_STEM_CHARS].encode("utf-8")[: MAX_NAME_BYTES - 32].decode("utf-8", "ignore").strip("._-")
    return f"{number:02d}-{stem or 'part'}{extension}"
