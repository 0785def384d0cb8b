from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from discovla.cli import main
from discovla.storage.lease import Owner, hold
from discovla.storage.owners import Process


def test_the_command_tells_who_is_at_work_and_clears_what_the_dead_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    me = Owner.me()
    ended = replace(me, process=replace(me.process, started=me.process.started + 1))
    afar = Owner("node7", Process("f" * 8, 4711, 1), "12", "1970-01-01", "token")
    for name, owner in {"b": ended, "c": afar, "d": replace(afar, host="node8")}.items():
        (folder / f"{name}.lease").write_bytes(owner.content(0))
    (folder / "e.lease").write_bytes(b"\0")
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            (folder / "d.lease").write_bytes(afar.content(time.monotonic_ns() % 10**9))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with hold(folder / "a"):
            assert main(["leases", str(folder), "--watch", "0.5", "--json"]) == 0
            found = {line["path"][-7]: line for line in json.loads(capsys.readouterr().out)}
            states = {name: line["state"] for name, line in found.items()}
            assert states == dict(
                zip("abcde", ["at work", "ended", "silent", "signs of life", "silent"], strict=True)
            )
            assert found["c"]["owner"] == "process 4711 on node7, job 12, at work since 1970-01-01"
            assert main(["leases", str(folder), "--watch", "0.5", "--clear"]) == 0
            assert capsys.readouterr().out.count(", cleared: ") == 3
            assert {path.name[0] for path in folder.iterdir()} == {"a", "d"}
    finally:
        stop.set()
        thread.join()
    (folder / "d.lease").unlink()
    assert main(["leases", str(folder)]) == 0
    assert capsys.readouterr().out == "no leases\n"
