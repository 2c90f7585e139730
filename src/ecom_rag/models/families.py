"""The models by name: what a checkpoint's own files do not say, and the list of what is supported, in one table.

Sources: the model cards of BAAI/bge-*, intfloat/*e5*, thenlper/gte-*, Alibaba-NLP/gte-Qwen*, Qwen/Qwen3-Embedding-*,
Qwen/Qwen3-Reranker-*, maidalun1020/bce-* and sentence-transformers/*MiniLM*; ``model_mapping.py`` of FlagEmbedding
1.4.2; the model metadata of mteb for lengths and licences. A checkpoint's own files win over this table (see
``checkpoint.describe``). GTE v1.5 is not in it: its folders need their own code, which is never run.
"""

import re
from dataclasses import dataclass

from ecom_rag.models.prompts import BGE, LIGHTWEIGHT, QWEN3

_FLAG = "FlagEmbedding 1.4.2"
_CARD = "the formula of the model card"
_PARTS = "parts of FlagEmbedding 1.4.2"  # which does not load these two on transformers 5


@dataclass(frozen=True, slots=True)
class Card:
    """What the list of models says of a family, beside what is done with it.

    Args:
        models: Names on the hub.
        architecture: Of the network, as transformers calls it.
        length: Tokens that a text or a pair may have; ``None`` where that was not certain.
        licence: Of the weights; empty where that was not certain.
        verified: What the numbers of the architecture equal in the tests, on random weights.
    """

    models: str
    architecture: str
    length: int | None
    licence: str = ""
    verified: str = _FLAG


@dataclass(frozen=True, slots=True)
class Family:
    """How texts of a family are pooled and prefixed.

    Args:
        name: Of the family.
        pattern: Searched, ignoring case, in the folder's or the hub's name.
        pooling: ``cls``, ``mean`` or ``last``.
        query_instruction: As ``instructions`` describes it; with ``{task}`` for models tuned on tasks.
        passage_instruction: Put before seeds and other documents.
        card: For the list of models.
        outputs: What an encoder of the family can give.
        ends_with_eos: Whether it was tuned on texts that end with the EOS token, which some tokenizers leave out.
    """

    name: str
    pattern: str
    pooling: str
    query_instruction: str
    passage_instruction: str
    card: Card
    outputs: tuple[str, ...] = ("dense",)
    ends_with_eos: bool = False


@dataclass(frozen=True, slots=True)
class Reranker:
    """A family of rerankers, for the list of models.

    Args:
        card: For the list.
        head: What gives the score.
        instruction: What its prompt asks by default, of a language model.
    """

    card: Card
    head: str
    instruction: str = ""


_ZH = "为这个句子生成表示以用于检索相关文章："
_EN = "Represent this sentence for searching relevant passages: "
_INSTRUCT = "Instruct: {task}\nQuery: {text}"
_QWEN3 = "Instruct: {task}\nQuery:{text}"  # without a space, in its card and in its own prompts
_BGE = "<instruct>{task}\n<query>{text}"
_ICL = "<instruct>{task}\n<query>{text}\n<response>"

