"""Validation sets: what a merged model is measured on while weights are searched, by nDCG@10 in exact search.

A set is a BEIR folder, labelled records (each retrieves the others of its label), or queries with ``pos`` and ``neg``
(the positives among the negatives, the only kind for rerankers).
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.evaluation import sets
from ecom_rag.evaluation.sets import JudgedSet
from ecom_rag.files import readers
from ecom_rag.judging.relevance import ndcg
from ecom_rag.mining.triples import KnownPositives, read_examples
from ecom_rag.models import CrossEncoder, Encoder

KINDS = ("beir", "labelled", "triples")
_K = 10


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """One set of a specification.

    Args:
        name: For reports.
        beir: Folder, or
        labelled: File of records, or
        triples: File of queries with ``pos`` and ``neg``.
        split: Of a BEIR folder.
        label: Key of the label in a record's metadata.
        weight: In the objective, the weighted mean of the sets' nDCG@10; by default 1, or 0 with ``max_loss``.
        max_loss: Most that may be lost against the base, e.g. 0.01.
        max_documents: Of a BEIR folder: all judged documents and a sample of the others up to this many.
    """

    name: str
    beir: str | None = None
    labelled: str | None = None
    triples: str | None = None
    split: str = "dev"
    label: str = "label"
    weight: float | None = None
    max_loss: float | None = None
    max_documents: int | None = None

    @property
    def share(self) -> float:
        """Weight in the objective."""
        return self.weight if self.weight is not None else (1.0 if self.max_loss is None else 0.0)


@dataclass(frozen=True, slots=True)
class Validation:
    """A set of a specification in memory.

    Args:
        settings: What it was read from.
        judged: Its texts and judgements.
    """

    settings: ValidationSet
    judged: JudgedSet


def read_spec(path: str) -> list[ValidationSet]:
    """Read a specification: a TOML file of ``[[sets]]``; see ``ValidationSet`` for the keys.

    Raises:
        UsageError: Unreadable, an unknown key, a value of the wrong kind, or nothing to aim at.
    """
    table = readers.read_toml(path, remedy="expected a TOML file of [[sets]], see docs/merging.md")
    if set(table) != {"sets"} or not isinstance(table["sets"], list) or not table["sets"]:
        raise UsageError(
            f"{path}: found keys {', '.join(table) or 'none'}; expected [[sets]] alone, see docs/merging.md"
        )
    found = [_one_set(f"{path}: sets[{number}]", item) for number, item in enumerate(table["sets"])]
    names = [item.name for item in found]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two sets have the same name; name them {', '.join(sorted(set(names)))} and another")
    if not any(item.share > 0 for item in found):
        raise UsageError(f"{path}: no set has a weight above 0, so there is nothing to aim at; give one")
    return found


def _one_set(where: str, item: dict[str, Any]) -> ValidationSet:
    known = {entry.name: entry.type for entry in fields(ValidationSet)}
    for key, value in item.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key}; expected some of {', '.join(known)}")
        wanted: Any = (int, float) if key in ("weight", "max_loss") else int if key == "max_documents" else str
        if isinstance(value, bool) or not isinstance(value, wanted) or (wanted is not str and not value >= 0):
            kinds = "a text" if wanted is str else "a number of at least 0"
            raise UsageError(f"{where}: {key} is {value!r}; expected {kinds}")
    given = [kind for kind in KINDS if item.get(kind)]
    if len(given) != 1:
        raise UsageError(f"{where}: found {' and '.join(given) or 'no data'}; expected one of {', '.join(KINDS)}")
    return ValidationSet(**{"name": Path(item[given[0]]).name, **item})


def load(settings: ValidationSet) -> Validation:
    """Read a set.

    Raises:
        UsageError: A file is missing, or nothing in it can be measured.
        RecordError: A line that does not fit.
    """
    if settings.beir is not None:
        judged = sets.read_beir_set(settings.beir, settings.split, max_documents=settings.max_documents)
    elif settings.labelled is not None:
        judged = sets.read_labelled_set(settings.labelled, settings.label)
    else:
        assert settings.triples is not None
        examples = read_examples(settings.triples)
        known = KnownPositives(examples)
        kept = [[example.negatives[place] for place in known.negatives(example)] for example in examples]
        pairs = zip(examples, kept, strict=True)
        judged = sets.candidate_set([replace(example, negatives=negatives) for example, negatives in pairs])
    return Validation(settings, judged)


def measure(validation: Validation, model: Encoder | CrossEncoder) -> float:
    """The mean nDCG@10 over the queries that something is relevant to, 0 to 1.

    Raises:
        UsageError: A reranker on a set that needs search.
    """
    judged = validation.judged
    if isinstance(model, CrossEncoder):
        if judged.candidates is None:
            raise UsageError(
                f'validation set "{validation.settings.name}": a reranker is measured on triples (queries with pos'
                " and neg); mine them with ecom-rag mine"
            )
        rows = judged.ranked(model.score(judged.pairs()))
    else:
        documents, queries = model.encode(judged.documents).dense, model.encode(judged.queries, side="query").dense
        assert documents is not None and queries is not None
        rows = judged.search(documents, queries, _K)
    return float(ndcg(rows[:, :_K], judged.relevance)[judged.relevance.ideal(1) > 0].mean())
