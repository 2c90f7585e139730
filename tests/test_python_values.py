"""Values from Python: what JSON holds works and comes back, anything else is an error of ours, in a bank too."""

import datetime
import decimal
import enum
import json
import math
import shutil
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ecom_rag
from ecom_rag import EcomRagError, Pipeline, Recall, RecordError, SeedBank, Seeds, UsageError, rerank
from ecom_rag.files import records
from ecom_rag.filters.parse import parse
from ecom_rag.models import CrossEncoder, Embeddings, Encoder
from ecom_rag.seeds.bank import BankSettings, build, create, restore, snapshot
from ecom_rag.values import copied, plain
from helpers.small_banks import built

pytestmark = pytest.mark.slow


class Colour(enum.StrEnum):
    red = "red"


class Level(enum.IntEnum):
    high = 3


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
ODD = st.sampled_from(
    [
        np.int64(7),
        np.uint8(1),
        np.float32(0.5),
        np.float64(2.5),
        np.bool_(True),
        np.str_("词"),
        np.longdouble(1.5),
        np.datetime64("2026-01-01"),
        np.timedelta64(1, "D"),
        np.array([1, 2]),
        np.array(1),
        np.bytes_(b"x"),
        np.float64("nan"),
        Colour.red,
        Level.high,
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2),
        datetime.timedelta(1),
        decimal.Decimal("1.5"),
        {1, 2},
        frozenset("a"),
        (1, "b"),
        b"bytes",
        bytearray(b"x"),
        float("nan"),
        float("inf"),
        1j,
        object(),
        Path("a"),
        range(3),
        "\ud83d",
        10**4250,
        -(10**400),
        {1: 2},
        {"a": {None: 1}},
        {"\udc00": 1},
        len,
    ]
)
KEYS = st.text(max_size=4) | st.integers(0, 2) | st.sampled_from([Colour.red, np.str_("k")])
ANY = st.recursive(
    PLAIN | ODD,
    lambda value: st.lists(value, max_size=3) | st.tuples(value, value) | st.dictionaries(KEYS, value, max_size=3),
    max_leaves=6,
)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["手机壳", "leather wallet", np.str_("手机壳")]), ANY)
METADATA = st.dictionaries(st.text(max_size=3), ANY, max_size=3)
RECORDS = st.one_of(
    st.fixed_dictionaries({"text": TEXTS}, optional={"metadata": METADATA | ANY, "extra": ANY}),
    st.dictionaries(st.text(max_size=4), ANY, max_size=2),
    ANY,
)


def outcome(call):
    """What a call gives, or the kind of our error; any other exception passes."""
    try:
        return call()
    except EcomRagError as error:
        assert "\n" not in str(error) and len(str(error)) < 400, str(error)
        str(error).encode()
        return type(error)


@settings(max_examples=400, deadline=None)
@given(RECORDS)
def test_a_record_survives_a_json_round_trip_or_is_refused(record):
    found = outcome(lambda: list(records.cleaned([record])))
    if found is RecordError:
        return
    [own] = found
    assert json.loads(json.dumps(own)) == own and records.loads(records.dumps(own)) == own
    assert isinstance(own["text"], str) and type(own["metadata"]) is dict
    assert next(records.cleaned([own])) is own  # what is plain is not copied


@settings(max_examples=40, deadline=None)
@given(st.lists(RECORDS, max_size=3), st.lists(RECORDS, max_size=2))
def test_memory_and_bank_agree_on_any_record(seeds, queries):
    """The same results, or the same kind of refusal; the results are JSON and share nothing with the seeds."""
    settings_ = Recall(routes=("bm25",), top_k=2, depth=2)

    def over(source):
        return outcome(lambda: Pipeline(source, settings_).recall(queries))

    in_memory = outcome(lambda: Seeds(seeds, routes=["bm25"]))
    with tempfile.TemporaryDirectory() as folder:
        unique = [
            {**seed, "metadata": {**(seed.get("metadata") or {}), "id": str(number)}}
            if isinstance(seed, dict) and isinstance(seed.get("metadata"), dict | None)
            else seed
            for number, seed in enumerate(seeds)
        ]
        in_memory = outcome(lambda: Seeds(unique, routes=["bm25"]))
        bank = outcome(lambda: built(Path(folder) / "bank", unique, BankSettings(routes=["bm25"])))
        if isinstance(bank, type):
            assert in_memory is bank
            return
        with bank:
            if not seeds:
                assert in_memory is UsageError and len(bank) == 0
                return
            found = over(in_memory)
            assert over(bank) == found
    if not isinstance(found, type):
        assert json.loads(json.dumps(found)) == found


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b.c", "$or", "$not", '"q"', "x y"]), ANY, max_size=2) | ANY)
def test_any_filter_is_taken_or_refused(source):
    outcome(lambda: parse(source))
    outcome(lambda: Recall(filter=source).check())


