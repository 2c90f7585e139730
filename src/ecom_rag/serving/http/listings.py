"""The answers about what is served: banks and their seeds, models, health; see ``answers``."""

from typing import Annotated, Literal

from pydantic import Field

from ecom_rag.serving.http.answers import Answer
from ecom_rag.serving.http.bodies import Record


class BankModel(Answer):
    """The encoder of a bank."""

    name: Annotated[str, Field(description="Name of the model.")]
    fingerprint: Annotated[str, Field(description="What tells its weights and settings from all others.")]


class Bank(Answer):
    """A bank that is served."""

    name: Annotated[str, Field(description="Name of the bank.", examples=["goods"])]
    routes: Annotated[list[str], Field(description="Ways to search it.", examples=[["bm25", "dense"]])]
    id_key: Annotated[str, Field(description="Metadata key of the seeds' ids.", examples=["id"])]
    label_key: Annotated[str | None, Field(description="Metadata key of the seeds' labels.", examples=["label"])]
    model: Annotated[BankModel | None, Field(description="Its encoder; null where no route needs one.")]
    policy: Annotated[str | None, Field(description="Fingerprint of its policy; null where nothing is decided.")]
    seeds: Annotated[int, Field(description="Seeds that searches see.")]
    sequence: Annotated[int, Field(description="Number of the last change that searches see.")]
    healthy: Annotated[bool, Field(description="Whether later changes can be read.")]


class BanksAnswer(Answer):
    """The banks that are served."""

    data: Annotated[list[Bank], Field(description="The banks in the order of the command line.")]


class SeedsAnswer(Answer):
    """Some seeds of a bank."""

    data: Annotated[list[Record], Field(description="The seeds in the order in which they were written.")]
    cursor: Annotated[int | None, Field(description="Where the next page begins; null at the end.")]


class ChangeAnswer(Answer):
    """A change of a bank that is on the disk, or what one would do."""

    sequence: Annotated[int, Field(description="Number of the bank's last change; the header ETag says it too.")]
    added: Annotated[int, Field(description="Seeds written; one that replaces another counts here and there.")]
    removed: Annotated[int, Field(description="Seeds removed or replaced.")]
    repeated: Annotated[bool, Field(description="Whether an earlier request with the same key did it.")]
    dry_run: Annotated[bool, Field(description="Whether nothing was changed.")]
    notes: Annotated[list[str], Field(description="What a person should know of the change.")]


class Model(Answer):
    """A model that is served."""

    id: Annotated[str, Field(description="Name of the model, as requests say it.")]
    object: Annotated[Literal["model"], Field(description="Always `model`.")]
    owned_by: Annotated[Literal["ecom_rag"], Field(description="Always `ecom_rag`.")]
    kind: Annotated[Literal["encoder", "reranker"], Field(description="What it does.")]
    outputs: Annotated[
        list[str] | None, Field(description="What an encoder gives.", examples=[["dense", "sparse"]])
    ] = None
    dimension: Annotated[int | None, Field(description="Length of an encoder's dense embeddings.")] = None
    max_length: Annotated[int, Field(description="Tokens that it reads of a text.", examples=[512])]
    precision: Annotated[str, Field(description="Numbers that it computes with.", examples=["bf16"])]
    fingerprint: Annotated[str, Field(description="What tells its weights and settings from all others.")]


class ModelsAnswer(Answer):
    """The models that are served."""

    object: Annotated[Literal["list"], Field(description="Always `list`.")]
    data: Annotated[list[Model], Field(description="The encoder, then the reranker.")]


class HealthAnswer(Answer):
    """The process is alive."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`.")]


class BankHealth(Answer):
    """How a bank is."""

    sequence: Annotated[int, Field(description="Number of the last change that searches see.")]
    seeds: Annotated[int, Field(description="Seeds that searches see.")]
    healthy: Annotated[bool, Field(description="Whether later changes can be read.")]


class ReadyAnswer(Answer):
    """Requests are served."""

    status: Annotated[Literal["ready"], Field(description="Always `ready`.")]
    banks: Annotated[dict[str, BankHealth], Field(description="How each bank is, by its name.")]
