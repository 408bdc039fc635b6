"""Makes decoders fail on purpose, in every process that has this folder on PYTHONPATH: by words in a file's name.

    segfault   the process reads address 0                 gilhang   it sleeps, holding the interpreter's lock
    swell      it takes memory until it is killed          spin      it hangs, but lets other threads run
    die        it kills itself, as the kernel would when memory runs out

With ``probe-`` before the word the same happens when the file is indexed.
"""

import ctypes
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import threading
from pathlib import Path


def poison(uri: str) -> None:
    name = Path(uri).name
    if "segfault" in name:
        ctypes.string_at(0)
    if "gilhang" in name:
        ctypes.PyDLL(None).sleep(100_000)
    if "spin" in name:
        threading.Event().wait()
    if "die" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    held = []
    while "swell" in name:
        held.append(bytearray(os.urandom(1 << 20)) * 16)


class Finder(importlib.abc.MetaPathFinder):
    """Wraps `open_media` where decoders and the prober import it."""

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name not in ("pipeline.video.pyav", "pipeline.video.probe"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def exec_module(module):  # type: ignore[no-untyped-def]
            run(module)
            inner = module.open_media

            def open_media(uri, **more):  # type: ignore[no-untyped-def]
                if ("probe-" in Path(uri).name) == (name == "pipeline.video.probe"):
                    poison(uri)
                return inner(uri, **more)

            module.open_media = open_media

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
