"""Training data from files, checked line by line before a model is loaded.

In: labelled records (``{"text", "metadata": {"label"}}``, in any format that ``records`` reads), FlagEmbedding's JSON
lines (``query``, ``pos``, ``neg``, ``pos_scores``, ``neg_scores``, ``prompt``, ``type``), or BEIR folders; a list of
files is a list of sources. Out: ``Labelled`` or ``Groups``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.files.beir import read_beir
from ecom_rag.files.identity import label_at
from ecom_rag.mining.sources import KINDS, kind_of
from ecom_rag.mining.triples import KnownPositives, check_triple
from ecom_rag.text.normalization import canonical
from ecom_rag.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts with their class.

    Args:
        texts: The texts.
        labels: Class of each.
        parents: Policy group of each, where asked for.
        sources: File of each.
        notes: What a reader of the report should know.
    """

    texts: list[str]
    labels: list[str]
    parents: list[str] | None
    sources: list[str]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Group:
    """A query with its documents; scores are a teacher's."""

    query: str
    positives: list[str]
    negatives: list[str]
    positive_scores: list[float] | None
    negative_scores: list[float] | None
    prompt: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Groups:
    """Queries with their documents."""

    items: list[Group]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.items)


def read_data(
    paths: Sequence[str], split: str, recipe: Recipe, *, use: Literal["train", "dev"] = "train"
) -> Labelled | Groups:
    """Read all sources; they must be of one kind.

    Args:
        paths: Files or BEIR folders.
        split: Of a BEIR folder.
        recipe: Says which keys hold what, and what the loss needs.
        use: ``dev`` asks for less: no second text of a class, no teacher scores, negatives for a reranker only.

    Raises:
        UsageError: No such file, different kinds, too few classes.
        RecordError: The first line that cannot be trained on.
    """
    kinds = [kind_of(path, use="train on") for path in paths]
    if len(set(kinds)) > 1:
        found = ", ".join(f"{path} ({KINDS[kind]})" for path, kind in zip(paths, kinds, strict=True))
        raise UsageError(f"data.train mixes kinds: {found}; train on one kind at a time")
    if kinds[0] != "labelled":
        return _groups(paths, split, recipe, use)
    if recipe.task == "reranker":
        raise UsageError(
            f"{paths[0]}: holds labelled records; a reranker needs queries with pos and neg, which ecom-rag mine makes"
            " of them"
        )
    return _labelled(paths, recipe, use)


def _groups(paths: Sequence[str], split: str, recipe: Recipe, use: str) -> Groups:
    """BEIR folders, or files of queries with pos and neg."""
    needs_negatives = recipe.task == "reranker" or (use == "train" and recipe.data.negatives > 0)
    needs_scores = use == "train" and recipe.loss.distillation != "none"
    items: list[Group] = []
    places: list[str] = []
    notes: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            if needs_negatives:
                raise UsageError(
                    f"{path}: a BEIR folder has no hard negatives; mine them with ecom-rag mine, or set"
                    " data.negatives = 0 to train an embedder on in-batch negatives alone"
                )
            asked, left_out = _beir(path, split, recipe.data.min_grade)
            items += asked
            notes += left_out
        else:
            for where, line in records.objects(path):
                items.append(_group(where, line, path, needs_negatives=needs_negatives, needs_scores=needs_scores))
                places.append(where)
    if not items:
        raise UsageError(f"{paths[0]}: holds no queries; there is nothing to train on")
    known = KnownPositives(items)
    if needs_negatives:
        for where, item in zip(places, items, strict=True):
            _check_negatives(where, item, known)
    notes += _group_notes(items, known)
    if recipe.task == "reranker":  # an embedder's losses mask such negatives by themselves
        items = [_consistent(where, item, known) for where, item in zip(places, items, strict=True)]
    return Groups(items, notes)


def _labelled(paths: Sequence[str], recipe: Recipe, use: str) -> Labelled:
    found = Labelled([], [], [] if recipe.data.parent and use == "train" else None, [], [])
    places: list[str] = []
    for path in paths:
        for where, item in records.placed(path):
            needs = "training by class needs the label of every record (another key is named by data.label)"
            found.texts.append(item["text"])
            found.labels.append(_label(where, item["metadata"], recipe.data.label, needs))
            found.sources.append(path)
            places.append(where)
            if found.parents is not None:
                needs = "hierarchical batches need the policy group of every record"
                found.parents.append(_label(where, item["metadata"], str(recipe.data.parent), needs))
    if not found.texts:
        raise UsageError(f"{paths[0]}: holds no records; there is nothing to train on")
    if use == "dev":
        return found
    drop, by_source = recipe.data.single_texts == "drop", recipe.sampling.one_source
    return _without_singles(found, places, drop=drop, by_source=by_source)


def _label(where: str, metadata: Any, key: str, needs: str) -> str:
    label = label_at(where, metadata, key)
    if label is None:
        raise RecordError(where, f'"metadata.{key}" is missing; {needs}')
    return label


