"""Mining, teaching and training from Python: lists in and out as the files say, recipes in any form, errors of ours."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import ecom_rag
from ecom_rag import ModelError, RecordError, UsageError
from ecom_rag.files import records
from ecom_rag.mining import Rules, Source
from ecom_rag.training.recipe import make_recipe, read_recipe
from ecom_rag.training.start import INSTALL
from helpers.small_runs import labelled, recipe_of, weights

pytestmark = pytest.mark.slow

TRIPLES = [
    {"query": f"{word} {n}", "pos": [f"{word} case {n}"], "neg": [f"other {n}"], "prompt": "p"}
    for n, word in enumerate(["leather", "replica", "手机壳", "leather"])
]
LABELLED = [
    {"text": f"{word} number {n}", "metadata": {"policy": {"name": word}}}
    for n in range(6)
    for word in ("leather", "replica", "手机壳")
]
RULES = Rules(negatives=2, first=1, last=20)


@pytest.mark.parametrize(("items", "options"), [(TRIPLES, {}), (LABELLED, {"label": "policy.name", "positives": 2})])
@pytest.mark.parametrize("with_corpus", [False, True])
def test_mining_in_memory_is_mining_a_file(tmp_path, items, options, with_corpus):
    words = ("leather", "replica") if with_corpus else ()
    corpus = [
        {"text": f"{word} corpus {n}", "metadata": {"policy": {"name": word}}} for n in range(5) for word in words
    ]
    (tmp_path / "items.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    if corpus:
        (tmp_path / "corpus.jsonl").write_bytes(b"".join(map(records.dumps, corpus)))
    source = Source(str(tmp_path / "items.jsonl"), "labelled" if options else "triples", **options)
    output = tmp_path / "mined.jsonl"
    ecom_rag.mine_file(source, output, RULES, route="bm25", seeds=tmp_path / "corpus.jsonl" if corpus else None)
    expected = [item for _, item in records.objects(output)]
    given = json.dumps(items)
    found = ecom_rag.mine(iter(items), iter(corpus) if corpus else None, route="bm25", rules=RULES, **options)
    assert found == expected and expected and json.dumps(items) == given


def test_a_path_is_enough_for_mining_a_file(tmp_path):
    (tmp_path / "items.jsonl").write_bytes(b"".join(map(records.dumps, TRIPLES)))
    summary = ecom_rag.mine_file(tmp_path / "items.jsonl", tmp_path / "out.jsonl", Rules(first=1), route="bm25")
    assert summary.records == 4


def test_mining_in_memory_with_models(m3_folder, bert_reranker):
    encoder = ecom_rag.Encoder.from_pretrained(m3_folder, runtime="torch", precision="fp32")
    cross_encoder = ecom_rag.CrossEncoder.from_pretrained(bert_reranker, runtime="torch", precision="fp32")
    rules = replace(RULES, reranker_threshold=1.0)
    found = ecom_rag.mine(TRIPLES, encoder=encoder, cross_encoder=cross_encoder, rules=rules)
    assert found and all(len(item["neg"]) == len(item["neg_scores"]) for item in found)
    taught = ecom_rag.teach(found, cross_encoder)
    assert [item["neg_scores"] for item in taught] == [pytest.approx(item["neg_scores"], abs=1e-4) for item in found]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"query": "a"}], 'query 0: "pos" is missing or empty'),
        ([{"query": "a", "pos": ["b"]}, {"query": None, "pos": ["b"]}], 'query 1: "query" is missing'),
        ([{"query": "a", "pos": ["b"]}, {"text": "a"}], 'query 1: "query" is missing'),
        ([{"query": "a", "pos": ["b"], "x": {1}}], 'query 0: "x" is of type set'),
        ([{"text": "a"}], r'query 0: "metadata\.label" is missing'),
        ([{"text": "a", "metadata": {"label": "x"}}, "b"], "query 1: found a string"),
        (["a"], "query 0: found a string"),
    ],
)
def test_an_item_that_does_not_fit_is_named(items, reason, bert_reranker):
    with pytest.raises(RecordError, match=reason):
        ecom_rag.mine(items, route="bm25")


def test_teaching_checks_its_items_and_leaves_them_as_they_are(bert_reranker):
    cross_encoder = ecom_rag.CrossEncoder.from_pretrained(bert_reranker, runtime="torch", precision="fp32")
    item = {"query": "a", "pos": ("b", "c")}
    [taught] = ecom_rag.teach(iter([item]), cross_encoder)
    assert len(taught["pos_scores"]) == 2 and taught["neg_scores"] == [] and item == {"query": "a", "pos": ("b", "c")}
    with pytest.raises(RecordError, match="query 0"):
        ecom_rag.teach([{"query": "a"}], cross_encoder)
    with pytest.raises(UsageError, match="`mode` 'both' is unknown"):
        ecom_rag.teach([], cross_encoder, mode="both")


def test_a_recipe_in_any_form_trains_the_same(tmp_path, mean_folder):
    data = Path(labelled(tmp_path / "train.jsonl"))
    table = {
        "task": "embedder",
        "model": mean_folder,
        "output": tmp_path / "first",
        "seed": 42,
        "data": {"train": [data], "max_length": 32, "parent": None},
        "schedule": {"max_steps": 2, "device": "cpu"},
        "sampling": {"classes_per_batch": 2, "texts_per_class": 3},
    }
    first = ecom_rag.train(table)
    second = ecom_rag.train(replace(make_recipe(table), output=str(tmp_path / "second")))
    text = (
        f'task = "embedder"\nmodel = "{mean_folder}"\noutput = "{tmp_path}/third"\n'
        f'[data]\ntrain = "{data}"\nmax_length = 32\n'
        '[schedule]\nmax_steps = 2\ndevice = "cpu"\n[sampling]\nclasses_per_batch = 2\ntexts_per_class = 3\n'
    )
    (tmp_path / "recipe.toml").write_text(text)
    third = ecom_rag.train(tmp_path / "recipe.toml")
    assert first["steps"] == second["steps"] == third["steps"] == 2
    own, *others = (weights(tmp_path / name) for name in ("first", "second", "third"))
    assert all(bool((own[key] == other[key]).all()) for other in others for key in own)
    assert read_recipe(tmp_path / "recipe.toml").task == "embedder"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": None}, "recipe: task None is unknown; expected embedder or reranker"),
        ({"task": "retriever"}, "recipe: task 'retriever' is unknown"),
        ({"loss": {"nam": "circle"}}, r"recipe: unknown key loss\.nam; did you mean loss\.name\?"),
        ({"data": {"train": 7}}, r"recipe: data\.train is 7"),
        ({"data": "train.jsonl"}, "expected a table"),
        ({1: 2}, "recipe: unknown key 1"),
        ({"seed": "42"}, "recipe: seed is '42'; expected a whole number"),
        ({"output": None}, "recipe: output is None; expected a string"),
    ],
)
def test_a_recipe_that_makes_no_sense(change, reason):
    with pytest.raises(UsageError, match=reason):
        ecom_rag.train({"task": "embedder", "model": "starter", "output": "x", "data": {"train": "t.jsonl"}, **change})


def test_without_the_packages_of_training_it_says_what_to_install(monkeypatch, tmp_path, mean_folder):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else real(name))
    recipe = recipe_of(mean_folder, labelled(tmp_path / "train.jsonl"), tmp_path / "out")
    with pytest.raises(UsageError, match=r"not installed \(peft\).*pip install") as caught:
        ecom_rag.train(recipe)
    assert str(caught.value) == INSTALL.format("peft") and not (tmp_path / "out").exists()


def test_a_model_that_is_none_is_our_error(tmp_path):
    with pytest.raises((ModelError, UsageError)):
        ecom_rag.train(
            {
                "task": "reranker",
                "model": tmp_path / "no",
                "output": tmp_path / "out",
                "data": {"train": str(Path(__file__).parent / "nothing.jsonl")},
            }
        )
