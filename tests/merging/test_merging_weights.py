"""Weights of a merge: LM-Cocktail's formula, nDCG against ir_measures, searches against known optima, the command."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TEXTS, make_encoder, make_reranker
from ecom_rag import CrossEncoder, Encoder
from ecom_rag.errors import ModelError, RecordError, UsageError
from ecom_rag.evaluation.measures import evaluate_run
from ecom_rag.judging.relevance import Classes, Grades, ndcg
from ecom_rag.merging import Mix, Models, cocktail, optimise, search, validation
from ecom_rag.merging.files import open_model
from ecom_rag.mining.triples import Example, read_examples, read_triples

pytestmark = pytest.mark.slow

EXAMPLES = [
    Example("leather wallet", ["genuine leather wallet with card slots"], ["replica watch", "手机壳"]),
    Example("phone case", ["case for the phone"], ["the quick brown fox", "leather"]),
    Example("watch", ["replica watches 1:1"], ["wallet", "best before today"]),
]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return [str(make_encoder(root / f"bge-{seed}", "bert", pooling="cls", seed=seed)) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A BEIR folder, labelled records and triples, all of a dozen texts."""
    root = tmp_path_factory.mktemp("sets")
    texts = [text[:60] for text in TEXTS if text.strip()]
    beir = root / "beir"
    (beir / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    (beir / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": f"q{i}", "text": text[:12]} for i, text in enumerate(texts[:6])]
    (beir / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    qrels = "".join(f"q{i}\td{i}\t2\nq{i}\td{i + 1}\t1\n" for i in range(6))
    (beir / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    labelled = root / "labelled.jsonl"
    records = [{"text": text, "metadata": {"label": f"c{i % 3}"}} for i, text in enumerate(texts)]
    labelled.write_text("\n".join(map(json.dumps, [*records, {"text": "alone", "metadata": {"label": "x"}}])))
    triples = root / "triples.jsonl"
    items = [{"query": e.query, "pos": e.positives, "neg": e.negatives} for e in EXAMPLES]
    triples.write_text("\n".join(map(json.dumps, items)))
    return beir, labelled, triples


# --- LM-Cocktail ------------------------------------------------------------------------------------------------------


def test_cocktail_weights_are_the_papers():
    losses = [0.2, 1.7, 3.0]
    expected = torch.softmax(-torch.tensor(losses, dtype=torch.float64) / 5.0, -1)
    np.testing.assert_allclose(cocktail.weights_of(losses), expected, atol=1e-12)
    assert cocktail.weights_of([1.0, 2.0], temperature=1e-3) == pytest.approx((1.0, 0.0))
    assert cocktail.weights_of([5000.0, 5000.0], temperature=0.1) == (0.5, 0.5)
    with pytest.raises(UsageError, match="temperature is 0"):
        cocktail.weights_of([1.0], temperature=0)


def test_embedder_loss_is_that_of_lm_cocktail(encoders):
    """The authors' loss, line by line: CLS vectors, scores over 0.05, cross-entropy over a batch's passages."""
    encoder = Encoder.from_pretrained(encoders[0], runtime="torch", precision="fp32", query_instruction="")
    losses = []
    for start in (0, 2):
        batch = EXAMPLES[start : start + 2]
        queries = torch.from_numpy(encoder.encode([e.query for e in batch]).dense)
        passages = [text for e in batch for text in [e.positives[0], *e.negatives]]
        scores = queries @ torch.from_numpy(encoder.encode(passages).dense).T / 0.05
        target = torch.arange(len(batch)) * (len(passages) // len(batch))
        losses.append(float(torch.nn.CrossEntropyLoss()(scores, target)))
    assert cocktail.embedder_loss(encoder, EXAMPLES) == pytest.approx(np.mean(losses), abs=1e-5)


def test_reranker_loss_is_listwise_cross_entropy(bert_reranker):
    cross_encoder = CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch", precision="fp32")
    losses = []
    for e in EXAMPLES:
        scores = cross_encoder.score([(e.query, text) for text in [e.positives[0], e.negatives[0]]])
        losses.append(-torch.log_softmax(torch.from_numpy(scores), 0)[0].item())
    assert cocktail.reranker_loss(cross_encoder, EXAMPLES, negatives=1) == pytest.approx(np.mean(losses), abs=1e-5)
    assert cocktail.model_losses([open_model(str(bert_reranker))], EXAMPLES) == pytest.approx(
        [cocktail.reranker_loss(CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch"), EXAMPLES)]
    )


# --- measuring --------------------------------------------------------------------------------------------------------


def graded(grades):
    return Grades([{d: int(g) for d, g in enumerate(row) if g} for row in grades], grades.shape[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_ndcg_is_trec_evals(seed):
    random = np.random.default_rng(seed)
    grades = random.integers(0, 4, (5, 30)) * (random.random((5, 30)) < 0.3)
    grades[:, 0] = 1
    ids = np.stack([random.permutation(30)[:10] for _ in range(5)])
    ids[0, 6:] = -1
    run = {str(q): [str(d) for d in row if d >= 0] for q, row in enumerate(ids.tolist())}
    qrels = {str(q): {str(d): int(g) for d, g in enumerate(row) if g} for q, row in enumerate(grades)}
    expected = evaluate_run(run, qrels, ["nDCG@10"]).of("nDCG@10")
    np.testing.assert_allclose(ndcg(ids, graded(grades)), expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_ndcg_of_classes_is_that_of_their_grades(seed):
    random = np.random.default_rng(seed)
    classes = random.integers(0, 6, 40)
    own = np.flatnonzero(np.bincount(classes)[classes] > 1)
    grades = (classes[own][:, None] == classes).astype(int)
    grades[np.arange(len(own)), own] = 0
    ids = np.stack([random.permutation(np.delete(np.arange(40), row))[:10] for row in own])
    ids[0, 6:] = -1
    assert ndcg(ids, Classes(classes[own], classes, own)).tolist() == ndcg(ids, graded(grades)).tolist()


def test_labelled_records_retrieve_the_others_of_their_label(encoders, sets):
    loaded = validation.load(validation.ValidationSet("l", labelled=str(sets[1])))
    judged = loaded.judged
    assert "alone" in judged.documents and "alone" not in judged.queries
    classes = judged.relevance.documents
    others = np.bincount(classes)[classes[judged.own]] - 1
    assert (
        isinstance(judged.relevance, Classes)
        and others[0] == sum(1 for i in range(len(judged.documents) - 1) if i % 3 == 0) - 1
    )
    encoder = Encoder.from_pretrained(encoders[0], runtime="torch", precision="fp32")
    vectors = encoder.encode(judged.documents).dense
    instructed = encoder.encode(judged.queries, side="query").dense
    values = []
    for query in range(len(judged.queries)):
        order = np.argsort(-(instructed[query] @ vectors.T), kind="stable")
        order = [d for d in order if d != judged.own[query]][:10]
        gains = [(d % 3 == judged.own[query] % 3 and d < 11) / math.log2(r + 2) for r, d in enumerate(order)]
        values.append(sum(gains) / sum(1 / math.log2(r + 2) for r in range(others[query])))
    assert validation.measure(loaded, encoder) == pytest.approx(np.mean(values), abs=1e-6)


def test_triples_for_rerankers_and_encoders(encoders, sets, bert_reranker):
    judged = validation.load(validation.ValidationSet("t", triples=str(sets[2])))
    cross_encoder = CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch", precision="fp32")
    values = []
    for e in EXAMPLES:
        scores = cross_encoder.score([(e.query, text) for text in e.positives + e.negatives])
        values.append(1 / math.log2(1 + 1 + int((scores[1:] >= scores[0]).sum())))
    assert validation.measure(judged, cross_encoder) == pytest.approx(np.mean(values))
    assert 0 < validation.measure(judged, Encoder.from_pretrained(encoders[0], runtime="torch")) <= 1
    beir = validation.load(validation.ValidationSet("b", beir=str(sets[0])))
    with pytest.raises(UsageError, match="measured on triples"):
        validation.measure(beir, cross_encoder)


def test_triples_of_one_query_on_several_lines(tmp_path):
    lines = [{"query": "q", "pos": ["a"], "neg": ["b", "c"]}, {"query": "q", "pos": ["b"], "neg": ["a", "c"]}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    judged = validation.load(validation.ValidationSet("t", triples=str(tmp_path / "t.jsonl"))).judged
    assert [[judged.documents[row] for row in rows] for rows in judged.candidates] == [["c", "a"], ["c", "b"]]


def test_a_sampled_corpus_keeps_all_judged_documents(sets):
    whole = validation.load(validation.ValidationSet("b", beir=str(sets[0]))).judged
    part = validation.load(validation.ValidationSet("b", beir=str(sets[0]), max_documents=9)).judged
    again = validation.load(validation.ValidationSet("b", beir=str(sets[0]), max_documents=9)).judged
    assert (len(whole.documents), len(part.documents)) == (11, 9)
    assert part.digest == again.digest != whole.digest
    assert part.relevance.matrix.sum() == whole.relevance.matrix.sum()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[sets]]\nbeir = 'x'\nbier = 1", r"sets\[0\]: unknown key bier"),
        ("[[sets]]\nname = 'x'", "found no data; expected one of beir"),
        ("[[sets]]\nbeir = 'x'\ntriples = 'y'", "found beir and triples"),
        ("[[sets]]\nbeir = 'x'\nweight = '1'", "weight is '1'; expected a number"),
        ("[[sets]]\nbeir = 'x'\nmax_loss = -0.1", "max_loss is -0.1; expected a number of at least 0"),
        ("[[sets]]\nbeir = 'x'\nmax_loss = 0.1", "nothing to aim at"),
        ("[[sets]]\nbeir = 'x'\n[[sets]]\nbeir = 'x'", "same name"),
        ("[[sets]\n", "not valid TOML"),
        ("[other]\na = 1", "expected \\[\\[sets\\]\\]"),
    ],
)
def test_specifications_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        validation.read_spec(str(path))
    assert str(path) in str(caught.value)


def test_a_specification_may_begin_with_a_bom(tmp_path):
    (tmp_path / "spec.toml").write_bytes(b"\xef\xbb\xbf[[sets]]\nbeir = 'x'\n")
    assert validation.read_spec(str(tmp_path / "spec.toml")) == [validation.ValidationSet("x", beir="x")]


# --- searching --------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(0.05, 1))
def test_line_search_finds_the_top_of_a_hill_behind_a_wall(top, wall):
    """A hill at ``top``; beyond ``wall`` is not allowed. The best allowed point is the smaller of the two."""
    calls = []

    def evaluate(x):
        calls.append(x)
        return -max(0.0, x - wall), -((x - top) ** 2)

    assert optimise.line_search(evaluate) == pytest.approx(min(top, wall), abs=0.021)
    assert len(calls) == len(set(calls)) <= 20


def test_compass_search_climbs():
    goal = (0.1, 0.85, 0.4)
    found = optimise.compass_search(
        lambda p: (0.0, -sum((x - g) ** 2 for x, g in zip(p, goal, strict=True))),
        (1.0, 0.0, 0.5),
        step=0.25,
        smallest=0.01,
    )
    np.testing.assert_allclose(found, goal, atol=0.02)


def test_objective_puts_the_constraint_first():
    sets_ = [
        validation.ValidationSet("mine", beir="m"),
        validation.ValidationSet("other", beir="o", weight=3.0),
        validation.ValidationSet("general", beir="g", max_loss=0.01),
    ]
    base = {"mine": 0.5, "other": 0.2, "general": 0.7}
    good = search.objective(sets_, {"mine": 0.6, "other": 0.2, "general": 0.69}, base)
    better = search.objective(sets_, {"mine": 0.9, "other": 0.9, "general": 0.68}, base)
    assert good == (0.0, pytest.approx((0.6 + 3 * 0.2) / 4))
    assert better < good and better[0] == pytest.approx(-0.01)


def test_search_over_real_merges_returns_the_best_it_measured(encoders, sets, tmp_path):
    opened = Models(encoders[:2])
    judged = [
        validation.load(validation.ValidationSet("mine", beir=str(sets[0]))),
        validation.load(validation.ValidationSet("general", labelled=str(sets[1]), max_loss=0.02)),
    ]
    log = tmp_path / "log.jsonl"
    found = search.find_weights(opened, judged, Mix(((1.0, 1.0),)), budget=6, log=log)
    assert 2 <= len(found.evaluations) <= 6
    scores = [item["scores"] for item in found.evaluations]
    allowed = [s["mine"] for s in scores if s["general"] >= found.base["general"] - 0.02 - 1e-6]
    assert found.within and found.scores["mine"] == pytest.approx(max(allowed), abs=1e-6)
    out = tmp_path / "out"
    opened.write(str(out), found.mix)
    encoder = Encoder.from_pretrained(str(out), runtime="torch")
    assert {j.settings.name: validation.measure(j, encoder) for j in judged} == pytest.approx(found.scores)
    # A second search reads the log and measures nothing; one that was cut off in a line measures that one alone.
    log.write_bytes(log.read_bytes()[:-9])
    lines = len(log.read_text().splitlines())
    again = search.find_weights(opened, judged, Mix(((1.0, 1.0),)), budget=6, log=log)
    assert again.mix == found.mix and again.evaluations == found.evaluations
    assert len(log.read_text().splitlines()) == lines
    # Under another name a set is another one: its scores in the log are by name.
    renamed = [replace(item, settings=replace(item.settings, name=f"{item.settings.name} 2")) for item in judged]
    other = search.find_weights(opened, renamed, Mix(((1.0, 1.0),)), budget=3, log=log)
    assert set(other.scores) == {"mine 2", "general 2"}
    blocks = search.find_weights(opened, judged, Mix(((1.0, 1.0),)), blocks=2, budget=9)
    assert len(blocks.evaluations) <= 9 and {len(json.loads(e["mix"])[1]) for e in blocks.evaluations} == {1, 2}
    assert search.objective([j.settings for j in judged], blocks.scores, blocks.base) >= search.objective(
        [j.settings for j in judged], blocks.evaluations[0]["scores"], blocks.base
    )


@pytest.mark.parametrize(
    ("method", "models", "base"), [("linear", 3, None), ("task-arithmetic", 1, 0), ("ties", 2, 0), ("slerp", 2, None)]
)
def test_every_method_can_be_searched(encoders, sets, method, models, base):
    opened = Models(encoders[-models:], base=None if base is None else encoders[base])
    judged = [validation.load(validation.ValidationSet("mine", triples=str(sets[2])))]
    found = search.find_weights(opened, judged, Mix(((1.0,) * models,), method), budget=5)
    assert len(found.evaluations) <= 5
    best = max(item["scores"]["mine"] for item in found.evaluations)
    assert found.scores["mine"] == pytest.approx(best, abs=1e-6)
    with pytest.raises(UsageError, match=r"one for all layers|1 to 2"):
        search.find_weights(opened, judged, Mix(((1.0,) * models,), method), blocks=2 if method == "ties" else 3)


# --- files and command ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"pos": ["a"], "neg": ["b"]}', ':2: "query" is missing'),
        ('{"query": " ", "pos": ["a"]}', ':2: "query" is empty'),
        ('{"query": "q", "neg": ["b"]}', ':2: "pos" is missing or empty'),
        ('{"query": "q", "pos": "a"}', ":2: \"pos\" is 'a'; expected a list"),
        ('{"query": "q", "pos": ["a", 3]}', r':2: "pos\[1\]" is 3; expected a text'),
        ('{"query": "q", "pos": ["a"], "neg": ["b"], "neg_scores": [1, 2]}', ':2: "neg_scores" has 2 entries'),
        ('{"query": "q", "pos": ["a"], "pos_scores": [NaN]}', ":2: NaN is not JSON"),
        (
            '{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [null]}',
            r':2: "pos_scores\[0\]" is None; expected a finite',
        ),
        ('{"query": "q", "pos": ["a"], "neg": []}', ':2: "neg" is missing or empty'),
    ],
)
def test_bad_triples(tmp_path, line, message):
    path = tmp_path / "train.jsonl"
    path.write_text('{"query": "q", "pos": ["a"], "neg": ["b"]}\n' + line + "\n")
    with pytest.raises(RecordError, match=message):
        list(read_triples(str(path), needs_negatives=True))
    path.write_text("")
    with pytest.raises(UsageError, match="holds no examples"):
        read_examples(str(path))


def run(monkeypatch, capsys, *arguments):
    from ecom_rag import cli

    monkeypatch.setattr("sys.argv", ["ecom-rag", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr().err


def test_command_by_hand_examples_and_validation(encoders, sets, tmp_path, monkeypatch, capsys):
    first, second, _ = encoders
    code, shown = run(monkeypatch, capsys, "merge", f"{first}=3", f"{second}=1", "-o", tmp_path / "hand")
    assert code == 0 and "0.75" in shown
    assert json.loads((tmp_path / "hand" / "merge_report.json").read_text())["models"][1]["weight"] == [0.25]
    code, shown = run(
        monkeypatch, capsys, "merge", first, second, "--examples", sets[2], "--temperature", 0.5, "-o", tmp_path / "few"
    )
    report = json.loads((tmp_path / "few" / "merge_report.json").read_text())
    assert code == 0
    weights = cocktail.weights_of(report["weights_from"]["losses"], temperature=0.5)
    assert [model["weight"][0] for model in report["models"]] == pytest.approx(weights)
    spec = tmp_path / "sets.toml"
    spec.write_text(
        f"[[sets]]\nname = 'mine'\nbeir = '{sets[0]}'\n"
        f"[[sets]]\nname = 'general'\nlabelled = '{sets[1]}'\nmax_loss = 0.01\n"
    )
    kept = tmp_path / "hand2.search.jsonl"
    kept.write_text("of an interrupted search\n")
    code, _ = run(monkeypatch, capsys, "merge", first, second, "-o", tmp_path / "hand2")
    assert code == 0 and kept.exists()  # a call that did not search leaves it
    kept.unlink()
    code, shown = run(
        monkeypatch, capsys, "merge", first, second, "--validate", spec, "--budget", 4, "-o", f"{tmp_path / 'found'}/"
    )
    report = json.loads((tmp_path / "found" / "merge_report.json").read_text())["weights_from"]
    assert code == 0 and "mine: nDCG@10" in shown
    assert report["within"] and [item["name"] for item in report["sets"]] == ["mine", "general"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "found", "hand", "hand2", "sets.toml"]


def test_command_mistakes(encoders, sets, tmp_path, monkeypatch, capsys):
    first, second, _ = encoders
    out = ["-o", tmp_path / "out"]
    cases = [
        ([f"{first}=1", second, *out], "1 of 2 models have a weight"),
        ([f"{first}=much", second, *out], "'much' is not a number"),
        ([f"{first}=1", f"{second}=1", "--examples", sets[2], *out], "give one of the three"),
        ([first, second, "--blocks", "2", *out], "--blocks has no effect without --validate"),
        ([first, second, "--density", "0.5", *out], "--density has no effect with --method linear"),
        ([first, second, "--lambda", "0.5", *out], "--lambda has no effect with --method linear"),
        ([first, second, "--temperature", "1", *out], "--temperature has no effect without --examples"),
        ([first, second, "--examples", sets[2], "--budget", "9", *out], "--budget has no effect without --validate"),
        (
            [first, "--base", second, "--method", "ties", "--lambda", "1", "--validate", "s.toml", *out],
            "--lambda has no effect with --validate",
        ),
        ([first, "--method", "ties", *out], "name it with --base"),
        ([first, second, "-o", tmp_path], "already exists"),
        ([first, second, "--validate", tmp_path / "no.toml", *out], "no such file"),
        ([first, tmp_path / "nothing", *out], "no such folder"),
    ]
    for arguments, message in cases:
        code, shown = run(monkeypatch, capsys, "merge", *arguments)
        assert code == 2 and message in shown and shown.count("\n") == 1, shown
    assert not (tmp_path / "out").exists()


def test_a_reranker_is_refused_on_sets_that_need_search(tmp_path, sets, bert_reranker):
    other = make_reranker(tmp_path / "other", "bert")
    judged = [validation.load(validation.ValidationSet("b", beir=str(sets[0])))]
    with pytest.raises(UsageError, match="measured on triples"):
        search.find_weights(Models([str(bert_reranker), str(other)]), judged, Mix(((1.0, 1.0),)))
    with pytest.raises(ModelError, match="one is a reranker"):
        Models([str(bert_reranker), str(make_encoder(tmp_path / "encoder", "bert"))])