def _without_singles(data: Labelled, places: Sequence[str], *, drop: bool, by_source: bool) -> Labelled:
    """Classes of one text and its copies have no pair to learn from: an error at the first, or left out and noted.

    With ``by_source`` that goes for each file, since a batch is of one.
    """
    where = data.sources if by_source else [""] * len(data)
    classes_of = list(zip(where, data.labels, strict=True))
    forms = canonical(data.texts)
    distinct = Counter(own for own, _ in set(zip(classes_of, forms, strict=True)))
    single = [row for row, own in enumerate(classes_of) if distinct[own] == 1]
    if single and not drop:
        label = data.labels[single[0]]
        classes = len({classes_of[row] for row in single})
        others = f", and so have {classes - 1} more" if classes > 1 else ""
        here = " in its file" if by_source else ""
        raise RecordError(
            places[single[0]],
            f'class "{label}" has this one text{here}{others}; a class needs two'
            ' different texts: add some, or set data.single_texts = "drop"',
        )
    notes = []
    if single:
        keep = sorted(set(range(len(data))) - set(single))
        forms = [forms[i] for i in keep]
        notes.append(f"{len(single)} texts were left out: their classes have no second text")
        texts, labels, sources = ([column[i] for i in keep] for column in (data.texts, data.labels, data.sources))
        data = Labelled(texts, labels, data.parents and [data.parents[i] for i in keep], sources, [])
    torn = Counter(form for form, _ in set(zip(forms, data.labels, strict=True)))
    several = sum(1 for count in torn.values() if count > 1)
    if several:
        notes.append(f"{several} texts carry more than one label; they pull in both directions")
    if len(set(data.labels)) < 2:
        source = data.sources[0] if data.sources else "data.train"
        raise UsageError(f"{source}: {len(set(data.labels))} classes to train on; expected at least 2")
    return replace(data, notes=notes)


def _group(where: str, item: dict[str, Any], source: str, *, needs_negatives: bool, needs_scores: bool) -> Group:
    check_triple(where, item, needs_negatives=needs_negatives, remedy=", or set data.negatives = 0")
    positives, negatives = item["pos"], item["neg"]
    scores: dict[str, list[float] | None] = {}
    for side in ("pos", "neg"):
        given = item.get(f"{side}_scores")
        if given is None and needs_scores and item[side]:
            raise RecordError(
                where, f'"{side}_scores" is missing; distillation needs a teacher\'s scores, see ecom-rag teach'
            )
        scores[side] = None if given is None and not needs_scores else [float(score) for score in given or []]
    prompt = item.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise RecordError(where, f'"prompt" is {prompt!r:.40}; expected a text put before the query')
    return Group(item["query"], positives, negatives, scores["pos"], scores["neg"], prompt, source)


def _beir(folder: str, split: str, min_grade: int) -> tuple[list[Group], list[str]]:
    """The queries that can be trained on, and notes on what was left out."""
    beir = read_beir(folder, split)
    wanted = beir.judged(least=min_grade)
    texts = beir.texts(wanted)
    found = []
    for query in beir.queries:
        judged = beir.qrels[query["metadata"]["id"]]
        positives = [texts[key] for key, grade in judged.items() if grade >= min_grade and texts.get(key)]
        if query["text"] and positives:
            found.append(Group(query["text"], positives, [], None, None, None, folder))
    left_out = {
        "relevant documents are not in the corpus": len(wanted - texts.keys()),
        "relevant documents have no text": sum(1 for text in texts.values() if not text),
        "queries have no text, or no relevant document that has one": len(beir.queries) - len(found),
    }
    return found, [f"{folder}: {count} {what}; left out" for what, count in left_out.items() if count]


def _check_negatives(where: str, item: Group, known: KnownPositives) -> None:
    positives = {known.forms[text] for text in item.positives}
    if all(known.forms[text] in positives for text in item.negatives):
        raise RecordError(where, 'every text of "neg" is among "pos" too; mine hard negatives with ecom-rag mine')


def _consistent(where: str, item: Group, known: KnownPositives) -> Group:
    """The same without the negatives that are positives of the query too, here or on another line."""
    kept = known.negatives(item)
    if len(kept) == len(item.negatives):
        return item
    if not kept:
        raise RecordError(
            where,
            'every text of "neg" is among "pos" on another line of the same query; mine hard'
            " negatives with ecom-rag mine",
        )
    scores = item.negative_scores and [item.negative_scores[number] for number in kept]
    return replace(item, negatives=[item.negatives[number] for number in kept], negative_scores=scores)


def _group_notes(items: Sequence[Group], known: KnownPositives) -> list[str]:
    both = sum(1 for item in items if len(known.negatives(item)) < len(item.negatives))
    return [f"{both} queries have a text among both pos and neg; it is not used as their negative"] if both else []