FAMILIES = (
    Family(
        "bge-m3",
        r"bge-m3",
        "cls",
        "",
        "",
        Card("BAAI/bge-m3", "XLM-RoBERTa", 8192, "MIT"),
        ("dense", "sparse", "multivector"),
    ),
    Family(
        "bge-noinstruct",
        r"bge-.*noinstruct",
        "cls",
        "",
        "",
        Card("BAAI/bge-large-zh-noinstruct", "BERT", 512),
    ),
    Family(
        "bge-zh",
        r"bge-(small|base|large)-zh",
        "cls",
        _ZH,
        "",
        Card("BAAI/bge-small-zh, -base-zh, -large-zh, also v1.5", "BERT", 512, "MIT"),
    ),
    Family(
        "bge-en",
        r"bge-(small|base|large)-en",
        "cls",
        _EN,
        "",
        Card("BAAI/bge-small-en, -base-en, -large-en, also v1.5", "BERT", 512, "MIT"),
    ),
    Family(
        "bge-gemma2",
        r"bge-multilingual-gemma2",
        "last",
        _BGE,
        "",
        Card("BAAI/bge-multilingual-gemma2", "Gemma 2", 8192, "Gemma"),
    ),
    Family(
        "bge-icl",
        r"bge-en-icl",
        "last",
        _ICL,
        "",
        Card("BAAI/bge-en-icl", "Mistral", 32768, "Apache 2.0"),
    ),
    Family(
        "bge-code",
        r"bge-code",
        "last",
        _BGE,
        "",
        Card("BAAI/bge-code-v1", "Qwen2", 32768),
    ),
    Family(
        "bge-reasoner",
        r"bge-reasoner-embed-qwen3",
        "last",
        _INSTRUCT,
        "",
        Card("BAAI/bge-reasoner-embed-qwen3-8b-0923", "Qwen3", None),
    ),
    Family(
        "qwen3-embedding",
        r"qwen3-embedding",
        "last",
        _QWEN3,
        "",
        Card("Qwen/Qwen3-Embedding-0.6B, -4B, -8B", "Qwen3", 32768, "Apache 2.0"),
    ),
    Family(
        "e5-mistral",
        r"e5-mistral",
        "last",
        _INSTRUCT,
        "",
        Card("intfloat/e5-mistral-7b-instruct", "Mistral", 32768, "MIT", _CARD),
        ends_with_eos=True,
    ),
    Family(
        "mistral-instruct",
        r"sfr-embedding-(2_r|mistral)|linq-embed-mistral",
        "last",
        _INSTRUCT,
        "",
        Card(
            "Salesforce/SFR-Embedding-Mistral, SFR-Embedding-2_R, Linq-AI-Research/Linq-Embed-Mistral",
            "Mistral",
            32768,
            "CC BY-NC 4.0",
            _CARD,
        ),
    ),
    Family(
        "gte-qwen",
        r"gte-qwen(1\.5|2)",
        "last",
        _INSTRUCT,
        "",
        Card("Alibaba-NLP/gte-Qwen2-1.5B-instruct, -7B-instruct", "Qwen2", 32768, "Apache 2.0", _CARD),
        ends_with_eos=True,
    ),
    Family(
        "e5-instruct",
        r"e5-.*instruct",
        "mean",
        _INSTRUCT,
        "",
        Card("intfloat/multilingual-e5-large-instruct", "XLM-RoBERTa", 512, "MIT"),
    ),
    Family(
        "e5",
        r"e5-(small|base|large)",
        "mean",
        "query: ",
        "passage: ",
        Card("intfloat/e5-*, e5-*-v2, multilingual-e5-*: small, base, large", "BERT, XLM-RoBERTa", 512, "MIT"),
    ),
    Family(
        "gte-zh",
        r"gte-(small|base|large)-zh",
        "cls",
        "",
        "",
        Card("thenlper/gte-small-zh, -base-zh, -large-zh", "BERT", 512, "MIT"),
    ),
    Family(
        "gte",
        r"gte-(tiny|small|base|large)(?!.*v1\.5)",
        "mean",
        "",
        "",
        Card("thenlper/gte-small, -base, -large", "BERT", 512, "MIT"),
    ),
    Family(
        "bce",
        r"bce-embedding",
        "cls",
        "",
        "",
        Card("maidalun1020/bce-embedding-base_v1", "XLM-RoBERTa", 512, "Apache 2.0"),
    ),
    Family(
        "minilm",
        r"minilm(?!.*dot)",
        "mean",
        "",
        "",
        Card("sentence-transformers/all-MiniLM-*, paraphrase-*-MiniLM-*", "BERT", 512, "Apache 2.0"),
    ),
)

_ONE_LOGIT = "one logit"
RERANKERS = (
    Reranker(Card("BAAI/bge-reranker-base, -large", "XLM-RoBERTa", 512, "MIT"), _ONE_LOGIT),
    Reranker(Card("BAAI/bge-reranker-v2-m3", "XLM-RoBERTa", 8192, "Apache 2.0"), _ONE_LOGIT),
    Reranker(Card("maidalun1020/bce-reranker-base_v1", "XLM-RoBERTa", 512, "Apache 2.0"), _ONE_LOGIT),
    Reranker(Card("BAAI/bge-reranker-v2-gemma", "Gemma", 8192), "logit of Yes", BGE.instruction),
    Reranker(
        Card("BAAI/bge-reranker-v2-minicpm-layerwise", "MiniCPM", None, verified=_PARTS),
        "linear, by layer",
        BGE.instruction,
    ),
    Reranker(
        Card("BAAI/bge-reranker-v2.5-gemma2-lightweight", "Gemma 2", 8192, verified=_PARTS),
        "linear, by layer",
        LIGHTWEIGHT.instruction,
    ),
    Reranker(
        Card("Qwen/Qwen3-Reranker-0.6B, -4B, -8B", "Qwen3", 32768, "Apache 2.0", _CARD),
        "logit of yes minus that of no",
        QWEN3.instruction,
    ),
)


def family_of(name: str) -> Family | None:
    """The first family whose pattern is found in a name."""
    return next((family for family in FAMILIES if re.search(family.pattern, name, re.IGNORECASE)), None)
