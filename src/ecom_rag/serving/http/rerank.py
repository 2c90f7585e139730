"""``POST /rerank``, ``/v1/rerank`` and ``/v2/rerank``: the endpoint of Cohere and Jina."""

import uuid
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request

from ecom_rag.models.cross_encoder import sigmoid
from ecom_rag.serving.engine.models import check_whole
from ecom_rag.serving.http.bodies import RerankRequest
from ecom_rag.serving.http.body import Route
from ecom_rag.serving.http.embeddings import check_model
from ecom_rag.serving.http.guard import needs
from ecom_rag.serving.http.schema import RESPONSES, Json
from ecom_rag.serving.http.service import Service, service_of
from ecom_rag.serving.problems import Problem

router = APIRouter(route_class=Route, dependencies=[Depends(needs("read"))], tags=["models"], responses=RESPONSES)


@router.post("/rerank", summary="Order documents by relevance (Jina)", response_class=Json)
@router.post("/v1/rerank", summary="Order documents by relevance (Cohere v1, Jina)", response_class=Json)
@router.post("/v2/rerank", summary="Order documents by relevance (Cohere v2)", response_class=Json)
async def rerank(request: Request, body: RerankRequest, service: Annotated[Service, Depends(service_of)]) -> Json:
    """Documents in the order of their relevance to a query; equal ones as they came.

    ``relevance_score`` is in 0..1, or the model's logit with ``normalize`` false.
    """
    documents = [one if isinstance(one, str) else one.text for one in body.documents]
    service.check_texts([body.query], "query", most=1)
    service.check_texts(documents, "documents", most=service.limits.documents)
    stage = service.engine.models.reranker
    if stage is None:
        raise Problem(404, "the service was started without a reranker", code="no_model", param="model")
    check_model(body.model, stage.name)
    work = stage.score([(body.query, document) for document in documents])
    found = await service.in_time(request, work, body.deadline_ms)
    if not body.truncate:
        check_whole([one.truncated for one in found], stage.longest, "documents")
    truncated = sum(one.truncated for one in found)
    service.metrics.truncated("/v1/rerank", truncated)
    scores = np.array([one.logit for one in found], np.float32)
    if body.normalize:
        scores = sigmoid(scores)
    order = np.argsort(-scores, kind="stable")[: body.top_n].tolist()
    results = []
    for place in order:
        entry: dict[str, Any] = {
            "index": place,
            "relevance_score": round(float(scores[place]), 6),
            "truncated": found[place].truncated,
        }
        if body.return_documents:
            entry["document"] = {"text": documents[place]}
        results.append(entry)
    tokens = sum(one.tokens for one in found)
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "tokens": {"input_tokens": tokens}}
    answer = {"id": str(uuid.uuid4()), "model": stage.name, "results": results, "meta": meta}
    return Json({**answer, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
