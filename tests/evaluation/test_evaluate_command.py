"""ecom-rag evaluate end to end: figures, files, reports, and one line for every mistake."""

import gzip
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from ecom_rag.evaluation import evaluate_run
from ecom_rag.files import records
from ecom_rag.files.trec import read_qrels, read_run
from ecom_rag.pipeline import Recall, recall_file
from ecom_rag.retrieval.learned_fusion import load_fusion

pytestmark = pytest.mark.slow

LABELS = ["counterfeit", "假货", "<b>off & on</b>"]


@pytest.fixture
def run_here(monkeypatch, capsys):
    def go(*arguments):
        from ecom_rag.cli import main

        monkeypatch.setattr(sys, "argv", ["ecom-rag", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return go


def result(query, label, found, *, evidence=True):
    """A result over seeds 0..29, whose label is their number modulo 3."""
    record = {
        "text": f"query {query} <script>alert(1)</script>",
        "metadata": {"id": query, "label": label, "policy": {"label": label}},
        "topk_sim": [round(0.9 - 0.01 * place, 3) for place in range(len(found))],
        "topk_seed": [f"seed text {row}" for row in found],
        "topk_metadata": [{"id": f"s{row}", "label": LABELS[row % 3]} for row in found],
    }
    if evidence:
        rng = np.random.default_rng(query)
        ranks = {name: rng.permutation(len(found)) + 1 for name in ("bm25", "dense", "variant")}
        record["topk_evidence"] = [
            {name: {"score": float(1 / own[place]), "rank": int(own[place])} for name, own in ranks.items()}
            for place in range(len(found))
        ]
    return record


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    first, second = [], []
    for query in range(40):
        order = rng.permutation(30)[:12].tolist()
        good = sorted(order, key=lambda row: (row % 3 != query % 3, order.index(row)))
        first.append(result(query, LABELS[query % 3], order))
        second.append(result(query, LABELS[query % 3], good, evidence=False))
    for name, found in (("old", first), ("new", second)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(records.dumps, found)))
    judged = [f"{q}\ts{row}\t{1 + row % 2}" for q in range(40) for row in range(q % 3, 30, 6)]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    queries = [{"_id": str(q), "text": f"query {q}"} for q in range(40)]
    corpus = [{"_id": f"s{row}", "title": "", "text": f"seed text {row}"} for row in range(30)]
    (tmp_path / "queries.jsonl").write_bytes(b"".join(map(records.dumps, queries)))
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b"".join(map(records.dumps, corpus))))
    return tmp_path


