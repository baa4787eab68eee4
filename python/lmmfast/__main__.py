"""``python -m lmmfast``: the command line."""

from __future__ import annotations

import sys

from lmmfast.cli import main

sys.exit(main())
