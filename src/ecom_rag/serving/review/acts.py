"""What a person does on the page: forms that write to the journal and send the browser on."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

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


def add_acts(router: APIRouter, review: Review) -> None:
    """Add the forms.

    Args:
        router: Gets them.
        review: What they write to.
    """

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
        form = Answer(decision, lease, note.strip(), label, other.strip(), do)
        return _answered(review, request, review.person(request), form)

    @router.post("/undo")
    async def undo(request: Request, back: Field = "") -> Response:
        actor = review.person(request)
        return await _undo(review, request, actor, "/review/history" if back == "history" else "/review")


def add_moves(router: APIRouter, review: Review, is_last: Callable[[str, str], bool]) -> None:
    """Add the forms by which a person gets another item, or gives one back.

    Args:
        router: Gets them.
        review: Whose journal has the items.
        is_last: Whether a view of a lease is the latest.
    """
    journal = review.journal

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


class Answer(NamedTuple):
    """The form of the open item; ``do`` says which button, but for those of labels."""

    decision: str
    lease: str
    note: str
    label: str
    other: str
    do: str


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


def _answered(review: Review, request: Request, actor: str, form: Answer) -> Response:
    """Write what a person says of the open item."""
    check_open(review, form.decision, actor, form.lease)
    if form.do == "enter":  # in a field: which one is known by what is in it
        form = form._replace(do="other" if form.other else "note")
    if form.do in ("skip", "escalate", "release", "note"):
        return _leave(review, request, actor, form)
    name = form.other if form.do == "other" else form.label
    labels = review.labels(review.journal.get(form.decision).bank)
    if form.do != "innocent" and name not in labels.names:
        return go(request, said="label", of=form.decision)
    label, innocent = meant(labels, name, innocent=form.do == "innocent")
    said: dict[str, Any] = {"label": label, "innocent": innocent, "note": form.note}
    settled = review.journal.verdict(form.decision, actor=actor, lease=form.lease, **said)
    if overview.second_pair(review.journal, form.decision, actor) is not None:
        return go(request, said="second", of=form.decision)
    return go(request, said="verdict", of=form.decision, label=label or INNOCENT, settled=settled or None)


def _leave(review: Review, request: Request, actor: str, form: Answer) -> Response:
    """Skip, escalate, put back, or write a note, which keeps the item open."""
    journal = review.journal
    if form.do == "note":
        if not form.note:
            return go(request, said="empty_note")
        journal.note(form.decision, actor=actor, note=form.note)
    elif form.do == "skip":
        journal.skip(form.decision, actor=actor, lease=form.lease)
    elif form.do == "escalate":
        journal.escalate(form.decision, actor=actor, note=form.note, lease=form.lease)
    else:
        journal.release(form.decision, actor=actor, lease=form.lease)
    return go(request, said=form.do, of=form.decision)


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
