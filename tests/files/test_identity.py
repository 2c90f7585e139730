"""One meaning of a key, one rule for labels and ids: the rule itself, and that every reader follows it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.evaluation import tables
from ecom_rag.evaluation.files import evaluate_labels
from ecom_rag.files.identity import (
    as_id,
    as_label,
    id_of,
    ids_by,
    is_itself,
    known_id,
    label_of,
    required_id,
    required_label,
)
from ecom_rag.files.keys import lookup, parse_key, value_at, written
from ecom_rag.filters.parse import parse
from ecom_rag.filters.tree import matches
from ecom_rag.merging import validation
from ecom_rag.mining import Rules, mine_file
from ecom_rag.mining.sources import Source
from ecom_rag.seeds.bank import BankSettings, SeedBank, create, stats
from ecom_rag.training.data import read_data
from ecom_rag.training.recipe import make_recipe
from ecom_rag.training.sampling import pk_batches
from helpers.jsonl import write
from helpers.small_banks import built

pytestmark = pytest.mark.slow

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


# --- keys -------------------------------------------------------------------------------------------------------------


@given(TEXT, TEXT)
def test_any_key_can_be_written_and_all_readers_mean_it(outer, inner):
    key = f"{written(outer)}.{written(inner)}"
    metadata = {outer: {inner: "x"}, f"{outer}.{inner}": "not this one"}
    assert parse_key(key) == (outer, inner) and lookup(metadata, parse_key(key)) == (True, "x")
    assert label_of(metadata, key) == id_of(metadata, key) == "x"
    assert matches(parse(f"{key} = 'x'"), metadata) and matches(parse({key: "x"}), metadata)
    assert value_at(metadata, written(f"{outer}.{inner}")) == "not this one"


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("label", ("label",)),
        ("policy.label", ("policy", "label")),
        ('"a.b"', ("a.b",)),
        ("'a.b'.c", ("a.b", "c")),
        ("risk level", ("risk level",)),
        ("类目/一级", ("类目/一级",)),
        (" a . b ", ("a", "b")),
        ("2", ("2",)),
    ],
)
def test_keys(key, path):
    assert parse_key(key) == path


@pytest.mark.parametrize("key", ["", " ", "a..b", ".a", "a.", '"a', 'say "hi"', "not", "a.in", '"\\q"', 7, None])
def test_what_is_no_key_is_said_in_one_line(key):
    with pytest.raises(UsageError, match=r"^key[:,] .*expected") as caught:
        parse_key(key)
    assert "\n" not in str(caught.value)


def test_a_key_that_holds_a_dot_needs_quotes_and_the_error_says_so():
    assert value_at({"a.b": 1}, '"a.b"') == 1 and value_at({"a": {"b": 2}, "a.b": 1}, "a.b") == 2
    with pytest.raises(UsageError, match=r'write "a.b" for that one'):
        value_at({"a.b": 1}, "a.b")


# --- labels and ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ((1, 1.0, "1", "1.0", "1.00", " 1 ", np.int64(1), np.float32(1), "\ufeff1\u200b"), "1"),
        ((0, 0.0, -0.0, "0", "-0.0"), "0"),
        ((-2, -2.0, "-2.0"), "-2"),
        ((0.5, "0.5", np.float64(0.5)), "0.5"),
        ((True, "true", "True", "TRUE", np.bool_(True)), "true"),
        (("caf\u00e9", "cafe\u0301", " café\n"), "café"),
        ((10**20, float(10**20), str(10**20)), "100000000000000000000"),
        ((None, "", "  ", "\u200b", float("nan"), np.float32("nan")), None),
    ],
)
def test_values_that_are_one_label(values, label):
    assert {as_label(value) for value in values} == {label}


def test_values_that_are_different_labels():
    values = ["007", 7, "1.10", 1.1, "v1.0", "a", "A", "1e3", 1, True, False, "none", "ａ", "1 0"]
    assert len({as_label(value) for value in values}) == len(values)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_infinity=False), st.text()))
def test_a_label_is_itself(value):
    label = as_label(value)
    assert label is None or (as_label(label) == label and label.strip() == label != "")


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_ids_of_one_number_are_one(number):
    assert as_id(number) == as_id(float(number)) == as_id(str(number)) == str(number)


@pytest.mark.parametrize("value", [["x"], {"a": 1}, (1, 2), np.array([1]), float("inf")])
def test_what_is_no_label(value):
    with pytest.raises(ValueError, match=r'query: metadata "a" is .*expected one label'):
        required_label({"a": value}, "a", "query")


@pytest.mark.parametrize("value", ["", True, 7.5, float("nan"), 2.0**60, [1], {}])
def test_what_is_no_id(value):
    with pytest.raises(ValueError, match=r'query: metadata "id" is .*expected a string of at least one character, or'):
        required_id({"id": value}, "id", "query")


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r'query: metadata "label" is missing \(found keys: id, policy'):
        required_label({"id": 1, "policy": None}, "label", "query")


def test_who_is_itself():
    query = {"text": "t", "metadata": {"id": 7}}
    assert is_itself(query, "another", {"id": "7"}, "id") and not is_itself(query, "t", {"id": "8"}, "id")
    assert is_itself(query, "t", {}, "id") and is_itself({"text": "t"}, "t", {"id": 1}, "id")


# --- every reader follows the rule ------------------------------------------------------------------------------------


def spelled(label, way):
    """A whole number as some program writes it."""
    return (label, float(label), str(label), f"{label}.0", f" {label} ")[way]


def labelled(labels, ways):
    words = ["red", "blue", "shoe", "bag", "watch"]
    return [
        {"text": f"{words[n % 5]} {words[(n * 3 + label) % 5]} {n}", "metadata": {"label": spelled(label, way)}}
        for n, (label, way) in enumerate(zip(labels, ways, strict=True))
    ]


def recipe_of(path):
    return make_recipe({"model": "m", "output": "o", "data": {"train": [path]}}, "embedder")


def everything(folder, labels, ways):
    """What each reader makes of labels: figures, mined negatives, sampled classes, counts."""
    folder.mkdir()
    items = labelled(labels, ways)
    path = write(folder / "items.jsonl", items)
    found = [items[n:] + items[:n] for n in range(len(items))]
    results = [
        {
            **item,
            "topk_sim": [1 - n / 100 for n in range(5)],
            "topk_seed": [other["text"] for other in others[1:6]],
            "topk_metadata": [other["metadata"] for other in others[1:6]],
        }
        for item, others in zip(items, found, strict=True)
    ]
    study, _, judged = evaluate_labels([write(folder / "results.jsonl", results)], resamples=100, votes=3, positive="1")
    figures = tables.as_json(study)
    figures["settings"] = None
    mined = folder / "mined.jsonl"
    rules = Rules(negatives=2, first=1, last=20)
    mine_file(Source(path, "labelled", positives=2), str(mined), rules, route="bm25")
    data = read_data([path], "train", recipe_of(path))
    batches = list(pk_batches(data.labels, classes_per_batch=2, texts_per_class=2, seed=1))
    by_hand = list(pk_batches([item["metadata"]["label"] for item in items], classes_per_batch=2, texts_per_class=2))
    with built(folder / "bank", items, BankSettings(routes=["bm25"])) as bank:
        counted = stats(bank)["labels"]
    measured = validation.load(validation.ValidationSet("s", labelled=path)).judged
    sets = (data.labels, batches, by_hand, counted, measured.relevance.documents.tolist(), measured.own.tolist())
    return figures, judged, mined.read_bytes(), sets


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=24, max_size=24))
def test_how_labels_are_spelled_changes_nothing(tmp_path_factory, ways):
    labels = [n % 3 for n in range(24)]
    folder = tmp_path_factory.mktemp("spelled")
    assert everything(folder / "a", labels, ways) == everything(folder / "b", labels, [2] * 24)


@pytest.mark.parametrize("label", [["a", "b"], {"a": 1}])
def test_several_labels_are_an_error_with_its_place(tmp_path, label):
    items = [*labelled([1, 1], [0, 0]), {"text": "t", "metadata": {"label": label}}]
    path = write(tmp_path / "items.jsonl", items)
    readers = [
        lambda: read_data([path], "train", recipe_of(path)),
        lambda: mine_file(Source(path, "labelled"), str(tmp_path / "m.jsonl"), Rules(), route="bm25"),
        lambda: validation.load(validation.ValidationSet("s", labelled=path)),
    ]
    for read in readers:
        with pytest.raises((RecordError, UsageError), match=r"items.jsonl:3: .*expected one label"):
            read()


def test_the_ids_of_a_bank_are_one_rule(tmp_path):
    items = [{"text": f"t{n}", "metadata": {"a.b": value}} for n, value in enumerate([7, 7.0, "7", np.int64(8)])]
    items[3]["metadata"]["a.b"] = 8
    with built(tmp_path / "bank", items, BankSettings(routes=["bm25"], id_key='"a.b"')) as bank:
        assert len(bank) == 2
        assert [found["text"] for found in bank.get([7.0, "8"])] == ["t2", "t3"]
        with pytest.raises(RecordError, match="expected a string of at least one character"):
            bank.upsert([{"text": "t", "metadata": {"a.b": 7.5}}])


def test_a_bank_of_before_keeps_its_id_key(tmp_path):
    """Its key was a name, dots included."""
    with (
        create(tmp_path / "bank", BankSettings(routes=["bm25"], id_key='"a.b"')) as bank,
        bank.store.writing() as (db, _),
    ):
        db.execute("UPDATE meta SET value = '\"a.b\"' WHERE key = 'id_key'")
        db.execute("DELETE FROM meta WHERE key = 'id_key_is_path'")
    with SeedBank.open(tmp_path / "bank") as bank:
        bank.upsert([{"text": "t", "metadata": {"a.b": "x"}}])
        assert bank.get(["x"])[0]["text"] == "t"


@pytest.mark.parametrize("key", ["id", " id ", "of.id", '"a.b"'])
@pytest.mark.parametrize("value", ["7", "", " x ", 7, 7.0, 7.5, True, None, [1], 2**70])
def test_ids_of_many_are_those_of_one(key, value):
    for metadata in ({"id": value}, {"of": {"id": value}}, {"a.b": value}, {}, None, "id"):
        assert ids_by(key)(metadata) == known_id(metadata, key)
