"""Kill an operation on a store before each thing it does to the storage, and look at what is left each time.

Run as a program, so that it can fork: nothing in it starts a thread before it forks. For each operation it makes a
store, notes what an uninterrupted run makes of it, then for N = 0, 1, 2, … lets a child run the operation on a copy
and die by SIGKILL before its Nth primitive (a write counts twice: it may die half-way), until N is past the end.
After each death another child checks that the store opens, that readers see the old state or the new one, and that
running the operation again (and `sweep`, which is what mends) ends where an uninterrupted run ends. Prints JSON.

    python -m tests.pipeline.store.kill_points PLACE OPERATION…
"""

from __future__ import annotations

import builtins
import json
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import fsspec.implementations.chained  # noqa: F401 - what is imported on first use: once, not in each child
import pandas  # noqa: F401
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
import s3fs

from pipeline.store import local_files
from pipeline.store.files import StoreFiles
from pipeline.store.mend import derive, remove, retry, sweep
from pipeline.store.read import failures
from pipeline.store.shard_store import ShardStore
from pipeline.store.verify import count, verify
from pipeline.tasks.targets_table import rederive
from tests.pipeline.store.stores import (
    FINGERPRINT,
    Fault,
    dealt,
    empty_store,
    finish,
    new_store,
    plan_row,
    shown,
    video_id,
)

FAULTS = {video_id(1): Fault(), video_id(4): Fault(permanent=True, salvaged=1)}
STORE = f"t-{FINGERPRINT[:12]}"


# ---------------------------------------------------------------- dying


