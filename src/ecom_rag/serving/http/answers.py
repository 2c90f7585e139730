"""The answers of the API, for /openapi.json and those who read it; they are written as plain values, not through these.

A test holds every answer of a running service against them, see ``tests/serving/test_openapi.py``.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """An answer with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Usage(Answer):
    """What a request cost."""

    prompt_tokens: Annotated[int, Field(description="Tokens that the model read.", examples=[14])]
    total_tokens: Annotated[int, Field(description="The same number; OpenAI's clients expect both.", examples=[14])]


class Sparse(Answer):
    """A sparse embedding, as vector stores take it."""

    indices: Annotated[list[int], Field(description="Token ids, ascending.", examples=[[61, 724]])]
    values: Annotated[list[float], Field(description="Weight of each token id.", examples=[[0.31, 0.12]])]


class MultiVector(Answer):
    """One vector per token."""

    shape: Annotated[list[int], Field(description="Number of tokens and of dimensions.", examples=[[2, 3]])]
    values: Annotated[
        list[list[float]] | str,
        Field(description="One list per token, or all numbers as base64 of little-endian float32."),
    ]


class Embedding(Answer):
    """One text as the model reads it; only the outputs that were asked for are there."""

    object: Annotated[Literal["embedding"], Field(description="Always `embedding`.")]
    index: Annotated[int, Field(description="Place of the text in the request, from 0.")]
    truncated: Annotated[bool, Field(description="Whether the model read only the beginning of the text.")]
    embedding: Annotated[
        list[float] | str,
        Field(description="Dense embedding of length 1: numbers, or base64 of little-endian float32."),
    ] = []
    sparse: Annotated[Sparse | None, Field(description="Sparse embedding.")] = None
    multivector: Annotated[MultiVector | None, Field(description="One vector per token.")] = None


class EmbeddingsAnswer(Answer):
    """Embeddings in the order of the texts."""

    object: Annotated[Literal["list"], Field(description="Always `list`.")]
    model: Annotated[str, Field(description="Name of the model.")]
    data: Annotated[list[Embedding], Field(description="One embedding per text.")]
    usage: Annotated[Usage, Field(description="Tokens of all texts.")]


class RerankDocument(Answer):
    """A document of the request."""

    text: Annotated[str, Field(description="The text as it was sent.")]


class RerankResult(Answer):
    """How relevant one document is."""

    index: Annotated[int, Field(description="Place of the document in the request, from 0.", examples=[1])]
    relevance_score: Annotated[
        float, Field(description="Relevance in 0..1, or a logit; higher is more relevant.", examples=[0.93])
    ]
    truncated: Annotated[bool, Field(description="Whether the model read only part of the query or document.")]
    document: Annotated[RerankDocument | None, Field(description="The document, with return_documents only.")] = None


class RerankMeta(Answer):
    """What Cohere's clients read of an answer beside the results."""

    api_version: Annotated[dict[str, str], Field(description="Version of Cohere's API that the answer has.")]
    billed_units: Annotated[dict[str, int], Field(description="One search unit; nothing is billed.")]
    tokens: Annotated[dict[str, int], Field(description="Tokens that the model read.")]


class RerankAnswer(Answer):
    """Documents, the most relevant first."""

    id: Annotated[str, Field(description="Id of this answer.")]
    model: Annotated[str, Field(description="Name of the model.")]
    results: Annotated[list[RerankResult], Field(description="The documents in the order of their relevance.")]
    meta: Annotated[RerankMeta, Field(description="Version and tokens, for Cohere's clients.")]
    usage: Annotated[Usage, Field(description="Tokens of all pairs, for Jina's clients.")]


class BankState(Answer):
    """The state of a bank that an answer is from."""

    name: Annotated[str, Field(description="Name of the bank.", examples=["goods"])]
    id: Annotated[str | None, Field(description="What tells this bank from all others, whatever its name.")]
    sequence: Annotated[int, Field(description="Number of its last change.", examples=[17])]


class Hit(Answer):
    """What one route says of a seed."""

    rank: Annotated[int, Field(description="Place among the results of this route, from 1.", examples=[1])]
    score: Annotated[float, Field(description="Score by this route alone; higher is more similar.", examples=[0.82])]


class RecallResult(Answer):
    """A record with the seeds most similar to it; the lists have one entry per seed, the most similar first."""

    text: Annotated[str, Field(description="The text as it was sent.")]
    metadata: Annotated[dict[str, Any], Field(description="The metadata as they were sent.")]
    topk_sim: Annotated[list[float], Field(description="Score of each seed; higher is more similar.")]
    topk_seed: Annotated[list[str], Field(description="Text of each seed.")]
    topk_metadata: Annotated[list[dict[str, Any]], Field(description="Metadata of each seed.")]
    topk_evidence: Annotated[
        list[dict[str, Hit]],
        Field(description="The routes that found each seed, by name; left out where a single route searched."),
    ] = []


