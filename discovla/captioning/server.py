"""Captions from any server that speaks OpenAI's chat protocol: vLLM, SGLang, `transformers serve`.

The first question about a frame is sent alone. Once it is answered the server holds the frame's
prefix, and the other questions about it follow at once, so that a server with prefix caching reads
each frame once. Frames are started in their order, and only when no question of a started frame
waits.
"""

from __future__ import annotations

import base64
import io
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from discovla.captioning.engine import LONGER, Caption
from discovla.captioning.http import Endpoint
from discovla.errors import UserError

log = logging.getLogger(__name__)

GREEDY: dict[str, Any] = {"temperature": 0}
#: An empty answer or a loop would come back the same from greedy decoding.
SECOND_TRY: dict[str, Any] = {"temperature": 0.7, "frequency_penalty": 0.5, "seed": 1}


#: What a tokenizer could take for a mark of its own, as `<image>` or `</s>` in a caption.
_MARK = re.compile(r"<(?=[/|]?\w+[|]?>)")
_KEY = re.compile(r"[!-~]+")


class ServerCaptioner:
    """Greedy answers of a model behind an HTTP endpoint.

    Args:
        url: up to and with the version, such as `http://localhost:8000/v1`.
        model: id of the served model; None = the only one that is served.
        concurrency: requests under way at the same time.
        max_new_tokens: answers are cut off here.
        api_key_env: name of the environment variable that holds the key, if the server wants one.
        timeout: seconds that the server may stay silent.
        attempts: of each request, before the work stops.

    Raises:
        UserError: bad values; without `model`, no such server or not exactly one model.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        concurrency: int = 16,
        max_new_tokens: int = 40,
        api_key_env: str | None = None,
        timeout: float = 120,
        attempts: int = 8,
    ) -> None:
        if concurrency < 1 or max_new_tokens < 1:
            raise UserError("concurrency and max_new_tokens must be at least 1")
        self.endpoint = Endpoint(url, _key(api_key_env), timeout=timeout, attempts=attempts)
        self.concurrency, self.max_new_tokens = concurrency, max_new_tokens
        self.model, self._root = self._served(model)

    def _served(self, model: str | None) -> tuple[str, str | None]:
        """The id to ask for, and what the server says to have loaded under it (vLLM does).

        Raises:
            UserError: no model is given and the server has not exactly one.
        """
        if model is None:
            served = self.endpoint.get("models", _models)
            if len(served) == 1:
                return next(iter(served.items()))
            raise UserError(
                f"{self.endpoint.url}: serves {_listed(served)}, several asked for. Set model: in "
                "config/captioners.yaml (--model) to one of them, or start the server with it."
            )
        # Only its first answer tells whether it has a model: `transformers serve FOLDER` lists what
        # else it finds in its cache, or fails to.
        try:
            served = self.endpoint.get("models", _models, attempts=1)
        except UserError as error:
            log.warning("%s: no list of models (%s)", self.endpoint.url, error)
            return model, None
        if model not in served:
            log.warning("%s: lists %s, asked for is %r", self.endpoint.url, _listed(served), model)
        return model, served.get(model)

    def _check_root(self) -> None:
        """`UserError` if the server has loaded another model under the same name meanwhile."""
        if self._root is None:
            return
        try:
            root = self.endpoint.get("models", _models, attempts=1).get(self.model)
        except UserError:
            return  # its next answers will tell
        if root not in (None, self._root):
            raise UserError(
                f"{self.endpoint.url}: {self.model!r} was {self._root!r} and is {root!r} now. "
                "Start the server with the model of before and run the same command again: "
                "finished work is kept. With the other model all captions are written anew."
            )

    def describe(self) -> dict[str, Any]:
        """What decides the answers; the address is not part of it, so that any server can go on."""
        root = {"root": self._root} if self._root not in (None, self.model) else {}
        return {
            "engine": "server",
            "model": self.model,
            **root,
            "revision": None,
            "dtype": None,  # the server's own business
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "seed": None,
        }

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
        *,
        second_try: bool = False,
        longer: bool = False,
    ) -> list[Caption]:
        """Answer `prompts[i]` about `images[i]`; see `discovla.captioning.engine.Captioner`.

        `n_tokens` is the server's own count, which may hold the end mark, or None without one.

        Raises:
            UserError: a request was refused, or failed at every attempt; the server has changed
                its model meanwhile.
        """
        limit = self.max_new_tokens * (LONGER if longer else 1)
        decoding = {"max_tokens": limit, **(SECOND_TRY if second_try else GREEDY)}
        frames: dict[int, _Frame] = {}
        for number, (image, _) in enumerate(zip(images, prompts, strict=True)):
            frames.setdefault(id(image), _Frame(image)).questions.append(number)

        def answer(frame: _Frame, number: int) -> Caption:
            return self.endpoint.post(
                "chat/completions", self._body(frame, prompts[number], decoding), _caption
            )

        answers = _in_order(frames.values(), answer, self.concurrency, self.endpoint.stop)
        self._check_root()
        return [answers[number] for number in range(len(prompts))]

    def _body(self, frame: _Frame, prompt: str, decoding: Mapping[str, Any]) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": frame.url}},
            # Captions are data: a server that read a second image mark would refuse the request.
            {"type": "text", "text": _MARK.sub("< ", prompt)},
        ]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            **decoding,
        }


class _Frame:
    """An image, and the numbers of the questions about it."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self.questions: list[int] = []

    @cached_property
    def url(self) -> str:
        """The image as a data URL; PNG, because it keeps every bit."""
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _in_order(
    frames: Iterable[_Frame],
    answer: Callable[[_Frame, int], Caption],
    concurrency: int,
    stop: threading.Event,
) -> dict[int, Caption]:
    """Answers by number of the question; see the module for the order."""
    fresh, followers = deque(frames), deque[tuple[_Frame, int]]()
    running: dict[Future[Caption], tuple[_Frame, int]] = {}
    answers: dict[int, Caption] = {}
    stop.clear()
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while fresh or followers or running:
                while (fresh or followers) and len(running) < concurrency:
                    frame, number = followers.popleft() if followers else _first(fresh.popleft())
                    running[pool.submit(answer, frame, number)] = frame, number
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    frame, number = running.pop(future)
                    answers[number] = future.result()
                    if number == frame.questions[0]:
                        followers.extend((frame, other) for other in frame.questions[1:])
        except BaseException:
            stop.set()  # nobody waits for another attempt
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return answers


