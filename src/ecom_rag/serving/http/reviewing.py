"""What the review page needs, from the parts of the service that have it."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from starlette.requests import Request

from ecom_rag.files.identity import known_id
from ecom_rag.files.records import Record
from ecom_rag.files.results import EVIDENCE
from ecom_rag.seeds.bank import stats
from ecom_rag.serving.banks import Banks
from ecom_rag.serving.http.service import Service
from ecom_rag.serving.http.sessions import Sessions
from ecom_rag.serving.keys import Key
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.review import Labels, Review, Similar

_ALIKE = 0.97  # cosine from which a seed says nearly the same
_LOOKED_AT = 5  # seeds


def review_of(service: Service, sessions: Sessions | None) -> Review | None:
    """The page's view of a service; ``None`` where nothing is decided, so that there is nothing to review.

    Args:
        service: Of the page.
        sessions: Of browsers; ``None`` where there are no keys.
    """
    engine = service.engine
    journal = engine.decisions.journal
    if journal is None:
        return None

    def login(request: Request, token: str) -> str:
        cookie = None if sessions is None else sessions.log_in(token, secure=request.url.scheme == "https")
        if cookie is None:
            raise Problem(401, "the key is unknown, revoked or expired", code="invalid_key")
        return cookie

    async def similar(bank: str, text: str) -> Sequence[Similar]:
        hits = await engine.waiting_listings.nearest(bank, text)
        return [Similar(hit.text, hit.similarity, hit.decision) for hit in hits]

    async def duplicates(bank: str, text: str) -> Sequence[Record]:
        asked = engine.asked(bank, {"top_k": _LOOKED_AT}, rerank=False)
        found = (await engine.recall(asked, [{"text": text, "metadata": {}}])).results[0]
        return _nearly(text, found)

    async def add(bank: str, record: Mapping[str, Any], actor: str) -> str:
        with engine.banks.lease(bank) as own:
            id_key = own.id_key
        name = known_id(record["metadata"], id_key)
        if name is None:
            raise Problem(422, "the seed needs an id", code="no_id", param="seed_id")
        if await engine.stores.seed(bank, name) is not None:
            raise Problem(409, "the bank has a seed of this id already; choose another id", code="id_taken")
        await engine.stores.upsert(bank, [dict(record)])
        return name

    async def remove(bank: str, seed: str, actor: str) -> None:
        await engine.stores.delete(bank, dry_run=False, ids=[seed])

    return Review(
        journal=journal,
        actor_of=_actor,
        login=login,
        logout=lambda request: Sessions.log_out(secure=request.url.scheme == "https"),
        banks=engine.banks.names,
        labels=lambda bank: _labels(service, bank),
        policy=engine.policies.get,
        similar_waiting=similar,
        duplicates=duplicates,
        add_seed=add,
        remove_seed=remove,
        lease_seconds=service.settings.lease_seconds,
    )


def _actor(request: Request) -> str | None:
    """Who may review; ``None`` for nobody."""
    key: Key | None = getattr(request.state, "key", None)
    return key.name if key is not None and key.allows("review") else None


def _labels(service: Service, bank: str) -> Labels:
    """The labels that a policy knows, the most frequent of the bank first."""
    policy = service.engine.policies.get(bank)
    counted = list(_counts(service.engine.banks, bank, service.engine.banks.health()[bank].sequence))
    known = [] if policy is None else list(policy.classes)
    names = [name for name in counted if not known or name in known] + [name for name in known if name not in counted]
    return Labels(names, () if policy is None else policy.innocent)


@lru_cache(maxsize=64)
def _counts(banks: Banks, bank: str, sequence: int) -> tuple[str, ...]:
    """The labels of a bank at one change, the most frequent first."""
    with banks.lease(bank) as own:
        return tuple(stats(own)["labels"])


def _nearly(text: str, found: Record) -> list[Record]:
    """The seeds of a result that say nearly the same as a text."""
    alike = []
    for place, (seed, metadata) in enumerate(zip(found["topk_seed"], found["topk_metadata"], strict=True)):
        evidence = found.get(EVIDENCE)
        score = found["topk_sim"][place] if evidence is None else evidence[place].get("dense", {}).get("score", 0.0)
        if seed == text or score >= _ALIKE:
            alike.append({"text": seed, "metadata": metadata})
    return alike
