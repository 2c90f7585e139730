"""The application: endpoints inside, the middlewares around them, and what happens at its start and end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from ecom_rag._version import __version__
from ecom_rag.errors import EcomRagError
from ecom_rag.serving import review
from ecom_rag.serving.engine.engine import Engine
from ecom_rag.serving.http import banks, decide, embeddings, errors, health, recall, rerank
from ecom_rag.serving.http.body import Body
from ecom_rag.serving.http.guard import Buckets, Guard
from ecom_rag.serving.http.logs import Access, in_batches
from ecom_rag.serving.http.reviewing import review_of
from ecom_rag.serving.http.service import Phase, Service
from ecom_rag.serving.http.sessions import Sessions
from ecom_rag.serving.keys import Keys
from ecom_rag.serving.metrics import Metrics
from ecom_rag.serving.settings import Serve

logger = logging.getLogger(__name__)

PUBLIC = ("/healthz", "/readyz", *review.PUBLIC)
_ABOUT = """
Recall and decisions for governance: the most similar judged seeds of each listing by several routes, with evidence,
and what a calibrated policy decides of it. Errors have one shape; texts are in no log and no metric.
"""


def create_app(settings: Serve) -> FastAPI:
    """The application of a service; models and banks are loaded when it starts, while it answers ``/healthz``.

    Args:
        settings: Of the service.

    Raises:
        EcomRagError: Settings that make no sense, or a file of keys that cannot be used.
    """
    metrics = Metrics()
    service = Service(settings, Engine(settings, watch=metrics.watch, begin=in_batches), metrics)
    keys = None if settings.keys is None else Keys(settings.keys)
    app = FastAPIOffline(
        title="ecom_rag",
        redoc_url=None,
        static_url="/docs/static",
        version=__version__,
        description=_ABOUT,
        lifespan=_lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    for part in (embeddings, rerank, recall, decide, banks, health):
        app.include_router(part.router)
    errors.install(app)
    sessions = None if keys is None else Sessions(keys)
    page = review_of(service, sessions)
    if page is not None:
        app.include_router(review.router(page))
    buckets = Buckets(settings.limits.requests_per_second, settings.limits.burst)
    app.add_middleware(Body, limits=settings.limits, forms=("/review/",))
    app.add_middleware(Guard, keys=keys, sessions=sessions, buckets=buckets, public=PUBLIC, login="/review/login")
    app.add_middleware(errors.Answers)
    app.add_middleware(Access, answered=metrics.answered, closing=lambda: service.phase is Phase.DRAINING)
    _gauges(service)
    app.state.sessions = sessions
    return app


def _gauges(service: Service) -> None:
    """Numbers that are looked up when the metrics are read."""
    gauge, engine = service.metrics.gauge, service.engine
    gauge("ecom_rag_queue_seconds", "Seconds of work that wait, by stage.", "stage", engine.waiting)
    gauge(
        "ecom_rag_bank_sequence",
        "Number of the last change that searches see.",
        "bank",
        lambda: {name: one.sequence for name, one in engine.banks.health().items()},
    )
    gauge(
        "ecom_rag_bank_seeds",
        "Seeds that searches see.",
        "bank",
        lambda: {name: one.documents for name, one in engine.banks.health().items()},
    )


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    loading = asyncio.create_task(_start(service))
    try:
        yield
    finally:
        service.phase = Phase.DRAINING
        await asyncio.wait([loading])
        await service.engine.close()


async def _start(service: Service) -> None:
    """Load everything; what cannot be loaded is told by ``/readyz`` and to whoever started the service."""
    try:
        await service.engine.start()
    except EcomRagError as error:
        service.phase, service.failure = Phase.FAILED, error
    except Exception as error:
        service.phase, service.failure = Phase.FAILED, error
        logger.exception("the service could not start")
    else:
        if service.phase is Phase.LOADING:
            service.phase = Phase.READY
