"""``python -m gateway`` is the ``direct-gateway`` command."""

import sys

from gateway.cli.main import main

sys.exit(main())
