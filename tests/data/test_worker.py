from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from discovla.data.decode import DecodeError, Request, decode_clip, probe
from discovla.data.decode.inspection import inspect
from discovla.data.worker import DecodeWorker, read_frames
from discovla.errors import UserError
from tests.data.videos import write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("v") / "-v: a%d.mp4", n_frames=32, fps=8)


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(30) as process:
        yield process


def test_worker_gives_the_same_as_the_function(video: Path, worker: DecodeWorker) -> None:
    request = Request(str(video), "uniform", 5)
    here, there = decode_clip(request), worker.read(request)
    assert np.array_equal(here.frames, there.frames)
    assert np.array_equal(here.frame_index, there.frame_index)
    assert np.array_equal(here.timestamp, there.timestamp)
    for name in ("fps", "n_frames", "reader", "rotation", "bad_packets", "note"):
        assert getattr(here, name) == getattr(there, name)
    assert worker.inspect(str(video)) == inspect(str(video), "auto")
    assert worker.probe(str(video)) == probe(str(video))
    assert np.array_equal(read_frames(str(video), sampling="uniform", frames=5).frames, here.frames)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_of_a_job_are_for_the_parent(
    video: Path, number: signal.Signals
) -> None:
    with DecodeWorker(30) as worker:
        worker.probe(str(video))
        os.kill(worker._process.pid, number)
        assert worker.probe(str(video)).n_frames == 32  # and no clip is written off as broken


def test_hang_is_killed_and_the_next_file_is_read(tmp_path: Path, video: Path) -> None:
    pipe = tmp_path / "hangs.mp4"
    os.mkfifo(pipe)  # opening it blocks for ever
    with DecodeWorker(1.0) as worker:
        before = time.monotonic()
        with pytest.raises(DecodeError, match="not decoded within 1 s"):
            worker.read(Request(str(pipe), "released", 4))
        assert time.monotonic() - before < 5
        worker.timeout = 30
        assert worker.read(Request(str(video), "released", 4)).n_frames == 32


def test_crash_is_reported_and_the_next_file_is_read(tmp_path: Path, video: Path) -> None:
    pipe = tmp_path / "crashes.mp4"
    os.mkfifo(pipe)
    with DecodeWorker(30) as worker:
        worker.probe(str(video))
        process = worker._process
        assert process is not None
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -SEGV {process.pid}"])
        with pytest.raises(DecodeError, match=f"crashed .exit code {-signal.SIGSEGV}"):
            worker.probe(str(pipe))
        killer.wait()
        assert worker.probe(str(video)).width == 64


def test_a_child_that_somebody_killed_costs_no_file(tmp_path: Path, video: Path) -> None:
    """By hand, or by a system short of memory: that says nothing about the file, once."""
    path, copy = tmp_path / "late.mp4", tmp_path / "copy.mp4"
    os.mkfifo(path)
    shutil.copy(video, copy)
    with DecodeWorker(30) as worker:
        worker.probe(str(video))
        assert worker._process is not None
        script = f"sleep 0.3; mv {copy} {path}; kill -KILL {worker._process.pid}"
        killer = subprocess.Popen(["sh", "-c", script])
        assert worker.probe(str(path)).width == 64
        killer.wait()
        hangs = tmp_path / "hangs.mp4"
        os.mkfifo(hangs)
        stop = threading.Event()

        def kill_again() -> None:
            while not stop.wait(0.3):
                if worker._process is not None:
                    worker._process.kill()

        thread = threading.Thread(target=kill_again)
        thread.start()
        with pytest.raises(DecodeError, match=f"crashed .exit code {-signal.SIGKILL}"):
            worker.probe(str(hangs))
        stop.set()
        thread.join()


def test_worker_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, json; import discovla.data.worker; "
        "print(json.dumps(sorted({'torch', 'pandas', 'pyarrow'} & set(sys.modules))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(found.stdout) == []


def test_time_limit_must_be_positive() -> None:
    with pytest.raises(UserError, match="above 0"):
        DecodeWorker(0)


def test_a_playlist_reaches_no_network(tmp_path: Path, worker: DecodeWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        path = tmp_path / "list.m3u8"
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n")
        with pytest.raises(DecodeError):
            worker.probe(str(path))
        with pytest.raises(TimeoutError):
            server.accept()


HANGS = """
import ctypes

class VideoReader:
    def __init__(self, path, **options):
        ctypes.PyDLL(None).sleep(600)  # without giving up the interpreter's lock
"""
CRASHES = """
import os, signal

class VideoReader:
    def __init__(self, path, **options):
        os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize(
    ("reader", "reason"),
    [(HANGS, "not decoded within 1.5 s"), (CRASHES, f"crashed .exit code {-signal.SIGSEGV}")],
)
def test_a_reader_that_hangs_or_crashes_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: Path, reader: str, reason: str
) -> None:
    (tmp_path / "decord.py").write_text(reader, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with DecodeWorker(30) as worker:
        worker.probe(str(video))  # the process is up before the clock of the test starts
        worker.timeout = 1.5
        with pytest.raises(DecodeError, match=reason):
            worker.read(Request(str(video), "released", 4, reader="decord"))
        worker.timeout = 30
        assert worker.read(Request(str(video), "released", 4)).n_frames == 32
