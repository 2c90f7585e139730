"""The options of a Ray cluster."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ecom_rag.distribution.ray_actors import RayActors

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", help="Ray cluster that does the work: HOST:PORT, or auto for this machine's.", show_default="none"
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Workers on the Ray cluster.", min=1, show_default="one per CPU or GPU")
]
Shards = Annotated[
    int | None,
    typer.Option(
        help="Parts of the bank, each held by a process of the Ray cluster.",
        min=2,
        show_default="each worker opens it whole",
    ),
]


@contextlib.contextmanager
def on_ray(address: str | None, count: int | None, shards: int | None = None) -> "Iterator[RayActors | None]":
    """The workers of a Ray cluster for the length of a run; ``None`` where there is no address."""
    if address is None:
        yield None
        return
    from ecom_rag.distribution.ray_actors import RayActors

    with contextlib.closing(RayActors(address, workers=count, shards=shards)) as workers:
        yield workers
