"""How is the command line started without an installed script? ``python -m coordination``."""

from __future__ import annotations

from coordination.cli import main

if __name__ == "__main__":
    main()
