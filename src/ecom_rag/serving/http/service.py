"""What all endpoints stand on: the engine, whether it is ready, its limits, and the deadline of a request."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from fastapi import Request

from ecom_rag.serving.engine.engine import Engine
from ecom_rag.serving.http.body import attend
from ecom_rag.serving.metrics import Metrics
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.settings import Limits, Serve

T = TypeVar("T")


class Phase(Enum):
    """Where a service is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True)
class Service:
    """One running service.

    Args:
        settings: As it was started.
        engine: What computes.
        metrics: What is counted.
        phase: Where it is in its life.
        failure: Why it could not start.
    """

    settings: Serve
    engine: Engine
    metrics: Metrics
    phase: Phase = Phase.LOADING
    failure: Exception | None = None

    @property
    def limits(self) -> Limits:
        """Of requests."""
        return self.settings.limits

    def check_ready(self) -> None:
        """Refuse work that cannot be done yet, or any more.

        Raises:
            Problem: 503.
        """
        if self.phase is Phase.LOADING:
            raise Problem(503, "the service is loading its models and banks; try again", code="loading", retry_after=2)
        if self.phase is Phase.DRAINING and not self.engine.has_started:
            self.check_not_draining()
        if self.phase is Phase.FAILED:
            raise Problem(503, "the service could not load its models and banks; its log says why", code="failed")

    def check_not_draining(self) -> None:
        """Say that new requests should go elsewhere.

        Raises:
            Problem: 503 from the signal to stop on.
        """
        if self.phase is Phase.DRAINING:
            raise Problem(503, "the service is stopping; ask another one", code="draining", retry_after=5)

    def check_texts(self, texts: Sequence[str], param: str, *, most: int) -> None:
        """Refuse more texts, or longer ones, than the limits allow.

        Args:
            texts: Of a request.
            param: Field of the request that holds them.
            most: How many there may be.

        Raises:
            Problem: 413 for too many, 422 for one that is too long.
        """
        if len(texts) > most:
            raise Problem(
                413,
                f'"{param}" holds {len(texts)} items; at most {most} are taken per request: send several requests',
                code="too_many_items",
                param=param,
            )
        longest = self.limits.characters
        for place, text in enumerate(texts):
            if len(text) > longest:
                raise Problem(
                    422,
                    f"{param}[{place}] has {len(text)} characters; at most {longest} are taken",
                    code="text_too_long",
                    param=f"{param}[{place}]",
                )

    def check_depth(self, value: int | None, param: str) -> None:
        """Refuse a number of results that is beyond the limit.

        Args:
            value: Asked for.
            param: Field of the request.

        Raises:
            Problem: 422.
        """
        if value is not None and value > self.limits.depth:
            raise Problem(
                422, f'"{param}" is {value}; at most {self.limits.depth} is taken', code="too_deep", param=param
            )

    async def in_time(self, request: Request, work: Coroutine[Any, Any, T], deadline_ms: int | None) -> T:
        """Wait for work until its deadline, or until the client has gone.

        Args:
            request: Its body has been read.
            work: What is waited for; it is cancelled at the deadline.
            deadline_ms: Milliseconds; by default, and at most, that of the limits.

        Raises:
            Problem: 504.
            ClientGoneError: Nobody waits any more.
        """
        milliseconds = min(deadline_ms or self.limits.deadline_ms, self.limits.deadline_ms)
        try:
            async with asyncio.timeout(milliseconds / 1000):
                return await attend(request, work)
        except TimeoutError:
            raise Problem(
                504,
                f"the request was not served within {milliseconds} ms; try again later, or send fewer texts",
                code="deadline_exceeded",
                retry_after=1,
            ) from None

    def bank(self, name: str | None) -> str:
        """The bank that a request is about.

        Args:
            name: As the request says it; ``None`` where it does not.

        Raises:
            Problem: 404 where there is no such bank, 422 where there are several and none is named.
        """
        names = self.engine.banks.names()
        if name is None:
            if len(names) == 1:
                return names[0]
            found = f"there are {len(names)}: /v1/banks lists them" if names else "the service was started without one"
            raise Problem(422, f'"bank" is missing and {found}', code="no_bank", param="bank")
        if name not in names:
            raise Problem(404, "there is no bank of this name; /v1/banks lists them", code="no_bank", param="bank")
        return name


def service_of(request: Request) -> Service:
    """The service that a request is for, ready to work.

    Args:
        request: Any.

    Raises:
        Problem: 503 while it is not.
    """
    service: Service = request.app.state.service
    service.check_ready()
    return service
