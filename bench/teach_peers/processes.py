"""Running one contender in processes of its own: time, memory, marks, and the end of all that it started.

Whatever a contender starts inherits a token in its environment. By it the processes are found whose memory is summed,
and those that have to be ended when the contender is gone, also where they left its process tree, as Ray's do. Memory
is the proportional set size (what is shared counts once), sampled every three seconds: to add it up the kernel walks
all pages of a process, and at twice a second that took a tenth of the machine from those with many processes. Linux
only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.teach_peers.marks import LOG, Mark, read_marks
from bench.teach_peers.work import Work

_TOKEN = "LOCUM_BENCH_TOKEN"
_SAMPLE_SECONDS = 3.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """What became of one job. ``died`` is empty where it ended well."""

    seconds: float
    peak_mib: float
    marks: tuple[Mark, ...]
    died: str
    killed: bool
    output: str


def run(
    contender: str,
    work: Work,
    timeout_seconds: float,
    kill_when: Callable[[list[Mark]], bool] | None = None,
) -> Run:
    """Run a contender to its end, its timeout, or until ``kill_when`` (asked five times a second) says to kill it."""
    token = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as scratch:
        log, out = Path(scratch) / "marks", Path(scratch) / "output"
        work.save(Path(scratch) / "work.json")
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, _TOKEN: token, LOG: str(log), "PYTHONPATH": path}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "DAFT_ANALYTICS_ENABLED": "0"}
        command = [sys.executable, "-m", f"bench.teach_peers.{contender}", f"{scratch}/work.json"]
        started = time.monotonic()
        died, killed = "", False
        with out.open("w") as file, _Memory(token) as memory:
            child = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
            )
            try:
                while (code := child.poll()) is None:
                    if time.monotonic() - started > timeout_seconds:
                        died = f"timed out after {timeout_seconds:.0f} s"
                        break
                    if kill_when is not None and kill_when(read_marks(log)):
                        killed = True
                        break
                    time.sleep(0.02 if kill_when is None else 0.2)
                seconds = time.monotonic() - started
                if code:
                    died = f"exit code {code}"
            finally:
                _end(child, token)
        text = out.read_text(errors="replace")
        return Run(seconds, memory.peak_mib, tuple(read_marks(log)), died, killed, text[-20_000:])


def last_words(run: Run) -> str:
    """The line of the output that most likely says why it died; empty where none does."""
    lines = [line.strip() for line in run.output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and not line.startswith("skipped")]
    return (errors or [""])[-1][:300]


def _end(child: subprocess.Popen[bytes], token: str) -> None:
    """Kill the contender's group first, then everything else that it started."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    for _ in range(50):
        left = _processes(token)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.1)
    child.wait()


def _processes(token: str) -> list[int]:
    """Ids of the living processes that carry the token."""
    wanted = f"{_TOKEN}={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return found


class _Memory:
    """Samples the memory of all processes with a token, in a thread, while it is entered."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mib = 0.0

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.peak_mib = max(self.peak_mib, sum(map(_pss_mib, _processes(self._token))))


def _pss_mib(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
