"""A service from its start to its end: load, listen, serve, drain."""

import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from ecom_rag.errors import UsageError
from ecom_rag.serving.http.app import create_app
from ecom_rag.serving.http.guard import check_exposed
from ecom_rag.serving.http.protocol import Protocol
from ecom_rag.serving.http.service import Phase, Service
from ecom_rag.serving.settings import Serve


class Server(uvicorn.Server):
    """A server that says it is stopping before it stops.

    On SIGTERM or SIGINT ``/readyz`` answers 503 at once; new connections are taken for ``drain_delay`` seconds more, so
    that a balancer can notice; then what runs is finished. Ctrl+C again ends it at once.

    Args:
        config: Of uvicorn.
        service: Whose phase it tells.
        ready: Called once with the address, when models and banks are loaded.

    Attributes:
        service: As given.
        address: Where it is reached; ``None`` until it is ready.
    """

    def __init__(self, config: uvicorn.Config, service: Service, *, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self.service = service
        self._ready = ready
        self.address: str | None = None
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop; uvicorn would raise it again at the end, so that a stop as asked looked like a crash."""
        if self._stop_at is None:
            self.service.phase = Phase.DRAINING
            self._stop_at = time.monotonic() + self.service.settings.drain_delay
        elif sig == signal.SIGINT:  # SIGTERM is sent twice by some supervisors
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: has it loaded, or failed to, or is it time to stop?

        Args:
            counter: As of uvicorn.

        Returns:
            Whether to stop.
        """
        phase = self.service.phase
        if phase is Phase.FAILED or (self._stop_at is not None and time.monotonic() >= self._stop_at):
            return True
        if phase is Phase.READY and self.address is None and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._ready(self.address)
        return await super().on_tick(counter)


def serve(settings: Serve, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: Of the service.
        ready: Called with the address once requests are served.

    Raises:
        EcomRagError: What cannot be loaded or used, or an address that cannot be listened on.
    """
    server, listening = prepared(settings, ready=ready)
    with listening:
        server.run(sockets=[listening])
    if server.service.failure is not None:
        raise server.service.failure


def prepared(settings: Serve, *, ready: Callable[[str], None] = lambda address: None) -> tuple[Server, socket.socket]:
    """A server that has not been started, and the socket that it will listen on.

    Args:
        settings: Of the service.
        ready: As of ``serve``.

    Raises:
        EcomRagError: As ``serve``.
    """
    check_exposed(settings.host, settings.keys)
    listening = _listening(settings.host, settings.port)
    try:
        app = create_app(settings)
    except BaseException:
        listening.close()
        raise
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )
    return Server(config, app.state.service, ready=ready), listening


def _listening(host: str, port: int) -> socket.socket:
    """A socket at the address, before anything is loaded.

    Raises:
        UsageError: It is taken, or not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        known = isinstance(error.errno, int) and error.errno > 0  # else a name that is none, which only it can tell
        found = os.strerror(error.errno or 0).lower() if known else error.strerror
        raise UsageError(f"cannot listen on {host}, port {port} ({found}); choose another port") from None