class Killer:
    """Counts primitives; at the chosen one the process dies, as by a power switch."""

    def __init__(self, at: int) -> None:
        self._left = at

    def step(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def killing(*args: Any, **options: Any) -> Any:
            self.step()
            return call(*args, **options)

        return killing

    def install(self) -> None:
        for name in ("link", "replace", "unlink", "fsync", "mkdir"):
            setattr(os, name, self.before(getattr(os, name)))
        local_files.open = self.open  # type: ignore[attr-defined]
        pipe = s3fs.S3FileSystem._pipe_file

        async def killing(fs: Any, *args: Any, **options: Any) -> Any:
            self.step()
            return await pipe(fs, *args, **options)

        s3fs.S3FileSystem._pipe_file = killing
        s3fs.S3FileSystem.clear_instance_cache()  # those that exist hold the method as it was

    def open(self, *args: Any) -> Any:
        self.step()
        return HalfWriting(builtins.open(*args), self)


class HalfWriting:
    """A file whose process may die with half of a write done."""

    def __init__(self, inner: Any, killer: Killer) -> None:
        self._inner, self._killer = inner, killer

    def __enter__(self) -> HalfWriting:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        self._inner.write(data[: len(data) // 2])
        self._inner.flush()
        self._killer.step()
        self._inner.write(data[len(data) // 2 :])


# ---------------------------------------------------------------- operations


@dataclass(frozen=True)
class Operation:
    """``prepare`` makes the store under a folder, ``run`` is what is killed. Both are given the folder."""

    prepare: Callable[[str], object]
    run: Callable[[str], object]


def opened(place: str) -> ShardStore:
    return ShardStore.open(f"{place}/{STORE}")


def ran(place: str) -> ShardStore:
    store = new_store(place, videos=6)
    finish(store, FAULTS)
    return store


def brought_back(place: str) -> None:
    """A store in which a late writer undid a removal in both shards."""
    store = ran(place)
    before = {n: store.files.read(f"data/{n}") for n in store.files.list("data")}
    remove(store, [video_id(0), video_id(5)])
    for name, body in before.items():
        store.files.put_over(f"data/{name}", body)


def plan_once(place: str) -> None:
    store = opened(place)
    if not store.generations():
        store.add_plan(dealt([plan_row(n) for n in range(6)], 6))


OPERATIONS = {
    "create": Operation(lambda _: None, empty_store),
    "add_plan": Operation(empty_store, plan_once),
    "commit": Operation(lambda p: new_store(p, videos=6), lambda p: finish(opened(p), FAULTS)),
    "remove": Operation(ran, lambda p: remove(opened(p), [video_id(0), video_id(5)])),
    "retry": Operation(ran, lambda p: retry(opened(p), permanent=True)),
    "derive": Operation(ran, lambda p: derive(opened(p), rederive)),
    "sweep": Operation(brought_back, lambda p: sweep(opened(p))),
}


# ---------------------------------------------------------------- looking


def by_video(place: str) -> dict[str, Any]:
    """What a reader is shown, by video, and what is planned; no store at all where there is none yet."""
    if not ShardStore.is_store(f"{place}/{STORE}"):
        return {"store": None}
    return state_of(opened(place))


def state_of(store: ShardStore) -> dict[str, Any]:
    state: dict[str, Any] = {"plan": store.generations()}
    for row in shown(store):
        state.setdefault(f"video {row['video_id']}", []).append(row)
    return state


def final(store: ShardStore) -> dict[str, Any]:
    """All that must be the same in the end: rows, failures, what lies in the files, and the counts."""
    keys = sorted(store.committed())
    raw = [store.read_data(key, ["video_id", "start_us"]).table.to_pylist() for key in keys]
    return {
        "shown": shown(store),
        "raw": raw,
        "failures": [(str(key), f) for key, f in failures(store)],
        "tombstones": sorted(store.tombstones()),
        "pending": store.pending(),
        "counts": replace(count(store), data_bytes=0),
    }


def check(
    operation: Operation, place: str, before: dict[str, Any], after: dict[str, Any], end: Any
) -> list[str]:
    """What is wrong with a store whose writer was killed. Mends it on the way."""
    wrong = []
    state = by_video(place)
    if torn := [name for name in state if state[name] not in (before.get(name), after.get(name))]:
        wrong.append(f"neither the old state nor the new one: {torn}")
    if "store" not in state:
        if lost := [n for n in before.keys() & after.keys() - state.keys() if n.startswith("video")]:
            wrong.append(f"not shown any more: {lost}")
        left = opened(place)
        if unseen := [i for i in left.tombstones() if f"video {i}" in state]:
            wrong.append(f"a removal that was written is not seen: {unseen}")
        report = verify(left)
        if report.problems or report.counts != count(left):
            wrong.append(f"not proved: {report}")
    operation.run(place)
    mended = opened(place)
    sweep(mended)
    if (found := final(mended)) != end:
        wrong.append(f"another end: {found} and not {end}")
    report = verify(mended, contents=True)
    if not report.clean:
        wrong.append(f"not clean in the end: {report}")
    if finish(mended) and not (verify(mended).clean and count(mended).complete):
        wrong.append(f"cannot be completed: {verify(mended)}")
    return wrong


# ---------------------------------------------------------------- driving


def in_child(work: Callable[[], object]) -> tuple[int, Any]:
    """Run in a forked child: its wait status, and what it returned (None where it was killed)."""
    with tempfile.NamedTemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                body = pickle.dumps(work())
                with builtins.open(answer.name, "wb") as f:
                    f.write(body)
                status = 0
            except BaseException:  # noqa: BLE001 - the edge of a process
                traceback.print_exc()
            os._exit(status)
        status = os.waitpid(child, 0)[1]
        data = answer.read()
    return status, pickle.loads(data) if status == 0 else None


def must(work: Callable[[], object]) -> Any:
    status, answer = in_child(work)
    if status != 0:
        raise RuntimeError(f"a child that was not to die ended with status {status}")
    return answer


def copy(source: str, target: str) -> None:
    """Copy all files of one place to another."""
    old, new = StoreFiles(source), StoreFiles(target)
    for path in old.fs.find(old.path):
        rel = path[len(old.path) + 1 :]
        if new.is_local:
            os.makedirs(os.path.dirname(new.at(rel)), exist_ok=True)
        old.fs.cp_file(path, new.at(rel))


def matrix(name: str, place: str) -> dict[str, Any]:
    """Kill one operation at every point."""
    operation = OPERATIONS[name]
    base, whole = f"{place}/{name}/base", f"{place}/{name}/whole"
    must(lambda: bool(operation.prepare(base)))
    before = must(lambda: by_video(base))
    must(lambda: bool((copy(base, whole), operation.run(whole))))
    after = must(lambda: by_video(whole))
    end = must(lambda: (sweep(opened(whole)), final(opened(whole)))[1])
    points, wrong = 0, {}
    while True:
        at = f"{place}/{name}/{points}"

        def die(at: str = at, point: int = points) -> None:
            copy(base, at)
            Killer(point).install()
            operation.run(at)

        status, _ = in_child(die)
        if status == 0:
            return {"operation": name, "points": points, "wrong": wrong}
        if not os.WIFSIGNALED(status):
            raise RuntimeError(f"{name} failed at point {points} instead of being killed")
        status, found = in_child(lambda at=at: check(operation, at, before, after, end))
        if status != 0 or found:
            wrong[points] = found or f"the check itself ended with status {status}"
        points += 1


if __name__ == "__main__":
    print(json.dumps([matrix(name, sys.argv[1]) for name in sys.argv[2:]]))
