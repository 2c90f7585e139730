"""What operators and balancers ask: is it alive, is it ready, what does it serve, what has it counted."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from ecom_rag.serving.http.guard import needs
from ecom_rag.serving.http.schema import RESPONSES, Json
from ecom_rag.serving.http.service import Service, service_of

router = APIRouter(tags=["operation"], responses={status: RESPONSES[status] for status in (400, 401, 403, 429, 500)})


@router.get("/healthz", summary="Whether the process is alive", response_class=Json)
async def health(request: Request) -> Json:
    """200 as long as the process answers."""
    return Json({"status": "ok"})


@router.get("/readyz", summary="Whether requests are served", response_class=Json, responses={503: RESPONSES[503]})
async def ready(request: Request) -> Json:
    """200 once models and banks are loaded, 503 before that and from the signal to stop on."""
    service: Service = request.app.state.service
    service.check_ready()
    service.check_not_draining()
    banks = {
        name: {"sequence": one.sequence, "seeds": one.documents, "healthy": one.error is None}
        for name, one in service.engine.banks.health().items()
    }
    return Json({"status": service.phase.value, "banks": banks})


@router.get("/metrics", summary="Counters in the format of Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Requests, batches, queues, banks and decisions; no text and no key is in them."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(
    "/v1/models",
    summary="The models that are served",
    response_class=Json,
    responses={503: RESPONSES[503]},
    dependencies=[Depends(needs("read"))],
)
async def models(service: Annotated[Service, Depends(service_of)]) -> Json:
    """Encoder and reranker, with what they give."""
    found: list[dict[str, Any]] = []
    if (encoder := service.engine.models.encoder) is not None:
        own = encoder.encoder
        found.append(
            {
                "id": encoder.name,
                "object": "model",
                "owned_by": "ecom_rag",
                "kind": "encoder",
                "outputs": list(own.outputs),
                "dimension": own.dimension,
                "max_length": encoder.longest,
                "precision": own.placement.precision,
                "fingerprint": own.fingerprint,
            }
        )
    if (reranker := service.engine.models.reranker) is not None:
        model = reranker.cross_encoder
        found.append(
            {
                "id": reranker.name,
                "object": "model",
                "owned_by": "ecom_rag",
                "kind": "reranker",
                "max_length": reranker.longest,
                "precision": model.placement.precision,
                "fingerprint": model.fingerprint,
            }
        )
    return Json({"object": "list", "data": found})
