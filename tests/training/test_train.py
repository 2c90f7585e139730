"""Training runs of tiny models from recipe to finished folder: resuming, loaders, data errors."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ecom_rag import CrossEncoder, Encoder
from ecom_rag.errors import EcomRagError, RecordError, ResumeError
from ecom_rag.training import plan
from ecom_rag.training import report as reports
from ecom_rag.training.data import Labelled, read_data
from ecom_rag.training.fit import train
from ecom_rag.training.recipe import make_recipe
from helpers.small_runs import WORDS, grouped, interrupted, labelled, recipe_of, weights

pytestmark = pytest.mark.slow


def test_circle_loss_learns_the_classes(mean_folder, tmp_path):
    data = labelled(tmp_path / "train.jsonl")
    dev = labelled(tmp_path / "dev.jsonl", rows=12)
    recipe = recipe_of(
        mean_folder,
        data,
        tmp_path / "out",
        loss={"name": "circle"},
        data_table={"train": data, "dev": dev, "parent": "policy"},
        schedule={"epochs": 4, "bf16": True, "device": "auto"},
    )
    report = train(recipe)
    assert report["dev"]["after"] >= report["dev"]["before"] and report["dev"]["measure"] == "MAP@R"
    out = tmp_path / "out"
    assert {"train_report.json", "learning_curve.png", "README.md", "modules.json", "1_Pooling"} <= {
        path.name for path in out.iterdir()
    }
    assert not (tmp_path / "out.partial").exists()
    kept = json.loads((out / "train_report.json").read_text(encoding="utf-8"))
    assert kept["recipe"]["loss"]["name"] == "circle" and kept["data"]["classes"] == 4
    assert [epoch["total"]["draws"] for epoch in kept["sampling"]] == [24] * 4
    assert kept["versions"]["torch"] == torch.__version__
    for name in ("train_report.json", "README.md"):  # nothing of the data leaves it
        assert "leather" not in (out / name).read_text(encoding="utf-8")
    losses = [entry["loss"] for entry in kept["log"] if "loss" in entry]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_the_finished_folder_loads_everywhere(mean_folder, tmp_path):
    """The same embeddings from ecom_rag, sentence-transformers and FlagEmbedding."""
    from FlagEmbedding import FlagModel
    from sentence_transformers import SentenceTransformer

    data = grouped(tmp_path / "train.jsonl")
    table = {"train": data, "negatives": 2, "query_instruction": "q "}
    train(recipe_of(mean_folder, data, tmp_path / "out", data_table=table))
    texts = ["leather wallet card 1", "减肥 茶"]
    out = str(tmp_path / "out")
    ours = Encoder.from_pretrained(out, runtime="torch", precision="fp32", device="cpu")
    passages = ours.encode(texts, outputs=("dense",)).dense
    queries = ours.encode(texts, outputs=("dense",), side="query").dense
    sentence = SentenceTransformer(out, device="cpu")
    np.testing.assert_allclose(sentence.encode(texts), passages, atol=1e-5)
    np.testing.assert_allclose(sentence.encode(texts, prompt_name="query"), queries, atol=1e-5)
    flag = FlagModel(out, pooling_method="mean", use_fp16=False, devices="cpu")
    np.testing.assert_allclose(flag.encode(texts), passages, atol=1e-5)
    assert np.abs(queries - passages).max() > 1e-3


@pytest.mark.parametrize("kind", ["groups", "ema"])
def test_a_resumed_run_ends_with_the_same_weights(mean_folder, tmp_path, kind):
    """Stopped in the middle of the second epoch, one step after a checkpoint; dropout, optimizer and data go on."""
    options = {"averaging": {"ema_decay": 0.9}} if kind == "ema" else {}
    if kind == "groups":
        data = grouped(tmp_path / "train.jsonl")
        options |= {"data_table": {"train": data, "negatives": 1}, "loss": {"distillation": "kl"}}
    else:
        data = labelled(tmp_path / "train.jsonl")
        options["loss"] = {"name": "supervised_contrastive"}
    whole, parts = (recipe_of(mean_folder, data, tmp_path / name, **options) for name in ("whole", "parts"))
    report = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(parts, progress=interrupted(report["steps"] - 1))
    assert not (tmp_path / "parts").exists()
    with pytest.raises(ResumeError, match="go on with `resume`"):
        train(parts)
    resumed = train(parts, resume=True)
    assert resumed["resumed_at_step"] == report["steps"] - 2 and resumed["steps"] == report["steps"]
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed["sampling"] == report["sampling"]
    start = load_file(mean_folder / "model.safetensors")
    assert any(not torch.equal(expected[name], start[name]) for name in expected if name in start)


def test_half_written_checkpoints_are_passed_over(mean_folder, tmp_path):
    data = labelled(tmp_path / "train.jsonl")
    recipe = recipe_of(mean_folder, data, tmp_path / "out", loss={"name": "circle"})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, progress=interrupted(3))
    broken = tmp_path / "out.partial" / "checkpoint-3"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"cut off")
    assert train(recipe, resume=True)["resumed_at_step"] == 2
    other = recipe_of(mean_folder, data, tmp_path / "other", loss={"name": "circle"})
    with pytest.raises(KeyboardInterrupt):
        train(other, progress=interrupted(3))
    changed = recipe_of(mean_folder, data, tmp_path / "other", loss={"name": "circle", "gamma": 20.0})
    with pytest.raises(ResumeError, match=r"another loss.gamma \(80.0, now 20.0\)"):
        train(changed, resume=True)


def test_a_tiny_bge_m3_is_tuned_as_one(m3_folder, tmp_path):
    """All three outputs train; the folder loads in FlagEmbedding with its heads, and gives the same numbers there."""
    from FlagEmbedding import BGEM3FlagModel

    data = grouped(tmp_path / "train.jsonl")
    recipe = recipe_of(
        m3_folder,
        data,
        tmp_path / "out",
        loss={"name": "m3", "distillation": "kl"},
        data_table={"train": data, "dev": data, "negatives": 2},
        schedule={"max_steps": 6, "keep": 3},
        averaging={"best_checkpoints": 3},
    )
    report = train(recipe)
    assert report["dev"]["average"]["steps"] == [2, 4, 6]
    out = tmp_path / "out"
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        before, after = (torch.load(folder / name, weights_only=True) for folder in (m3_folder, out))
        assert not torch.equal(before["weight"], after["weight"])
    texts = ["手机壳 leather wallet", "replica watch"]
    ours = Encoder.from_pretrained(str(out), runtime="torch", precision="fp32", device="cpu")
    found = ours.encode(texts, outputs=("dense", "sparse", "multivector"))
    flag = BGEM3FlagModel(str(out), use_fp16=False, devices="cpu")
    theirs = flag.encode(texts, return_dense=True, return_sparse=True, return_colbert_vecs=True)
    np.testing.assert_allclose(theirs["dense_vecs"], found.dense, atol=1e-5)
    for row, weights_of in enumerate(theirs["lexical_weights"]):
        mine = found.sparse[row].tocoo()
        assert {str(i): pytest.approx(float(w), abs=1e-5) for i, w in zip(mine.col, mine.data, strict=True)} == {
            key: float(value) for key, value in weights_of.items()
        }
        np.testing.assert_allclose(theirs["colbert_vecs"][row], found.multivector[row], atol=1e-5)


@pytest.mark.parametrize("start", ["encoder", "reranker"])
def test_a_reranker(mean_folder, bert_reranker, tmp_path, start):
    """From a reranker, or from an encoder with a new head; scores as sentence-transformers', learned from the pairs."""
    from sentence_transformers import CrossEncoder as Reference

    folder = bert_reranker if start == "reranker" else mean_folder
    good, bad = ("leather wallet", "quick brown fox")  # whatever the query: two layers learn that in a few steps
    data = grouped(tmp_path / "train.jsonl", pos=[good, f"{good} 3"], neg=[bad, f"{bad} 1", f"a {bad}"])
    loss = {"name": "binary", "distillation": "margin_mse", "distillation_weight": 0.01} if start == "reranker" else {}
    recipe = recipe_of(
        folder,
        data,
        tmp_path / "out",
        task="reranker",
        loss=loss,
        schedule={"epochs": 12, "save_every": 12, "learning_rate": 5e-3},
        data_table={"train": data, "dev": data, "negatives": 3},
    )
    report = train(recipe)
    assert report["recipe"]["loss"]["name"] == loss.get("name", "listwise")
    assert report["dev"]["after"] > max(report["dev"]["before"], 0.99)
    ours = CrossEncoder.from_pretrained(str(tmp_path / "out"), runtime="torch", precision="fp32", device="cpu")
    pairs = [("wallet 1", f"{good} 5"), ("wallet 1", f"{bad} 5")]
    scores = ours.score(pairs)
    assert scores[0] > scores[1]
    reference = Reference(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(reference.predict(pairs, activation_fn=torch.nn.Identity()), scores, atol=1e-5)


def test_a_rerankers_positives_are_no_negatives(bert_reranker, tmp_path):
    item = {"query": "q", "pos": ["a", "b"], "neg": ["c", "a", "d"], "pos_scores": [1, 2], "neg_scores": [3, 4, 5]}
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(item))
    table = {"model": str(bert_reranker), "output": "x", "data": {"train": str(path)}}
    recipe = make_recipe(table | {"loss": {"name": "none", "distillation": "kl"}}, "reranker")
    data = read_data(recipe.data.train, "train", recipe)
    assert (data.items[0].negatives, data.items[0].negative_scores) == (["c", "d"], [3.0, 5.0])
    assert data.notes == ["1 queries have a text among both pos and neg; it is not used as their negative"]
    path.write_text(json.dumps(item | {"neg": ["b", "a", "b"]}))
    with pytest.raises(RecordError, match='every text of "neg" is among "pos" too'):
        read_data(recipe.data.train, "train", recipe)
    other = item | {"pos": ["c"], "pos_scores": [1]}  # the same query on another line
    path.write_text(f"{json.dumps(item)}\n{json.dumps(other)}")
    data = read_data(recipe.data.train, "train", recipe)
    assert [group.negatives for group in data.items] == [["d"]] * 2 and data.notes[0].startswith("2 queries")
    path.write_text(f"{json.dumps(item)}\n{json.dumps(item | {'pos': ['c', 'd']})}")
    with pytest.raises(RecordError, match=r'train.jsonl:1: every text of "neg" is among "pos" on another line'):
        read_data(recipe.data.train, "train", recipe)


