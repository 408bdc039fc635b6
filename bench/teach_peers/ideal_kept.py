"""`bench.teach_peers.ideal` in processes that keep what they free, as Locum's workers do: what that alone is worth."""

from __future__ import annotations

import sys

from bench.teach_peers.ideal import main

if __name__ == "__main__":
    sys.exit(main(kept=True))
