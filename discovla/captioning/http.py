"""JSON over HTTP with a server that may be busy, slow, broken or gone for a while."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from discovla.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Answers that another attempt can change.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
#: Seconds before the second attempt; doubled before each further one, up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
#: A server may ask for a longer pause, up to this.
LONGEST_ASKED = 600.0
#: Bytes of an answer; a list of models may be long.
LARGEST = 8 << 20
_SHOWN = 300


class Passing(Exception):
    """A failure that another attempt can mend, and the pause that the server asked for."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Endpoint:
    """Requests to one server, from any number of threads.

    Busy or broken answers (429, 5xx, JSON that is none or without end), time-outs and lost
    connections are tried again, with growing pauses, or the pause that the server asks for
    (`Retry-After`). Redirections are not followed: the key goes to the address that it is for.

    Args:
        url: what every path is added to.
        key: bearer token, or None. It is kept in memory only, and shown in no message.
        timeout: seconds that a server may stay silent, and that it may need for its answer once it
            has begun.
        attempts: of each request.
    """

    def __init__(self, url: str, key: str | None, *, timeout: float, attempts: int) -> None:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc
        if bad or parts.query or parts.fragment:
            netloc = parts.netloc.rpartition("@")[2]
            shown = parts._replace(netloc=netloc, query="", fragment="").geturl()
            raise UserError(
                f"{shown!r} is no address "
                "of a caption server: write http://HOST:PORT/v1, without user and password or "
                "anything behind a question mark (a key belongs into the environment variable that "
                "api_key_env names)"
            )
        if timeout <= 0 or attempts < 1:
            raise UserError("timeout must be above 0 and attempts at least 1")
        self.url, self.timeout, self.attempts = url.rstrip("/"), timeout, attempts
        self.stop = threading.Event()
        """Set it, and nobody waits for another attempt."""
        self._key = key
        self._local = threading.local()

    def get(self, path: str, read: Callable[[Any], T], attempts: int | None = None) -> T:
        """`read` of the JSON at `path`, with as many attempts if not the usual ones; see `post`."""
        return self._persist("GET", path, None, read, attempts or self.attempts)

    def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """`read` of the JSON that answers `body`.

        `read` raises KeyError, IndexError, TypeError, AttributeError or ValueError for JSON that is
        no answer.

        Raises:
            UserError: the server refuses, or every attempt failed; names it and what to do.
        """
        return self._persist("POST", path, body, read, self.attempts)

    def _persist(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], T],
        attempts: int,
    ) -> T:
        for attempt in range(1, attempts + 1):
            try:
                return self._once(method, path, body, read)
            except Passing as failure:
                last = failure
            if attempt < attempts:
                pause = _pause(attempt, last.pause)
                log.debug("%s/%s: %s; again in %.1f s", self.url, path, last, pause)
                if self.stop.wait(pause):
                    break
        raise UserError(
            f"{self.url}/{path}: {attempts} attempts failed, the last one with: {last}. See "
            "whether the server runs and what it logs; lower concurrency: in "
            "config/captioners.yaml if it is overloaded. Then run the same command again: finished "
            "work is kept."
        )

    def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], T]
    ) -> T:
        url = f"{self.url}/{path}"
        options: dict[str, Any] = {"json": body, "stream": True, "allow_redirects": False}
        try:
            with self._session().request(method, url, timeout=self.timeout, **options) as response:
                content = self._content(response)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Passing(f"no answer within {self.timeout:g} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Passing(f"{type(error).__name__}: {error}") from None
        text = self._shown(content)
        if response.status_code in PASSING:
            asked = _asked_pause(response.headers.get("Retry-After"))
            raise Passing(f"HTTP {response.status_code}: {text}", asked)
        if response.status_code >= 300:
            self._refuse(path, response, text)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            raise Passing(f"no JSON: {text!r}") from None
        try:
            return read(found)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Passing(f"not the answer expected ({error!r}): {text!r}") from None

    def _content(self, response: requests.Response) -> bytes:
        """What the server sends, if it comes to an end."""
        end = time.monotonic() + self.timeout
        content = bytearray()
        while piece := response.raw.read1(decode_content=True):
            content += piece
            if len(content) > LARGEST:
                raise Passing(f"an answer of more than {LARGEST >> 20} MB")
            if time.monotonic() > end:
                raise Passing(f"an answer without end: {len(content)} bytes in {self.timeout:g} s")
        return bytes(content)

    def _shown(self, content: bytes) -> str:
        """The beginning of an answer for a message, in which no server may repeat the key."""
        text = content.decode("utf-8", "replace")
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN].strip()

    def _refuse(self, path: str, response: requests.Response, text: str) -> None:
        status = response.status_code
        if status < 400:
            text = f"it points to {response.headers.get('Location')!r}"
        advice = {
            401: "the key is absent or wrong; set api_key_env: in config/captioners.yaml",
            403: "the key is absent or wrong; set api_key_env: in config/captioners.yaml",
            404: "url: in config/captioners.yaml should end before /chat/completions, as "
            "http://HOST:PORT/v1, and model: be one that the server has",
        }.get(status, "the server does not take this request; see what it logs")
        if status < 400:
            advice = "set url: in config/captioners.yaml to the address where the server really is"
        raise UserError(f"{self.url}/{path}: HTTP {status}: {text or 'no reason given'}; {advice}")

    def _session(self) -> requests.Session:
        """One per thread: sessions are not made for several."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            # With an `auth` of its own it takes nothing out of ~/.netrc in place of the key.
            self._local.session.auth = self._authorize
        session: requests.Session = self._local.session
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds to wait; spread, so that the threads do not come back all at once."""
    if asked is not None:
        return min(asked, LONGEST_ASKED)
    longest = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
    return random.uniform(longest / 2, longest)


def _asked_pause(value: str | None) -> float | None:
    """Seconds of a `Retry-After`: a number, or a date; None if there is none that can be read."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
