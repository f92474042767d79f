import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from longtail.data import remote

MakeFolder = Callable[..., Path]


def save(path: Path, seed: int = 0, size: tuple[int, int] = (10, 8)) -> None:
    """Noise of the given width and height, unlike that of other seeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def save_image() -> Callable[..., None]:
    return save


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes a folder of class folders with so many images in each, PNG and JPEG in turn."""

    def make(
        counts: Mapping[str, int], name: str = "pets", size: tuple[int, int] = (10, 8)
    ) -> Path:
        for c, (label, count) in enumerate(counts.items()):
            (tmp_path / name / label).mkdir(parents=True)
            for n in range(count):
                suffix = "jpg" if n % 2 else "png"
                save(tmp_path / name / label / f"{n:03d}.{suffix}", 1000 * c + n, size)
        return tmp_path / name

    return make


class Server(ThreadingHTTPServer):
    """A local web server of a folder, with faults.

    Attributes:
        faults: kinds of fault by path, which meet its next requests in turn: a status, `cut`,
            `reset`, `silent`, or `short` (the content is short and says so nowhere).
        requests: path and range of each request.
        authorizations: credentials of each request, if it has some.
        ranges: whether parts of files are sent.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, list[int | str]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.authorizations: list[str | None] = []
        self.ranges = True
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        path = unquote(self.path)
        asked = self.headers["Range"]
        self.server.requests.append((path, asked))
        self.server.authorizations.append(self.headers["Authorization"])
        fault = (self.server.faults.get(path) or [None]).pop(0)
        if fault == "silent":
            self.server.ending.wait()
        if fault in ("silent", "reset"):
            self.close_connection = True
            return
        file = self.server.folder / path.lstrip("/")
        if isinstance(fault, int) or not file.is_file():
            self.answer(fault if isinstance(fault, int) else 404, b"no")
            return
        content, status = file.read_bytes(), 200
        if asked and self.server.ranges:
            begin, end = asked.removeprefix("bytes=").split("-")
            content, status = content[int(begin) : int(end) + 1], 206
        if not content:
            self.answer(416, b"")
        elif fault == "short":
            self.answer(status, content[: len(content) // 2])
        else:
            self.answer(status, content, sent=len(content) // 2 if fault == "cut" else None)

    def answer(self, status: int, content: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])
        self.close_connection = sent is not None

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No pauses between attempts, a short patience with each, and a cache of its own."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LONGTAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "DELAYS", (0.0,) * 6)
    monkeypatch.setattr(remote, "TIMEOUT", 0.5)
    remote._file_system.cache_clear()
    yield
    remote._file_system.cache_clear()


@pytest.fixture
def web(patient: None, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.ending.set()
    server.shutdown()
    thread.join()
    server.server_close()
