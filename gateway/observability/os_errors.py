"""The operating system's own words for an error.

asyncio and uvicorn write sentences of their own around them, which a person would read twice.
"""

from __future__ import annotations

import os
import socket


def os_reason(error: OSError) -> str:
    """``address already in use``; of a name that cannot be resolved, what the resolver said."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return (error.strerror or "the address cannot be used").lower()
    return os.strerror(error.errno).lower()
