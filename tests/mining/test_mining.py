"""Mining: the rules against slow definitions, whole runs on tiny models, kills and mistakes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_encoder
from ecom_rag import CrossEncoder, Encoder
from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import jobs
from ecom_rag.mining import Rules, mine_file
from ecom_rag.mining import job as jobs_of_mining
from ecom_rag.mining.finders import LexicalFinder, ListedFinder, listed_floors
from ecom_rag.mining.pick import mine
from ecom_rag.mining.rules import allowed, order_of
from ecom_rag.mining.sources import Corpus, Source, kind_of
from ecom_rag.retrieval import Ranking
from helpers.jsonl import lines, write

pytestmark = pytest.mark.slow

WORDS = ["leather", "wallet", "best", "before", "watch", "replica", "quick", "brown", "case", "price"]


def refused(summary):
    start = "refused "
    return {name.removeprefix(start): n for name, n in summary.counts.items() if name.startswith(start) and n}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = make_encoder(tmp_path_factory.mktemp("mine") / "bge-small", "bert", pooling="cls", seed=3)
    return lambda: Encoder.from_pretrained(str(folder), runtime="torch", precision="fp32")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """120 texts of six labels, and one label of one text."""
    random = np.random.default_rng(0)
    items = [
        {"text": f"{' '.join(random.choice(WORDS, 4))} {number}", "metadata": {"label": f"c{number % 6}"}}
        for number in range(120)
    ]
    items.append({"text": "alone in its class", "metadata": {"label": "single"}})
    return write(tmp_path_factory.mktemp("data") / "labelled.jsonl", items)


# --- rules ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0.1, 0.4]), st.sampled_from([None, 0.5, 0.95]))
def test_rules_are_their_slow_definition(seed, margin, percentage):
    random = np.random.default_rng(seed)
    queries, depth, rows = 4, 12, 30
    rules = Rules(first=2, last=10, margin=margin, percentage=percentage)
    ids = np.stack([random.permutation(rows)[:depth] for _ in range(queries)])
    ids[1, 7:] = -1
    scores = -np.sort(-random.normal(0, 1, (queries, depth)).astype(np.float32), axis=1)
    groups = random.integers(0, 20, rows)
    known = [random.integers(0, 20, 3) for _ in range(queries)]
    same_label = [random.permutation(rows)[:5] for _ in range(queries)]
    floors = random.normal(0, 1, queries).astype(np.float32)
    keep, counts = allowed(ids, scores, rules, groups=groups, known=known, same_label=same_label, floors=floors)
    expected: Counter[str] = Counter()
    for q in range(queries):
        seen = set()
        for place in range(depth):
            row, rank, score = ids[q, place], place + 1, scores[q, place]
            reason = None
            within = row >= 0 and 2 <= rank <= 10
            limit = floors[q] - abs(floors[q]) * (1 - (percentage or 1))
            if not within:
                reason = "rank"
            elif groups[row] in known[q]:
                reason = "known"
            elif groups[row] in groups[same_label[q]]:
                reason = "label"
            elif groups[row] in seen:
                reason = "duplicate"
            elif margin is not None and score > floors[q] - np.float32(margin):
                reason = "margin"
            elif percentage is not None and score > limit:
                reason = "percentage"
            if within:
                seen.add(groups[row])
            expected[reason] += reason is not None
            assert keep[q, place] == (reason is None)
    assert {key: value for key, value in counts.items() if value} == {
        key: value for key, value in expected.items() if value and key != "rank" and key is not None
    }


def test_nv_retrievers_thresholds_by_hand():
    """Positive 0.8: Ranking-PercPos at 0.95 lets pass up to 0.76, Ranking-MarginPos at 0.05 up to 0.75."""
    scores = np.array([[0.9, 0.77, 0.755, 0.75, 0.5]], np.float32)
    none = [np.empty(0, np.int64)]
    common = {"groups": np.arange(5), "known": none, "same_label": none, "floors": np.array([0.8], np.float32)}
    ids = np.arange(5)[None]
    by_share, _ = allowed(ids, scores, Rules(first=1, percentage=0.95), **common)
    by_margin, _ = allowed(ids, scores, Rules(first=1, margin=0.05), **common)
    assert by_share[0].tolist() == [False, False, True, True, True]
    assert by_margin[0].tolist() == [False, False, False, True, True]


def test_picks_depend_on_seed_and_query_alone():
    rows = np.arange(50)
    assert order_of(rows, "a", Rules(pick="top")).tolist() == rows.tolist()
    first = order_of(rows, "a", Rules()).tolist()
    assert sorted(first) == rows.tolist() and first == order_of(rows, "a", Rules()).tolist()
    assert first != order_of(rows, "b", Rules()).tolist() != order_of(rows, "a", Rules(seed=1)).tolist()


def test_a_positive_that_is_listed_twice_has_the_floor_of_one():
    ranking = LexicalFinder(Corpus([("red shoe", None), ("blue hat", None)]))
    once, twice = (ranking.floors(["red shoe"], [["red shoe"] * n], None) for n in (1, 2))
    assert once == twice and once > 0


def test_texts_that_only_look_different_are_one_group():
    corpus = Corpus(
        [("Leather  Wallet", "a"), ("leather wallet", "b"), ("ＬＥＡＴＨＥＲ wallet", None), ("other", "a")]
    )
    assert corpus.groups.tolist() == [0, 0, 0, 1]
    assert corpus.of_labels(["a"]).tolist() == [0, 3] and corpus.of_labels(["none"]).tolist() == []
    assert corpus.of_labels(["b", "a"]).tolist() == [1, 0, 3]
    assert corpus.groups_of(["LEATHER WALLET", "unknown"]).tolist() == [0]
    assert corpus.rows_of(["leather wallet", "LEATHER WALLET", "unknown"]).tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives is 0"),
        ({"first": 0}, "range is 0-100"),
        ({"first": 9, "last": 8}, "range is 9-8"),
        ({"percentage": 1.5}, "percentage is 1.5"),
        ({"margin": float("nan")}, "`margin` is nan"),
        ({"pick": "best"}, "`pick` 'best' is unknown; expected random or top"),
        ({"reranker_threshold": 2.0}, "reranker threshold is 2.0"),
        ({"reranker_margin": -1.0}, "reranker margin is -1.0"),
    ],
)
def test_rules_that_make_no_sense(options, message):
    with pytest.raises(UsageError, match=message):
        Rules(**options)


def test_floors_of_rankings():
    corpus = Corpus([(text, None) for text in "abcd"])
    found = Ranking(
        np.array([[2, 0, 1], [1, 2, 3], [-1, -1, -1]]), np.array([[3, 2, 1], [6, 5, 4], [-9] * 3], np.float32)
    )
    floors = listed_floors(corpus, [["a", "d"], ["a"], ["a"]], found)
    assert floors.tolist() == [2.0, 4.0, np.inf]  # one is listed; none is, so at most the last; nothing listed at all
    corpus = Corpus([(text, None) for text in ("red shoe", "red hat", "blue hat", "green coat")])
    ranking = LexicalFinder(corpus)
    found = ranking.search(["red hat"], 4)
    score = dict(zip(found.rows[0].tolist(), found.scores[0].tolist(), strict=True))
    positives = [["red hat"], ["red shoe", "red hat"], ["red hat", "green coat"], ["elsewhere"]]
    floors = ranking.floors(["red hat"] * 4, positives, found)
    assert floors.tolist() == pytest.approx([score[1], score[0], 0.0, 0.0])


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_labelled_records_never_meet_their_own_label(labelled, encoder, tmp_path):
    output = tmp_path / "mined.jsonl"
    rules = Rules(negatives=5, first=1, last=60)
    summary = mine_file(Source(labelled, kind_of(labelled), positives=3), str(output), rules, model=encoder())
    label = {item["text"]: item["metadata"]["label"] for item in lines(tmp_path.parent / labelled)}
    mined = lines(output)
    assert (summary.records, summary.counts["written"], summary.counts["negatives"]) == (121, 120, 600)
    assert any("1 queries have no positive" in note and "alone" in note for note in summary.notes)
    for item in mined:
        own = label[item["query"]]
        assert len(item["pos"]) == 3 and len(set(item["neg"])) == 5
        assert all(label[text] == own and text != item["query"] for text in item["pos"])
        assert all(label[text] != own for text in item["neg"])
    assert summary.counts["refused label"] > 0 and summary.counts["refused known"] > 0


def test_range_margin_and_top_pick_are_those_of_the_ranking(encoder, tmp_path):
    texts = [f"{word} {number}" for number, word in enumerate(WORDS * 4)]
    model = encoder()
    scores = (model.encode(["leather wallet"], side="query").dense @ model.encode(texts).dense.T)[0]
    order = np.argsort(-scores, kind="stable")
    best, share = int(order[0]), float(scores[order[6]] / scores[order[0]]) + 1e-4
    given = {"query": "leather wallet", "pos": [texts[best]], "prompt": "find: ", "type": "normal"}
    queries = write(tmp_path / "q.jsonl", [{**given, "neg": ["old"], "pos_scores": [1.0], "neg_scores": [0.0]}])
    seeds = write(tmp_path / "s.jsonl", [{"text": text} for text in texts])
    rules = Rules(negatives=4, first=3, last=20, pick="top", percentage=share)
    summary = mine_file(Source(queries, "triples"), str(tmp_path / "out.jsonl"), rules, seeds=seeds, model=encoder())
    (found,) = lines(tmp_path / "out.jsonl")
    assert found == {**given, "neg": [texts[row] for row in order[6:10]]}
    assert refused(summary) == {"percentage": 4}  # ranks 3 to 6


def test_beir_grades_and_unjudged(encoder, tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    write(
        folder / "corpus.jsonl",
        [{"_id": f"d{i}", "title": "", "text": f"{word} thing"} for i, word in enumerate(WORDS)],
    )
    write(folder / "queries.jsonl", [{"_id": "q", "text": "leather"}, {"_id": "r", "text": "nothing good"}])
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t3\nq\td1\t1\nq\td2\t0\nr\td3\t1\n")
    rules = Rules(negatives=20, first=1, last=20)
    source = Source(str(folder), kind_of(str(folder)), min_grade=2)
    with pytest.raises(
        UsageError, match=r"no candidate that may be a negative .*'leather'"
    ):  # only the positive has it
        mine_file(source, str(tmp_path / "out.jsonl"), rules, route="bm25", model=None)
    summary = mine_file(source, str(tmp_path / "dense.jsonl"), rules, model=encoder())
    (found,) = lines(tmp_path / "dense.jsonl")
    assert found["pos"] == ["leather thing"]
    # The grade 1 is neither; what was judged 0 or not at all may be a negative.
    assert set(found["neg"]) == {f"{word} thing" for word in WORDS} - {"leather thing", "wallet thing"}
    assert any("fewer than 20 negatives" in note for note in summary.notes)


def test_what_has_no_text_is_left_out_and_counted(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = ["leather wallet", " ", "leather watch", "", "leather case"]
    write(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)])
    write(
        folder / "queries.jsonl",
        [{"_id": q, "text": text} for q, text in (("q", "leather"), ("r", ""), ("s", "watch"))],
    )
    judged = ["q\td0\t1", "q\td1\t1", "r\td0\t1", "s\td1\t1"]
    (folder / "qrels" / "train.tsv").write_text("\n".join(judged) + "\n")
    summary = mine_file(Source(str(folder), "beir"), str(tmp_path / "o.jsonl"), Rules(first=1), route="bm25")
    (found,) = lines(tmp_path / "o.jsonl")
    assert found["pos"] == ["leather wallet"] and set(found["neg"]) == {"leather watch", "leather case"}
    assert "1 queries have no positive and are left out (e.g. 'watch')" in summary.notes
    assert summary.notes[-3:] == [
        "1 relevant documents have no text and are left out",
        "1 queries have no text and are left out",
        "2 documents of the corpus have no text and are left out",
    ]


def test_grades_and_judged_only(encoder, tmp_path):
    """Judgements become scores; documents that are judged for no query are no negatives, in a run neither."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = ["leather wallet", "leather watch", "leather case", "wallet case", "leather wallet"]
    write(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)])
    write(folder / "queries.jsonl", [{"_id": "q", "text": "leather"}, {"_id": "r", "text": "case"}])
    judged = ["query-id\tcorpus-id\tscore", "q\td0\t1", "q\td1\t3", "q\td4\t2", "r\td3\t1"]
    (folder / "qrels" / "train.tsv").write_text("\n".join(judged) + "\n")
    run = write(
        tmp_path / "run.jsonl",
        [
            {"text": "leather", "topk_sim": [4, 3], "topk_seed": [texts[2], texts[3]], "topk_metadata": [{}] * 2},
        ],
    )
    rules = Rules(negatives=9, first=1, last=9)
    source = Source(str(folder), "beir", judged_only=True, grades=True)
    mine_file(source, str(tmp_path / "dense.jsonl"), rules, model=encoder())
    mine_file(source, str(tmp_path / "listed.jsonl"), rules, run=run)
    first = {
        "query": "leather",
        "pos": ["leather wallet", "leather watch"],
        "neg": ["wallet case"],
        "pos_scores": [2, 3],
        "neg_scores": [0],
    }
    second = {
        "query": "case",
        "pos": ["wallet case"],
        "neg": {"leather wallet", "leather watch"},
        "pos_scores": [1],
        "neg_scores": [0, 0],
    }
    found = lines(tmp_path / "dense.jsonl")
    assert [found[0], found[1] | {"neg": set(found[1]["neg"])}] == [first, second]
    assert lines(tmp_path / "listed.jsonl") == [first]

    labelled = write(tmp_path / "l.jsonl", [{"text": "a", "metadata": {"label": "x"}}])
    for wrong, more, message in [
        (Source(labelled, "labelled", grades=True), {}, "are for BEIR folders"),
        (source, {"seeds": labelled}, "leave out `seeds`"),
        (source, {"reranker": "nowhere"}, "take one of them"),
    ]:
        asked = Rules(reranker_margin=0.1) if "reranker" in more else rules
        with pytest.raises(UsageError, match=message):
            mine_file(wrong, str(tmp_path / "no.jsonl"), asked, model=encoder(), **more)


