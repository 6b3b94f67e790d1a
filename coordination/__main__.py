"""How is the command line started without an installed script? ``python -m coordination``."""

from __future__ import annotations

import sys

from coordination.cli import main

if __name__ == "__main__":
    sys.exit(main())
