"""``python -m gateway`` is the ``direct-gateway`` command."""

import gc
import sys

from gateway.observability.process import collect_rarely


def run() -> int:
    """The process of the command: returns its exit status."""
    collect_rarely()
    # Loaded now, and not with this module: loading is most of what a short command costs.
    from gateway.cli.main import main  # noqa: PLC0415

    try:
        return main()
    finally:
        # At its end the interpreter would go through everything that is loaded once more.
        gc.freeze()


if __name__ == "__main__":
    sys.exit(run())