def test_a_query_whose_label_is_none_is_named_beside_seeds_too(tmp_path):
    queries = write(tmp_path / "q.jsonl", [{"text": "a", "metadata": {"label": ["x"]}}])
    seeds = write(tmp_path / "s.jsonl", [{"text": "b", "metadata": {"label": "x"}}])
    with pytest.raises(RecordError, match=r'q.jsonl:1: metadata "label" is a list of 1; expected one label'):
        mine_file(queries, str(tmp_path / "o.jsonl"), Rules(first=1), seeds=seeds, route="bm25")


def test_what_another_line_of_the_query_has_as_a_positive_is_no_negative(tmp_path):
    asked = [
        {"query": "red shoe", "pos": ["red shoe one"]},
        {"query": "Red  shoe", "pos": ["red shoe two"]},
        {"query": "blue hat", "pos": ["blue shoe"]},
    ]
    queries = write(tmp_path / "q.jsonl", asked)
    rules = Rules(negatives=9, first=1, last=9)
    mine_file(Source(queries, "triples"), str(tmp_path / "o.jsonl"), rules, route="bm25")
    assert [item["neg"] for item in lines(tmp_path / "o.jsonl")[:2]] == [["blue shoe"]] * 2
    torn = [("red shoe", "x"), ("red shoe", "y"), ("shoe one", "x"), ("shoe two", "y"), ("shoe three", "z")]
    labelled = write(tmp_path / "l.jsonl", [{"text": text, "metadata": {"label": label}} for text, label in torn])
    mine_file(Source(labelled, "labelled"), str(tmp_path / "t.jsonl"), rules, route="bm25")
    found = lines(tmp_path / "t.jsonl")
    assert [item["pos"] for item in found[:2]] == [["shoe one"], ["shoe two"]]
    assert [item["neg"] for item in found[:2]] == [["shoe three"]] * 2


