"""Tiny random checkpoints of the true architectures, built once per session; nothing here needs a network."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

_numbers = itertools.count()
TEXTS = [
    "全国销量第一的神奇减肥茶，七天瘦二十斤",
    "genuine leather wallet with card slots, best before today",
    "加微信私下转账便宜",
    "iPhone15ProMax手机壳 3.5mm A4",
    "a",
    "茶",
    "",
    "Replica watches 1:1 quality, ask for the price list in chat",
    "The quick brown fox jumps over the lazy dog. " * 60,
    "这是一条特别长的描述，用来超过长度限制。" * 60,
    "手机壳 手机壳 手机壳 case case",
    "５折！！！ＡＢＣ 全角 ﾃｽﾄ 😀 emoji",
]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    os.environ["ECOM_RAG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _apps_are_let_go():
    """FastAPI remembers the endpoints of all apps of a process, each with a journal and models: 2 GB of a session."""
    yield
    if (models := sys.modules.get("fastapi.dependencies.models")) is not None:
        for remembered in vars(models).values():
            if hasattr(remembered, "cache_clear"):
                remembered.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _kernels_of_one_worker_at_a_time(tmp_path_factory):
    """Workers share numba's cache, whose index two that compile one kernel for different types would both number."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    import fcntl

    from numba.core.caching import IndexDataCacheFile

    import ecom_rag  # noqa: F401  # first: it says how many threads numba may start

    save = IndexDataCacheFile.save

    def one_at_a_time(self, key, data):
        with (tmp_path_factory.getbasetemp().parent / "kernels.lock").open("w") as lock:  # closing it unlocks it
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(self, key, data)

    IndexDataCacheFile.save = one_at_a_time
    yield
    IndexDataCacheFile.save = save


def _vocabulary():
    characters = sorted({c for text in TEXTS for c in text if c.strip()} | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    words = ["leather", "wallet", "best", "before", "watch", "replica", "quick", "brown", "case", "price", "the"]
    return characters, words


def _bert_tokenizer(folder: Path) -> int:
    from transformers import BertTokenizerFast

    characters, words = _vocabulary()
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({c.lower() for c in characters}), *words]
    vocab += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    vocab = list(dict.fromkeys(vocab))
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(vocab)}, do_lower_case=True)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return len(vocab)


def _xlmr_tokenizer(folder: Path) -> int:
    from transformers import XLMRobertaTokenizerFast

    characters, words = _vocabulary()
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -4.0 - i / 10) for i, word in enumerate(words)]
    pieces += [(c, -6.0 - i / 100) for i, c in enumerate(characters)]
    pieces += [("手机", -3.0), ("微信", -3.5), ("销量", -3.7), ("<mask>", 0.0)]
    tokenizer = XLMRobertaTokenizerFast(vocab=list(dict.fromkeys(pieces)))
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def _config(kind: str, size: int, **extra):
    from transformers import BertConfig, XLMRobertaConfig

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "bert":
        return BertConfig(vocab_size=size, max_position_embeddings=512, initializer_range=0.3, **shape, **extra)
    positions = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0}
    return XLMRobertaConfig(vocab_size=size, eos_token_id=2, initializer_range=0.3, **shape, **positions, **extra)


def make_encoder(folder: Path, kind: str, *, pooling: str | None = None, m3: bool = False, seed: int = 0) -> Path:
    """A tiny encoder folder; ``pooling`` writes the sentence-transformers files, ``m3`` the two heads."""
    import torch
    from transformers import BertModel, XLMRobertaModel

    folder.mkdir(parents=True)
    size = (_bert_tokenizer if kind == "bert" else _xlmr_tokenizer)(folder)
    torch.manual_seed(seed)
    model = (BertModel if kind == "bert" else XLMRobertaModel)(_config(kind, size))
    model.save_pretrained(folder)
    if pooling:
        modes = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}
        (folder / "1_Pooling").mkdir()
        settings = {"word_embedding_dimension": 32, **{key: key == modes[pooling] for key in modes.values()}}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        types = ("Transformer", "Pooling", "Normalize")
        paths = ("", "1_Pooling", "2_Normalize")
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind_}"}
            for i, (path, kind_) in enumerate(zip(paths, types, strict=True))
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
    if m3:
        torch.save(torch.nn.Linear(32, 32).state_dict(), folder / "colbert_linear.pt")
        torch.save(torch.nn.Linear(32, 1).state_dict(), folder / "sparse_linear.pt")
    return folder


def make_reranker(folder: Path, kind: str) -> Path:
    """A tiny sequence classifier with one logit."""
    import torch
    from transformers import BertForSequenceClassification, XLMRobertaForSequenceClassification

    folder.mkdir(parents=True)
    size = (_bert_tokenizer if kind == "bert" else _xlmr_tokenizer)(folder)
    torch.manual_seed(0)
    classes = {"bert": BertForSequenceClassification, "xlmr": XLMRobertaForSequenceClassification}
    classes[kind](_config(kind, size, num_labels=1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bge_folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("m") / "bge-small-zh-tiny", "bert", pooling="cls")


@pytest.fixture(scope="session")
def mean_folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("m") / "mean-tiny", "bert", pooling="mean")


@pytest.fixture(scope="session")
def e5_folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("m") / "multilingual-e5-small", "xlmr")


@pytest.fixture(scope="session")
def m3_folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("m") / "bge-m3", "xlmr", m3=True)


@pytest.fixture(scope="session")
def xlmr_reranker(tmp_path_factory):
    return make_reranker(tmp_path_factory.mktemp("m") / "bge-reranker-v2-m3", "xlmr")


@pytest.fixture(scope="session")
def bert_reranker(tmp_path_factory):
    return make_reranker(tmp_path_factory.mktemp("m") / "bert-reranker", "bert")


@pytest.fixture(scope="session")
def files(tmp_path_factory, m3_folder, xlmr_reranker):
    """Bank, policy and models that services are started over."""
    from helpers.small_service import make_files

    return make_files(tmp_path_factory.mktemp("served"), m3_folder, xlmr_reranker)


@pytest.fixture(scope="session")
def postgres_server():
    """A server with pgvector; skips where its binaries are not installed or do not run."""
    pytest.importorskip("psycopg")
    from helpers.postgres_server import Server

    try:
        server = Server()
    except (ImportError, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"PostgreSQL cannot be run here: {error}")
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server):
    """A function that names new banks on the server."""
    return lambda: postgres_server.url(f"b{next(_numbers)}")


@pytest.fixture(scope="session")
def milvus_lite():
    """Milvus Lite as a server; skips where it is not installed or does not run."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    from helpers.milvus_server import Lite

    yield from _served(Lite)


@pytest.fixture(scope="session")
def milvus_standalone():
    """The server of the package `milvus`; skips where it is not installed or does not run."""
    pytest.importorskip("pymilvus")
    from helpers.milvus_server import Standalone

    yield from _served(Standalone)


def _served(kind):
    try:
        server = kind()
    except (ImportError, OSError) as error:
        pytest.skip(f"Milvus cannot be run here: {error}")
    yield server
    server.remove()


@pytest.fixture
def small_disk():
    """A function that makes a file system of a few KiB; skips where that is not allowed."""
    mounted = []

    def make(place: Path, *, kib: int) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("file systems cannot be mounted here")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)