class RecallAnswer(Answer):
    """What was found for each record, all from one state of the bank."""

    bank: Annotated[BankState, Field(description="The state of the bank that was searched.")]
    results: Annotated[list[RecallResult], Field(description="One result per record, in their order.")]
    truncated: Annotated[list[int], Field(description="Places of the records that the encoder read in part only.")]
    usage: Annotated[Usage, Field(description="Tokens that the encoder read.")]
    milliseconds: Annotated[dict[str, float], Field(description="Time of each stage, waiting included.")]
    notes: Annotated[list[str], Field(description="What is odd about the request: a filter that no seed meets.")]


class SeedVote(Answer):
    """A seed that speaks for a decision, or against it."""

    seed: Annotated[str | int | None, Field(description="Id of the seed.")]
    label: Annotated[str, Field(description="Label of the seed.")]
    share: Annotated[float, Field(description="Its share of the vote; all shares add up to 1.")]
    routes: Annotated[dict[str, int], Field(description="Its rank by each route that found it.")]


class Decided(Answer):
    """What the policy decides of a record, and why."""

    id: Annotated[str, Field(description="Name of the decision, for feedback.", examples=["dec_9ff3a67363da40f197db"])]
    action: Annotated[
        Literal["label", "innocent", "review"],
        Field(description="The label holds, nothing is wrong, or a person must look."),
    ]
    label: Annotated[str | None, Field(description="The most probable label; null where no seed is similar.")]
    probability: Annotated[float | None, Field(description="Probability of that label.")]
    threshold: Annotated[float | None, Field(description="Probability from which on the label is decided.")]
    reason: Annotated[
        str | None, Field(description="Why a person must look; null where nobody must.", examples=["below_threshold"])
    ]
    guarantee: Annotated[str | None, Field(description="What the policy promises of such decisions.")]
    campaign: Annotated[str | None, Field(description="Id that near-duplicates of the text share.")]
    probabilities: Annotated[dict[str, float], Field(description="Probability of each label.")]
    because: Annotated[list[SeedVote], Field(description="Seeds that speak for the label.")]
    against: Annotated[list[SeedVote], Field(description="Seeds that speak against it.")]
    policy: Annotated[str, Field(description="Fingerprint of the policy.")]


class DecideResult(RecallResult):
    """A record with what was found for it, and what the policy decides."""

    decision: Annotated[Decided, Field(description="What the policy decides.")]


class DecideAnswer(Answer):
    """Decisions in the order of the records; all of them are on the disk."""

    bank: Annotated[BankState, Field(description="The state of the bank that was searched.")]
    results: Annotated[list[DecideResult], Field(description="One result per record, in their order.")]
    truncated: Annotated[list[int], Field(description="Places of the records that the encoder read in part only.")]
    usage: Annotated[Usage, Field(description="Tokens that the encoder read.")]
    milliseconds: Annotated[dict[str, float], Field(description="Time of each stage, waiting included.")]
    notes: Annotated[list[str], Field(description="What is odd about the request: a filter that no seed meets.")]


class Act(Answer):
    """Something that a person did about a decision."""

    sequence: Annotated[int, Field(description="Number of the entry in the journal.")]
    at: Annotated[str, Field(description="When, in UTC.", examples=["2026-11-29T14:05:10.482+00:00"])]
    kind: Annotated[str, Field(description="What was done.", examples=["verdict"])]
    actor: Annotated[str, Field(description="Who did it.")]
    supersedes: Annotated[int | None, Field(description="Number of the entry that this one replaces or takes back.")]
    label: Annotated[str | None, Field(description="Label of a verdict.")] = None
    innocent: Annotated[bool, Field(description="Whether the verdict is that nothing is wrong.")] = False
    note: Annotated[str, Field(description="Why.")] = ""
    bank: Annotated[str | None, Field(description="Bank that the text was added to.")] = None
    seed_id: Annotated[str | None, Field(description="Id that the text has there.")] = None


class Journaled(Answer):
    """A decision of the journal."""

    id: Annotated[str, Field(description="Name of the decision.")]
    at: Annotated[str, Field(description="When it was made, in UTC.", examples=["2026-11-29T14:05:10.482+00:00"])]
    actor: Annotated[str, Field(description="Name of the key that asked for it.")]
    bank: Annotated[str, Field(description="Name of the bank.")]
    bank_sequence: Annotated[int, Field(description="Number of the bank's last change when it was made.")]
    state: Annotated[
        Literal["automatic", "waiting", "answered", "escalated", "settled"],
        Field(description="Whether a person must look, or has; settled by a verdict on another text of its flood."),
    ]
    label: Annotated[str | None, Field(description="Label of the verdict that stands; null where there is none.")]
    record: Annotated[dict[str, Any], Field(description="The record with its results and decision.")]
    history: Annotated[list[Act], Field(description="What people did about it, the earliest first; empty in lists.")]


class DecisionsAnswer(Answer):
    """Part of the decisions, the newest first."""

    data: Annotated[list[Journaled], Field(description="The decisions.")]
    cursor: Annotated[str | None, Field(description="Where the next page begins; null at the end.")]


class FeedbackAnswer(Answer):
    """A verdict that is in the journal."""

    id: Annotated[str, Field(description="Name of the decision.")]
    settled: Annotated[int, Field(description="Waiting texts of the same flood that the verdict settles too.")]