def test_lone_surrogates_are_replaced(tmp_path):
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"query": "red \\ud83d", "pos": ["red \\udc00 shoe"], "neg": ["red hat"]}\n')
    mine_file(Source(str(queries), "triples"), str(tmp_path / "o.jsonl"), Rules(first=1), route="bm25")
    assert lines(tmp_path / "o.jsonl") == [{"query": "red \ufffd", "pos": ["red \ufffd shoe"], "neg": ["red hat"]}]


def test_candidates_from_a_results_file(tmp_path):
    texts = ["a good wallet", "A GOOD wallet", "a bad wallet", "a watch", "a case"]
    seeds = write(tmp_path / "s.jsonl", [{"text": text} for text in texts])
    asked = [{"query": "wallet", "pos": ["a good wallet"]}, {"query": "x", "pos": ["y"]}]
    queries = write(tmp_path / "q.jsonl", asked)
    run = write(
        tmp_path / "run.jsonl",
        [
            {"text": "wallet", "topk_sim": [5, 4.9, 4.8, 2, 1], "topk_seed": texts, "topk_metadata": [{}] * 5},
        ],
    )
    rules = Rules(negatives=3, first=1, pick="top", margin=1.0)
    summary = mine_file(Source(queries, "triples"), str(tmp_path / "o.jsonl"), rules, seeds=seeds, run=run)
    (found,) = lines(tmp_path / "o.jsonl")
    assert found["neg"] == ["a watch", "a case"]  # the copy is known, the third scores too near the positive
    assert refused(summary) == {"known": 2, "margin": 1}
    with pytest.raises(UsageError, match="'a good wallet' is not in the corpus; pass the seeds"):
        ListedFinder(run, Corpus([("a watch", None)]))


