"""``python -m search.ranking``; what it does is in the package, whose functions other processes import."""

from __future__ import annotations

import sys

from search.ranking import main

if __name__ == "__main__":
    sys.exit(main())
