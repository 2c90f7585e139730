"""The prompts in which language models read a pair, and pairs as token ids in them.

Sources: FlagEmbedding 1.4.2 (``inference/reranker/decoder_only``) for ``bge``, the model card of Qwen3-Reranker
 (Zhang et al. 2025, arXiv 2506.05176) for ``qwen3``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.embeddings import Ragged
from ecom_rag.models.token_ids import TokenIds, distinct_of

_SLOT = "{instruction}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt: ``start query between document end``, of parts that are tokenised by themselves.

    Args:
        name: As the user names it.
        instruction: What is asked, by default; where the parts say ``{instruction}``.
        yes: The word whose logit is the score.
        no: The word whose logit is subtracted; nothing for none.
        begins: Whether the tokenizer's token for the beginning comes first, where it has one that does not pad.
        start: What comes before the query.
        query: Before and behind the query, tokenised with it.
        between: Before the document's part.
        document: Before the document, tokenised with it.
        end: What comes last.
        counted: Whether the prompt's own tokens count to the most tokens of a pair.
    """

    name: str
    instruction: str
    yes: str
    no: str
    begins: bool
    start: tuple[str, ...]
    query: tuple[str, str]
    between: tuple[str, ...]
    document: str
    end: tuple[str, ...]
    counted: bool


BGE = Prompt(
    name="bge",
    instruction="Given a query A and a passage B, determine whether the passage contains an answer to the query by"
    " providing a prediction of either 'Yes' or 'No'.",
    yes="Yes",
    no="",
    begins=True,
    start=(),
    query=("A: ", ""),
    between=("\n",),
    document="B: ",
    end=("\n", _SLOT),
    counted=False,
)
LIGHTWEIGHT = replace(BGE, instruction="Predict whether passage B contains an answer to query A.")
QWEN3 = Prompt(
    name="qwen3",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
    yes="yes",
    no="no",
    begins=False,
    start=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct"
        ' provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        f"<Instruct>: {_SLOT}\n<Query>:",
    ),
    query=(" ", "\n<Document>:"),
    between=(),
    document=" ",
    end=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    counted=True,
)
PROMPTS = {prompt.name: prompt for prompt in (BGE, QWEN3)}


@dataclass(frozen=True, slots=True)
class Frame:
    """A prompt as token ids, with the room that it leaves.

    Args:
        prompt: As text.
        start: Ids before the query.
        behind: Ids that come behind a query that was cut, in place of what is tokenised with it.
        between: Ids between query and document.
        end: Ids behind the document.
        room: Most tokens of query and document together.
        query_room: Most of the query.
        document_room: Most of the document.
    """

    prompt: Prompt
    start: NDArray[np.int32]
    behind: NDArray[np.int32]
    between: NDArray[np.int32]
    end: NDArray[np.int32]
    room: int
    query_room: int
    document_room: int

    @property
    def longest(self) -> int:
        """Most tokens of a pair, those of the prompt included."""
        return len(self.start) + len(self.behind) + len(self.between) + self.room + len(self.end)


def frame_of(prompt: Prompt, tokenizer: Tokenizer, instruction: str, max_length: int) -> Frame:
    """A prompt for one tokenizer.

    Args:
        prompt: The prompt.
        tokenizer: Of the model.
        instruction: What is asked.
        max_length: Most tokens of a pair; the query gets three quarters at most and the document what is left. Where
            the prompt does not count, as in FlagEmbedding: of the document, and of all but what follows it.
    """

    def ids(parts: Iterable[str]) -> NDArray[np.int32]:
        texts = [part.replace(_SLOT, instruction) for part in parts]
        return tokenizer.ids(texts, np.iinfo(np.int32).max).values.astype(np.int32)

    start, behind, between, end = ids(prompt.start), ids(prompt.query[1:]), ids(prompt.between), ids(prompt.end)
    if prompt.begins and tokenizer.start_id >= 0:
        start = np.concatenate([np.array([tokenizer.start_id], np.int32), start])
    if prompt.counted:
        room = max_length - len(start) - len(behind) - len(between) - len(end)
        return Frame(prompt, start, behind, between, end, room, room * 3 // 4, room)
    room = max_length + len(end) - len(ids(prompt.end[:1])) - len(start)
    return Frame(prompt, start, behind, between, end, room, max_length * 3 // 4, max_length)


def word_id(tokenizer: Tokenizer, word: str, *, whole: bool, folder: Path) -> int:
    """The token of an answer.

    Args:
        tokenizer: Of the model.
        word: The answer.
        whole: Whether it must be one token; else its first counts, as in FlagEmbedding.
        folder: The checkpoint, for the message.

    Raises:
        ModelError: The tokenizer has no such token.
    """
    ids = tokenizer.ids([word], np.iinfo(np.int32).max)[0]
    if len(ids) == 0 or (whole and len(ids) > 1):
        raise ModelError(
            f"{folder}: its tokenizer makes {len(ids)} tokens of the answer {word!r}; expected one, choose another"
            " `template`"
        )
    return int(ids[0])


def of_prompted_pairs(tokenizer: Tokenizer, pairs: Iterable[tuple[str, str]], frame: Frame, *, model: str) -> TokenIds:
    """The token ids of pairs in a prompt; each query and each document is tokenised once.

    Args:
        tokenizer: Of the model.
        pairs: ``(query, document)`` each.
        frame: The prompt.
        model: Fingerprint of the model.

    Returns:
        ``second_starts`` is where the documents begin: all before is the same for all documents of a query.
    """
    distinct, pair_rows = distinct_of(pairs)
    query_texts, query_rows = distinct_of(query for query, _ in distinct)
    document_texts, document_rows = distinct_of(document for _, document in distinct)
    queries, query_lost = _queries(tokenizer, query_texts, frame)
    documents, document_lost = tokenizer.cut_ids(
        [frame.prompt.document + text for text in document_texts], frame.document_room
    )
    lost = query_lost[query_rows] + document_lost[document_rows]
    rows, starts = [], np.empty(len(distinct), np.int64)
    for number, (query_row, document_row) in enumerate(zip(query_rows, document_rows, strict=True)):
        query, document = queries[query_row], documents[document_row]
        kept = document[: max(0, frame.room + len(frame.behind) - len(query))]
        lost[number] += len(document) - len(kept)
        rows.append(np.concatenate([frame.start, query, frame.between, kept, frame.end]))
        starts[number] = len(rows[-1]) - len(kept) - len(frame.end)
    ids = Ragged.of(rows) if rows else Ragged(np.empty(0, np.int32), np.zeros(1, np.int64))
    return TokenIds(model, ids, pair_rows, lost, starts)


def _queries(tokenizer: Tokenizer, texts: list[str], frame: Frame) -> tuple[list[NDArray[np.int32]], NDArray[np.int64]]:
    """Queries with what is tokenised with them, and the tokens of each that did not fit."""
    before, behind = frame.prompt.query
    whole = tokenizer.ids([before + text + behind for text in texts], np.iinfo(np.int32).max)
    cut, lost = tokenizer.cut_ids([before + text for text in texts], frame.query_room)
    rows = [
        whole[row] if lost[row] == 0 else np.concatenate([cut[row], frame.behind]).astype(np.int32)
        for row in range(len(texts))
    ]
    return rows, lost