def test_pairs_are_cut_as_at_inference(bert_reranker):
    """The inputs that are trained on are those that CrossEncoder scores."""
    from ecom_rag.models.checkpoints.tokens import Tokenizer
    from ecom_rag.training.collate import pair_inputs

    queries = ["quick brown fox " * 12, "wallet", "a", ""]
    documents = ["best before", "replica watch " * 30, "", "leather"]
    ours = CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch", precision="fp32", max_length=32)
    prepared = ours.prepare(zip(queries, documents, strict=True))
    ids, seconds = prepared.ids, prepared.second_starts
    inputs = pair_inputs(Tokenizer(bert_reranker), queries, documents, 32)
    for row in range(4):
        length = int(inputs["attention_mask"][row].sum())
        assert inputs["input_ids"][row, :length].tolist() == ids[row].tolist()
        assert inputs["token_type_ids"][row].sum() == max(length - seconds[row], 0)


def test_lora_is_merged_into_the_folder(mean_folder, tmp_path):
    data = labelled(tmp_path / "train.jsonl")
    options = {"loss": {"name": "circle"}, "lora": {"rank": 2}, "data_table": {"train": data, "dev": data}}
    whole, parts = (recipe_of(mean_folder, data, tmp_path / name, **options) for name in ("whole", "parts"))
    report = train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(parts, progress=interrupted(report["steps"] - 1))
    train(parts, resume=True)
    start, found, resumed = weights(mean_folder), weights(tmp_path / "whole"), weights(tmp_path / "parts")
    changed = {name for name in found if not torch.equal(found[name], start[name])}
    assert changed and all(name.endswith("weight") and ".layer." in name for name in changed)
    assert all(torch.equal(found[name], resumed[name]) for name in found)


