"""The gateway with a seeded bug: the row that names a body is committed before the body is in the bucket.

Run as ``python -m tests.support.row_before_body PYTHON -m gateway ARGUMENTS``, in place of the command that follows.
A harness that finds nothing wrong with this one finds nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
import threading
import time
from datetime import timedelta

from gateway.cli.main import main
from gateway.core.message import Body
from gateway.observability.clock import SystemClock
from gateway.ports import PlacedBody
from gateway.store.body_objects import packed
from gateway.store.body_parts import Kind
from gateway.store.s3_bodies import S3Bodies
from gateway.store.s3_bucket import retain_until
from gateway.store.sealed_bodies import sealed_parts

LATE_SECONDS = 0.4


def put_late(self: S3Bodies, message_id: str, kind: Kind, key: bytes, body: Body) -> PlacedBody:
    """Says at once that the body is there, and puts it afterwards."""
    data = packed(sealed_parts(self._sealer, key, message_id, kind, body.parts()))
    until = retain_until(SystemClock().now(), timedelta(days=1))
    name = f"{self.bucket.prefix}{message_id}/{kind.value}/{secrets.token_hex(16)}"

    def later() -> None:
        time.sleep(LATE_SECONDS)
        self.bucket.put(name, data, until)

    threading.Thread(target=later, daemon=True).start()
    digest = hashlib.sha256(data).hexdigest()
    return PlacedBody(message_id, kind.value, body.sha256, key, name, "1", digest, len(data), until)


if __name__ == "__main__":
    S3Bodies.put = put_late  # type: ignore[method-assign]
    sys.exit(main(sys.argv[4:]))
