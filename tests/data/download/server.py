"""A real HTTP server on loopback whose answers a test writes down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        path = unquote(self.path.partition("?")[0])
        self.server.seen.append((path, dict(self.headers)))
        answer = self.server.answers.get(path, status(404))
        with suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            answer(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Silence."""

    def start(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in {"connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        """Set when the test is over: nothing waits longer."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of every request so far."""
        return [headers.get("Range") for _, headers in self.seen]


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def status(code: int, **headers: object) -> Answer:
    """An answer without a body."""
    return lambda handler: handler.start(code, content_length=0, **headers)


def sequence(*answers: Answer) -> Answer:
    """One answer after the other; the last one for all that follow."""
    waiting = list(answers)
    return lambda handler: (waiting.pop(0) if len(waiting) > 1 else waiting[0])(handler)


def file(
    content: bytes,
    *,
    etag: str | None = '"one"',
    ranges: bool = True,
    stop: int | None = None,
    after: Answer | None = None,
    **more: object,
) -> Answer:
    """A file; `stop`: that many bytes of the answer, then `after`, then the connection ends."""

    def answer(handler: Handler) -> None:
        begin, wanted = 0, handler.headers.get("Range")
        headers: dict[str, object] = {**more, **({"etag": etag} if etag else {})}
        if ranges and wanted and handler.headers.get("If-Range") == etag:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["content_range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        body = content[begin:]
        handler.start(206 if begin else 200, content_length=len(body), **headers)
        if handler.command == "HEAD":
            return
        handler.wfile.write(body[:stop])
        handler.wfile.flush()
        if after is not None:
            after(handler)

    return answer


def silence(handler: Handler) -> None:
    """Nothing until the test is over."""
    handler.server.released.wait(20)