@settings(max_examples=150, deadline=None)
@given(ANY)
def test_plain_and_copied(value):
    try:
        own = plain(value, "value")
    except ValueError:
        return
    again = copied(own)
    assert again == own
    if type(own) in (list, dict):
        assert again is not own


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.arange(3), r'record 1: "metadata\.a\.b\[1\]" is of type numpy\.ndarray.*\.tolist\(\)'),
        (datetime.date(2026, 1, 1), r"metadata\.a\.b\[1\].*datetime\.date.*isoformat"),
        (decimal.Decimal(1), r"decimal\.Decimal"),
        ({1}, "set.*list"),
        (b"x", "bytes.*decode"),
        (float("nan"), "nan.*None or leave the key out"),
        ({1: 2}, r"metadata\.a\.b\[1\]\[1\].*key of type int"),
    ],
)
def test_a_refusal_names_record_key_and_type(value, reason, tmp_path):
    seeds = [{"text": "fine"}, {"text": "x", "metadata": {"a": {"b": [1, value]}}}]
    with pytest.raises(RecordError, match=reason):
        list(records.cleaned(seeds))
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as bank, pytest.raises(RecordError, match=reason):
        bank.upsert(seeds)


def test_numpy_values_are_pythons_everywhere(tmp_path):
    metadata = {
        "id": np.int64(7),
        "n": np.float32(0.5),
        "ok": np.bool_(True),
        "word": np.str_("茶"),
        "both": (1, np.int8(2)),
    }
    seeds = [{"text": np.str_("手机壳"), "metadata": metadata, "other": np.int64(1)}]
    with built(tmp_path / "bank", seeds, BankSettings(routes=["bm25"])) as bank:
        for source in (bank, Seeds(seeds, routes=["bm25"])):
            for filter in (
                "n = 0.5 and ok = true and 2 in both",
                {"id": np.int64(7), "word": {"in": np.array(["茶"])}},
            ):
                [result] = Pipeline(source, Recall(routes=("bm25",), filter=filter)).recall([{"text": "手机壳"}])
                assert json.dumps(result["topk_metadata"], ensure_ascii=False) == (
                    '[{"id": 7, "n": 0.5, "ok": true, "word": "茶", "both": [1, 2]}]'
                )
        assert bank.get(np.array([7]))[0] == bank.get(["7"])[0] == bank.get(iter([7]))[0]
        assert bank.get([7])[0]["other"] == 1 and bank.delete(np.array([7])).removed == 1


# --- iterables, paths, empty inputs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(m3_folder):
    return Encoder.from_pretrained(m3_folder, runtime="torch", precision="fp32")


@pytest.fixture(scope="module")
def cross_encoder(bert_reranker):
    return CrossEncoder.from_pretrained(PurePosixPath(bert_reranker), runtime="torch", precision="fp32")


SEEDS = [
    {"text": f"leather wallet {number}", "metadata": {"label": "x", "nested": {"n": [number]}}} for number in range(4)
]
QUERIES = [{"text": "leather"}, {"text": "wallet 2", "metadata": {"id": 1, "deep": {"a": 1}}}]
FORMS = {"list": list, "tuple": tuple, "generator": iter, "dict values": lambda items: dict(enumerate(items)).values()}


