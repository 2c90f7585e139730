"""Files in and out: TREC, BEIR, results; every line that does not fit has its place in the error."""

import gzip
import json

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.evaluation import evaluate_run
from ecom_rag.evaluation.contributions import evidence_of
from ecom_rag.files import records
from ecom_rag.files.beir import read_beir, write_records
from ecom_rag.files.trec import read_qrels, read_results, read_run, write_qrels, write_run

pytestmark = pytest.mark.reference


def test_trec_there_and_back(tmp_path):
    """What is written gives the same figures when trec_eval's code reads it, ties and rounding included."""
    qrels = {"1": {"a": 2, "b": 0}, "2": {"c": 1}}
    results = [("1", ["b", "a", "z"], [0.5, 0.5, 0.5]), ("2", ["x", "c"], [1e-9, 0.0])]
    write_qrels(qrels, str(tmp_path / "qrels.txt"))
    assert read_qrels(str(tmp_path / "qrels.txt")) == qrels
    for name in ("run.trec", "run.trec.gz"):
        write_run(results, str(tmp_path / name), tag="mine")
        assert read_run(str(tmp_path / name)) == {"1": ["b", "a", "z"], "2": ["x", "c"]}
    theirs = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10, ir_measures.AP],
        ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")),
        ir_measures.read_trec_run(str(tmp_path / "run.trec")),
    )
    ours = evaluate_run({q: documents for q, documents, _ in results}, qrels, ("nDCG@10", "AP")).means()
    assert ours == pytest.approx({str(measure): value for measure, value in theirs.items()})
    assert (tmp_path / "run.trec").read_text().splitlines()[0] == "1 Q0 b 1 0.5 mine"


def test_a_run_is_sorted_as_trec_eval_does(tmp_path):
    path = tmp_path / "run.trec"
    path.write_text("q Q0 low 1 0.1 t\nq Q0 b 2 0.7 t\nq Q0 c 3 0.70000000001 t\n")
    assert read_run(str(path)) == {"q": ["c", "b", "low"]}  # equal in float32: by id, descending


def test_qrels_of_both_kinds(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_bytes(b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\r\nq 1\tdoc one\t2\r\n\r\nq 1\tb\t-1\r\n")
    assert read_qrels(str(path)) == {"q 1": {"doc one": 2, "b": -1}}
    path.write_text("q1 0 a 1\nq2\t0\tb\t0\n")
    assert read_qrels(str(path)) == {"q1": {"a": 1}, "q2": {"b": 0}}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("qr"), st.sampled_from("abc")), min_size=1, max_size=12), st.data())
def test_a_judgement_that_stands_twice_is_one(tmp_path_factory, pairs, data):
    """Whatever the form of the line and of the grade."""
    grades = {pair: data.draw(st.integers(-3, 9)) for pair in pairs}
    lines = []
    for query, document in pairs:
        grade = data.draw(st.sampled_from(["{}", "{}.0", "{}.", "{}.00"])).format(grades[query, document])
        form = data.draw(st.sampled_from(["{} 0 {} {}", "{}\t{}\t{}", "{}\t0\t{}\t{}"]))
        lines.append(form.format(query, document, grade))
    path = tmp_path_factory.mktemp("qrels") / "qrels"
    path.write_text("\n".join(lines))
    found = read_qrels(str(path))
    assert {(query, document): grade for query, judged in found.items() for document, grade in judged.items()} == grades


def test_ids_of_beir_are_one_rule(beir):
    lines = ['{"_id": 1, "text": "a"}', '{"_id": 2.0, "text": "b"}', '{"_id": "1", "text": "a"}']
    (beir / "queries.jsonl").write_text("\n".join(lines))
    assert [query["metadata"]["id"] for query in read_beir(str(beir)).queries] == ["1", "2"]
    (beir / "queries.jsonl").write_text("\n".join([*lines[:2], '{"_id": 1, "text": "c"}']))
    with pytest.raises(RecordError, match=r"queries.jsonl:3: the query id '1' stands on an earlier line with another"):
        read_beir(str(beir))
    (beir / "queries.jsonl").write_text('{"_id": ["1"], "text": "a"}\n')
    with pytest.raises(RecordError, match=r'queries.jsonl:1: "_id" is a list of 1; expected'):
        read_beir(str(beir))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1 a 1\nq1 a\n", r"qrels:2: 2 fields; expected query, document, grade"),
        ("q1 a 1\nq1 b high\n", r"qrels:2: the grade is 'high'; expected a whole number"),
        ("q1 a 1\nq2 b 1\nq1 a 0\n", r"qrels:3: .*'q1' and document 'a' are judged twice, 1 on line 1 and 0 here"),
        ("q1 0 a 1\nq1 a 2.0\n", r"qrels:2: .* are judged twice, 1 on line 1 and 2 here; remove one"),
        *(
            (f"q1 a 1\nq1 b {grade}\n", rf"qrels:2: the grade is '{grade[:30]}.*; expected a whole number")
            for grade in ("2.5", "nan", "inf", "1e3", "--1", "²", "9" * 20, "9" * 400)
        ),
        *((f"q1 b {grade}\n", r"qrels:1: the grade is") for grade in ("2.5", "nan", "9" * 20)),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
        ("", "holds no judgements"),
    ],
)
def test_bad_qrels(tmp_path, content, message):
    (tmp_path / "qrels").write_text(content)
    with pytest.raises((RecordError, UsageError), match=message):
        read_qrels(str(tmp_path / "qrels"))


