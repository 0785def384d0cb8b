"""A decoding process with a wall-clock limit: a file that hangs or crashes costs only itself.

Requests go in as one line of JSON, answers come out as one line of JSON and raw bytes. The
process imports neither torch nor pandas.
"""

from __future__ import annotations

import json
import logging
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields
from typing import Any, BinaryIO, Self

import numpy as np

from discovla.data.decode import ClipFrames, DecodeError, Header, Request, decode_clip, probe
from discovla.data.decode.evidence import Evidence, collect
from discovla.data.decode.inspection import Inspection, inspect
from discovla.data.decode.request import failure
from discovla.data.sampling import SamplingError
from discovla.errors import UserError

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 60.0
_ERRORS: dict[str, type[UserError]] = {
    "DecodeError": DecodeError,
    "SamplingError": SamplingError,
    "UserError": UserError,
}
_GRACE = 5
_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a child that somebody has ended: a person, or a system short of memory."""


class _Killed(DecodeError):
    """The child was ended from outside, which says nothing about the file."""


class DecodeWorker:
    """Decodes in one child process, killed and replaced when a file takes too long.

    Args:
        timeout: seconds of wall time for one file.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        if not 0 < timeout < math.inf:
            raise UserError(f"the time limit for one video is {timeout} s; it must be above 0")
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, request: Request) -> ClipFrames:
        """`decode.decode_clip` within the time limit; `DecodeError` also for a hang or a crash."""
        header, body = self._ask("read", request.path, asdict(request))
        frames = np.frombuffer(body, np.uint8).reshape(header.pop("shape"))
        return ClipFrames(
            frames=frames,
            frame_index=np.array(header.pop("frame_index"), np.int64),
            timestamp=np.array(header.pop("timestamp"), np.float64),
            **header,
        )

    def probe(self, path: str) -> Header:
        """`decode.probe` within the time limit."""
        header, _ = self._ask("probe", path, {"path": path})
        return Header(**header)

    def inspect(self, path: str, reader: str = "auto") -> Inspection:
        """`decode.inspection.inspect` within the time limit."""
        header, _ = self._ask("inspect", path, {"path": path, "reader": reader})
        return Inspection(**header)

    def evidence(self, path: str, reader: str = "auto") -> Evidence:
        """`decode.evidence.collect` within the time limit."""
        header, _ = self._ask("evidence", path, {"path": path, "reader": reader})
        return Evidence(**header)

    def stop(self) -> None:
        """End the child process from another thread: who waits for an answer gets `DecodeError`."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the child process."""
        if self._process is None:
            return
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # -c and not -m: the module may already be in the making as part of a package.
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from discovla.data.worker import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
            )
        return self._process

    def _ask(
        self, action: str, path: str, arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, asked once more if somebody else has killed the child."""
        try:
            return self._ask_once(action, path, arguments)
        except _Killed as error:
            log.warning("%s; asked again", error)
        return self._ask_once(action, path, arguments)

    def _ask_once(
        self, action: str, path: str, arguments: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        process = self._start()
        line = json.dumps({"action": action, "limit": self.timeout, **arguments})
        deadline = time.monotonic() + self.timeout
        try:
            process.stdin.write(line.encode() + b"\n")  # type: ignore[union-attr]
            reply = _Reply(process.stdout, deadline)  # type: ignore[arg-type]
            header = json.loads(reply.line())
            body = reply.exactly(header.pop("bytes", 0))
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            reason, code = self._reason(error)
            self.close()
            found = failure(path, reason)
            raise (_Killed(str(found)) if code in _OUTSIDE else found) from None
        except BaseException:
            self.close()  # interrupted half-way: the next answer would be this one's
            raise
        if "error" in header:
            raise _ERRORS[header["error"]](header["text"])
        return header, body

    def _reason(self, error: Exception) -> tuple[str, int | None]:
        """What went wrong, and the child's exit code if it has ended."""
        if isinstance(error, TimeoutError):
            return f"not decoded within {self.timeout:g} s", None
        code = self._process.wait() if self._process else None
        return f"the decoder crashed (exit code {code})", code


class _Reply:
    """Reads one answer from a pipe before a deadline."""

    def __init__(self, pipe: BinaryIO, deadline: float) -> None:
        self._fd = pipe.fileno()
        self._deadline = deadline
        self._buffer = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._more()
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        self._selector.close()
        return bytes(self._buffer)

    def _more(self) -> None:
        if not self._selector.select(max(0.0, self._deadline - time.monotonic())):
            raise TimeoutError
        chunk = os.read(self._fd, 1 << 20)
        if not chunk:
            raise EOFError
        self._buffer += chunk


def read_frames(
    path: str,
    *,
    sampling: str,
    frames: int,
    start: float | None = None,
    end: float | None = None,
    candidate_fps: float = 1.0,
    reader: str = "auto",
    timeout: float = DEFAULT_TIMEOUT,
) -> ClipFrames:
    """Read one clip in a process of its own; for many clips keep one `DecodeWorker`."""
    request = Request(str(path), sampling, frames, start, end, candidate_fps, reader)
    with DecodeWorker(timeout) as worker:
        return worker.read(request)


def serve() -> None:
    """The child process: answer requests until the parent closes the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes: the parent decides
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    for line in sys.stdin.buffer:
        arguments = json.loads(line)
        # Ends this process by signal even inside a library call, should the parent be gone.
        signal.alarm(math.ceil(arguments.pop("limit")) + _GRACE)
        header, body = _answer(arguments.pop("action"), arguments)
        answers.write(json.dumps({**header, "bytes": len(body)}).encode() + b"\n")
        answers.write(body)
        answers.flush()
        signal.alarm(0)


def _answer(action: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        if action == "read":
            return _clip(decode_clip(Request(**arguments)))
        if action == "probe":
            return asdict(probe(**arguments)), b""
        if action == "inspect":
            return asdict(inspect(**arguments)), b""
        return asdict(collect(**arguments)), b""
    except UserError as error:
        known = next(kind for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
        return {"error": known.__name__, "text": str(error)}, b""


def _clip(clip: ClipFrames) -> tuple[dict[str, Any], bytes]:
    header = {item.name: getattr(clip, item.name) for item in fields(clip)}
    body = header.pop("frames").tobytes()
    for name in ("frame_index", "timestamp"):
        header[name] = header[name].tolist()
    return {**header, "shape": clip.frames.shape}, body
