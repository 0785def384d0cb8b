from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from discovla.captioning import table
from discovla.captioning.engine import Caption
from discovla.captioning.http import Endpoint
from discovla.captioning.run import caption_shard
from discovla.captioning.server import ServerCaptioner
from discovla.cli import main
from discovla.errors import UserError
from tests.captioning.chat_server import MODEL, ChatServer, Handler
from tests.captioning.conftest import CAPTIONS_ID, FakeCaptioner, World, echo, noise

pytestmark = pytest.mark.usefixtures("short_pauses")
IMAGES = [noise(n, 20, 30) for n in range(3)]


def questions(per_image: int = 4) -> tuple[list[np.ndarray], list[str]]:
    images = [image for image in IMAGES for _ in range(per_image)]
    return images, [f"question {n % per_image}" for n in range(len(images))]


def expected(images: list[np.ndarray], prompts: list[str]) -> list[str]:
    return [echo(image, prompt, False) for image, prompt in zip(images, prompts, strict=True)]


@pytest.mark.parametrize("concurrency", [1, 2, 7])
def test_answers_come_back_in_order(server: ChatServer, concurrency: int) -> None:
    server.seconds = 0.002
    images, prompts = questions()
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    images, prompts = [images[i] for i in order], [prompts[i] for i in order]
    captioner = ServerCaptioner(server.url, concurrency=concurrency)
    answers = captioner.caption(images, prompts)
    # PNG keeps every bit: the server saw the very pixels.
    assert [answer.text for answer in answers] == expected(images, prompts)
    assert [answer.n_tokens for answer in answers] == [5] * len(prompts)
    assert len(server.requests) == len(prompts)
    assert server.most_active <= concurrency


def test_a_frame_is_asked_about_once_before_its_other_questions(server: ChatServer) -> None:
    """So that the server has its prefix; and no frame is started while a question waits."""
    server.seconds = 0.002
    images, prompts = questions(per_image=5)
    ServerCaptioner(server.url, concurrency=2).caption(images, prompts)
    frames = [mean for mean, _ in server.answered]
    means = [float(image.mean()) for image in IMAGES]
    firsts = [next(prompt for mean, prompt in server.answered if mean == m) for m in means]
    assert firsts == ["question 0"] * 3
    # Two are under way at most: before the third frame is started, one is done.
    assert frames.index(means[2]) >= 5


