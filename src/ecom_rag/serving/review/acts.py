"""What a person does on the page: forms that write to the journal and send the browser on."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ecom_rag.errors import EcomRagError, UsageError
from ecom_rag.serving.journal import INNOCENT, Entry, LeaseLost, NothingToUndo, overview
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.review.hidden import visible
from ecom_rag.serving.review.languages import Chosen, chosen_of
from ecom_rag.serving.review.pages import go
from ecom_rag.serving.review.review import Labels, Review

_SHOWN = 60  # characters of a text in a list
Field = Annotated[str, Form()]


def add_acts(router: APIRouter, review: Review, is_last: Callable[[str, str], bool]) -> None:
    """Add the forms.

    Args:
        router: Gets them.
        review: What they write to.
        is_last: Whether a view of a lease is the latest.
    """
    journal = review.journal

    @router.post("/answer")
    def answer(
        request: Request,
        decision: Field,
        lease: Field,
        note: Field = "",
        label: Field = "",
        other: Field = "",
        do: Field = "",
    ) -> Response:
        actor, other, note = review.person(request), other.strip(), note.strip()
        check_open(review, decision, actor, lease)
        if do == "enter":
            do = "other" if other else "note"
        if do in ("skip", "escalate", "release", "note"):
            return _leave(review, request, do, decision, actor, lease, note)
        name = other if do == "other" else label
        labels = review.labels(journal.get(decision).bank)
        if do != "innocent" and name not in labels.names:
            return go(request, said="label", of=decision)
        given, innocent = meant(labels, name, innocent=do == "innocent")
        settled = journal.verdict(decision, actor=actor, label=given, innocent=innocent, note=note, lease=lease)
        if overview.second_pair(journal, decision, actor) is not None:
            return go(request, said="second", of=decision)
        return go(request, said="verdict", of=decision, label=given or INNOCENT, settled=settled or None)

    @router.post("/open")
    def take(request: Request, decision: Field) -> Response:
        actor = review.person(request)
        if decision in [held for held, _ in journal.held(actor)]:
            return go(request)
        item = overview.take(journal, decision, actor=actor, lease_seconds=review.lease_seconds)
        put_back(review, actor, but=item.id)
        return go(request)

    @router.post("/filter")
    def narrow(request: Request, filter: Field = "", queue: Field = "review", clear: Field = "") -> Response:
        put_back(review, review.person(request))
        return go(request, filter=None if clear else filter.strip(), queue=None if queue == "review" else queue)

    @router.post("/leave", status_code=204)
    def leave(request: Request, decision: Field, lease: Field, view: Field) -> Response:
        """A page that is closed gives its item back."""
        actor = review.person(request)
        if is_last(lease, view) and (decision, lease) in journal.held(actor):
            journal.release(decision, actor=actor, lease=lease)
        return Response(status_code=204)

    @router.post("/undo")
    async def undo(request: Request, back: Field = "") -> Response:
        actor = review.person(request)
        return await _undo(review, request, actor, "/review/history" if back == "history" else "/review")


def check_open(review: Review, decision: str, actor: str, lease: str) -> None:
    """Raise ``LeaseLost`` unless a person still has an item open: what comes late is not written."""
    if (decision, lease) not in review.journal.held(actor):
        raise LeaseLost(f"decision {decision[:40]!r}: is no longer open for {actor}; take the next item")


def meant(labels: Labels, name: str, *, innocent: bool) -> tuple[str | None, bool]:
    """Label of a verdict and whether it says innocent."""
    if innocent:
        return next(iter(labels.innocent), None), True
    return name, name in labels.innocent


def put_back(review: Review, actor: str, *, but: str | None = None) -> None:
    """Give back what a person has open, but for one item."""
    for decision, lease in review.journal.held(actor):
        if decision != but:
            review.journal.release(decision, actor=actor, lease=lease)


def snippet(text: str) -> str:
    """The beginning of a text, for lists."""
    shown = visible(text[: 2 * _SHOWN])
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"


def told(chosen: Chosen, entry: Entry) -> str:
    """What was done, in words."""
    body = entry.body
    sentence = chosen.say(
        f"act_{entry.kind}",
        label=visible(str(body.get("label", ""))),
        seed=visible(str(body.get("seed_id", ""))),
        bank=visible(str(body.get("bank", ""))),
    )
    note = visible(str(body.get("note", "")))
    return f"{sentence} ({note})" if note else sentence


def _leave(review: Review, request: Request, do: str, decision: str, actor: str, lease: str, note: str) -> Response:
    """Skip, escalate, put back, or write a note, which keeps the item open."""
    if do == "note":
        if not note:
            return go(request, said="empty_note")
        review.journal.note(decision, actor=actor, note=note)
    elif do == "skip":
        review.journal.skip(decision, actor=actor, lease=lease)
    elif do == "escalate":
        review.journal.escalate(decision, actor=actor, note=note, lease=lease)
    else:
        review.journal.release(decision, actor=actor, lease=lease)
    return go(request, said=do, of=decision)


async def _undo(review: Review, request: Request, actor: str, back: str) -> Response:
    """Take back the last action; an added seed leaves its bank first, so that a failure can be tried again."""
    journal = review.journal
    done = await run_in_threadpool(overview.done, journal, actor, limit=20)
    last = next((one.entry for one in done if not one.undone), None)
    if last is None:
        return go(request, back, said="nothing_to_undo")
    try:
        if last.kind == "seed_added":
            await review.remove_seed(last.body["bank"], last.body["seed_id"], actor)
        gone = await run_in_threadpool(journal.undo, actor)
    except NothingToUndo:
        return go(request, back, said="nothing_to_undo")
    except (Problem, EcomRagError) as error:
        return go(request, back, said="failed", why=str(error))
    if gone.kind in ("verdict", "skip", "escalate"):
        await run_in_threadpool(_again, review, gone.decision, actor)
    return go(request, back, said="undo", of=gone.decision, what=told(chosen_of(request), gone))


def _again(review: Review, decision: str, actor: str) -> None:
    """Open the item of an action that was taken back, where it waits."""
    try:
        item = overview.take(review.journal, decision, actor=actor, lease_seconds=review.lease_seconds)
    except UsageError:
        return
    put_back(review, actor, but=item.id)