class Page(HTMLParser):
    """Every tag closed, no script, nothing from elsewhere; a link leads to a place of the page itself."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.places = [], [], [], []
        self.feed(text)
        assert not self.open
        assert len(self.places) == len(set(self.places)) and set(self.links) <= set(self.places)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name == "src" or name.startswith("on") for name, _ in attrs)
        links = [value for name, value in attrs if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
        self.links += [link[1:] for link in links]
        self.places += [value for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_judgements(folder, run_here):
    names = ("figures.json", "rows.jsonl.gz", "rows.parquet", "report.html")
    figures, rows, parquet, report = (folder / name for name in names)
    code, shown, said = run_here(
        folder / "old.jsonl",
        folder / "new.jsonl",
        "--beir",
        folder,
        "--resamples",
        200,
        "-o",
        figures,
        "--per-query",
        rows,
        "--report",
        report,
    )
    assert code == 0, said
    content = json.loads(figures.read_bytes())
    qrels = read_qrels(str(folder / "qrels" / "test.tsv"))
    for name, run in zip(("old", "new"), content["runs"], strict=True):
        found = {
            str(r["metadata"]["id"]): [m["id"] for m in r["topk_metadata"]]
            for r in records.read(str(folder / f"{name}.jsonl"))
        }
        expected = evaluate_run(found, qrels, ("nDCG@10", "RR@10"))
        assert run["figures"]["nDCG@10"]["mean"] == pytest.approx(expected.means()["nDCG@10"])
        assert f"{expected.means()['nDCG@10']:.4f} [" in shown
        assert run["name"] == name and "R@100" not in run["figures"]
        own = [row for row in records.read(str(rows)) if row["run"] == name]
        assert [row["RR@10"] for row in own] == pytest.approx(expected.of("RR@10").tolist())
        assert own[3]["query"] == "3" and own[3]["text"].startswith("query 3")
    pair = next(one for one in content["pairs"] if one["measure"] == "nDCG@10")
    means = [run["figures"]["nDCG@10"]["mean"] for run in content["runs"]]
    assert pair["comparison"]["difference"] == pytest.approx(means[1] - means[0])
    assert pair["comparison"]["low"] > 0 and pair["comparison"]["p"] == pytest.approx(1 / 201)
    kinds = [one["what"] for one in content["runs"][0]["contributions"]]
    routes = ("bm25", "dense", "variant")
    assert kinds == ["all routes", *(f"only {one}" for one in routes), *(f"without {one}" for one in routes)]
    assert "contributions" not in content["runs"][1]
    assert "note: old: R@100 is left out: the run holds at most 12 candidates a query" in shown
    page = report.read_text()
    assert Page(page).tags.count("svg") >= 3
    assert "<script" not in page and "query 3 &lt;script&gt;" in page and "should have been found" in page
    assert run_here(folder / "old.jsonl", "--beir", folder, "--resamples", 200, "--per-query", parquet)[0] == 0
    assert len(list(records.read(str(parquet)))) == 40
    assert sorted(path.name for path in folder.iterdir() if "partial" in path.name) == []


def test_a_route_alone_is_what_its_ranks_say(folder, run_here):
    code, shown, _ = run_here(
        folder / "old.jsonl", "--qrels", folder / "qrels" / "test.tsv", "--resamples", 100, "-o", "-"
    )
    assert code == 0
    own = next(one for one in json.loads(shown)["runs"][0]["contributions"] if one["what"] == "only dense")
    run = {}
    for record in records.read(str(folder / "old.jsonl")):
        places = np.argsort([item["dense"]["rank"] for item in record["topk_evidence"]])
        run[str(record["metadata"]["id"])] = [record["topk_metadata"][place]["id"] for place in places]
    expected = evaluate_run(run, read_qrels(str(folder / "qrels" / "test.tsv")), ("nDCG@10", "AP")).means()
    assert own["means"]["nDCG@10"] == pytest.approx(expected["nDCG@10"])
    assert own["means"]["AP"] == pytest.approx(expected["AP"])


def test_trec_in_and_out(folder, run_here):
    code, _, said = run_here(
        folder / "old.jsonl",
        "--beir",
        folder,
        "--resamples",
        100,
        "--write-run",
        folder / "old.trec",
        "--write-qrels",
        folder / "qrels.txt",
    )
    assert code == 0, said
    assert read_run(str(folder / "old.trec"))["7"][0].startswith("s")
    _, first, _ = run_here(folder / "old.trec", "--qrels", folder / "qrels.txt", "--resamples", 100, "-o", "-")
    _, second, _ = run_here(folder / "old.jsonl", "--beir", folder, "--resamples", 100, "-o", "-")
    figures = [json.loads(one)["runs"][0]["figures"] for one in (first, second)]
    assert figures[0] == figures[1]


def test_labels(folder, run_here):
    report = folder / "report.html"
    code, shown, said = run_here(
        folder / "old.jsonl",
        folder / "new.jsonl",
        "--labels",
        "--votes",
        3,
        "--positive",
        "假货",
        "--resamples",
        200,
        "-o",
        folder / "f.json",
        "--report",
        report,
    )
    assert code == 0, said
    content = json.loads((folder / "f.json").read_bytes())
    old, new = content["runs"]
    right = 0
    for record in records.read(str(folder / "old.jsonl")):
        near = [metadata["label"] for metadata in record["topk_metadata"][:3]]
        voted = max(near, key=lambda label: (near.count(label), -near.index(label)))
        right += voted == record["metadata"]["label"]
    assert old["figures"]["accuracy"]["mean"] == pytest.approx(right / 40)
    assert new["figures"]["accuracy"]["mean"] == 1.0 and new["figures"]["macro-F1"]["mean"] == 1.0
    assert new["figures"]["AP(假货)"]["mean"] == 1.0 and old["figures"]["AP(假货)"]["low"] is None
    assert {one["label"]: one["support"] for one in old["classes"]} == dict(zip(LABELS, (14, 13, 13), strict=True))
    assert {one["measure"] for one in content["pairs"]} >= {"accuracy", "macro-F1", "P@10"}
    page = report.read_text()
    assert len(Page(page).links) == 13  # figures, comparison and its change, two runs with their parts
    said = "new is significantly better than old: accuracy 1.0000 against "
    assert said in page and "new is significantly better than old: macro-F1" in page
    assert f"<code>ecom-rag evaluate {folder}/old.jsonl {folder}/new.jsonl --labels --votes 3 --positive" in page
    assert "--resamples 200</code>" in page  # without the options that only write files
    assert "Precision-recall" in page and "&lt;b&gt;off &amp; on&lt;/b&gt;" in page and "<b>off" not in page
    assert re.search(r"^假货 +13 ", shown, re.MULTILINE)
    assert any(one["what"] == "without dense" for one in old["contributions"])


def test_learned_fusion_from_evidence(folder, run_here):
    code, _, said = run_here(
        folder / "old.jsonl", "--beir", folder, "--resamples", 100, "--fit-fusion", folder / "fusion.json"
    )
    assert code == 0 and "learned fusion refused" in said  # the evidence is chance
    fitted = load_fusion(folder / "fusion.json")
    assert not fitted.accepted and set(fitted.weights) == {"bm25", "dense", "variant"}
    assert fitted.fitted_on["results"].endswith("old.jsonl") and fitted.versions["ecom_rag"]


def test_a_search_is_named_by_what_was_searched_with(folder, run_here):
    code, out, _ = run_here("--beir", folder, "--routes", "bm25,variant", "--output", "-", "--resamples", 100)
    assert code == 0 and json.loads(out)["settings"]["runs"] == "routes bm25,variant; fusion auto"


def test_a_search_in_memory_is_recall_over_files(folder, run_here):
    queries, seeds, run = (folder / name for name in ("q.jsonl", "s.jsonl", "run.jsonl"))
    run_here("--beir", folder, "--export-queries", queries, "--export-seeds", seeds)
    recall_file(queries, run, Recall(("bm25", "variant"), top_k=100, exclude_self=True), seeds=seeds)
    _, by_files, _ = run_here(run, "--beir", folder, "--resamples", 100, "-o", "-")
    code, at_once, said = run_here("--beir", folder, "--routes", "bm25,variant", "--resamples", 100, "-o", "-")
    assert code == 0 and said == ""
    assert {**json.loads(at_once)["runs"][0], "name": "run"} == json.loads(by_files)["runs"][0]


def test_a_grade_below_zero_is_not_right():
    from ecom_rag.evaluation.report import _found
    from ecom_rag.evaluation.study import Found

    kinds = {grade: _found(Found("s", "", None, f"grade {grade}")).count("right") for grade in (-1, 0, 1, 2)}
    assert kinds == {-1: 0, 0: 0, 1: 1, 2: 1}


def test_evidence_of_another_form_is_an_error(folder, run_here):
    bad = [{**result(0, LABELS[0], [1, 2]), "topk_evidence": [{"bm25": {"score": 1, "rank": 1}}, {"bm25": 3.2}]}]
    (folder / "bad.jsonl").write_bytes(b"".join(map(records.dumps, bad)))
    code, _, err = run_here(folder / "bad.jsonl", "--labels")
    assert code == 2 and "result 1, candidate 2: topk_evidence is {'bm25': 3.2}; expected" in err


@pytest.mark.parametrize("option", ["--per-query", "--write-run", "--report", "--write-qrels", "--fit-fusion"])
def test_only_figures_go_to_standard_output(folder, run_here, monkeypatch, option):
    monkeypatch.chdir(folder)
    code, _, err = run_here("old.jsonl", "--labels", option, "-")
    assert code == 2 and f"{option} - is not supported" in err and not (folder / "-").exists()


def test_export_for_score(folder, run_here):
    code, _, said = run_here(
        "--beir", folder, "--export-queries", folder / "q.jsonl", "--export-seeds", folder / "s.jsonl"
    )
    assert code == 0 and "wrote 40 queries" in said and "wrote 30 seeds" in said
    assert list(records.read(str(folder / "q.jsonl")))[5] == {"text": "query 5", "metadata": {"id": "5"}}
    assert list(records.read(str(folder / "s.jsonl")))[5] == {"text": "seed text 5", "metadata": {"id": "s5"}}


def test_same_input_same_bytes(folder, run_here, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1763942400")
    for name in ("one", "two"):
        arguments = ("--labels", "--resamples", 100, "-o", folder / f"{name}.json", "--report", folder / f"{name}.html")
        run_here(folder / "old.jsonl", *arguments)
    for kind in ("json", "html"):
        assert (folder / f"one.{kind}").read_bytes() == (folder / f"two.{kind}").read_bytes()
    assert "<dd>2025-11-24</dd>" in (folder / "one.html").read_text()


def test_mistakes(folder, run_here):
    old, beir = folder / "old.jsonl", ("--beir", folder)
    before = {path: path.read_bytes() for path in folder.glob("*.jsonl*")}
    lines = [json.loads(line) for line in old.read_bytes().splitlines()]
    (folder / "empty.jsonl").write_text("")
    (folder / "noid.jsonl").write_bytes(records.dumps(lines[0]) + records.dumps({**lines[1], "metadata": {"x": 1}}))
    again = {**lines[1], "metadata": lines[0]["metadata"]}
    (folder / "twice.jsonl").write_bytes(records.dumps(lines[0]) + records.dumps(again))
    bare = {**lines[2], "topk_metadata": [*lines[2]["topk_metadata"][:11], {"id": "s1"}]}
    (folder / "nolabel.jsonl").write_bytes(records.dumps(lines[0]) + records.dumps(bare))
    (folder / "part.jsonl").write_bytes(records.dumps(lines[0]))
    (folder / "other.tsv").write_text("900\ts1\t1\n")
    for arguments, message in [
        ((), "no RESULTS are given"),
        ((old,), "give --qrels FILE, --beir DIR or --labels"),
        ((old, "--qrels", folder / "other.tsv", *beir), "one source of judgements"),
        ((old, "--labels", *beir), "two sources of judgements"),
        ((old, *beir, "--measures", "nDGC@10"), "measure 'nDGC@10' is unknown"),
        ((old, *beir, "--split", "dev"), "splits found: test"),
        ((folder / "none.jsonl", *beir), "none.jsonl: no such file"),
        ((folder / "empty.jsonl", *beir), "empty.jsonl: the run is empty"),
        ((folder / "noid.jsonl", *beir), 'noid.jsonl:2: the query: metadata "id" is missing (found keys: x)'),
        ((folder / "twice.jsonl", *beir), "twice.jsonl:2: the query id '0' was there before, with another result ("),
        ((folder / "twice.jsonl", "--labels"), "twice.jsonl:1); every query needs its own"),
        ((old, "--qrels", folder / "other.tsv"), "old: the run answers none of the 1 judged queries"),
        ((folder / "nolabel.jsonl", "--labels"), 'nolabel.jsonl:2: candidate 12: metadata "label" is missing'),
        ((old, "--labels", "--label-key", "policy.kind"), 'old.jsonl:1: the query: metadata "policy.kind" is missing'),
        ((old, "--labels", "--measures", "nDCG@10"), "nDCG@10 needs to know all relevant seeds"),
        ((old, "--labels", "--positive", "fake"), "no query has the label 'fake'"),
        ((old, "--labels", "--votes", 0), "votes is 0"),
        ((old, "--labels", "--fixed-precision", 1.5), "fixed precision is 1.5"),
        ((old, folder / "part.jsonl", "--labels"), "hold different queries (40 and 1"),
        ((old, *beir, "--resamples", 5), "resamples is 5"),
        ((old, old, *beir, "--write-run", folder / "x.trec"), "--write-run and --fit-fusion take one"),
        ((old, *beir, "--resamples", 100, "--report", folder / "no" / "r.html"), "does not exist; create it"),
        ((folder / "new.jsonl", *beir, "--fit-fusion", folder / "f.json"), "new: holds no topk_evidence of two routes"),
        (
            (old, "--qrels", folder / "other.tsv", "--export-seeds", folder / "s.jsonl"),
            "--export-seeds has no effect without --beir",
        ),
        ((old, "--labels", "--output", old), "old.jsonl: is also an input of this run"),
        ((old, *beir, "--report", next(folder.glob("corpus.jsonl*"))), "is also an input of this run"),
        ((old, *beir, "--report", folder / "r.html", "--output", folder / "r.html"), "is named for two outputs"),
        ((old, *beir, "--seed", -5), "Invalid value for '--seed'"),
    ]:
        code, _, said = run_here(*arguments)
        assert code == 2, (arguments, said)
        assert message in said.splitlines()[-1], (arguments, said)
        assert "Traceback" not in said and "--on-bad-line" not in said
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("judged", ["labels", "beir"])
def test_equal_results_of_a_query_count_once(folder, run_here, judged):
    lines = (folder / "old.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "doubled.jsonl").write_bytes(b"".join([*lines, lines[3], lines[3], lines[7]]))
    options = ("--labels",) if judged == "labels" else ("--beir", folder)
    shown = [
        json.loads(run_here(folder / f"{name}.jsonl", *options, "--resamples", 100, "-o", "-")[1])["runs"][0]
        for name in ("old", "doubled")
    ]
    assert shown[0]["figures"] == shown[1]["figures"]
    assert "3 results stand in the file twice; each counts once" in shown[1]["notes"]


def test_evidence_that_no_float_holds_is_an_error(folder, run_here):
    for own in ({"score": 10**400, "rank": 1}, {"score": 1, "rank": 10**400}, {"score": 1, "rank": 0.5}):
        odd = [{"bm25": {"score": 1, "rank": 1}}, {"bm25": own, "dense": own}]
        bad = {**result(0, LABELS[0], [1, 2]), "topk_evidence": odd}
        (folder / "bad.jsonl").write_bytes(records.dumps(bad))
        code, _, err = run_here(folder / "bad.jsonl", "--labels")
        assert code == 2 and "result 1, candidate 2: topk_evidence is" in err and "Traceback" not in err


def test_a_cutoff_beyond_the_results_is_said(folder, run_here):
    code, shown, _ = run_here(folder / "old.jsonl", "--beir", folder, "--measures", "R@50", "--resamples", 100)
    assert code == 0
    assert "note: old: R@50 is over at most 12 candidates, since the run holds no more; score with --top-k 50" in shown


def test_unlabelled_ids_and_three_runs(folder, run_here):
    """Queries without ids are matched by their place; of three runs every pair is corrected."""
    for name in ("old", "new"):
        found = [json.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]
        for record in found:
            del record["metadata"]["id"]
        (folder / f"{name}-bare.jsonl").write_bytes(b"".join(map(records.dumps, found)))
    paths = [folder / f"{name}.jsonl" for name in ("old-bare", "new-bare", "old-bare")]
    code, shown, said = run_here(*paths, "--labels", "--resamples", 100, "-o", folder / "f.json")
    assert code == 0, said
    content = json.loads((folder / "f.json").read_bytes())
    assert [run["name"] for run in content["runs"]] == ["old-bare", "new-bare", "old-bare (2)"]
    pairs = [one for one in content["pairs"] if one["measure"] == "macro-F1"]
    assert len(pairs) == 3 and all(one["p_holm"] >= one["comparison"]["p"] for one in pairs)
    assert "p (Holm)" in shown