@pytest.mark.parametrize("form", FORMS)
def test_any_iterable_is_read_once(form, encoder, cross_encoder, tmp_path):
    made = FORMS[form]
    expected = ecom_rag.score(QUERIES, SEEDS, encoder)
    assert (
        ecom_rag.score(made(QUERIES), made(SEEDS), encoder, weights=made([1, 1, 1])) == expected and len(expected) == 2
    )
    texts = [seed["text"] for seed in SEEDS]
    np.testing.assert_array_equal(
        encoder.encode(made(texts), outputs=made(["dense"])).dense, encoder.encode(texts).dense
    )
    pairs = [(query["text"], text) for query in QUERIES for text in texts]
    np.testing.assert_array_equal(cross_encoder.score(made(pairs)), cross_encoder.score([list(pair) for pair in pairs]))
    pipeline = Pipeline(Seeds(made(SEEDS), routes=made(["bm25", "dense"]), encoder=encoder), encoder=encoder)
    found = pipeline.recall(made(QUERIES))
    assert rerank(made(found), cross_encoder) == rerank(found, cross_encoder)
    with built(tmp_path / "bank", made(SEEDS), BankSettings(routes=made(["bm25"]), index_keys=made(["label"]))) as bank:
        assert len(bank) == 4 and bank.upsert(made(SEEDS)).added == 4
    np.testing.assert_array_equal(encoder.encode(np.array(texts)).dense, encoder.encode(texts).dense)


def test_nothing_in_gives_nothing_of_the_right_shape(encoder, cross_encoder, tmp_path):
    empty = encoder.encode([], outputs=encoder.outputs)
    one = encoder.encode(["a"], outputs=encoder.outputs)
    assert (len(empty), empty.dense.shape) == (0, (0, 32)) and empty.sparse.shape == (0, one.sparse.shape[1])
    assert len(empty.multivector) == 0 and empty.multivector.values.shape == (0, one.multivector.values.shape[1])
    assert [array.dtype for array in (empty.dense, empty.sparse, empty.multivector.values)] == [np.float32] * 3
    assert len(Embeddings.concatenate([empty, one])) == 1
    assert cross_encoder.score([]).shape == (0,) and rerank([], cross_encoder) == []
    for mode in ("dense", "sparse", "multivector", "hybrid"):
        assert ecom_rag.score([], SEEDS, encoder, mode=mode) == []
    assert Pipeline(Seeds(SEEDS, routes=["bm25"])).recall([]) == []
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as bank:
        assert bank.upsert([]).added == 0 and bank.get([]) == [] and bank.delete([]).removed == 0
    assert ecom_rag.mine([], SEEDS, route="bm25") == [] and ecom_rag.teach([], cross_encoder) == []


def test_results_share_nothing_with_seeds_and_queries(encoder, cross_encoder, tmp_path):
    before = json.dumps([SEEDS, QUERIES])
    with built(tmp_path / "bank", SEEDS, encoder=encoder) as bank:
        in_memory = Pipeline(Seeds(SEEDS, encoder=encoder), encoder=encoder, cross_encoder=cross_encoder)
        over_bank = Pipeline(bank, encoder=encoder)
        ways = {
            "score": lambda: ecom_rag.score(QUERIES, SEEDS, encoder),
            "recall": lambda: in_memory.recall(QUERIES),
            "bank": lambda: over_bank.recall(QUERIES),
            "get": lambda: [{"metadata": {}, "topk_metadata": [r["metadata"] for r in bank.get([key, key])]}],
        }
        key = ids_of_bank(bank)
        for name, way in ways.items():
            first = way()
            spoilt = json.dumps(first)
            for result in first:
                result["metadata"]["deep"] = 0
                for metadata in result["topk_metadata"]:
                    assert metadata["nested"]["n"] != ["changed"], f"{name}: two results share metadata"
                    metadata["nested"]["n"][0] = "changed"
            assert json.dumps([SEEDS, QUERIES]) == before and json.dumps(way()) == spoilt, name
        results = in_memory.recall(QUERIES)
        kept = json.dumps(results)
        rerank(results, cross_encoder)[0]["topk_metadata"][0]["nested"]["n"][0] = "changed"
        assert json.dumps(results) == kept


def ids_of_bank(bank):
    from ecom_rag.seeds.bank.documents import rows_of

    return rows_of(list(records.cleaned(SEEDS)), bank.id_key)[0][0].id