def test_what_is_sent(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    captioner = ServerCaptioner(server.url, max_new_tokens=7, api_key_env="SOME_KEY")
    captioner.caption(IMAGES[:1], ["what?"])
    captioner.caption(IMAGES[:1], ["what?"], second_try=True)
    captioner.caption(IMAGES[:1], ["what?"], longer=True)
    first, second, third = server.requests
    assert third == {**first, "max_tokens": 14}
    assert {k: v for k, v in first.items() if k != "messages"} == {
        "model": MODEL,
        "max_tokens": 7,
        "temperature": 0,
    }
    (message,) = first["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert second["temperature"] > 0
    assert "seed" in second
    assert server.keys == ["Bearer secret"] * 3
    assert captioner.describe() == {
        "engine": "server",
        "model": MODEL,
        "revision": None,
        "dtype": None,
        "decoding": "greedy",
        "max_new_tokens": 7,
        "seed": None,
    }


@pytest.mark.parametrize(
    ("caption", "sent"),
    [
        ("an <image> of </s> and <|im_end|>", "an < image> of < /s> and < |im_end|>"),
        ("2 < 3 > 1, a <- b, <3 and <>", "2 < 3 > 1, a <- b, <3 and <>"),
    ],
)
def test_marks_in_a_caption_stay_text(server: ChatServer, caption: str, sent: str) -> None:
    ServerCaptioner(server.url).caption(IMAGES[:1], [caption])
    assert server.requests[0]["messages"][0]["content"][1]["text"] == sent


def slow(handler: Handler) -> bool:
    time.sleep(0.5)
    return handler.say(200, {})


TROUBLES = {
    "429": lambda handler: handler.say(429, {"error": "busy"}, {"Retry-After": "0"}),
    "500": lambda handler: handler.say(500, b"boom"),
    "503": lambda handler: handler.say(503, b""),
    "no JSON": lambda handler: handler.say(200, b'{"choices": [{"mess'),
    "other JSON": lambda handler: handler.say(200, {"choices": []}),
    "a list": lambda handler: handler.say(200, [1, 2]),
    "not UTF-8": lambda handler: handler.say(200, b"\xff\xfe{"),
    "no text": lambda handler: handler.say(
        200, {"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}
    ),
    "endless": lambda handler: handler.trickle(3),
    "a flood": lambda handler: handler.trickle(3, 1 << 20),
    "a deep hole": lambda handler: handler.say(200, b"[" * 100_000),
    "reset": Handler.reset,
    "too slow": slow,
}


@pytest.mark.parametrize("name", TROUBLES)
def test_passing_trouble_is_survived(server: ChatServer, name: str) -> None:
    images, prompts = questions(2)
    captioner = ServerCaptioner(server.url, concurrency=3, timeout=0.2, attempts=4)
    server.troubles = [TROUBLES[name]] * 3
    answers = captioner.caption(images, prompts)
    assert [answer.text for answer in answers] == expected(images, prompts)
    assert len(server.requests) == len(prompts) + 3


@pytest.mark.parametrize("name", TROUBLES)
def test_lasting_trouble_stops_and_names_the_server(server: ChatServer, name: str) -> None:
    captioner = ServerCaptioner(server.url, concurrency=1, timeout=0.3, attempts=3)
    server.troubles = [TROUBLES[name]] * 30
    with pytest.raises(UserError, match=r"/v1/chat/completions: 3 attempts failed.*is kept") as e:
        captioner.caption(IMAGES[:1], ["what?"])
    assert server.url in str(e.value)
    assert len(server.requests) == 3


# What a broken server may write into the table


def answering(server: ChatServer, content: str, **usage: object) -> Caption:
    def answer(handler: Handler) -> bool:
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        return handler.say(200, {"choices": [choice], "usage": usage})

    server.troubles = [answer]
    return ServerCaptioner(server.url).caption(IMAGES[:1], ["what?"])[0]


@pytest.mark.parametrize(
    ("said", "kept"), [("a \ud83d ring", "a ? ring"), ("\ud83d\ude00", "😀"), ("a\x00b", "a\x00b")]
)
def test_letters_that_no_file_can_hold(server: ChatServer, said: str, kept: str) -> None:
    assert answering(server, said).text == kept


@pytest.mark.parametrize("count", [True, -1, 2**40, 1.5, "7", None])
def test_counts_that_are_none(server: ChatServer, count: object) -> None:
    assert answering(server, "a ring", completion_tokens=count).n_tokens is None


# A server that comes back with another model


def test_another_model_behind_the_same_name(world: World, server: ChatServer) -> None:
    """Parts that are finished stay; what the other model said is not taken."""
    server.roots = {MODEL: "/models/first"}

    def caption(name: str = "out.parquet") -> dict:
        captioner = ServerCaptioner(server.url, model=MODEL)
        return caption_shard(
            *(world.shard(), world.annotations, "guided", captioner, world.folder / name),
            captions_id=CAPTIONS_ID,
            part_size=1,
        )

    def restart(handler: Handler) -> bool:
        server.roots = {MODEL: "/models/second"}
        return handler.say(503, b"")

    asked = len(world.images("plain")) * 2
    server.troubles = [lambda _: False] * asked + [restart]
    with pytest.raises(UserError, match="was '/models/first' and is '/models/second' now"):
        caption()
    (kept,) = (world.folder / "out.parquet.parts").glob("*.parquet")
    assert table.read_metadata(kept)["root"] == "/models/first"
    server.roots = {MODEL: "/models/first"}
    before = len(server.requests)
    assert caption()["root"] == "/models/first"
    assert caption("whole.parquet")["model"] == MODEL
    assert len(server.requests) - before == (14 - asked) + 14
    # With the other model nothing of the first is taken over.
    server.roots = {MODEL: "/models/second"}
    other = caption("other.parquet")
    assert other["root"] == "/models/second"
    with pytest.raises(UserError, match=r"root is '/models/second', in .* it is '/models/first'"):
        table.merge(
            [world.folder / "out.parquet", world.folder / "other.parquet"],
            world.annotations,
            CAPTIONS_ID,
            world.folder / "merged.parquet",
        )


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "what it logs"), (401, "api_key_env"), (404, "http://HOST:PORT")]
)
def test_refusals_are_not_repeated(server: ChatServer, status: int, advice: str) -> None:
    captioner = ServerCaptioner(server.url)
    server.troubles = [lambda handler: handler.say(status, b"because of this")] * 2
    with pytest.raises(UserError, match=f"HTTP {status}: because of this.*{advice}"):
        captioner.caption(IMAGES[:1], ["what?"])
    assert len(server.requests) == 1


