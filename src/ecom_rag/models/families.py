"""The model families by name: what a checkpoint's own files do not say, in one table.

Sources: the model cards of BAAI/bge-*, intfloat/*e5*, thenlper/gte-*, maidalun1020/bce-* and
sentence-transformers/*MiniLM*. A checkpoint's own files win over this table (see ``checkpoint.describe``).
GTE v1.5 is not in it: its folders need their own code, which is never run.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """How texts of a family are pooled and prefixed."""

    name: str
    pattern: str  # searched, ignoring case, in the folder's or the hub's name
    pooling: str
    query_instruction: str = ""
    passage_instruction: str = ""


_ZH = "为这个句子生成表示以用于检索相关文章："
_EN = "Represent this sentence for searching relevant passages: "

FAMILIES = (
    Family("bge-m3", r"bge-m3", "cls"),
    Family("bge-noinstruct", r"bge-.*noinstruct", "cls"),
    Family("bge-zh", r"bge-(small|base|large)-zh", "cls", _ZH),
    Family("bge-en", r"bge-(small|base|large)-en", "cls", _EN),
    Family("e5-mistral", r"e5-mistral", "last"),
    Family("e5-instruct", r"e5-.*instruct", "mean"),
    Family("e5", r"e5-(small|base|large)", "mean", "query: ", "passage: "),
    Family("gte-zh", r"gte-(small|base|large)-zh", "cls"),
    Family("gte", r"gte-(tiny|small|base|large)(?!.*v1\.5)", "mean"),
    Family("bce", r"bce-embedding", "cls"),
    Family("minilm", r"minilm(?!.*dot)", "mean"),
)


def family_of(name: str) -> Family | None:
    """The first family whose pattern is found in a name."""
    return next((family for family in FAMILIES if re.search(family.pattern, name, re.IGNORECASE)), None)