@pytest.mark.parametrize("kind", [str, Path])
def test_every_path_may_be_a_path(kind, encoder, cross_encoder, tmp_path, m3_folder, bert_reranker):
    at = {
        name: kind(tmp_path / name)
        for name in (
            "queries.jsonl",
            "seeds.jsonl",
            "scored.jsonl",
            "recalled.jsonl",
            "reranked.jsonl",
            "bank",
            "copy",
            "again",
            "triples.jsonl",
            "mined.jsonl",
            "taught.jsonl",
            "vectors.npz",
        )
    }
    for name, items in (("queries.jsonl", QUERIES), ("seeds.jsonl", SEEDS)):
        (tmp_path / name).write_bytes(b"".join(map(records.dumps, items)))
    (tmp_path / "triples.jsonl").write_bytes(records.dumps({"query": "leather", "pos": ["leather wallet 1"]}))
    assert len(list(records.read(at["seeds.jsonl"]))) == 4
    done = ecom_rag.score_file(at["queries.jsonl"], at["scored.jsonl"], seeds=at["seeds.jsonl"], model=encoder)
    assert done.records == 2
    with built(at["bank"], SEEDS, encoder=encoder, model=kind(m3_folder)) as bank:
        snapshot(bank, at["copy"])
    restore(at["copy"], at["again"])
    SeedBank.open(at["again"]).close()
    asked = Recall(routes=("bm25",), top_k=2)
    ecom_rag.recall_file(at["queries.jsonl"], at["recalled.jsonl"], asked, bank=at["bank"])
    (tmp_path / "recalled.jsonl").unlink()
    ecom_rag.recall_file(at["queries.jsonl"], at["recalled.jsonl"], asked, seeds=at["seeds.jsonl"])
    assert ecom_rag.rerank_file(at["recalled.jsonl"], at["reranked.jsonl"], cross_encoder).records == 2
    rules = ecom_rag.mining.Rules(first=1)
    ecom_rag.mine_file(at["triples.jsonl"], at["mined.jsonl"], rules, seeds=at["seeds.jsonl"], route="bm25")
    assert ecom_rag.teach_file(at["mined.jsonl"], at["taught.jsonl"], cross_encoder).records == 1
    encoder.encode(["a"]).save(at["vectors.npz"])
    assert len(Embeddings.load(at["vectors.npz"])) == 1
    assert (
        Encoder.from_pretrained(kind(m3_folder), runtime="torch", precision="fp32").fingerprint == encoder.fingerprint
    )
    assert {path.name for path in tmp_path.iterdir()} >= set(at)


def test_embeddings_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        Embeddings.load(tmp_path / "no.npz")
    for content in (b"", b"PK\x03\x04 damaged", b"\x93NUMPY", b"{}"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ecom_rag.EmbeddingError, match="damaged"):
            Embeddings.load(tmp_path / "x.npz")
    with pytest.raises(ecom_rag.EmbeddingError, match="no blocks"):
        Embeddings.concatenate([])


