from __future__ import annotations

import subprocess
import sys
import time

from discovla.storage.owners import Process, this_process


def test_processes_are_told_apart_from_their_successors() -> None:
    own = this_process()
    assert not own.has_ended()
    assert Process(own.machine, own.pid, own.started + 1).has_ended()
    assert not Process("f" * 8, own.pid, own.started + 1).has_ended()
    assert not Process("", 2**22 + 1, 0).has_ended()
    child = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.5)  # a zombie now: it has ended, though nobody has asked
    started = this_process().started
    assert Process(own.machine, child.pid, started + 1).has_ended()
    child.wait()
    assert Process(own.machine, child.pid, started).has_ended()