def test_a_reranker_keeps_false_negatives_out_and_gives_scores(labelled, encoder, bert_reranker, tmp_path):
    cross_encoder = CrossEncoder.from_pretrained(str(bert_reranker), runtime="torch", precision="fp32")
    corpus = Corpus([(item["text"], None) for item in lines(tmp_path.parent / labelled)])
    queries = [
        {"query": text, "pos": [corpus.texts[60 + i]], "labels": [], "known": [i, 60 + i], "rest": {}}
        for i, text in enumerate(corpus.texts[:8])
    ]

    class Everything:
        def search(self, texts, depth):
            ids = np.tile(np.arange(len(corpus)), (len(texts), 1))
            return Ranking(ids, np.zeros(ids.shape, np.float32))

    relevance = lambda query, texts: cross_encoder.score([(query, text) for text in texts], normalize=True)  # noqa: E731
    middle = float(np.median(relevance(queries[0]["query"], corpus.texts)))
    rules = Rules(negatives=6, first=1, last=200, reranker_threshold=middle, reranker_margin=0.0)
    mined, counts = mine(queries, corpus, Everything(), rules, cross_encoder=cross_encoder)
    assert mined and counts["refused reranker"] > 0
    for item in mined:
        positive = relevance(item["query"], item["pos"])
        assert (relevance(item["query"], item["neg"]) <= min(middle, positive.min()) + 1e-6).all()
        logits = cross_encoder.score([(item["query"], text) for text in [*item["pos"], *item["neg"]]])
        np.testing.assert_allclose([*item["pos_scores"], *item["neg_scores"]], logits, atol=1e-4)


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(labelled, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK_RECORDS", 25)
    rules = Rules(negatives=3, first=1, last=30)
    source = Source(labelled, "labelled")
    whole = mine_file(source, str(tmp_path / "whole.jsonl"), rules, model=encoder())
    calls = []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return mine(*arguments, **options)

    monkeypatch.setattr(jobs_of_mining, "mine", dies)
    output = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        mine_file(source, str(output), rules, model=encoder())
    assert not output.exists()
    monkeypatch.setattr(jobs_of_mining, "mine", mine)
    summary = mine_file(source, str(output), rules, model=encoder(), resume=True)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert summary.resumed == 75 and (summary.notes, refused(summary)) == (whole.notes, refused(whole))
    assert summary.counts == whole.counts


def test_mistakes(labelled, encoder, tmp_path):
    out = str(tmp_path / "o.jsonl")
    source = Source(labelled, "labelled")
    for options, message in [
        ({}, "route dense needs a model"),
        ({"route": "magic"}, "route 'magic' is unknown"),
        ({"model": encoder(), "reranker": "nowhere"}, "not what it should refuse"),
        ({"route": "bm25", "run": str(tmp_path / "no.jsonl")}, "no.jsonl: no such file"),
        ({"model": encoder(), "route": "sparse"}, "sparse_linear.pt is missing"),
    ]:
        with pytest.raises(Exception, match=message) as caught:
            mine_file(source, out, Rules(), **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no reranker; name it"):
        mine_file(source, out, Rules(reranker_threshold=0.5), model=encoder())
    with pytest.raises(UsageError, match=r"writes .jsonl"):
        mine_file(source, str(tmp_path / "o.parquet"), Rules(), model=encoder())
    with pytest.raises(UsageError, match="also an input"):
        mine_file(source, labelled, Rules(), model=encoder())
    bare = write(tmp_path / "bare.jsonl", [{"text": "a", "metadata": {"label": "x"}}, {"text": "b"}])
    with pytest.raises(RecordError, match=r'bare.jsonl:2: "metadata.label" is missing'):
        mine_file(Source(bare, "labelled"), out, Rules(), model=encoder())
    with pytest.raises(UsageError, match="is empty"):
        kind_of(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(UsageError, match="found keys foo"):
        kind_of(write(tmp_path / "odd.jsonl", [{"foo": 1}]))
    assert not (tmp_path / "o.jsonl").exists() and not (tmp_path / "o.jsonl.partial").exists()


def test_command(labelled, tmp_path, monkeypatch, capsys):
    from ecom_rag import cli

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["ecom-rag", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, capsys.readouterr().err

    out = tmp_path / "o.jsonl.gz"
    code, shown = run("mine", labelled, "--route", "bm25", "--range", "1-40", "--percentage", 0.9, "-n", 3, "-o", out)
    assert code == 0 and out.exists() and "mined" in shown and "refused by rule" in shown
    code, shown = run("mine", labelled, "--route", "bm25", "--range", "all", "-o", tmp_path / "p.jsonl")
    assert code == 2 and shown.count("\n") == 1 and "--range 'all'" in shown
