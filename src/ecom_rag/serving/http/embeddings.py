"""``POST /v1/embeddings``: OpenAI's endpoint, with bge-m3's sparse and multi-vector outputs from the same pass."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray

from ecom_rag.serving.engine.models import Encoded
from ecom_rag.serving.http.bodies import EmbeddingsRequest
from ecom_rag.serving.http.body import Route
from ecom_rag.serving.http.guard import needs
from ecom_rag.serving.http.schema import RESPONSES, Json
from ecom_rag.serving.http.service import Service, service_of
from ecom_rag.serving.problems import Problem

router = APIRouter(route_class=Route, dependencies=[Depends(needs("read"))], tags=["models"], responses=RESPONSES)


@router.post("/v1/embeddings", summary="Encode texts", response_class=Json)
async def embeddings(
    request: Request, body: EmbeddingsRequest, service: Annotated[Service, Depends(service_of)]
) -> Json:
    """Dense, sparse and multi-vector embeddings of texts, from one pass of the model.

    ``truncated`` says of each text whether the model read it in part only. ``sparse`` holds token ids and weights as
    vector stores take them; ``multivector`` holds one row of numbers per token.
    """
    texts = [body.input] if isinstance(body.input, str) else body.input
    service.check_texts(texts, "input", most=service.limits.texts)
    stage = service.engine.models.encoder
    if stage is None:
        raise Problem(404, "the service was started without an encoder", code="no_model", param="model")
    check_model(body.model, stage.name)
    if body.dimensions is not None and body.dimensions > stage.encoder.dimension:
        raise Problem(
            422,
            f'"dimensions" is {body.dimensions}; the model has {stage.encoder.dimension}',
            code="too_many_dimensions",
            param="dimensions",
        )
    if missing := [name for name in body.outputs if name not in stage.encoder.outputs]:
        raise Problem(
            422,
            f"the model does not give {', '.join(missing)}; it gives {', '.join(stage.encoder.outputs)}",
            code="no_output",
            param="outputs",
        )
    outputs = tuple(dict.fromkeys(body.outputs))
    work = stage.encode(texts, side=body.side, outputs=outputs, truncate=body.truncate)
    found = await service.in_time(request, work, body.deadline_ms)
    service.metrics.truncated("/v1/embeddings", sum(one.truncated for one in found))
    as_text = body.encoding_format == "base64"
    data = [_entry(place, one, as_text=as_text, dimensions=body.dimensions) for place, one in enumerate(found)]
    return Json({"object": "list", "model": stage.name, "data": data, "usage": usage(found)})


def check_model(asked: str | None, served: str) -> None:
    """Refuse a request that names another model.

    Args:
        asked: As the request says it; ``None`` where it does not.
        served: Name of the model.

    Raises:
        Problem: 404.
    """
    if asked is not None and asked != served:
        raise Problem(
            404,
            "the service does not serve this model; /v1/models lists those it serves",
            code="no_model",
            param="model",
        )


def usage(found: Sequence[Encoded]) -> dict[str, int]:
    """Tokens that the model read, in OpenAI's form."""
    tokens = sum(one.tokens for one in found)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _entry(place: int, one: Encoded, *, as_text: bool, dimensions: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"object": "embedding", "index": place, "truncated": one.truncated}
    if one.dense is not None:
        entry["embedding"] = _numbers(one.dense if dimensions is None else _cut(one.dense, dimensions), as_text)
    if one.sparse is not None:
        entry["sparse"] = {"indices": one.sparse.indices, "values": one.sparse.weights}
    if one.multivector is not None:
        shape = list(one.multivector.shape)
        entry["multivector"] = {"shape": shape, "values": _numbers(one.multivector, as_text)}
    return entry


def _cut(vector: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """The first dimensions, of length 1 again (Matryoshka, Kusupati et al. 2022)."""
    part = vector[:dimensions]
    length = float(np.linalg.norm(part))
    return part / np.float32(length) if length else part


def _numbers(values: NDArray[np.float32], as_text: bool) -> Any:
    values = np.ascontiguousarray(values, "<f4")
    return base64.b64encode(values.data).decode("ascii") if as_text else values
