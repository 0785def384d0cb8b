"""One address into one `.part` file: goes on where it broke off, waits and asks again."""

from __future__ import annotations

import logging
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import requests
from tqdm import tqdm

from discovla.data.download.part import Part, readable, require_space
from discovla.data.download.sources import Refused

LOG = logging.getLogger(__name__)
CHUNK = 1 << 16
LOG_SECONDS = 10.0
"""Time between two lines of progress where stderr is no terminal."""
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Policy:
    """How patient a download is; times in seconds."""

    connect: float = 20.0
    read: float = 60.0
    """Longest silence of the server."""
    attempts: int = 8
    """In a row without a new byte."""
    unreached: int = 3
    """In a row while the server was never reached: without a network the answer comes soon."""
    wait: float = 1.0
    """After the first failure; doubles with each, times a random factor of 0.5 to 1.5."""
    longest_wait: float = 120.0
    redirects: int = 10
    sleep: Callable[[float], None] = time.sleep

    def pause(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after the n-th failure; at least what the server asked for."""
        own = min(self.wait * 2 ** (failures - 1), self.longest_wait) * random.uniform(0.5, 1.5)
        return max(own, asked or 0.0)


class _Temporary(Exception):
    """Worth another try, perhaps after the `wait` that the server asked for."""

    def __init__(self, text: str, wait: float | None = None, reached: bool = True) -> None:
        super().__init__(text)
        self.wait = wait
        self.reached = reached


def receive(
    url: str, part: Part, *, size: int | None, largest: int, policy: Policy, spare: int = 1
) -> None:
    """Get all bytes of `url` into `part`.

    Args:
        url: its address.
        part: the unfinished file; what it holds of the same address is not asked for again.
        size: its published size in bytes, or None.
        largest: bytes after which an answer is given up.
        policy: patience.
        spare: times its size that must be free on the disk.

    Raises:
        Refused: this address does not give the file; the text says why.
        UserError: the disk has not enough room.
    """
    failures, furthest, reached = 0, part.size, False
    with requests.Session() as session:
        session.max_redirects = policy.redirects
        while True:
            try:
                _once(session, url, part, size=size, largest=largest, policy=policy, spare=spare)
                return
            except _Temporary as problem:
                reached = reached or problem.reached
                # A server that starts anew and breaks at the same place makes no progress.
                failures = 1 if part.size > furthest else failures + 1
                furthest = max(furthest, part.size)
                if failures >= (policy.attempts if reached else policy.unreached):
                    raise Refused(f"{problem} (tried {failures} times in a row)") from None
                pause = policy.pause(failures, problem.wait)
                LOG.warning("%s: %s; next try in %.1f s", part.target.name, problem, pause)
                policy.sleep(pause)


def _once(
    session: requests.Session,
    url: str,
    part: Part,
    *,
    size: int | None,
    largest: int,
    policy: Policy,
    spare: int,
) -> None:
    note = part.note()
    held = part.size if note.get("url") == url and note.get("validator") else 0
    if held and held == note.get("total"):
        return
    headers = {"Accept-Encoding": "identity"}
    if held:
        headers |= {"Range": f"bytes={held}-", "If-Range": note["validator"]}
    try:
        with session.get(
            url, headers=headers, stream=True, timeout=(policy.connect, policy.read)
        ) as response:
            _judge(response, url, part, policy)
            start, total = _extent(response, held, part)
            if total is not None and size is not None and total != size:
                raise Refused(f"the server's file has {total:,} bytes, published are {size:,}")
            if total is not None and total > largest:
                raise Refused(f"the server's file has {total:,} bytes, at most {largest:,} allowed")
            require_space(part.path.parent, spare * (total or 0) - start, part.target.name)
            if start == 0:
                part.begin(url, _validator(response), total)
            _write(response, part, start, total, largest)
    except requests.RequestException as problem:
        raise _explained(problem, policy) from None


def _judge(response: requests.Response, url: str, part: Part, policy: Policy) -> None:
    """Raise what a status other than 200 or 206 means."""
    hops = [*response.history, response]
    if url.startswith("https:") and not all(hop.url.startswith("https:") for hop in hops):
        raise Refused("it leads to an address without encryption")
    status = response.status_code
    text = f"the server answers {status} {response.reason or ''}".rstrip()
    if status == 416:  # the file became shorter
        part.discard()
        raise _Temporary(text)
    if status in TEMPORARY:
        wait = _retry_after(response.headers.get("Retry-After"))
        if wait is not None and wait > policy.longest_wait:
            raise Refused(f"{text} and asks to come again in {timedelta(seconds=round(wait))}")
        raise _Temporary(text, wait)
    if status not in (200, 206):
        raise Refused(text)


def _extent(response: requests.Response, held: int, part: Part) -> tuple[int, int | None]:
    """First byte of the answer, and the file's length if the server says it."""
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = None if match is None or match[2] == "*" else int(match[2])
        known = part.note().get("total")
        if not match or int(match[1]) != held or not held or known not in (None, total):
            part.discard()
            raise _Temporary("the server sent another part than was asked for")
        return held, total
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and _is_plain(response) else None


def _is_plain(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") == "identity"


def _validator(response: requests.Response) -> str | None:
    """What tells this version of the file from others: a strong ETag, or its date of change."""
    etag = response.headers.get("ETag", "")
    if not _is_plain(response):
        return None
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _write(
    response: requests.Response, part: Part, start: int, total: int | None, largest: int
) -> None:
    done = start
    with part.writing(start) as handle, _Meter(part.target.name, start, total) as meter:
        for chunk in response.iter_content(CHUNK):
            done += len(chunk)
            if done > largest:
                break
            handle.write(chunk)
            meter.update(done)
    if done > largest:
        part.discard()
        raise Refused(f"the answer does not end: more than {largest:,} bytes")
    if total is not None and done < total:
        raise _Temporary(f"the connection broke after {done:,} of {total:,} bytes")


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _explained(problem: requests.RequestException, policy: Policy) -> Exception:
    """What a failure of the connection means, in short."""
    if isinstance(problem, requests.exceptions.SSLError):
        return Refused(f"no safe connection ({_innermost(problem)})")
    if isinstance(problem, requests.ConnectTimeout):
        text = f"no connection within {policy.connect:g} s"
        return _Temporary(text, reached=False)
    if isinstance(problem, requests.Timeout):
        return _Temporary(f"the server was silent for {policy.read:g} s")
    if isinstance(problem, requests.TooManyRedirects):
        return Refused(f"more than {policy.redirects} redirections")
    if isinstance(problem, requests.exceptions.ChunkedEncodingError):
        return _Temporary(f"the connection broke ({_innermost(problem)})")
    if isinstance(problem, requests.ConnectionError):
        if "Read timed out" in str(problem):  # so requests reports silence within a body
            return _Temporary(f"the server was silent for {policy.read:g} s")
        return _Temporary(f"no connection ({_innermost(problem)})", reached=False)
    return Refused(_innermost(problem))


def _innermost(problem: BaseException) -> str:
    """The text of the first cause, without the names of objects before it."""
    cause: BaseException = problem
    while True:
        inner = getattr(cause, "reason", None) or next(iter(cause.args), None)
        if not isinstance(inner, BaseException):
            break
        cause = inner
    text = next((part for part in cause.args if isinstance(part, str)), "") or str(cause)
    return text.partition("): ")[2] or text or type(cause).__name__


class _Meter:
    """Bytes, rate and time left: a bar on a terminal, else a line of log now and then."""

    def __init__(self, name: str, start: int, total: int | None) -> None:
        self._name, self._start, self._total = name, start, total
        self._began = self._shown = time.monotonic()
        self._bar = tqdm(
            desc=name,
            initial=start,
            total=total,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, done: int) -> None:
        """Show that `done` bytes are there."""
        self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if not self._bar.disable or now - self._shown < LOG_SECONDS:
            return
        self._shown = now
        rate = max(1.0, (done - self._start) / (now - self._began))
        text = f"{readable(done)}, {readable(rate)}/s"
        if self._total is not None:
            left = timedelta(seconds=round((self._total - done) / rate))
            text = f"{readable(done)} of {readable(self._total)}, {readable(rate)}/s, ETA {left}"
        LOG.info("%s: %s", self._name, text)
