"""The engine `server` against a real server: `transformers serve` with the demo's LLaVA-NeXT."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from discovla.captioning import http, table
from discovla.captioning.engine import Caption
from discovla.captioning.llava import LlavaNextCaptioner
from discovla.captioning.prompt import guided_prompt, unguided_prompt
from discovla.captioning.server import ServerCaptioner
from discovla.cli import main
from discovla.config import located
from tests.captioning.chat_server import ChatServer, Handler
from tests.captioning.conftest import CAPTIONS_ID, World, noise
from tests.captioning.test_server import TROUBLES

pytestmark = pytest.mark.slow

LLAVA = Path(located("package:demo/weights/llava"))
MODEL = "demo/llava"
LONGEST = 20


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running `transformers serve`, which finds the model in its cache by its id."""
    home = tmp_path_factory.mktemp("hub")
    cached = home / "hub" / f"models--{MODEL.replace('/', '--')}"
    commit = "0" * 40
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / commit).symlink_to(LLAVA, target_is_directory=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", MODEL]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    said = home / "log.txt"
    with said.open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, env=environment
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, said)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(health: str, process: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        try:
            if requests.get(health, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise AssertionError(f"transformers serve did not start:\n{said.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def here() -> LlavaNextCaptioner:
    return LlavaNextCaptioner(str(LLAVA), device="cpu", max_new_tokens=LONGEST, batch_size=128)


def questions() -> tuple[list[np.ndarray], list[str]]:
    """Frames of several shapes, each asked about in several ways."""
    shapes = [(48, 48), (60, 80), (80, 60)]
    images = [noise(n, *shape) for n, shape in enumerate(shapes)]
    images += [np.full((*shapes[0], 3), colour, np.uint8) for colour in (0, 255)]
    captions = ["a red ring moves left", "a large striped blue disc and it's a square"]
    prompts = [*map(guided_prompt, captions), unguided_prompt()]
    return [image for image in images for _ in prompts], prompts * len(images)


def as_served(answer: Caption) -> Caption:
    """What this server makes of an answer: it counts the end mark as one of its tokens."""
    assert answer.n_tokens is not None
    if answer.finish_reason == "length":
        return answer
    tokens = answer.n_tokens + 1
    return Caption(answer.text, tokens, "length" if tokens == LONGEST else "stop")


def test_answers_are_those_of_the_other_engine(url: str, here: LlavaNextCaptioner) -> None:
    images, prompts = questions()
    served = ServerCaptioner(url, model=MODEL, max_new_tokens=LONGEST, concurrency=3)
    expected = [as_served(answer) for answer in here.caption(images, prompts)]
    assert served.caption(images, prompts) == expected
    assert len({answer.text for answer in expected}) > 5
    assert {answer.finish_reason for answer in expected} == {"stop", "length"}
    assert ServerCaptioner(url).model == MODEL  # the only one that it lists


def test_second_tries_and_longer_answers(url: str, here: LlavaNextCaptioner) -> None:
    """Its `frequency_penalty` also counts the prompt, so that second tries are its own."""
    images, prompts = (some[:4] for some in questions())
    served = ServerCaptioner(url, model=MODEL, max_new_tokens=LONGEST)
    first, second = (served.caption(images, prompts, second_try=again) for again in (False, True))
    assert [answer.text for answer in first] != [answer.text for answer in second]
    short = ServerCaptioner(url, model=MODEL, max_new_tokens=3)
    cut, longer = (short.caption(images, prompts, longer=more) for more in (False, True))
    assert {(answer.n_tokens, answer.finish_reason) for answer in cut} == {(3, "length")}
    assert {answer.n_tokens for answer in longer} == {6}
    assert all(b.text.startswith(a.text) for a, b in zip(cut, longer, strict=True))


def test_a_shard_by_command(url: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """With both engines, also where a caption spells out an image mark: first tries are equal."""
    command = ["caption", "--frames", str(world.shard()), "--annotations", str(world.annotations)]
    command += ["--captions-id", CAPTIONS_ID, "--kind", "guided", "--max-new-tokens", str(LONGEST)]
    engines = {
        "here": ["--model", str(LLAVA), "--device", "cpu"],
        "served": ["--engine", "server", "--url", url, "--model", MODEL],
    }
    found = {}
    for name, options in engines.items():
        path = world.folder / f"{name}.parquet"
        assert main([*command, *options, "--output", str(path)]) == 0, capsys.readouterr().err
        found[name] = table.read(path).to_pylist()
    first = [row for row in found["here"] if row["status"] == "ok"]
    both = {(row["caption_id"], row["position"]): row for row in found["served"]}
    assert len(first) > 5
    assert any("<image>" in row["video_caption"] for row in first)
    for row in first:
        other = both[row["caption_id"], row["position"]]
        assert other["pseudo_caption"] == row["pseudo_caption"]


class Forwarding(Handler):
    """Hands a request on to the real server, unless trouble was asked for."""

    server: Proxy

    def answer(self, body: dict[str, Any]) -> None:
        response = requests.post(f"{self.server.target}/chat/completions", json=body, timeout=60)
        self.say(response.status_code, response.content)


class Proxy(ChatServer):
    """A scripted server in front of a real one."""

    def __init__(self, target: str) -> None:
        super().__init__(lambda *_: "")
        self.RequestHandlerClass = Forwarding
        self.target = target


def test_troubles_on_the_way_to_it(
    url: str, here: LlavaNextCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy, broken, slow and wrong answers between those of the real server."""
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)
    images, prompts = questions()
    expected = [as_served(answer) for answer in here.caption(images, prompts)]
    with Proxy(url) as proxy:
        served = ServerCaptioner(
            proxy.url, model=MODEL, max_new_tokens=LONGEST, concurrency=4, attempts=20
        )
        proxy.troubles = list(TROUBLES.values())
        assert served.caption(images, prompts) == expected
        assert len(proxy.requests) == len(prompts) + len(TROUBLES)
        asked = [json.dumps(request) for request in proxy.requests]
        assert len(set(asked)) == len(prompts)
