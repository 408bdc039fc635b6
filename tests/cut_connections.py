"""A proxy on loopback whose connections can be cut, for what clients make of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_BYTES = 65536


class Proxy:
    """Passes bytes to and from a server, until it is told to `cut`; then it refuses all, until it is told to `mend`."""

    def __init__(self, target: str) -> None:
        there = urlsplit(target)
        self._target = (str(there.hostname), int(there.port or 80))
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Break all connections; how many there were."""
        with self._lock:
            self._whole = False
            cut, self._open = self._open, []
        for each in cut:
            _close(each)
        return len(cut) // 2

    def mend(self) -> None:
        with self._lock:
            self._whole = True

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._whole:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                self._open += [client, server]
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(here, there), daemon=True).start()


@contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


def _pass_on(here: socket.socket, there: socket.socket) -> None:
    try:
        while data := here.recv(_BYTES):
            there.sendall(data)
    except OSError:
        pass
    _close(here)
    _close(there)


def _close(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()