def test_one_failure_stops_the_others(server: ChatServer) -> None:
    """Nobody goes on with long pauses when the work has failed already."""
    captioner = ServerCaptioner(server.url, concurrency=4)
    later = threading.Event()

    def busy(handler: Handler) -> bool:
        later.set()
        return handler.say(429, {}, {"Retry-After": "300"})

    def refuse(handler: Handler) -> bool:
        later.wait(10)
        return handler.say(400, b"no")

    server.troubles = [busy, refuse]
    begin = time.monotonic()
    with pytest.raises(UserError, match="HTTP 400"):
        captioner.caption(IMAGES[:2], ["a", "b"])
    assert time.monotonic() - begin < 100


def test_models(server: ChatServer) -> None:
    assert ServerCaptioner(server.url + "/").describe()["model"] == MODEL
    server.models = ["one", "two"]
    with pytest.raises(UserError, match=r"serves 'one', 'two', several asked for.*--model"):
        ServerCaptioner(server.url)
    server.models = []
    with pytest.raises(UserError, match="serves no model"):
        ServerCaptioner(server.url)


@pytest.mark.parametrize("models", [["one", "two"], [], None])
def test_a_list_without_the_model_is_no_proof(
    server: ChatServer, models: list[str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers list other models than the one they were started with, or fail to list any."""
    server.models = models
    captioner = ServerCaptioner(server.url, model="/models/llava")
    assert ("lists" if models is not None else "no list of models") in caplog.text
    answers = captioner.caption(IMAGES[:1], ["what?"])
    assert [answer.text for answer in answers] == expected(IMAGES[:1], ["what?"])
    assert server.requests[0]["model"] == "/models/llava"
    server.models = ["/models/llava"]
    caplog.clear()
    assert ServerCaptioner(server.url, model="/models/llava").model == "/models/llava"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "no address"),
        ({"url": "ftp://host/v1"}, "no address"),
        ({"url": "http://me:word@host/v1"}, "without user and password"),
        ({"url": "http://host/v1?key=word@"}, "behind a question mark"),
        ({"concurrency": 0}, "at least 1"),
        ({"timeout": 0}, "above 0"),
        ({"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ServerCaptioner(**{"url": "http://localhost:1/v1", **options})
    assert "word@" not in str(error.value)


def test_no_server_there() -> None:
    with ChatServer(echo) as server:
        url = server.url
    with pytest.raises(UserError, match=r"2 attempts failed.*the server runs"):
        Endpoint(url, None, timeout=1, attempts=2).get("models", list)


def test_empty_answers_are_kept_as_such(world: World) -> None:
    with ChatServer(lambda *_: "") as server:
        captioner = ServerCaptioner(server.url)
        out = world.folder / "1-of-1.parquet"
        caption_shard(
            world.shard(), world.annotations, "guided", captioner, out, captions_id=CAPTIONS_ID
        )
    assert set(table.read(out)["status"].to_pylist()) == {"empty"}


def test_a_shard_by_command(
    world: World, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows are those of any other engine with the same answers."""
    here, there = world.folder / "here.parquet", world.folder / "there.parquet"
    shard = world.shard()

    def say(image: np.ndarray, prompt: str, second_try: bool) -> str:
        sent = prompt.replace("</s>", "< /s>").replace("<image>", "< image>")
        return echo(image, sent, second_try)

    caption_shard(
        shard, world.annotations, "guided", FakeCaptioner(say), here, captions_id=CAPTIONS_ID
    )
    command = ["caption", "--frames", str(shard), "--annotations", str(world.annotations)]
    command += ["--captions-id", CAPTIONS_ID, "--kind", "guided", "--engine", "server"]
    assert main([*command, "--url", server.url, "--output", str(there)]) == 0
    assert table.read(there).equals(table.read(here))
    metadata = table.read_metadata(there)
    assert (metadata["engine"], metadata["model"]) == ("server", MODEL)
    assert main([*command, "--output", str(there)]) == 1
    assert "--url" in capsys.readouterr().err
