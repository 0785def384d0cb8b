"""Leases that are damaged, and disks that fail under them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from discovla.storage import files
from discovla.storage import lease as module
from discovla.storage.lease import Lease, Owner, hold
from tests.storage.test_lease import until


def test_an_owner_writes_its_damaged_lease_again(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    with hold(output) as lease:
        for content in (b"", bytes(50), b"{"):
            lease.path.write_bytes(content)
            until(lambda: Owner.parse(lease.path.read_bytes()))
        assert not Lease(output).acquire()
    assert not lease.path.exists()


def test_signs_of_life_go_on_after_a_full_disk(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    full = threading.Event()
    tried = threading.Event()
    write_bytes = Path.write_bytes

    def refuse(path: Path, content: bytes) -> int:
        if full.is_set() and threading.current_thread().name == "lease":
            tried.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with hold(output) as lease:
        full.set()
        lease.path.unlink()
        assert tried.wait(30)
        full.clear()
        until(lease.path.exists)
        before = lease.path.read_bytes()
        until(lambda: lease.path.read_bytes() != before)


def test_a_disk_that_does_not_answer_at_the_end_costs_no_result(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with hold(output):
        monkeypatch.setattr(Path, "read_bytes", refuse)
    assert Path(f"{output}.lease").exists()


def test_what_a_process_killed_while_it_claims_leaves_goes_with_other_leftovers(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal, sys\n"
        "from discovla.storage import lease\n"
        "lease.os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "lease.Lease(sys.argv[1]).acquire()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(output)], check=False)
    assert len(list(output.parent.iterdir())) == 1
    monkeypatch.setattr(files, "_cleaned", set())
    with hold(output):
        files.write_json(output, {})
    assert list(output.parent.iterdir()) == [output]
