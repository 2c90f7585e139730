"""``POST /v1/recall``: the most similar seeds of each record, by several routes, with each route's evidence."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from ecom_rag.files import records
from ecom_rag.files.records import Record
from ecom_rag.serving.engine.search import Recalled
from ecom_rag.serving.http import bodies
from ecom_rag.serving.http.answers import RecallAnswer
from ecom_rag.serving.http.body import Route
from ecom_rag.serving.http.guard import needs
from ecom_rag.serving.http.schema import RESPONSES, Json, gives
from ecom_rag.serving.http.service import Service, service_of

router = APIRouter(route_class=Route, dependencies=[Depends(needs("read"))], tags=["recall"], responses=RESPONSES)

_OVERRIDES = ("fusion", "weights", "depth", "top_k", "filter", "normalize", "blend", "exclude_self")


@router.post(
    "/v1/recall",
    summary="Find the most similar seeds",
    response_class=Json,
    responses=gives(RecallAnswer, "The records with their seeds."),
)
async def recall(
    request: Request, body: bodies.RecallRequest, service: Annotated[Service, Depends(service_of)]
) -> Json:
    """Each record with ``topk_sim``, ``topk_seed``, ``topk_metadata`` and ``topk_evidence``, as recall writes files.

    All of one answer are from one state of the bank, whose sequence is given.
    """
    service.check_depth(body.depth, "depth")
    service.check_depth(body.top_k, "top_k")
    bank, items = service.bank(body.bank), records_of(service, body.records)
    overrides: dict[str, Any] = {name: getattr(body, name) for name in _OVERRIDES}
    overrides["routes"] = None if body.routes is None else tuple(body.routes)
    asked = service.engine.asked(bank, overrides, rerank=body.rerank)
    found = await service.in_time(request, service.engine.recall(asked, items), body.deadline_ms)
    service.metrics.truncated("/v1/recall", sum(found.truncated))
    return Json(answer_of(found))


def records_of(service: Service, given: list[bodies.Record], *, most: int | None = None) -> list[Record]:
    """The records of a request, clean.

    Args:
        service: Has the limits.
        given: As they were sent.
        most: How many there may be; by default as many as texts.

    Raises:
        Problem: Too many of them, or a text that is too long.
        RecordError: Something that JSON lines cannot hold.
    """
    service.check_texts([one.text for one in given], "records", most=most or service.limits.texts)
    return list(records.cleaned([{"text": one.text, "metadata": one.metadata} for one in given], "records"))


def answer_of(found: Recalled) -> dict[str, Any]:
    """What a recall found, as JSON."""
    state = found.state
    return {
        "bank": {"name": state.name, "id": state.bank, "sequence": state.sequence},
        "results": found.results,
        "truncated": [place for place, cut in enumerate(found.truncated) if cut],
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        "milliseconds": found.milliseconds,
        "notes": list(state.notes),
    }
