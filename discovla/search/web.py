"""The local page: a query box, a grid of hits, and clips that play from the moment that fits.

It works without scripts: the form is a GET, hits are rendered here, a browser's own controls play
from `#t=`. Files are served by their id in the index, never by a path, in ranges. Nothing comes
from outside (Content-Security-Policy), texts are escaped by Jinja2, and requests for other hosts'
names are refused, so that no foreign page can read it through a name of its own.
"""

from __future__ import annotations

import logging
import mimetypes
import threading
import time
from pathlib import Path
from typing import Any

from discovla.data.names import inner_path
from discovla.errors import UserError
from discovla.search import query
from discovla.search.model import Encoder
from discovla.search.store import Index
from discovla.search.vectors import lance

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
TOP, STEP = 24, 24
LONGEST_QUERY = 2_000
MOST_MOMENTS = 2**31 - 1
"""Numbers of moments are int32."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; "
        "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
"""What browsers may play; QuickTime files often hold H.264, and are only tried as MP4."""


class Searcher:
    """The newest state of an index and its model, for several threads."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        index = Index(folder)
        self._device = device
        self._now = index, Encoder(index.model, device)
        self._lock = threading.Lock()
        self.find("a video", "", "video", 1)  # the first one is slow

    def now(self) -> tuple[Index, Encoder]:
        """The index as it is, and the model that made it."""
        with self._lock:
            index, encoder = self._now
            newest = index.refreshed()
            if newest is not index and newest.settings["model"] != index.settings["model"]:
                encoder = Encoder(newest.model, self._device)
            self._now = newest, encoder
            return self._now

    @property
    def index(self) -> Index:
        """As it is now."""
        return self.now()[0]

    def find(self, text: str, like: str, by: str, top: int) -> list[query.Hit]:
        """Hits for a text, or for a video of the index."""
        index, encoder = self.now()
        if like:
            vector = query.own_vector(index, like)
        else:
            vector = query.text_vector(encoder, text[:LONGEST_QUERY])
        return query.search(index, vector, top, by)

    def file_of(self, entry: str) -> Path | None:
        """The file of an entry; None if there is none, or not below the root."""
        index = self.index
        rows = index.videos.rows(["path"], "entry", [entry])["path"].to_pylist()
        if not rows or inner_path(rows[0])[1]:
            return None
        path = index.root / rows[0]
        return path if path.is_file() else None

    def thumbnail(self, entry: str, number: int) -> bytes | None:
        """JPEG of a moment; None if there is none."""
        if number > MOST_MOMENTS:
            return None
        rows = self.index.moments.rows(["thumbnail"], "entry", [entry], f"number = {number:d}")
        found: list[bytes] = rows["thumbnail"].to_pylist()
        return found[0] if found else None


def application(searcher: Searcher, host: str) -> Any:
    """The Starlette application.

    Args:
        searcher: what it asks.
        host: it listens on; a loopback host answers to loopback names only.

    Raises:
        UserError: the packages of the extra are not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import Request
        from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError:
        lance()  # says what to install
        raise UserError("the page needs packages of the extra 'search': see above") from None

    pages = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True)
    pages.filters.update(clock=query.clock, score=_score)

    def ask(request: Request) -> dict[str, Any]:
        """What the address asks for, and its answer."""
        asked = request.query_params
        text, like, by = asked.get("q", ""), asked.get("like", ""), asked.get("by", "video")
        by = by if by in query.BY else "video"
        count = asked.get("top", "")
        top = min(query.MOST, max(1, int(count))) if count.isdecimal() else TOP
        found: dict[str, Any] = {"text": text, "like": like, "by": by, "top": top, "hits": None}
        if text.strip() or like:
            begin = time.perf_counter()
            try:
                found["hits"] = searcher.find(text, like, by, top)
            except UserError as error:
                found["error"] = str(error)
            found["ms"] = (time.perf_counter() - begin) * 1e3
        return found

    def page(request: Request) -> Response:
        index, encoder = searcher.now()
        content = pages.get_template("page.html").render(
            **ask(request),
            videos=len(index.videos),
            root=str(index.root),
            moments=len(index.moments),
            model=encoder.label,
            kind=index.search_kind(),
            step=STEP,
            most=query.MOST,
        )
        return HTMLResponse(content)

    def as_json(request: Request) -> Response:
        found = ask(request)
        if "error" in found or found["hits"] is None:
            return JSONResponse({"error": found.get("error", "give q= or like=")}, 400)
        return JSONResponse({"ms": found["ms"], "hits": query.as_json(found["hits"])})

    def video(request: Request) -> Response:
        path = searcher.file_of(request.path_params["entry"])
        if path is None:
            return Response("this file is gone, or not in the index", 404, media_type="text/plain")
        kind = TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0]
        kind = kind if kind and kind.startswith("video/") else "application/octet-stream"
        name = path.name if "download" in request.query_params else None
        return FileResponse(path, media_type=kind, filename=name)

    def thumbnail(request: Request) -> Response:
        found = searcher.thumbnail(request.path_params["entry"], request.path_params["number"])
        if found is None:
            return Response("no such picture", 404, media_type="text/plain")
        # An entry's id changes with the content of its file.
        keep = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(found, media_type="image/jpeg", headers=keep)

    routes = [
        Route("/", page),
        Route("/search.json", as_json),
        Route("/video/{entry:str}", video),
        Route("/thumbnail/{entry:str}/{number:int}", thumbnail),
        Mount("/static", StaticFiles(directory=PAGE / "static")),
    ]
    allowed = ["127.0.0.1", "localhost", "::1", "[::1]"] if host in LOOPBACK else ["*"]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    middleware = [guard, Middleware(_WithHeaders)]
    return Starlette(routes=routes, middleware=middleware)


def _score(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


class _WithHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, sending)


def serve(folder: Path, host: str, port: int, device: str) -> None:
    """Answer until interrupted.

    Raises:
        UserError: packages are missing, or the address cannot be used.
    """
    lance()
    try:
        import uvicorn
    except ImportError:
        raise UserError(
            "the page needs packages that are not installed; add the extra 'search': "
            "pip install 'discovla[search]'"
        ) from None
    import socket

    if host not in LOOPBACK:
        log.warning(
            "%s can be reached from other machines: whoever reaches it can see every video of the "
            "index; there is no password",
            host,
        )
    app = application(Searcher(folder, device), host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UserError(
                f"{host}:{port} cannot be listened on ({error.strerror}); another --port, or 0 "
                "for any free one"
            ) from None
        listener.listen()  # before the address is told: who asks at once waits, and is not refused
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]}/  (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        server.run(sockets=[listener])
