"""docs/video-search.md, carried out: what it shows is what works."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from discovla.cli import build_parser, main
from discovla.demo import world

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "video-search.md").read_text(encoding="utf-8")
BLOCKS = [
    [shlex.split(line)[1:] for line in block.splitlines()]
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
]


def test_every_command_of_the_page_is_one() -> None:
    assert len(BLOCKS) == 3
    for line in (line for block in BLOCKS for line in block):
        build_parser().parse_args(line)


@pytest.mark.slow
def test_the_demo_of_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, index, search, serve = BLOCKS[0]
    # 740 videos would take half a minute.
    monkeypatch.setattr(world.write_world, "__defaults__", ({"test": 12},))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").symlink_to(ROOT / "config")
    assert main(make) == 0
    assert main(index) == 0
    assert "12 videos, 36 moments" in capsys.readouterr().out
    assert main(search) == 0
    hits = capsys.readouterr().out.splitlines()
    assert len(hits) == 5
    command = [sys.executable, "-m", "discovla", *serve, "--port", "0"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert found
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
            connection.request("GET", "/search.json?q=a%20large%20red%20square&top=5")
            keys = [hit["key"] for hit in json.loads(connection.getresponse().read())["hits"]]
            assert keys == [line.split()[-1] for line in hits]
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode in (0, 130)
