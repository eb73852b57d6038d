"""Rights on a folder as an operator writes them: by a name, or by the letters of RFC 4314.

=============  =======  ======================================================================================
name           letters  may
=============  =======  ======================================================================================
``reader``     lr       see the folder and read; nothing that he does shows in it
``clinician``  lrsw     also keep messages read and unread, and set flags and keywords
``operator``   lrswa    also see who else has rights on the folder
=============  =======  ======================================================================================

``i`` (put messages in) means something on Sent only, and is added there to whoever may change anything. No right
deletes: there is none.
"""

from __future__ import annotations

from gateway.core.errors import InputError
from gateway.inbox.flags import visible_rights
from gateway.inbox.sent_folders import INSERT

NAMED_RIGHTS = {"reader": "lr", "clinician": "lrsw", "operator": "lrswa"}
DEFAULT_RIGHTS = "clinician"
QUARANTINE_FOLDER = "Quarantine"
_LETTERS = frozenset("lrswia")
_NEEDED = frozenset("lr")


def parse_rights(text: str, *, sent: bool = False) -> str:
    """Return the letters in their usual order. ``sent``: they are for a folder Sent.

    Raises:
        InputError: neither a name nor letters that make sense together; says which ones do.
    """
    wanted = text.strip().lower()
    if wanted in NAMED_RIGHTS:
        return NAMED_RIGHTS[wanted]
    unknown = sorted(set(wanted) - _LETTERS)
    names = ", ".join(f"{name} ({letters})" for name, letters in NAMED_RIGHTS.items())
    if unknown or not wanted:
        raise InputError(f"--rights: {text!r} is neither one of {names} nor made of the letters l r s w i a")
    if INSERT in wanted and not sent:
        raise InputError("--rights: i (put messages in) can be granted on Sent only; no other folder takes any")
    if not set(wanted) >= _NEEDED:
        raise InputError(f"--rights: {text!r} lacks l (see the folder) or r (read it); take l and r, or one of {names}")
    return visible_rights(wanted)
