"""``/v1/decide`` and ``/v1/decisions``: decisions by a policy, kept in a journal, and what people say of them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from ecom_rag.serving.http import bodies
from ecom_rag.serving.http.answers import DecideAnswer, DecisionsAnswer, FeedbackAnswer, Journaled
from ecom_rag.serving.http.body import Route
from ecom_rag.serving.http.guard import needs
from ecom_rag.serving.http.recall import answer_of, records_of
from ecom_rag.serving.http.schema import RESPONSES, Json, gives
from ecom_rag.serving.http.service import Service, service_of
from ecom_rag.serving.journal.items import Decision
from ecom_rag.serving.keys import Key
from ecom_rag.serving.problems import Problem

router = APIRouter(route_class=Route, tags=["decisions"], responses=RESPONSES)

_TOLD = ("label", "innocent", "note", "bank", "seed_id")

Id = Annotated[str, Path(max_length=64, description="Id of the decision, as /v1/decide gave it.")]


@router.post(
    "/v1/decide",
    summary="Decide records by the bank's policy",
    response_class=Json,
    responses=gives(DecideAnswer, "The records with their decisions."),
)
async def decide(
    request: Request,
    body: bodies.DecideRequest,
    key: Annotated[Key, Depends(needs("read"))],
    service: Annotated[Service, Depends(service_of)],
) -> Json:
    """Each record with ``decision``, as ``ecom-rag decide`` writes it: its label, innocent, or a person must look.

    Decisions are on the disk before they are answered. ``decision.id`` is the name under which people speak of them.
    """
    bank, items = service.bank(body.bank), records_of(service, body.records)
    found = await service.in_time(request, service.engine.decide(bank, items, actor=key.name), body.deadline_ms)
    service.metrics.truncated("/v1/decide", sum(found.truncated))
    for result in found.results:
        service.metrics.decided(bank, result["decision"])
    return Json(answer_of(found))


@router.get(
    "/v1/decisions",
    summary="List decisions, the newest first",
    response_class=Json,
    responses=gives(DecisionsAnswer, "Part of the decisions."),
    dependencies=[Depends(needs("review"))],
)
async def decisions(
    service: Annotated[Service, Depends(service_of)],
    cursor: Annotated[
        str | None, Query(max_length=64, description="The cursor of the page before; left out for the first.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Decisions per page.")] = 50,
    filter: Annotated[
        str | None,
        Query(
            max_length=4096,
            description="Condition on the metadata and decision.",
            examples=['decision.reason = "flood"'],
        ),
    ] = None,
) -> Json:
    """Decisions with their texts, results and history."""
    page = await service.engine.decisions.journaled(lambda own: own.decisions(cursor, limit=limit, filter=filter))
    return Json({"data": [plain(one) for one in page.items], "cursor": page.cursor})


@router.get(
    "/v1/decisions/{decision}",
    summary="One decision with its history",
    response_class=Json,
    responses=gives(Journaled, "The decision."),
    dependencies=[Depends(needs("review"))],
)
async def decision(decision: Id, service: Annotated[Service, Depends(service_of)]) -> Json:
    """A decision, and everything that people did about it."""
    return Json(plain(await service.engine.decisions.journaled(lambda own: own.get(decision))))


@router.post(
    "/v1/decisions/{decision}/feedback",
    summary="Say what a text is",
    response_class=Json,
    responses=gives(FeedbackAnswer, "The verdict is in the journal."),
)
async def feedback(
    decision: Id,
    body: bodies.FeedbackRequest,
    key: Annotated[Key, Depends(needs("review"))],
    service: Annotated[Service, Depends(service_of)],
) -> Json:
    """A person's verdict. It is a new entry of the journal; an earlier verdict of the same person gives way to it.

    The flood guard takes it as a look at the text's campaign: later decisions of the campaign with this label stand.
    """
    if body.innocent and body.label is not None:
        raise Problem(422, "a verdict is either a label or innocent; leave one out", code="two_verdicts", param="label")
    if body.actor not in (None, key.name) and not key.allows("admin"):
        message = "only an admin key may give a verdict for another person; leave actor out"
        raise Problem(403, message, code="missing_scope", param="actor")
    settled = await service.engine.decisions.journaled(
        lambda own: own.verdict(
            decision,
            actor=body.actor or key.name,
            label=body.label,
            innocent=body.innocent,
            note=body.note,
        )
    )
    return Json({"id": decision, "settled": settled})


def plain(one: Decision) -> dict[str, Any]:
    """A decision of the journal as JSON."""
    return {
        "id": one.id,
        "at": _moment(one.time),
        "actor": one.actor,
        "bank": one.bank,
        "bank_sequence": one.bank_sequence,
        "state": one.state,
        "label": one.label,
        "record": one.record,
        "history": [
            {
                "sequence": entry.sequence,
                "at": _moment(entry.time),
                "kind": entry.kind,
                "actor": entry.actor,
                "supersedes": entry.supersedes,
                **{key: value for key, value in entry.body.items() if key in _TOLD},
            }
            for entry in one.history
        ],
    }


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds")
