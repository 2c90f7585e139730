"""Texts and pairs as a model reads them: token ids with special tokens, cut to its length, each distinct one once."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import UsageError
from ecom_rag.models.checkpoints.tokens import Layout, Tokenizer
from ecom_rag.models.embeddings import Ragged
from ecom_rag.models.instructions import split

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class TokenIds:
    """What ``prepare`` of an ``Encoder`` or a ``CrossEncoder`` gives and ``run`` of the same model takes: ``n`` items.

    Args:
        model: Fingerprint of the model.
        ids: ``(distinct,)`` rows of int32 token ids, special tokens included.
        rows: ``(n,)`` the row of ``ids`` for each item.
        lost: ``(distinct,)`` int64, tokens that did not fit.
        second_starts: ``(distinct,)`` the position from which token types are 1, or where the document begins behind a
            prompt; ``None`` for models that need neither.
    """

    model: str
    ids: Ragged
    rows: NDArray[np.int64]
    lost: NDArray[np.int64]
    second_starts: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return f"TokenIds({len(self)} items, {len(self.ids)} distinct, {len(self.ids.values)} tokens)"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """``(n,)`` tokens that the model reads of each item, special ones included: what a batch has a budget of."""
        return self.ids.lengths[self.rows]

    @property
    def truncated(self) -> NDArray[np.bool_]:
        """``(n,)`` whether an item was cut: the model does not read all of it."""
        return self.lost[self.rows] > 0

    @classmethod
    def concatenate(cls, parts: Sequence["TokenIds"]) -> Self:
        """Join what one model prepared, so that it runs as one; ``take`` of the outputs parts the answers again.

        Args:
            parts: At least one, in order. What is in two of them is held twice.

        Raises:
            UsageError: No part, or parts of different models.
        """
        models = {part.model for part in parts}
        if len(models) != 1:
            raise UsageError(f"found token ids of {len(models)} models; expected at least one part, all of one model")
        starts = np.cumsum([0, *(len(part.ids) for part in parts)])
        seconds = [part.second_starts for part in parts if part.second_starts is not None]
        return cls(
            models.pop(),
            Ragged.concatenate([part.ids for part in parts]),
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.lost for part in parts]),
            np.concatenate(seconds) if seconds else None,
        )

    def check_of(self, model: str) -> None:
        """Raise unless a model may run this.

        Args:
            model: Its fingerprint.

        Raises:
            UsageError: Another model prepared it.
        """
        if self.model != model:
            raise UsageError(
                f"the token ids are of model {self.model}; expected those of {model}: prepare the texts with the model"
                " that runs them"
            )


def of_texts(tokenizer: Tokenizer, texts: Iterable[str], max_length: int, *, instruction: str, model: str) -> TokenIds:
    """The token ids of single texts.

    Args:
        tokenizer: Of the model.
        texts: Any texts.
        max_length: Most tokens of a text, special ones included.
        instruction: Put before each text, or around it where it holds ``{text}``.
        model: Fingerprint of the model.

    Raises:
        UsageError: The instruction leaves no room for the text.
    """
    distinct, rows = distinct_of(texts)
    layout = tokenizer.single
    room = max_length - layout.special
    before, behind = split(instruction)
    if behind:
        ids, lost = _answered(tokenizer, distinct, room, before, behind)
    else:
        ids, lost = tokenizer.cut_ids([before + text for text in distinct] if before else distinct, room)
        _check_room(tokenizer, before, room, lost)
    if not layout.special and not ids.lengths.all():  # a network needs a token to read
        padding = np.array([tokenizer.pad_id], np.int32)
        ids = Ragged.of([ids[row] if len(ids[row]) else padding for row in range(len(ids))])
    return TokenIds(model, with_special_tokens(ids, layout), rows, lost)


def _answered(
    tokenizer: Tokenizer, texts: list[str], room: int, before: str, behind: str
) -> tuple[Ragged, NDArray[np.int64]]:
    """Texts with something behind them, as FlagEmbedding's tuning of bge-en-icl and its ``FlagICLModel`` read them.

    A text is cut, written out again, and tokenised together with what is behind it. Examples, which end with the last
    blank line before the text, are not counted.
    """
    examples, blank, start = before.rpartition("\n\n")
    room = max(0, room - len(tokenizer.ids([behind], room)[0]))
    kept, lost = tokenizer.cut_ids([start + text for text in texts], room)
    _check_room(tokenizer, start, room, lost)
    whole = [examples + blank + text + behind for text in tokenizer.decoded(kept)]
    return tokenizer.ids(whole, np.iinfo(np.int32).max), lost


def _check_room(tokenizer: Tokenizer, instruction: str, room: int, lost: NDArray[np.int64]) -> None:
    """Raise ``UsageError`` where an instruction leaves no room for the texts, so that all would be the same."""
    if not instruction or not lost.any():
        return
    if tokenizer.cut_ids([instruction], room)[0].lengths[0] >= room:
        raise UsageError(
            f"the instruction fills the {room} tokens that are read of a text, so that all texts would be the same;"
            " raise the longest text (max_length), or shorten the instruction"
        )


def of_pairs(tokenizer: Tokenizer, pairs: Iterable[tuple[str, str]], max_length: int, *, model: str) -> TokenIds:
    """The token ids of pairs; each query and each document is tokenised once, however many pairs it is in.

    Args:
        tokenizer: Of the model.
        pairs: ``(query, document)`` each.
        max_length: Most tokens of a pair, special ones included; of the query at most three quarters of it are kept,
            and the document is cut to what is left.
        model: Fingerprint of the model.
    """
    distinct, pair_rows = distinct_of(pairs)
    layout, single = tokenizer.pair, tokenizer.single
    room = max_length - layout.special
    query_texts, query_rows = distinct_of(query for query, _ in distinct)
    document_texts, document_rows = distinct_of(document for _, document in distinct)
    queries, query_lost = tokenizer.cut_ids(query_texts, max_length * 3 // 4)
    documents, document_lost = tokenizer.cut_ids(document_texts, max_length)
    lost = query_lost[query_rows] + document_lost[document_rows]
    rows, starts = [], []
    for number, (query_row, document_row) in enumerate(zip(query_rows, document_rows, strict=True)):
        query, document = queries[query_row][:room], documents[document_row]
        if len(document) == 0:  # as FlagEmbedding 1.4.2: nothing to pair with, a single text
            rows.append(np.concatenate([single.prefix, query, single.suffix]))
            starts.append(len(rows[-1]))
            continue
        kept = document[: room - len(query)]
        lost[number] += len(queries[query_row]) - len(query) + len(document) - len(kept)
        rows.append(np.concatenate([layout.prefix, query, layout.middle, kept, layout.suffix]))
        starts.append(len(layout.prefix) + len(query) + len(layout.middle))
    ids = Ragged.of(rows) if rows else Ragged(np.empty(0, np.int32), np.zeros(1, np.int64))
    seconds = np.array(starts, np.int64)
    if layout.document_type == 0:  # token types exist, but the tokenizer gives 0 throughout
        seconds[:] = np.iinfo(np.int64).max
    return TokenIds(model, ids, pair_rows, lost, seconds if tokenizer.uses_token_types else None)


def with_special_tokens(ids: Ragged, layout: Layout) -> Ragged:
    """Put the single-text layout around each row."""
    before, after = len(layout.prefix), len(layout.suffix)
    offsets = ids.offsets + np.arange(len(ids) + 1) * (before + after)
    values = np.empty(offsets[-1], np.int32)
    starts, ends = offsets[:-1], offsets[1:]
    values[starts[:, None] + np.arange(before)] = layout.prefix
    values[ends[:, None] - after + np.arange(after)] = layout.suffix
    lengths = ids.lengths
    within = np.arange(len(ids.values)) - np.repeat(ids.offsets[:-1], lengths)
    values[np.repeat(starts + before, lengths) + within] = ids.values
    return Ragged(values, offsets)


def distinct_of(items: Iterable[K]) -> tuple[list[K], NDArray[np.int64]]:
    """Each item once, in the order of appearance, and of each item the row where it stands."""
    rows: dict[K, int] = {}
    numbers = [rows.setdefault(item, len(rows)) for item in items]
    return list(rows), np.array(numbers, np.int64)
