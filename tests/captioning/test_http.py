"""What goes over the line: pauses, connections, redirections and the key."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from discovla.captioning.http import _asked_pause
from discovla.captioning.server import ServerCaptioner
from discovla.cli import main
from discovla.errors import UserError
from tests.captioning.chat_server import ChatServer, Handler
from tests.captioning.conftest import CAPTIONS_ID, World, echo
from tests.captioning.test_server import IMAGES, questions


def test_the_servers_own_pause_is_kept(server: ChatServer) -> None:
    captioner = ServerCaptioner(server.url)
    waited: list[float] = []
    captioner.endpoint.stop.wait = waited.append  # type: ignore[assignment,method-assign]
    captioner.endpoint.stop.is_set = lambda: False  # type: ignore[method-assign]
    server.troubles = [lambda handler: handler.say(429, {}, {"Retry-After": "7"})]
    captioner.caption(IMAGES[:1], ["what?"])
    assert waited == [7.0]


def test_pauses_as_a_number_or_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (_asked_pause(later) or 0) <= 100
    assert _asked_pause("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert _asked_pause("2.5") == 2.5
    assert _asked_pause("-3") == 0
    assert _asked_pause("soon") is _asked_pause(None) is None


def test_connections_are_used_again(server: ChatServer) -> None:
    images, prompts = questions(per_image=10)
    ServerCaptioner(server.url, concurrency=2).caption(images, prompts)
    assert server.connections <= 3


def test_a_redirection_is_not_followed(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST would come out as a GET, and the key would be sent who knows where."""
    monkeypatch.setenv("SOME_KEY", "secret")
    captioner = ServerCaptioner(server.url, api_key_env="SOME_KEY")
    with ChatServer(echo) as other:
        there = {"Location": f"{other.url}/chat/completions"}
        server.troubles = [lambda handler: handler.say(307, b"", there)]
        with pytest.raises(UserError, match=f"HTTP 307: it points to '{other.url}.*set url:"):
            captioner.caption(IMAGES[:1], ["what?"])
        assert other.keys == []


# The key


@pytest.mark.parametrize("key", [" secret-of-mine\n", "secret-of-mine"])
def test_the_key_is_in_no_message_and_no_file(
    world: World,
    server: ChatServer,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where the server repeats it, as it stood in the header."""
    monkeypatch.setenv("SOME_KEY", key)
    caplog.set_level(logging.DEBUG)
    out = world.folder / "out.parquet"
    command = ["caption", "--frames", str(world.shard()), "--annotations", str(world.annotations)]
    command += ["--captions-id", CAPTIONS_ID, "--kind", "guided", "--output", str(out)]
    command += ["--engine", "server", "--url", server.url, "--api-key-env", "SOME_KEY"]

    def busy(handler: Handler) -> bool:
        return handler.say(429, {"error": f"not so fast, {handler.headers['Authorization']}"})

    def refuse(handler: Handler) -> bool:
        return handler.say(401, f"{handler.headers['Authorization']} is no key".encode())

    server.troubles = [busy, refuse]
    assert main(command) == 1
    server.troubles = [busy]
    assert main(command) == 0
    assert set(server.keys) == {"Bearer secret-of-mine"}
    written = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    said = caplog.text + "".join(capfd.readouterr())
    assert "Bearer *** is no key" in said
    assert "not so fast, Bearer ***" in said
    assert "of-mine" not in said
    assert not any(b"of-mine" in content for content in written)


@pytest.mark.parametrize("key", ["\n", "two words", "geheimnißvoll"])
def test_a_key_that_cannot_be_sent(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(UserError, match="SOME_KEY") as error:
        ServerCaptioner("http://localhost:1/v1", api_key_env="SOME_KEY")
    assert not key.strip() or key not in str(error.value)


def test_the_key_is_not_replaced_by_a_password_of_netrc(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password word\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("SOME_KEY", "secret")
    ServerCaptioner(server.url, api_key_env="SOME_KEY").caption(IMAGES[:1], ["what?"])
    ServerCaptioner(server.url).caption(IMAGES[:1], ["what?"])
    assert server.keys == ["Bearer secret", None]