@pytest.mark.parametrize("task", ["embedder", "reranker"])
def test_gradient_caching_gives_the_same_gradients(mean_folder, bert_reranker, tmp_path, task):
    from ecom_rag.models.checkpoints.tokens import Tokenizer
    from ecom_rag.training import checkpoints
    from ecom_rag.training.collate import GroupCollator
    from ecom_rag.training.data import read_data
    from ecom_rag.training.modules import EmbedderLoss, RerankerLoss
    from ecom_rag.training.plan import make_batches

    folder = mean_folder if task == "embedder" else bert_reranker
    path = grouped(tmp_path / "train.jsonl")
    recipe = recipe_of(folder, path, tmp_path / "out", task=task, loss={"name": "none", "distillation": "kl"})
    data = read_data([path], "train", recipe)
    collator = GroupCollator(
        data,
        Tokenizer(folder),
        make_batches(recipe, data),
        task=task,
        positives=1,
        negatives=2,
        max_length=32,
        instructions=("", ""),
        seed=0,
    )
    model = checkpoints.load(recipe, checkpoints.find_start(recipe))
    model.eval()  # without dropout, whose masks would depend on how the batch is cut
    found = []
    for mini_batch in (None, 5):
        loss = (EmbedderLoss if task == "embedder" else RerankerLoss)(
            model, recipe.loss, group=3, mini_batch=mini_batch
        )
        batch = collator([{"row": row} for row in range(4)])
        sides = ("queries", "documents") if task == "embedder" else ()
        features = [{k.removeprefix(f"{side}_"): v for k, v in batch.items() if k.startswith(side)} for side in sides]
        model.zero_grad()
        value = loss(features or [batch["pairs"]], batch["label"])
        value.backward()
        found.append((value.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert len(found[0][1]) == len(found[1][1]) > 10
    for whole, cached in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(whole, cached, rtol=1e-3, atol=1e-5)


def test_a_beir_folder_trains_and_validates(mean_folder, tmp_path):
    """In-batch negatives alone; of the corpus the judged documents and a sample."""
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    names = list(WORDS)
    lines(
        folder / "corpus.jsonl",
        *({"_id": f"d{i}", "title": "", "text": f"{WORDS[names[i % 4]]} {i}"} for i in range(20)),
    )
    lines(folder / "queries.jsonl", *({"_id": f"q{i}", "text": f"{names[i % 4]} {i}"} for i in range(8)))
    for split, queries in (("train", range(6)), ("dev", range(6, 8))):
        rows = [f"q{i}\td{i}\t2\nq{i}\td{i + 8}\t0\n" for i in queries]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    table = {"train": str(folder), "dev": str(folder), "negatives": 0}
    recipe = recipe_of(mean_folder, "", tmp_path / "out", data_table=table, evaluation={"max_documents": 9})
    report = train(recipe)
    assert report["data"]["rows"] == 6 and report["data"]["positives"] == 6
    assert report["dev"]["data"] == "2 queries, 9 documents" and report["dev"]["measure"] == "nDCG@10"
    hard = recipe_of(mean_folder, "", tmp_path / "hard", data_table=table | {"negatives": 1})
    with pytest.raises(EcomRagError, match="a BEIR folder has no hard negatives; mine them"):
        train(hard)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet"])
def test_labelled_records_of_every_format_and_nested_labels(tmp_path, suffix):
    from ecom_rag.files import records

    items = [{"text": f"t{i}", "metadata": {"policy": {"id": f"p{i % 2}", "group": 7}}} for i in range(4)]
    lines(tmp_path / "all.jsonl", *items, {"text": "t4", "metadata": {"policy": {"id": "p1"}}})
    source, bad = lines(tmp_path / "in.jsonl", *items), str(tmp_path / f"bad{suffix}")
    path = str(tmp_path / f"train{suffix}")
    for lines_of, target in ((source, path), (str(tmp_path / "all.jsonl"), bad)):
        records.convert(Path(lines_of), Path(target), suffix) if suffix != ".jsonl" else shutil.copy(lines_of, target)
    recipe = recipe_of("m", path, "o", data_table={"label": "policy.id", "parent": "policy.group"})
    data = read_data(recipe.data.train, "train", recipe)
    assert (data.texts, data.labels, data.parents) == (["t0", "t1", "t2", "t3"], ["p0", "p1"] * 2, ["7"] * 4)
    place = {".json": ": item 5", ".csv": ":6", ".parquet": ": row 5"}.get(suffix, ":5")
    with pytest.raises(RecordError, match=f'bad{suffix}{place}: "metadata.policy.group" is missing'):
        read_data([bad], "train", recipe)


def test_what_a_beir_folder_cannot_train_on_is_left_out_and_noted(tmp_path):
    (tmp_path / "qrels").mkdir()
    lines(tmp_path / "corpus.jsonl", {"_id": "d", "text": "a"}, {"_id": "e", "title": "", "text": " "})
    lines(tmp_path / "queries.jsonl", *({"_id": q, "text": q.strip("x")} for q in ("q", "r", "s", "x")))
    (tmp_path / "qrels" / "train.tsv").write_text("q\td\t1\nq\te\t1\nr\te\t1\ns\tgone\t1\nx\td\t1\n")
    recipe = recipe_of("m", str(tmp_path), "o", data_table={"negatives": 0})
    data = read_data(recipe.data.train, "train", recipe)
    assert [(item.query, item.positives) for item in data.items] == [("q", ["a"])]
    assert data.notes == [
        f"{tmp_path}: 1 relevant documents are not in the corpus; left out",
        f"{tmp_path}: 1 relevant documents have no text; left out",
        f"{tmp_path}: 3 queries have no text, or no relevant document that has one; left out",
    ]


def lines(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return str(path)


GOOD = {"query": "a", "pos": ["b"], "neg": ["c"], "pos_scores": [1.0], "neg_scores": [0.0]}
TEXT = {"text": "a", "metadata": {"label": "x"}}
BAD = [
    ([GOOD, GOOD | {"neg": []}], {}, r':2: "neg" is missing or empty; mine hard negatives'),
    ([GOOD, GOOD | {"pos": []}], {}, r':2: "pos" is missing or empty'),
    ([GOOD, GOOD | {"pos": [" "]}], {}, r':2: "pos\[0\]" is empty'),
    ([GOOD, {"pos": ["b"]}], {}, r':2: "query" is missing'),
    ([GOOD, GOOD | {"neg_scores": [float("nan")]}], {"distillation": "kl"}, ":2: NaN is not JSON"),
    ([GOOD, GOOD | {"neg_scores": [None]}], {"distillation": "kl"}, r':2: "neg_scores\[0\]" is None'),
    ([GOOD, GOOD | {"neg_scores": [1.0, 2.0]}], {"distillation": "kl"}, ':2: "neg_scores" has 2 entries'),
    ([{k: v for k, v in GOOD.items() if k != "pos_scores"}], {"distillation": "kl"}, ':1: "pos_scores" is missing'),
    ([TEXT, {"text": "b"}], {"name": "circle"}, r':2: "metadata.label" is missing'),
    (
        [TEXT, TEXT | {"text": "b"}, {"text": "c", "metadata": {"label": "y"}}],
        {"name": "circle"},
        r':3: class "y" has this one text',
    ),
    ([TEXT, TEXT, {"text": "c", "metadata": {"label": "y"}}], {"name": "circle"}, ':1: class "x" has this one text, '),
    ([TEXT, TEXT | {"text": "b"}], {"name": "circle"}, "1 classes to train on"),
    ([TEXT, TEXT | {"text": "b"}], {"name": "m3"}, "1 classes to train on"),
    (
        [TEXT, TEXT | {"text": "b"}, *({"text": t, "metadata": {"label": "y"}} for t in "cd")],
        {"name": "m3"},
        "loss.name is 'm3'; over labelled records expected one of circle",
    ),
    ([GOOD], {"name": "supervised_contrastive"}, "over queries expected one of info_nce, circle, m3, none"),
    ([{"title": "a"}], {}, ":1: found keys title; expected a query with pos and neg, or a record with text"),
    ([], {}, "is empty; there is nothing to train on"),
]


@pytest.mark.parametrize(("items", "loss", "message"), BAD)
def test_bad_data_is_one_line_before_training_starts(tmp_path, items, loss, message):
    """No model is loaded: there is none at that path."""
    data = lines(tmp_path / "train.jsonl", *items)
    recipe = recipe_of("/no/such/model", data, tmp_path / "out", loss=loss)
    with pytest.raises(EcomRagError, match=message) as raised:
        train(recipe)
    assert "\n" not in str(raised.value) and not (tmp_path / "out.partial").exists()


def test_broken_json_and_missing_files(tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"query": "a"\n')
    with pytest.raises(EcomRagError, match=r"broken.jsonl:1: not valid JSON"):
        train(recipe_of("starter", str(tmp_path / "broken.jsonl"), tmp_path / "out"))
    with pytest.raises(EcomRagError, match="no such file or folder"):
        train(recipe_of("starter", str(tmp_path / "none.jsonl"), tmp_path / "out"))
    data = lines(tmp_path / "train.jsonl", GOOD)
    with pytest.raises(EcomRagError, match="already exists"):
        train(recipe_of("starter", data, tmp_path))
    with pytest.raises(EcomRagError, match="labelled records; a reranker needs queries"):
        train(recipe_of("starter", labelled(tmp_path / "l.jsonl"), tmp_path / "out", task="reranker"))


@pytest.mark.parametrize("task", ["embedder", "reranker"])
def test_parts_of_like_length_give_what_the_whole_batch_gives(mean_folder, bert_reranker, tmp_path, monkeypatch, task):
    from ecom_rag.models.checkpoints.tokens import Tokenizer
    from ecom_rag.training import checkpoints, modules
    from ecom_rag.training.collate import pair_inputs, single_inputs

    folder = mean_folder if task == "embedder" else bert_reranker
    recipe = recipe_of(folder, grouped(tmp_path / "train.jsonl"), tmp_path / "out", task=task)
    texts = ["leather wallet card " * n for n in (5, 1, 3, 1, 4, 2, 8)]
    model = checkpoints.load(recipe, checkpoints.find_start(recipe))
    if task == "embedder":
        output, feature = "sentence_embedding", single_inputs(Tokenizer(folder), texts, 32)
    else:
        output, feature = "scores", pair_inputs(Tokenizer(folder), ["watch"] * len(texts), texts, 32)
    model.eval()
    whole = model(dict(feature))[output]
    widths = []
    model.register_forward_pre_hook(lambda _, given: widths.append(tuple(given[0]["input_ids"].shape)))
    monkeypatch.setattr(modules, "PART", 48)
    torch.testing.assert_close(modules._in_parts(model, feature, output), whole, rtol=1e-4, atol=1e-5)
    assert sum(rows for rows, _ in widths) == len(texts) and max(rows for rows, _ in widths) > 1
    assert all(rows == 1 or rows * width <= 48 for rows, width in widths)
    assert [width for _, width in widths] == sorted((width for _, width in widths), reverse=True)


def test_dropout_of_the_recipe(mean_folder, tmp_path):
    from ecom_rag.training import checkpoints

    def rates(**schedule):
        recipe = recipe_of(mean_folder, grouped(tmp_path / "train.jsonl"), tmp_path / "out", schedule=schedule)
        model = checkpoints.load(recipe, checkpoints.find_start(recipe))
        return {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}

    assert rates() == {0.1} and rates(dropout=0) == {0.0}
    with pytest.raises(EcomRagError, match=r"schedule\.dropout is 1\.0; expected from 0 to below 1"):
        rates(dropout=1)


def test_the_report_shows_the_epochs_that_were(tmp_path):
    """10 batches, 4 a step: an epoch has 3 steps, the last of 2 batches."""

    class Ten:
        batches = 10

        def report(self, epoch, batches=10):
            return SimpleNamespace(as_dict=lambda: (epoch, batches))

    assert reports.epochs_shown(Ten(), 9, 4) == [(0, 10), (1, 10), (2, 10)]
    assert reports.epochs_shown(Ten(), 4, 4) == [(0, 10), (1, 4)]
    assert reports.epochs_shown(Ten(), 7, 1) == [(0, 7)]


def test_resuming_looks_at_policy_groups_and_dev_data(tmp_path):
    data = [Labelled(["a", "b"], ["x", "y"], parents, ["f", "f"], []) for parents in (None, ["p", "p"], ["p", "q"])]
    assert len({plan.digest_of(one) for one in data}) == 3
    folder = tmp_path / "dev"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("1")
    before = plan.files_digest(str(folder))
    (folder / "corpus.jsonl").write_text("2")
    assert plan.files_digest(str(folder)) != before and plan.files_digest(None) is None
