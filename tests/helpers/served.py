"""A small service with all that stands around endpoints, in process or on a free port, and what it logs."""

import asyncio
import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Form, Request
from pydantic import BaseModel, Field

from ecom_rag.serving.http import errors, logs
from ecom_rag.serving.http.body import Body, Route, attend
from ecom_rag.serving.http.guard import Buckets, Guard, needs
from ecom_rag.serving.http.schema import RESPONSES, STRICT, Json
from ecom_rag.serving.http.sessions import Sessions
from ecom_rag.serving.keys import Keys
from ecom_rag.serving.settings import Limits


class Record(BaseModel):
    """As of recall."""

    model_config = STRICT
    text: str = Field(max_length=50)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Asked(BaseModel):
    """A request with a field of every kind."""

    model_config = STRICT
    records: list[Record] = Field(max_length=4)
    format: Literal["float", "base64"] = "float"
    weights: dict[str, float] | None = None
    input: str | list[str] | None = None
    top_k: int = Field(10, ge=1, le=100)
    flag: bool = False


def small_app(*, keys: Keys | None = None, raises: Any = None, limits: Limits | None = None, rate: Any = None) -> Any:
    """The app, and in ``state``: ``cancelled``, ``seen`` (the last body); ``raises`` is called with each body."""
    router = APIRouter(prefix="/v1", route_class=Route, responses=RESPONSES)
    app = FastAPI()
    app.state.cancelled, app.state.started = threading.Event(), threading.Event()
    sessions = Sessions(keys) if keys is not None else None

    @router.post("/ask", dependencies=[Depends(needs("read"))])
    async def ask(asked: Asked) -> Json:
        if raises is not None:
            raises(asked)
        return Json({"records": [record.model_dump() for record in asked.records]})

    @router.post("/raw/{name}", dependencies=[Depends(needs("write"))])
    async def raw(name: str, request: Request, q: int = 0) -> Json:
        return Json(await request.json())

    @router.post("/slow", dependencies=[Depends(needs("read"))])
    async def slow(asked: dict[str, Any], request: Request) -> Json:
        async def work() -> str:
            app.state.started.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                app.state.cancelled.set()
                raise
            return "done"

        return Json(await attend(request, work()))

    @router.post("/quick", dependencies=[Depends(needs("read"))])
    async def quick(asked: dict[str, Any], request: Request) -> Json:
        return Json(await attend(request, asyncio.sleep(0, 3)))

    @app.get("/healthz")
    async def health() -> Json:
        return Json({"ok": True})

    @app.post("/review/login")
    async def login(request: Request, key: Annotated[str, Form()]) -> Json:
        cookie = sessions.log_in(key, secure=request.url.scheme == "https")
        return Json({"ok": cookie is not None}, headers={} if cookie is None else {"Set-Cookie": cookie})

    app.include_router(router)
    errors.install(app)
    buckets = Buckets(rate, 3)
    public = ("/healthz", "/review/login")
    app.add_middleware(Body, limits=limits or Limits(), forms=("/review/",))
    app.add_middleware(Guard, keys=keys, sessions=sessions, buckets=buckets, public=public, login="/review/login")
    app.add_middleware(errors.Answers)
    app.add_middleware(logs.Access)
    return app


class Client:
    """Synchronous calls to an app in this process."""

    def __init__(self, app: Any, **headers: str) -> None:
        self.app = app
        self.headers = headers

    def __call__(self, method: str, path: str, **settings: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=self.headers) as own:
                return await own.request(method, path, **settings)

        return asyncio.run(call())


@contextlib.contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the service and the server write to their log, from the least level on."""
    stream = io.StringIO()
    plain = logging.StreamHandler(stream)  # what a handler of somebody else would write of the other loggers
    logging.getLogger().addHandler(plain)
    try:
        with logs.installed(stream, level=logging.DEBUG):
            yield stream
    finally:
        logging.getLogger().removeHandler(plain)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[int]:
    """The port of a real server in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def exchange(port: int, *parts: bytes, pause: float = 0.0, seconds: float = 10.0) -> bytes:
    """Send parts over one connection, and give all that comes back until the server closes it or is silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        found = b""
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with contextlib.suppress(OSError):
            while part := connection.recv(1 << 16):
                found += part
        return found