# --- arguments of the wrong kind --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda e, c, b: e.encode("abc"), "`texts` is the text 'abc'; expected a list of texts"),
        (lambda e, c, b: e.encode(["a", None]), r"texts\[1\] is of type NoneType; expected a text"),
        (lambda e, c, b: e.encode(["a", b"b"]), r"texts\[1\] is of type bytes"),
        (lambda e, c, b: e.encode([1]), r"texts\[0\] is of type int"),
        (lambda e, c, b: e.encode(["\ud83d"]), r"texts\[0\] holds a lone surrogate"),
        (lambda e, c, b: e.encode(["a"], outputs="dense"), r"`outputs` is the text 'dense'; expected \['dense'\]"),
        (lambda e, c, b: e.encode(["a"], outputs=()), "`outputs` is empty"),
        (lambda e, c, b: c.score(("query", "document")), r"pairs\[0\] is 'query'; expected a pair of texts"),
        (lambda e, c, b: c.score([("a", "b", "c")]), r"pairs\[0\].*pair of texts"),
        (lambda e, c, b: c.score([("a", None)]), r"pairs\[0\]\[1\] is of type NoneType"),
        (lambda e, c, b: c.score("abc"), "`pairs` is the text"),
        (lambda e, c, b: ecom_rag.score(QUERIES[0], SEEDS, e), "found dict in place of several records"),
        (lambda e, c, b: ecom_rag.score(QUERIES, SEEDS, "starter"), "`encoder` is of type str; expected a loaded one"),
        (lambda e, c, b: ecom_rag.score(QUERIES, SEEDS, e, mode="cosine"), "`mode` 'cosine' is unknown"),
        (lambda e, c, b: rerank([], "starter"), "`cross_encoder` is of type str"),
        (lambda e, c, b: Seeds(SEEDS, routes="bm25"), r"`routes` is the text 'bm25'; expected \['bm25'\]"),
        (lambda e, c, b: Recall(routes="bm25"), "`routes` is the text 'bm25'"),
        (lambda e, c, b: Pipeline(SEEDS), "`seeds` is of type list; expected Seeds"),
        (lambda e, c, b: Pipeline(Seeds(SEEDS, routes=["bm25"]), {"top_k": 3}), "`settings` is of type dict"),
        (lambda e, c, b: create(b.path.parent / "x", BankSettings(routes="bm25")), "`routes` is the text"),
        (lambda e, c, b: create(b.path.parent / "x", BankSettings(routes=["bm25"], index_keys="label")), "index_keys"),
        (lambda e, c, b: create(b.path.parent / "x", BankSettings(routes=["bm25"], analyzer="zh")), "`analyzer` is of"),
        (lambda e, c, b: b.delete("abc"), "`ids` is the text 'abc'; expected a list of ids"),
        (lambda e, c, b: b.get("abc"), "`ids` is the text"),
        (lambda e, c, b: b.get(7), "`ids` is of type int"),
        (lambda e, c, b: b.upsert([{"text": "a"}], note={1}), "note"),
        (lambda e, c, b: b.use("starter"), "`encoder` is of type str"),
        (
            lambda e, c, b: ecom_rag.score_file("q.jsonl", "o.jsonl", seeds="s.jsonl", model=c),
            r"`model` is of type ecom_rag\.Cross",
        ),
        (
            lambda e, c, b: ecom_rag.score_file(b"q.jsonl", "o.jsonl", seeds="s.jsonl", model=e),
            "`queries` is of type bytes",
        ),
        (lambda e, c, b: ecom_rag.recall_file("q.jsonl", "o.jsonl", {}, seeds="s.jsonl"), "`settings` is {}"),
        (lambda e, c, b: Encoder.from_pretrained(None), "`model` is of type NoneType"),
        (lambda e, c, b: Encoder.from_pretrained("starter", max_length="128"), "`max_length` is '128'"),
        (
            lambda e, c, b: Encoder.from_pretrained("starter", batch_tokens=0),
            "`batch_tokens` is 0; expected at least 1",
        ),
        (lambda e, c, b: CrossEncoder.from_pretrained("starter", max_length=1.5), "`max_length` is 1.5"),
        (lambda e, c, b: ecom_rag.mine([{"query": "a", "pos": ["b"]}]), "route dense needs a model"),
        (lambda e, c, b: ecom_rag.mine([{"query": "a", "pos": ["b"]}], rules={}, route="bm25"), "rules is of"),
        (lambda e, c, b: ecom_rag.teach([], "starter"), "`teacher` is of type str"),
        (lambda e, c, b: ecom_rag.train({"model": "starter"}), "task"),
        (lambda e, c, b: ecom_rag.train(7), "`path` is of type int"),
    ],
)
def test_a_mistake_is_told_in_one_line(call, reason, encoder, cross_encoder, tmp_path):
    with (
        create(tmp_path / "bank", BankSettings(routes=["bm25"])) as bank,
        pytest.raises(UsageError, match=reason) as caught,
    ):
        call(encoder, cross_encoder, bank)
    assert "\n" not in str(caught.value)


