"""A service from its start to its end: load, listen, serve, drain."""

import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from ecom_rag.errors import UsageError
from ecom_rag.serving.http.app import create_app
from ecom_rag.serving.http.guard import check_exposed
from ecom_rag.serving.http.service import Phase, Service
from ecom_rag.serving.settings import Serve


class Server(uvicorn.Server):
    """A server that says it is stopping before it stops.

    On SIGTERM or SIGINT ``/readyz`` answers 503 at once; new connections are taken for ``drain_delay`` seconds more, so
    that a balancer can notice; then what runs is finished. A second signal ends it at once.

    Args:
        config: Of uvicorn.
        service: Whose phase it tells.
        ready: Called once with the address, when models and banks are loaded.
    """

    def __init__(self, config: uvicorn.Config, service: Service, *, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready
        self._told = False
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop; uvicorn would raise it again at the end, so that a stop as asked looked like a crash."""
        if self._stop_at is None:
            self._service.phase = Phase.DRAINING
            self._stop_at = time.monotonic() + self._service.settings.drain_delay
        else:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: has it loaded, or failed to, or is it time to stop?

        Args:
            counter: As of uvicorn.

        Returns:
            Whether to stop.
        """
        phase = self._service.phase
        if phase is Phase.FAILED or (self._stop_at is not None and time.monotonic() >= self._stop_at):
            return True
        if phase is Phase.READY and not self._told and self.servers:
            self._told = True
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        return await super().on_tick(counter)


def serve(settings: Serve, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: Of the service.
        ready: Called with the address once requests are served.

    Raises:
        EcomRagError: What cannot be loaded or used.
        UsageError: The address cannot be listened on.
    """
    check_exposed(settings.host, settings.keys)
    listening = _listening(settings.host, settings.port)
    app = create_app(settings)
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.drain_seconds),
        h11_max_incomplete_event_size=65_536,
    )
    server = Server(config, service, ready=ready)
    with listening:
        server.run(sockets=[listening])
    if service.failure is not None:
        raise service.failure


def _listening(host: str, port: int) -> socket.socket:
    """A socket at the address, before anything is loaded.

    Raises:
        UsageError: It is taken, or not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}, port {port} ({error.strerror}); choose another port") from None
