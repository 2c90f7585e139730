"""``/v1/banks``: what is served, its seeds, changes of them, and the swap of a whole bank."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query

from ecom_rag.seeds.bank import Change
from ecom_rag.serving.http import bodies
from ecom_rag.serving.http.body import Route
from ecom_rag.serving.http.guard import needs
from ecom_rag.serving.http.recall import records_of
from ecom_rag.serving.http.schema import RESPONSES, Json
from ecom_rag.serving.http.service import Service, service_of
from ecom_rag.serving.keys import Key
from ecom_rag.serving.problems import Problem

router = APIRouter(route_class=Route, tags=["banks"], responses=RESPONSES)

Bank = Annotated[str, Path(max_length=64, description="Name of the bank.")]
SeedId = Annotated[str, Path(max_length=512, description="Id of the seed.")]
Served = Annotated[Service, Depends(service_of)]
IfMatch = Annotated[
    str | None,
    Header(max_length=32, description="Sequence that the bank must be at, else 412 and nothing is written."),
]
IdempotencyKey = Annotated[
    str | None, Header(max_length=255, description="The same key with the same request writes once; kept for 24 hours.")
]
Filter = Annotated[str | None, Query(max_length=4096, description="Condition on the metadata of the seeds.")]


@router.get("/v1/banks", summary="List the banks", response_class=Json, dependencies=[Depends(needs("read"))])
async def banks(service: Served) -> Json:
    """Name, routes, model, seeds and sequence of each bank, and whether it is well."""
    return Json({"data": [_bank(service, name) for name in service.engine.banks.names()]})


@router.get("/v1/banks/{bank}/seeds", summary="List seeds", response_class=Json, dependencies=[Depends(needs("read"))])
async def seeds(
    bank: Bank,
    service: Served,
    filter: Filter = None,
    cursor: Annotated[int, Query(ge=0, description="Where the page before ended.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Seeds per page.")] = 100,
) -> Json:
    """Seeds in the order in which they were written."""
    page = await service.engine.stores.page(service.bank(bank), filter, after=cursor, limit=limit)
    return Json({"data": page.records, "cursor": page.after})


@router.get(
    "/v1/banks/{bank}/seeds/{seed}", summary="One seed", response_class=Json, dependencies=[Depends(needs("read"))]
)
async def seed(bank: Bank, seed: SeedId, service: Served) -> Json:
    """The seed of an id."""
    found = await service.engine.stores.seed(service.bank(bank), seed)
    if found is None:
        raise Problem(404, "the bank has no seed of this id", code="no_seed", param="seed")
    return Json(found)


@router.put("/v1/banks/{bank}/seeds", summary="Write seeds, all or none", response_class=Json)
async def upsert(
    bank: Bank,
    body: bodies.SeedsRequest,
    key: Annotated[Key, Depends(needs("write"))],
    service: Served,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Json:
    """A seed whose id exists takes the place of the old one. What is answered is on the disk, and searches see it."""
    name = service.bank(bank)
    items = records_of(service, body.records, most=service.limits.seeds)
    change = await service.engine.stores.upsert(
        name, items, expected_sequence=_sequence(if_match), key=_own(key, idempotency_key)
    )
    return _changed(change)


@router.delete("/v1/banks/{bank}/seeds/{seed}", summary="Remove one seed", response_class=Json)
async def remove(
    bank: Bank,
    seed: SeedId,
    key: Annotated[Key, Depends(needs("write"))],
    service: Served,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Json:
    """Remove the seed of an id; one that is not there is no error, ``removed`` is 0 then."""
    return _changed(
        await service.engine.stores.delete(
            service.bank(bank),
            dry_run=False,
            ids=[seed],
            expected_sequence=_sequence(if_match),
            key=_own(key, idempotency_key),
        )
    )


@router.delete("/v1/banks/{bank}/seeds", summary="Remove the seeds that meet a filter", response_class=Json)
async def remove_matching(
    bank: Bank,
    key: Annotated[Key, Depends(needs("write"))],
    service: Served,
    filter: Annotated[str, Query(min_length=1, max_length=4096, description="Condition on the metadata.")],
    dry_run: Annotated[bool, Query(description="Only say how many would be removed.", strict=False)] = True,
    allow_most: Annotated[
        bool, Query(description="Allow a filter that removes more than half of the seeds.", strict=False)
    ] = False,
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Json:
    """Nothing is removed until ``dry_run=false`` says so."""
    name = service.bank(bank)
    if dry_run:
        return _changed(await service.engine.stores.delete(name, dry_run=True, filter=filter), dry_run=True)
    return _changed(
        await service.engine.stores.delete(
            name,
            dry_run=False,
            filter=filter,
            allow_most=allow_most,
            expected_sequence=_sequence(if_match),
            key=_own(key, idempotency_key),
        )
    )


@router.post(
    "/v1/admin/banks/{bank}:swap",
    summary="Let another bank take a bank's place",
    response_class=Json,
    dependencies=[Depends(needs("admin"))],
)
async def swap(bank: Bank, body: bodies.SwapRequest, service: Served) -> Json:
    """The new bank is opened, checked and searched once before it takes the place; no request fails meanwhile."""
    name = service.bank(bank)
    await service.engine.stores.swap(name, body.path)
    return Json(_bank(service, name))


def _bank(service: Service, name: str) -> dict[str, Any]:
    health = service.engine.banks.health()[name]
    with service.engine.banks.lease(name) as bank:
        model = None if bank.model is None else {"name": bank.model.path, "fingerprint": bank.model.fingerprint}
        routes, id_key, label_key = bank.routes, bank.id_key, bank.label_key
    policy = service.engine.policies.get(name)
    return {
        "name": name,
        "routes": list(routes),
        "id_key": id_key,
        "label_key": label_key,
        "model": model,
        "policy": None if policy is None else policy.fingerprint,
        "seeds": health.documents,
        "sequence": health.sequence,
        "healthy": health.error is None,
    }


def _changed(change: Change, *, dry_run: bool = False) -> Json:
    answer = {
        "sequence": change.sequence,
        "added": change.added,
        "removed": change.removed,
        "repeated": change.repeated,
        "dry_run": dry_run,
        "notes": change.notes,
    }
    return Json(answer, headers={"ETag": f'"{change.sequence}"'})


def _sequence(if_match: str | None) -> int | None:
    """The sequence that a header names, with or without the quotes of an ETag."""
    if if_match is None:
        return None
    text = if_match.strip().strip('"')
    if not (text.isascii() and text.isdigit()):
        raise Problem(
            422, "If-Match is not the sequence of a bank, a whole number", code="no_sequence", param="If-Match"
        )
    return int(text)


def _own(key: Key, idempotency_key: str | None) -> str | None:
    """The key of one client's request; clients do not know of each other."""
    return None if idempotency_key is None else f"{key.name}:{idempotency_key}"[-255:]
