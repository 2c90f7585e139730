"""Adding a text to a bank as a seed: first a page that shows what it would do, then the write."""

from typing import Annotated, Any

from fastapi import APIRouter, Form
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ecom_rag.errors import EcomRagError
from ecom_rag.files.digest import of_texts
from ecom_rag.files.keys import parse_key
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.review.acts import check_open, meant
from ecom_rag.serving.review.looks import label_in
from ecom_rag.serving.review.pages import go, render, with_query
from ecom_rag.serving.review.review import Review

Field = Annotated[str, Form()]


def add_seeds(router: APIRouter, review: Review) -> None:
    """Add the pages.

    Args:
        router: Gets them.
        review: What they show, and what adds the seed.
    """
    journal = review.journal

    @router.get("/seed")
    async def confirm(request: Request, decision: str, lease: str = "") -> Response:
        actor = review.person(request)
        found = await run_in_threadpool(journal.get, decision)
        text, bank = found.record["text"], found.bank
        hits = [one for one in await review.similar_waiting(bank, text) if one.decision_id != decision]
        return render(
            request,
            "seed.html",
            actor,
            decision=decision,
            lease=lease,
            bank=bank,
            text_of_seed=text,
            hits=hits,
            duplicates=await review.duplicates(bank, text),
            labels=review.labels(bank).names,
            suggested=found.record["decision"].get("label"),
            seed_id=f"review-{of_texts([text])[:10]}",
            id_key=review.id_key,
            label_of=lambda metadata: label_in(metadata, review.label_key_of(bank)),
            link=lambda path="", **query: with_query(request, f"/review{path}", **query),
        )

    @router.post("/seed")
    async def write(
        request: Request, decision: Field, lease: Field, label: Field, seed_id: Field, answer: Field = ""
    ) -> Response:
        actor = review.person(request)
        found = await run_in_threadpool(journal.get, decision)
        labels = review.labels(found.bank)
        if label not in labels.names:
            return go(request, said="label", of=decision)
        if answer:
            await run_in_threadpool(check_open, review, decision, actor, lease)
        record = {"text": found.record["text"], "metadata": _metadata(review, found.bank, label, seed_id.strip())}
        try:
            seed = await _add(review, found.bank, record, actor, decision)
        except (Problem, EcomRagError) as error:
            return go(request, said="failed", why=str(error))
        if answer:
            name, innocent = meant(labels, label, innocent=False)
            await run_in_threadpool(
                lambda: journal.verdict(decision, actor=actor, label=name, innocent=innocent, lease=lease)
            )
        return go(request, said="seed", of=decision, seed=seed, bank=found.bank)


async def _add(review: Review, bank: str, record: dict[str, Any], actor: str, decision: str) -> str:
    """Add the seed and note it; where the note fails, the seed is taken out again."""
    seed = await review.add_seed(bank, record, actor)
    try:
        await run_in_threadpool(lambda: review.journal.seed_added(decision, actor=actor, bank=bank, seed_id=seed))
    except BaseException:
        await review.remove_seed(bank, seed, actor)
        raise
    return seed


def _metadata(review: Review, bank: str, label: str, seed_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {review.id_key: seed_id} if seed_id else {}
    *parents, last = parse_key(review.label_key_of(bank), what="label_key")
    place = found
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = label
    return found
