"""The DataLoader script with torch's defaults: everything in one process, one thing after the other, no bad file
expected."""

from __future__ import annotations

import sys

from bench.teach_peers.dataloader import main

if __name__ == "__main__":
    sys.exit(main(default=True))
