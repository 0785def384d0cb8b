"""A real HTTP server that speaks the chat protocol, and misbehaves as it is told to."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

MODEL = "tiny/llava"
#: What a handler does with one request; True = it has answered, False = answer as usual.
Trouble = Callable[["Handler"], bool]


class Handler(BaseHTTPRequestHandler):
    """Answers with a function of (image, prompt)."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms
    server: ChatServer

    def do_GET(self) -> None:
        if self.server.models is None:
            self.say(500, b"Internal Server Error")
            return
        roots = self.server.roots
        models = [
            {"id": name, **({"root": roots[name]} if name in roots else {})}
            for name in self.server.models
        ]
        self.say(200, {"object": "list", "data": models} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
            self.server.active += 1
            self.server.most_active = max(self.server.most_active, self.server.active)
            trouble = self.server.troubles.pop(0) if self.server.troubles else None
        try:
            if trouble is None or not trouble(self):
                self.answer(body)
        finally:
            with self.server.lock:
                self.server.active -= 1

    def answer(self, body: dict[str, Any]) -> None:
        picture, text = body["messages"][0]["content"]
        encoded = re.fullmatch(r"data:image/png;base64,(.*)", picture["image_url"]["url"])
        assert encoded
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))))
        time.sleep(self.server.seconds)
        said = self.server.speak(image, text["text"], body["temperature"] > 0)
        with self.server.lock:
            self.server.answered.append((float(image.mean()), text["text"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        usage = {"completion_tokens": len(said.split())}
        self.say(200, {"choices": [{**choice, "finish_reason": "stop"}], "usage": usage})

    def say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> bool:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return True

    def reset(self) -> bool:
        """Drop the connection with a reset instead of an end."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()
        self.rfile = self.wfile = io.BytesIO()  # type: ignore[assignment]
        return True

    def trickle(self, seconds: float, size: int = 1) -> bool:
        """An answer that goes on and on, `size` bytes at a time."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wfile.write(b" " * size)
            time.sleep(0.01)
        return True

    def log_message(self, *_: object) -> None:
        """Quiet."""


class ChatServer(ThreadingHTTPServer):
    """The server, what it saw, and what it is to do.

    Args:
        speak: (image, prompt, second try) → answer.
        seconds: that an answer takes.
    """

    daemon_threads = True

    def __init__(self, speak: Callable[[np.ndarray, str, bool], str], seconds: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.speak, self.seconds = speak, seconds
        self.models: list[str] | None = [MODEL]
        self.roots: dict[str, str] = {}
        """What the list of models says of some of them, as vLLM does."""
        self.connections = 0
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answered: list[tuple[float, str]] = []
        self.troubles: list[Trouble] = []
        """What to do with the next requests, one each."""
        self.active = self.most_active = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Called once a connection."""
        self.connections += 1
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed leave broken connections, which is what is tested."""

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.serve_forever, daemon=True, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
