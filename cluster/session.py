"""Connecting to Ray, or starting one: which cluster a run is on, what it has, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

from cluster import nodes
from cluster.sizing import Node
from schemas.cluster import LOCAL, RUNNING, RayOptions
from schemas.errors import RetryableError, SettingsError

log = logging.getLogger("locum.ray")

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the process of a submitted job, and only there."""
_SHARED_MEMORY = "/dev/shm"
_GONE_SECONDS = 10.0
TOKEN_HINT = (
    "Where the cluster wants a token, as one that `ray start` makes does: put the head's ~/.ray/auth_token here, and "
    "`export RAY_AUTH_MODE=token`"
)


@dataclass(frozen=True)
class Session:
    """A connection. ``own`` says that the cluster was started for this run."""

    own: bool
    session_dir: str

    def look(self) -> tuple[dict[str, Node], frozenset[str]]:
        """What the nodes offer that are there to stay, taken or not; and ids of those that are about to go."""
        leaving = frozenset() if self.own else nodes.about_to_go()
        return nodes.living(leaving), leaving

    def nodes(self) -> list[Node]:
        """What the nodes offer that are there, taken or not."""
        return list(self.look()[0].values())

    def living(self) -> frozenset[str]:
        """Ids of the nodes that are there, be they about to go."""
        return frozenset(nodes.living(frozenset()))


def address_of(options: RayOptions) -> str:
    """Where the run goes: what was said, else the cluster of a submitted job, else a Ray of its own.

    A cluster that happens to run on this machine, or that ``RAY_ADDRESS`` names, is not joined by accident.
    """
    if options.ray is not None:
        return options.ray
    return RUNNING if os.environ.get(_JOB_VARIABLE) else LOCAL


@contextmanager
def connect(options: RayOptions, *, object_store_bytes: int) -> Iterator[Session]:
    """A session, ended with the context; a Ray that was started for it goes away then.

    Raises
    ------
    SettingsError
        If there is no cluster at the address, or this machine has no room for a Ray of its own.
    """
    if ray.is_initialized():
        yield Session(False, "")
        return
    address = address_of(options)
    started, before = time.monotonic(), set(psutil.Process().children())
    try:
        with _signals_kept(), contextlib.redirect_stdout(sys.stderr):
            session = _start(object_store_bytes) if address == LOCAL else _join(address)
    except BaseException:
        _end_processes([p for p in psutil.Process().children() if p not in before])
        raise
    log.info("Ray at %s after %.1f s", address, time.monotonic() - started)
    daemons = [p for p in psutil.Process().children() if p not in before] if session.own else []
    try:
        yield session
    except BaseException:
        _end(session, daemons, tidy=False)
        raise
    else:
        _end(session, daemons, tidy=True)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts, to end the process on the spot."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as e:
        raise KeyboardInterrupt(signal.SIGTERM) from e
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _start(object_store_bytes: int) -> Session:
    room = shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else 0
    wanted = max(object_store_bytes, 80 << 20)
    if room and wanted > room:
        raise SettingsError(
            f"decoded frames may take {wanted >> 20} MB of shared memory, {_SHARED_MEMORY} has {room >> 20} MB free: "
            "lower --buffer-mb or the number of workers, or give the container more (--shm-size)"
        )
    try:
        context = ray.init(
            address="local",
            num_cpus=num_cores(),
            object_store_memory=wanted,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (RuntimeError, OSError, ValueError, TimeoutError) as e:
        raise RetryableError(f"Ray does not start on this machine: {e}") from e
    return Session(True, str(context.address_info["session_dir"]))


def _join(address: str) -> Session:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as e:
        raise SettingsError(f"--ray {address}: no Ray cluster answers there: {e}. {TOKEN_HINT}") from e
    except (RuntimeError, OSError, ValueError, TimeoutError) as e:
        if "mismatch" in str(e).lower():
            raise SettingsError(f"--ray {address}: {e}") from e
        raise RetryableError(f"--ray {address}: {e}") from e
    return Session(False, "")


def _end(session: Session, daemons: list[psutil.Process], *, tidy: bool) -> None:
    """Disconnect; of a Ray of our own see every process end, and take its folder of logs away where all went well."""
    ours = _with_children(daemons)
    with contextlib.redirect_stdout(sys.stderr):
        ray.shutdown()
    if not session.own:
        return
    psutil.wait_procs(ours, timeout=_GONE_SECONDS)
    _end_processes(ours)
    folder = Path(session.session_dir)
    if tidy and folder.is_relative_to(tempfile.gettempdir()) and folder.name.startswith("session_"):
        shutil.rmtree(folder, ignore_errors=True)


def _with_children(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = [*processes]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.children(recursive=True)
    return found


def _end_processes(processes: list[psutil.Process]) -> None:
    for process in _with_children(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def num_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its control group is granted."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            return max(1, min(cores, math.ceil(int(quota) / int(period))))
    return cores


def num_gpus() -> int:
    """NVIDIA GPUs that this process may use, found without loading a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() not in ("", "-1")])
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    return 0
