"""What was done, and exports."""

import datetime
from collections.abc import Iterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ecom_rag.errors import UsageError
from ecom_rag.files.json_text import dumps
from ecom_rag.serving.journal import overview
from ecom_rag.serving.journal.overview import Done
from ecom_rag.serving.review.acts import snippet, told
from ecom_rag.serving.review.languages import Chosen, chosen_of
from ecom_rag.serving.review.pages import render
from ecom_rag.serving.review.review import Review

KINDS = ("verdicts", "training", "decided")
_PAGE = 50


def add_history(router: APIRouter, review: Review) -> None:
    """Add the pages.

    Args:
        router: Gets them.
        review: Whose journal they show.
    """

    @router.get("/history")
    def history(request: Request) -> Response:
        actor = review.person(request)
        mine = request.query_params.get("mine") == "1"
        before = request.query_params.get("before", "")
        place = int(before) if before.isdigit() and len(before) < 19 else None
        found = overview.done(review.journal, actor if mine else None, limit=_PAGE + 1, before=place)
        chosen = chosen_of(request)
        rows = [(one, _told(chosen, one, actor), _text(review, one.entry.decision)) for one in found[:_PAGE]]
        more = found[_PAGE - 1].entry.sequence if len(found) > _PAGE else None
        said, what = request.query_params.get("said"), request.query_params.get("what", "")
        notice = chosen.say("said_undo", what=what) if said == "undo" else None
        notice = chosen.say("said_nothing_to_undo") if said == "nothing_to_undo" else notice
        return render(request, "history.html", actor, rows=rows, more=more, mine=mine, notice=notice, time=_time)

    @router.get("/export")
    def export(request: Request, kind: str | None = None, bank: str | None = None) -> Response:
        actor = review.person(request)
        if kind is None:
            return render(request, "export.html", actor, kinds=KINDS, banks=review.banks())
        key = review.label_key if bank is None else review.label_key_of(bank)
        records = review.journal.export(kind, label_key=key, bank=bank)
        lines: Iterator[bytes] = (dumps(record) + b"\n" for record in records)
        name = {"Content-Disposition": f'attachment; filename="{kind}.jsonl"'}
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=name)


def _told(chosen: Chosen, one: Done, actor: str) -> str:
    """What was done, but for what would tell somebody what to say on a second look."""
    return chosen.say("act_hidden") if one.blind and one.entry.actor != actor else told(chosen, one.entry)


def _text(review: Review, decision: str) -> str:
    try:
        return snippet(str(review.journal.get(decision).record["text"]))
    except UsageError:
        return ""


def _time(microseconds: int) -> str:

    return f"{datetime.datetime.fromtimestamp(microseconds / 1e6, datetime.UTC):%Y-%m-%d %H:%M:%S}"
