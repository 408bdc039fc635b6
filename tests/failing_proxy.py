"""A proxy in front of an S3 server that lets some requests fail, as real ones do.

A fault strikes before the server has seen a request, or after it has done what was asked: then only the answer is lost,
and a client that tries again finds its own work done."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal[
    "slow down",
    "internal error",
    "reset",
    "lost answer",
    "error after",
    "truncated",
    "slow body",
    "no answer",
]
FAULTS: tuple[Fault, ...] = tuple(fault for fault in get_args(Fault) if fault != "no answer")
"""All but 'no answer', which takes as long as the client's patience."""

_OF_ONE_HOP = {"connection", "keep-alive", "expect", "transfer-encoding", "te", "upgrade", "proxy-connection"}
_PATIENCE = 60.0


class FailingProxy:
    """Set ``rate`` (the share of requests that fail) and ``kinds`` at any time.

    ``refuses``, an S3 error code and its status, is the answer to everything while it is set.
    ``struck`` counts faults by kind, ``asked`` all
    requests, ``by_method`` those of each method and ``lists`` listings; ``sent`` is bytes of answers."""

    def __init__(self, upstream: str, rate: float, kinds: Sequence[Fault] = FAULTS, seed: int = 0) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.rate, self.kinds = rate, tuple(kinds)
        self.refuses: tuple[str, int] | None = None
        self.struck: Counter[str] = Counter()
        self.asked = self.lists = self.sent = 0
        self.by_method: Counter[str] = Counter()
        self.closing = threading.Event()
        self._random, self._lock = random.Random(seed), threading.Lock()

    def draw(self) -> Fault | None:
        """What strikes the next request."""
        with self._lock:
            self.asked += 1
            if self._random.random() >= self.rate:
                return None
            fault = self._random.choice(self.kinds)
            self.struck[fault] += 1
            return fault


def _handler(proxy: FailingProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.by_method[self.command] += 1
            proxy.lists += "list-type=2" in self.path
            fault = proxy.draw()
            if proxy.refuses is not None:
                self._refuse(*proxy.refuses)
            elif fault == "slow down":
                self._refuse("SlowDown", 503)
            elif fault == "internal error":
                self._refuse("InternalError", 500)
            elif fault == "reset":
                self._reset()
            elif fault == "no answer":
                proxy.closing.wait(_PATIENCE)
                self._reset()
            else:
                self._pass_on(body, fault)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def _pass_on(self, body: bytes, fault: Fault | None) -> None:
            server = http.client.HTTPConnection(proxy.upstream, timeout=_PATIENCE)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_ONE_HOP}
                server.request(self.command, self.path, body, headers)
                answer = server.getresponse()
                data = answer.read()
            finally:
                server.close()
            if fault == "lost answer":
                self._reset()
            elif fault == "error after":
                self._refuse("InternalError", 500)
            else:
                self._answer(answer, data, fault)

        def _answer(self, answer: http.client.HTTPResponse, data: bytes, fault: Fault | None) -> None:
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in {*_OF_ONE_HOP, "content-length"}:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            half = len(data) // 2
            self.wfile.write(data[:half])
            if fault == "truncated":
                self.wfile.flush()
                self._reset()
                return
            if fault == "slow body":
                self.wfile.flush()
                time.sleep(0.2)
            self.wfile.write(data[half:])
            proxy.sent += len(data)

        def _refuse(self, code: str, status: int) -> None:
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as a test</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def _reset(self) -> None:
            """Closed hard: the client sees a reset."""
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news here."""


@contextmanager
def failing(
    upstream: str, rate: float, kinds: Sequence[Fault] = FAULTS, seed: int = 0
) -> Iterator[tuple[str, FailingProxy]]:
    """The proxy's URL, and the proxy."""
    proxy = FailingProxy(upstream, rate, kinds, seed)
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
