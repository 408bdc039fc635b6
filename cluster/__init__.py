"""Where the work happens. The only package that imports Ray, which reads its environment when it is imported."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A worker or decode actor that dies is reported by us, with what it was doing.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed while executing")
