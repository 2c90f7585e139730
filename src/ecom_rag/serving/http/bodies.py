"""The requests of the API: fields, defaults, examples. An unknown field or a value of another type is refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from ecom_rag.serving.http.schema import STRICT

Output = Literal["dense", "sparse", "multivector"]
Route = Literal["bm25", "dense", "sparse", "multivector", "variant", "hybrid"]
Deadline = Annotated[
    int | None, Field(ge=1, le=600_000, description="Milliseconds after which the request is given up (504).")
]
BankName = Annotated[
    str | None, Field(max_length=64, description="Name of the bank; may be left out where there is one.")
]


class Strict(BaseModel):
    """A request that takes no unknown field and no value of another type."""

    model_config = STRICT


class EmbeddingsRequest(Strict):
    """Texts to encode: OpenAI's fields, and what bge-m3 gives beyond them."""

    input: Annotated[
        str | Annotated[list[str], Field(min_length=1)],
        Field(description="A text, or several.", examples=[["加微信私下转账便宜"]]),
    ]
    model: Annotated[str | None, Field(max_length=256, description="Name of the model, as /v1/models lists it.")] = None
    encoding_format: Annotated[
        Literal["float", "base64"], Field(description="Numbers as JSON, or as base64 of little-endian float32.")
    ] = "float"
    dimensions: Annotated[
        int | None, Field(ge=1, le=65_536, description="Keep only the first dimensions (Matryoshka models).")
    ] = None
    outputs: Annotated[
        list[Output], Field(min_length=1, max_length=3, description="What to compute, in one pass of the model.")
    ] = ["dense"]
    side: Annotated[Literal["query", "passage"], Field(description="Which instruction is put before each text.")] = (
        "passage"
    )
    truncate: Annotated[bool, Field(description="Cut texts that are too long; false refuses them (422).")] = True
    user: Annotated[str | None, Field(max_length=256, description="Ignored; OpenAI's clients may send it.")] = None
    deadline_ms: Deadline = None


class Document(Strict):
    """A document of a reranking, in Cohere's other form."""

    text: Annotated[str, Field(description="The text.")]


class RerankRequest(Strict):
    """A query and documents, in the form of Cohere and Jina."""

    query: Annotated[str, Field(description="What the documents are compared with.", examples=["减肥茶"])]
    documents: Annotated[
        list[str | Document],
        Field(min_length=1, description="The documents.", examples=[["七天瘦二十斤的神奇减肥茶", "真皮钱包"]]),
    ]
    model: Annotated[str | None, Field(max_length=256, description="Name of the model.")] = None
    top_n: Annotated[int | None, Field(ge=1, description="Results; by default all.")] = None
    return_documents: Annotated[bool, Field(description="Repeat each document in its result.")] = False
    normalize: Annotated[bool, Field(description="Relevance in 0..1; false gives the model's logits.")] = True
    truncate: Annotated[bool, Field(description="Cut pairs that are too long; false refuses them (422).")] = True
    max_tokens_per_doc: Annotated[
        int | None, Field(ge=1, description="Accepted for Cohere's clients; pairs are cut to the model's length.")
    ] = None
    deadline_ms: Deadline = None


class Record(Strict):
    """A text with its metadata."""

    text: Annotated[str, Field(description="The text of the listing or seed.", examples=["七天瘦二十斤的神奇减肥茶"])]
    metadata: Annotated[
        dict[str, Any],
        Field(description="Anything that belongs to it, e.g. its id and label.", examples=[{"id": "listing-17"}]),
    ] = {}


class RecallRequest(Strict):
    """Records to find seeds for; what is left out is as the service was started."""

    records: Annotated[list[Record], Field(min_length=1, description="The listings.")]
    bank: BankName = None
    routes: Annotated[
        list[Route] | None, Field(min_length=1, max_length=6, description="Some of the bank's routes.")
    ] = None
    fusion: Annotated[
        Literal["auto", "weighted", "rrf", "minmax", "zscore", "dbsf"] | None,
        Field(description="How the routes are joined; auto fits weights on the labels of the seeds."),
    ] = None
    weights: Annotated[dict[Route, float] | None, Field(description="Weight of each route.")] = None
    depth: Annotated[int | None, Field(ge=1, description="Candidates per route, and for the reranker.")] = None
    top_k: Annotated[int | None, Field(ge=1, description="Seeds per record.")] = None
    filter: Annotated[
        str | dict[str, Any] | None,
        Field(description="Condition on the seeds' metadata.", examples=['label in ("fraud", "medical")']),
    ] = None
    rerank: Annotated[bool | None, Field(description="Re-sort by the reranker; by default where there is one.")] = None
    normalize: Annotated[bool | None, Field(description="Relevance in 0..1 in place of logits.")] = None
    blend: Annotated[float | None, Field(ge=0, le=1, description="Share of the reranker in the order.")] = None
    exclude_self: Annotated[bool | None, Field(description="Leave out the seed that the record itself is.")] = None
    deadline_ms: Deadline = None


class DecideRequest(Strict):
    """Records to decide by the policy of a bank."""

    records: Annotated[list[Record], Field(min_length=1, description="The listings.")]
    bank: BankName = None
    deadline_ms: Deadline = None


class FeedbackRequest(Strict):
    """What a person says of a decision."""

    label: Annotated[str | None, Field(max_length=256, description="What the text is.", examples=["fraud"])] = None
    innocent: Annotated[bool, Field(description="Nothing is wrong with the text.")] = False
    note: Annotated[str, Field(max_length=4096, description="Why, for those who look at it later.")] = ""
    actor: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            pattern=r"^[^\x00-\x1f\x7f]+$",
            description="The person; by default the name of the key. Only admin keys may name one.",
        ),
    ] = None


class SeedsRequest(Strict):
    """Seeds to write."""

    records: Annotated[list[Record], Field(min_length=1, description="Seeds; each with its id in the metadata.")]


class SwapRequest(Strict):
    """The bank that takes the place."""

    path: Annotated[str, Field(min_length=1, max_length=4096, description="Folder on the machine of the service.")]