def test_bad_runs(tmp_path):
    path = tmp_path / "r.trec"
    for content, message in [
        ("q Q0 a 1 0.5\n", "r.trec:1: 5 fields"),
        ("q Q0 a 1 nan t\n", "r.trec:1: the score is 'nan'"),
        ("q Q0 a 1 x t\n", "the score is 'x'"),
        ("q Q0 a 1 2 t\nq Q0 a 2 1 t\n", "r.trec:2: document 'a' stands twice"),
        ("", "the run is empty"),
    ]:
        path.write_text(content)
        with pytest.raises((RecordError, UsageError), match=message):
            read_run(str(path))
    with pytest.raises(UsageError, match="no such file"):
        read_run(str(tmp_path / "none.trec"))
    (tmp_path / "cut.trec.gz").write_bytes(gzip.compress(b"q Q0 a 1 0.5 t\n")[:-9])
    with pytest.raises(RecordError, match="damaged gzip"):
        read_run(str(tmp_path / "cut.trec.gz"))
    path.write_bytes(b"q Q0 \xff 1 0.5 t\n")
    with pytest.raises(RecordError, match="not UTF-8"):
        read_run(str(path))
    with pytest.raises(UsageError, match="holds white space"):
        write_run([("q 1", ["a"], [1.0])], str(path))
    with pytest.raises(UsageError, match="does not exist; create it"):
        write_qrels({"q": {"a": 1}}, str(tmp_path / "no" / "q"))


@pytest.fixture
def beir(tmp_path):
    (tmp_path / "qrels").mkdir()
    corpus = [
        {"_id": "d1", "title": "Steel bottle", "text": "keeps tea warm", "shop": "s"},
        {"_id": "d2", "text": "paper cup"},
    ]
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(b"".join(map(records.dumps, corpus))))
    queries = [{"_id": "1", "text": "thermos"}, {"_id": "2", "text": "cup"}, {"_id": "9", "text": "unjudged"}]
    (tmp_path / "queries.jsonl").write_bytes(b"".join(map(records.dumps, queries)))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\td1\t1\n2\td2\t2\n")
    return tmp_path


def test_beir(beir):
    found = read_beir(str(beir))
    assert found.qrels == {"1": {"d1": 1}, "2": {"d2": 2}}
    assert found.queries == [
        {"text": "thermos", "metadata": {"id": "1"}},
        {"text": "cup", "metadata": {"id": "2"}},
    ]
    seeds = list(found.documents())
    assert seeds[0] == {"text": "Steel bottle keeps tea warm", "metadata": {"shop": "s", "id": "d1"}}
    assert write_records(seeds, str(beir / "seeds.jsonl.gz")) == 2
    assert list(records.read(str(beir / "seeds.jsonl.gz"))) == seeds
    with pytest.raises(UsageError, match=r"expected .jsonl or .jsonl.gz"):
        write_records(seeds, str(beir / "seeds.csv"))


def test_bad_beir(beir):
    with pytest.raises(UsageError, match=r"dev.tsv: no such file; splits found: test; name one with `split`"):
        read_beir(str(beir), "dev")
    with pytest.raises(UsageError, match="no such folder"):
        read_beir(str(beir / "none"))
    (beir / "qrels" / "test.tsv").write_text("1\td1\t1\n7\td1\t1\n")
    with pytest.raises(UsageError, match=r"judges query '7', which queries.jsonl does not hold"):
        read_beir(str(beir))
    (beir / "qrels" / "test.tsv").write_text("1\td1\t1\n")
    (beir / "queries.jsonl").write_text('{"_id": "1", "text": "a"}\n{"_id": "1"\n')
    with pytest.raises(RecordError, match=r"queries.jsonl:2: not valid JSON"):
        read_beir(str(beir))
    (beir / "queries.jsonl").write_text('{"_id": "1", "query": "a"}\n')
    with pytest.raises(RecordError, match=r'queries.jsonl:1: found keys _id, query; expected "_id"'):
        read_beir(str(beir))
    (beir / "corpus.jsonl.gz").unlink()
    with pytest.raises(UsageError, match=r"corpus.jsonl\[.gz\]: no such file"):
        read_beir(str(beir))


def test_damaged_beir_and_lone_surrogates(beir):
    whole = gzip.compress(b'{"_id": "d1", "text": "a \\ud83d"}\n' * 2000)
    (beir / "corpus.jsonl.gz").write_bytes(whole)
    assert next(read_beir(str(beir)).documents())["text"] == "a \ufffd"
    (beir / "corpus.jsonl.gz").write_bytes(whole[:12] + b"\xff" * 40 + whole[52:])
    with pytest.raises(RecordError, match=r"corpus.jsonl.gz: damaged gzip"):
        list(read_beir(str(beir)).documents())
    (beir / "cut.trec.gz").write_bytes(whole[:12] + b"\xff" * 40 + whole[52:])
    with pytest.raises(RecordError, match=r"cut.trec.gz: damaged gzip"):
        read_run(str(beir / "cut.trec.gz"))


def test_results(tmp_path):
    path = tmp_path / "r.jsonl"
    good = {"text": "a", "metadata": {}, "topk_sim": [0.5], "topk_seed": ["s"], "topk_metadata": [{}]}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"text": "b", "metadata": {}}) + "\n")
    with pytest.raises(RecordError, match=r"r.jsonl:2: topk_sim, topk_seed, topk_metadata missing") as error:
        read_results(str(path))
    assert "--on-bad-line" not in str(error.value)  # evaluate has no such option
    path.write_text("")
    with pytest.raises(UsageError, match="the run is empty"):
        read_results(str(path))


def test_what_rerank_leaves_in_the_evidence_is_no_route():
    own = {"score": 1.0, "rank": 1}
    item = {"bm25": own, "dense": own, "retrieval": own, "retrieval_2": own, "reranker": own}
    found = evidence_of([{"topk_sim": [1.0], "topk_evidence": [item]}])
    assert found is not None and list(found.evidence) == ["bm25", "dense"]