WRONG = [
    None,
    "3",
    b"x",
    1.5,
    -1,
    0,
    True,
    [],
    {},
    float("nan"),
    10**400,
    10**5000,
    np.array([1, 2]),
    Unprintable(),
    math,
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_any_value_for_any_option_is_taken_or_refused(number, encoder, cross_encoder, tmp_path):
    """Every option of every call over memory, one at a time."""
    value = WRONG[number]
    seeds = Seeds(SEEDS, routes=["bm25", "dense"], encoder=encoder)
    found = Pipeline(seeds, encoder=encoder).recall(QUERIES)
    triples = [{"query": "leather", "pos": ["leather wallet 1"], "neg": ["case"]}]
    bank = built(tmp_path / "bank", SEEDS, BankSettings(routes=["bm25"]))
    new = tmp_path / "new"
    calls = {
        lambda **o: ecom_rag.score(**{"queries": QUERIES, "seeds": SEEDS, "encoder": encoder, **o}): (
            "queries",
            "seeds",
            "encoder",
            "mode",
            "weights",
            "top_k",
        ),
        lambda **o: rerank(**{"results": found, "cross_encoder": cross_encoder, **o}): (
            "results",
            "cross_encoder",
            "top_k",
            "normalize",
            "blend",
        ),
        lambda **o: Seeds(**{"records": SEEDS, "routes": ["bm25"], **o}): ("records", "routes", "encoder"),
        lambda **o: Seeds(SEEDS, encoder=encoder, **o): ("embeddings",),
        lambda **o: Recall(**o).check(): (
            "routes",
            "fusion",
            "weights",
            "rrf_constant",
            "depth",
            "top_k",
            "filter",
            "exact_multivector",
            "normalize",
            "blend",
        ),
        lambda **o: Pipeline(**{"seeds": seeds, "encoder": encoder, **o}): (
            "seeds",
            "settings",
            "encoder",
            "cross_encoder",
        ),
        lambda **o: encoder.encode(**{"texts": ["a"], **o}): ("texts", "side", "outputs"),
        lambda **o: cross_encoder.score(**{"pairs": [("a", "b")], **o}): ("pairs", "normalize"),
        lambda **o: bank.upsert(**{"records": SEEDS, **o}): ("records", "note"),
        lambda **o: bank.get(**o): ("ids",),
        lambda **o: bank.delete(**o): ("ids", "filter"),
        lambda **o: bank.count(**o): ("filter",),
        lambda **o: list(bank.documents(**o)): ("filter",),
        lambda **o: snapshot(bank, **o): ("path",) if not isinstance(value, str) else (),
        lambda **o: SeedBank.open(**{"path": bank.path, **o}).close(): ("path", "encoder", "timeout", "maintain"),
        lambda **o: create(**{"path": new, "settings": BankSettings(routes=["bm25"]), **o}): ("settings", "encoder"),
        lambda **o: build(**{"path": new, "items": SEEDS, "settings": BankSettings(routes=["bm25"]), **o}): (
            "items",
            "settings",
            "encoder",
            "resume",
        ),
        lambda **o: create(new, BankSettings(**{"routes": ["bm25"], **o})): (
            "routes",
            "id_key",
            "label_key",
            "index_keys",
            "analyzer",
        ),
        lambda **o: ecom_rag.mine(**{"queries": triples, "corpus": SEEDS, "route": "bm25", **o}): (
            "queries",
            "corpus",
            "encoder",
            "route",
            "rules",
            "cross_encoder",
            "label",
            "positives",
        ),
        lambda **o: ecom_rag.mining.Rules(**o): (
            "negatives",
            "first",
            "last",
            "margin",
            "percentage",
            "pick",
            "seed",
            "reranker_threshold",
        ),
        lambda **o: ecom_rag.teach(**{"items": triples, "teacher": cross_encoder, **o}): (
            "items",
            "teacher",
            "mode",
            "normalize",
        ),
        lambda **o: ecom_rag.evaluation.evaluate_run(**{"run": {"q": ["d"]}, "qrels": {"q": {"d": 1}}, **o}): (
            "run",
            "qrels",
            "measures",
        ),
        lambda **o: ecom_rag.evaluation.compare(**{"first": [1.0], "second": [0.5], "resamples": 9, **o}): (
            "first",
            "second",
            "resamples",
            "seed",
        ),
    }
    for call, options in calls.items():
        for option in options:
            if isinstance(value, int) and option in ("resamples",):
                continue  # a number of draws that would take for ever
            result = outcome(lambda call=call, option=option: call(**{option: value}))
            if isinstance(result, SeedBank):
                result.close()
            if new.exists():
                shutil.rmtree(new)
    bank.close()
