"""A copy of a text is that text, whatever disguises it: in mining, in training data and in groups of duplicates."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecom_rag.errors import RecordError
from ecom_rag.merging import validation
from ecom_rag.mining import Rules, mine_file
from ecom_rag.mining.finders import LexicalFinder
from ecom_rag.mining.sources import Corpus, Source
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.pipeline.places import seed_notes
from ecom_rag.text.near_duplicates import near_duplicates
from ecom_rag.text.normalization import canonical
from ecom_rag.training.batches import Batches
from ecom_rag.training.collate import GroupCollator
from ecom_rag.training.data import read_data
from ecom_rag.training.dev import _retrieval_set
from ecom_rag.training.sampling import row_batches
from helpers.disguises import disguised
from helpers.jsonl import lines, write
from helpers.small_runs import labelled, recipe_of

pytestmark = pytest.mark.slow

TEXTS = [
    "手机壳 型号3 透明 防摔",
    "手机壳 型号4 透明",
    "iPhone 15 手机壳",
    "red phone case 手机",
    "手机 贴膜 3.5mm",
    "手机壳 头发",
]
COPY = "手機殼\u200b 型号3　透明防摔。"  # of the first


def forms(texts):
    return set(canonical(list(texts)))


# --- mining -----------------------------------------------------------------------------------------------------------


def triples(folder, texts, copies):
    """Two queries, the first on two lines; and what each may not meet."""
    asked = [("手机壳 型号", [texts[0]]), ("手机 壳型号。", [texts[1]]), (texts[2], [texts[3]])]
    path = write(folder / "q.jsonl", [{"query": query, "pos": own} for query, own in asked])
    seeds = write(folder / "s.jsonl", [{"text": text} for text in [*copies, *texts]])
    one = [asked[0][0], texts[0], texts[1]]
    return Source(path, "triples"), seeds, [one, one, [texts[2], texts[3]]]


def of_labels(folder, texts, copies):
    """Two texts a label; copies stand under another label."""
    items = [{"text": text, "metadata": {"label": number // 2}} for number, text in enumerate(texts)]
    path = write(folder / "q.jsonl", items)
    others = [{"text": text, "metadata": {"label": "other"}} for text in copies]
    seeds = write(folder / "s.jsonl", [*others, *items])
    return Source(path, "labelled"), seeds, [texts[number // 2 * 2 :][:2] for number in range(len(texts))]


def beir(folder, texts, copies):
    (folder / "qrels").mkdir()
    write(folder / "corpus.jsonl", [{"_id": f"d{i}", "text": text} for i, text in enumerate([*texts, *copies])])
    write(folder / "queries.jsonl", [{"_id": "q", "text": "手机壳"}, {"_id": "r", "text": texts[2]}])
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t2\nq\td1\t1\nr\td3\t2\n")
    return Source(str(folder), "beir", min_grade=2), None, [["手机壳", texts[0], texts[1]], [texts[2], texts[3]]]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("kind", [triples, of_labels, beir])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_disguise_of_a_positive_or_of_the_query_is_a_negative(kind, listed, data):
    copies = [data.draw(disguised(text)).strip() for text in (*TEXTS, "手机壳 型号", "手机壳")]  # as BEIR is read
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, seeds, refused = kind(folder, TEXTS, copies)
        run = None
        if listed:  # every text of the corpus is a candidate of every query
            corpus = list(dict.fromkeys([*copies, *TEXTS]))
            found = {"topk_seed": corpus, "topk_sim": [1.0] * len(corpus), "topk_metadata": [{}] * len(corpus)}
            asked = [*TEXTS, "手机壳", "手机壳 型号", "手机 壳型号。"]
            run = write(folder / "run.jsonl", [{"text": text} | found for text in asked])
        rules = Rules(negatives=50, first=1, last=50)
        mine_file(source, str(folder / "out.jsonl"), rules, seeds=seeds, run=run, route="bm25")
        mined = lines(folder / "out.jsonl")
        assert len(mined) == len(refused)
        for item, own in zip(mined, refused, strict=True):
            assert item["neg"] and forms(item["neg"]).isdisjoint(forms([item["query"], *item["pos"], *own]))
            assert len(forms(item["neg"])) == len(item["neg"])


def test_positives_of_a_label_are_texts_not_copies(tmp_path):
    items = [{"text": text, "metadata": {"label": "x"}} for text in (TEXTS[0], COPY, TEXTS[1], f"{TEXTS[1]}!")]
    items += [{"text": TEXTS[2], "metadata": {"label": "y"}}]
    path = write(tmp_path / "l.jsonl", items)
    mine_file(Source(path, "labelled"), str(tmp_path / "o.jsonl"), Rules(first=1), route="bm25")
    assert [canonical(item["pos"]) for item in lines(tmp_path / "o.jsonl")[:2]] == [canonical([TEXTS[1]])] * 2


def test_the_floor_of_a_positive_is_that_of_its_copy():
    ranking = LexicalFinder(Corpus([(COPY, None), (TEXTS[1], None)]))
    exact, copied, missing = ranking.floors(["手机壳"] * 3, [[COPY], [TEXTS[0]], [COPY, "elsewhere"]], None)
    assert exact == copied > 0 == missing


# --- training data ----------------------------------------------------------------------------------------------------

ITEM = {"query": "q", "pos": [TEXTS[0]], "neg": [COPY, TEXTS[2], "型号"]}


@pytest.fixture
def asked(tmp_path):
    """A query on two lines, written in two ways; a copy of a positive of one is a negative of the other."""
    other = {"query": "Ｑ。", "pos": ["型\u2060號"], "neg": [TEXTS[2], f"{TEXTS[0]}…"]}
    return write(tmp_path / "t.jsonl", [ITEM, other])


def test_a_reranker_gets_no_copy_of_a_positive_as_a_negative(asked, bert_reranker):
    data = read_data([asked], "train", recipe_of(bert_reranker, asked, "o", task="reranker"))
    assert [item.negatives for item in data.items] == [[TEXTS[2]]] * 2 and data.notes[0].startswith("2 queries")
    write(Path(asked), [ITEM | {"neg": [COPY, TEXTS[0]]}])
    for task in ("reranker", "embedder"):
        with pytest.raises(RecordError, match=r't.jsonl:1: every text of "neg" is among "pos" too'):
            read_data([asked], "train", recipe_of(bert_reranker, asked, "o", task=task))


def test_an_embedders_masks_know_copies(asked, mean_folder):
    data = read_data([asked], "train", recipe_of(mean_folder, asked, "o"))
    batches: Batches = row_batches(2, batch_size=2)
    options = {"instructions": ("", ""), "max_length": 16, "seed": 0}
    collate = GroupCollator(data, Tokenizer(mean_folder), batches, task="embedder", positives=1, negatives=3, **options)
    label = collate([{"row": 0}, {"row": 1}])["label"]
    assert label["query_texts"][0] == label["query_texts"][1]
    assert label["known_positives"].tolist()[0] == label["known_positives"].tolist()[1]
    first = label["document_texts"][:4].tolist()  # the positive, then its copy and the rest in some order
    assert first.count(first[0]) == 2 and len(set(first)) == 3


def test_a_class_of_copies_has_one_text(tmp_path, mean_folder):
    path = Path(labelled(tmp_path / "l.jsonl"))
    more = [{"text": text, "metadata": {"label": "copies"}} for text in (TEXTS[0], COPY)]
    path.write_text(path.read_text() + "".join(json.dumps(item) + "\n" for item in more))
    recipe = recipe_of(mean_folder, str(path), "o")
    with pytest.raises(RecordError, match=r'l.jsonl:25: class "copies" has this one text'):
        read_data([str(path)], "train", recipe)
    torn = [{"text": text, "metadata": {"label": label}} for label in "ab" for text in (TEXTS[0], COPY, TEXTS[1])]
    data = read_data([write(path, torn)], "train", recipe)
    assert data.notes == ["2 texts carry more than one label; they pull in both directions"]


def test_a_copy_of_a_positive_is_no_wrong_answer_of_a_dev_or_validation_set(asked, mean_folder):
    found = _retrieval_set(recipe_of(mean_folder, asked, "o", data_table={"dev": asked}))
    documents = found.documents
    assert len(documents) == len(forms(documents)) == 3
    assert [{documents[row] for row in own} for own in found.relevance.judged] == [{TEXTS[0]}, {"型号"}]
    judged = validation.load(validation.ValidationSet("t", triples=asked)).judged
    texts = [[judged.documents[row] for row in own] for own in judged.candidates]
    assert texts == [[TEXTS[2], TEXTS[0]], [TEXTS[2], "型\u2060號"]]


# --- groups and notes -------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_disguises_are_near_duplicates_at_any_similarity(data):
    texts = [*TEXTS, *(data.draw(disguised(text)) for text in TEXTS)]
    assert near_duplicates(texts, similarity=1.0).tolist() == [*range(len(TEXTS))] * 2


def test_copies_among_seeds_are_told():
    seeds = [{"text": text, "metadata": {}} for text in (TEXTS[0], COPY, COPY, TEXTS[1])]
    assert seed_notes(seeds[2:], 1) == []
    assert [note[:29] for note in seed_notes(seeds, 1)] == ["2 seeds are copies of others "]
    assert np.unique(near_duplicates([seed["text"] for seed in seeds])).tolist() == [0, 1]
