"""Connections: uvicorn's, with a bound on the head of a request, our errors, and no request lost while stopping."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ecom_rag.files import json_text
from ecom_rag.serving.problems import Problem

HEAD_BYTES = 65_536  # of the first line and the headers; the read in which they end is not counted
HEAD_SECONDS = 20.0  # for them to arrive
_LAST_WORD = 0.25  # seconds in which an idle connection may still bring a request when the service stops
_LINGER = 1.0  # seconds in which a client may read why it was refused
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Protocol(HttpToolsProtocol):
    """One connection. What cannot become a request is answered here, in the shape of all errors."""

    _head: int | None = None  # bytes of a head that is arriving
    _timer: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; it must say something."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head = 0
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def on_headers_complete(self) -> None:
        """A head has arrived."""
        self._arrived()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Part of a request; after a refusal what the client still sends is thrown away."""
        if self._refused:
            return
        super().data_received(data)
        if self._head is not None and not self._refused:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._refuse(431, f"the headers have more than {HEAD_BYTES} bytes; send less", "headers_too_large")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP.

        Args:
            msg: As uvicorn would say it.
        """
        self._refuse(400, "this is no HTTP request; speak HTTP/1.1, without TLS", "invalid_http")

    def shutdown(self) -> None:
        """The service stops: a request that is on its way to an idle connection is served before that is closed."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_LAST_WORD, super().shutdown)
        else:
            super().shutdown()

    def _arrived(self) -> None:
        self._head = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # an earlier request is being answered
            self._timer = self.loop.call_later(HEAD_SECONDS, self._late)
        elif not self._refused and not self.transport.is_closing():
            told = f"no whole request came within {HEAD_SECONDS:g} s; send it faster"
            self._refuse(408, told, "slow_headers")

    def _refuse(self, status: int, message: str, code: str) -> None:
        self._arrived()
        self._refused = True
        content = json_text.dumps(Problem(status, message, code=code).body)
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.write_eof()  # to close at once would reset the connection of a client that is still sending
        self.loop.call_later(_LINGER, self.transport.close)