def _first(frame: _Frame) -> tuple[_Frame, int]:
    return frame, frame.questions[0]


def _key(variable: str | None) -> str | None:
    """The key in an environment variable; `UserError` if it is named but holds none."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {variable} is not set; it should hold the key of the "
            "caption server (api_key_env in config/captioners.yaml)"
        )
    if not _KEY.fullmatch(key):
        raise UserError(
            f"the environment variable {variable} holds no key of a server: it has spaces or "
            "letters that no header can carry"
        )
    return key


def _listed(served: Iterable[str]) -> str:
    return ", ".join(map(repr, served)) or "no model"


def _models(body: Any) -> dict[str, str | None]:
    """The names that a server answers to, each with the model behind it, if it tells."""
    return {str(entry["id"]): entry.get("root") and str(entry["root"]) for entry in body["data"]}


def _caption(body: Any) -> Caption:
    """The answer in a response; KeyError, TypeError, … where it is none."""
    choice = body["choices"][0]
    text, reason = choice["message"]["content"], choice["finish_reason"]
    if not isinstance(text, str | None) or not isinstance(reason, str):
        raise ValueError(f"content {text!r}, finish_reason {reason!r}")
    # JSON can hold halves of letters, which no file can.
    text = (text or "").encode("utf-8", "replace").decode().strip()
    count = (body.get("usage") or {}).get("completion_tokens")
    known = type(count) is int and 0 <= count < 2**31
    return Caption(text, count if known else None, reason)
