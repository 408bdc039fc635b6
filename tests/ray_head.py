"""A Ray cluster of one node with its dashboard, as `ray start` makes it, in a folder of its own; gone after the test.

Its processes are found by a mark in their environment: `ray stop` would end every Ray on the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster.conftest import MARK, marked

ROOT = Path(__file__).resolve().parents[1]
_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
_START_SECONDS = 120
_END_SECONDS = 20
_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "ray-client-server-port",
    "metrics-export-port",
)


@dataclass(frozen=True)
class Head:
    """``url`` is the dashboard's, ``address`` what nodes join, ``environment`` that of a shell in which its command
    lines run; ``marked`` has the mark by which its processes are found, too."""

    url: str
    environment: dict[str, str]
    address: str
    marked: dict[str, str]

    def join(self, num_cpus: int) -> psutil.Popen:
        """A node of its own on this machine, once it is up; kill it with its children."""
        command = [*_START, f"--address={self.address}", f"--num-cpus={num_cpus}"]
        command += [
            f"--object-store-memory={200 << 20}",
            "--disable-usage-stats",
            "--node-ip-address=127.0.0.1",
        ]
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
        command += [f"--{n}={p}" for n, p in zip(names, free_ports(len(names)), strict=True)]
        before = self._num_nodes()
        process = psutil.Popen(command, env=self.marked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while self._num_nodes() <= before:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a node does not join {self.address}")
            time.sleep(0.2)
        return process

    def _num_nodes(self) -> int:
        with urllib.request.urlopen(f"{self.url}/nodes?view=summary", timeout=10) as answer:
            nodes = json.load(answer)["data"]["summary"]
        return sum(node["raylet"]["state"] == "ALIVE" for node in nodes)


@contextmanager
def ray_head(*, num_cpus: int = 2) -> Iterator[Head]:
    mark = uuid.uuid4().hex
    folder = Path(
        tempfile.mkdtemp(prefix="lr", dir="/tmp")
    )  # names of Unix sockets may have some 100 letters
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    command = [*_START, "--head"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=true", f"--temp-dir={folder}"]
    command += [f"--num-cpus={num_cpus}", f"--object-store-memory={300 << 20}", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    with (folder / "start.log").open("w") as log:
        ours_marked = ours | {MARK: mark, "RAY_worker_niceness": "0"}
        process = psutil.Popen(command, cwd=folder, env=ours_marked, stdout=log, stderr=log)
    try:
        agent = f"http://127.0.0.1:{ports['dashboard-agent-listen-port']}/api/local_raylet_healthz"
        for there in (f"{url}/api/version", agent):  # the agent is who starts jobs
            _wait_for(there, process, folder / "start.log")
        yield Head(url, ours, f"127.0.0.1:{ports['port']}", ours_marked)
    finally:
        _end(process, mark)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, outside those that Ray gives to its workers (10002 to 19999)."""
    sockets: list[socket.socket] = []
    found: list[int] = []
    try:
        while len(found) < number:
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", 0))
            port = sockets[-1].getsockname()[1]
            if not 10002 <= port <= 19999:
                found.append(port)
    finally:
        for each in sockets:
            each.close()
    return found


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (OSError, urllib.error.URLError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Ray does not start:\n{log.read_text()}")
        time.sleep(0.2)


def _end(process: psutil.Popen, mark: str) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while True:
        left = marked(mark)
        if process.is_running():
            left += process.children(recursive=True)
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                pass
        process.poll()
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.2)
