"""The Python API as a contract: what is public, what its docstrings say, and that it raises no errors but ours."""

import copy
import importlib
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import ecom_rag
from ecom_rag import errors
from helpers.small_banks import built

PUBLIC = {
    "BankError",
    "Calibrate",
    "Client",
    "CrossEncoder",
    "Decider",
    "EcomRagError",
    "EmbeddingError",
    "Embeddings",
    "Encoder",
    "ModelError",
    "Pipeline",
    "PolicyError",
    "Recall",
    "RecordError",
    "ResumeError",
    "SeedBank",
    "Seeds",
    "ServiceError",
    "UsageError",
    "__version__",
    "calibrate",
    "calibrate_file",
    "decide_file",
    "errors",
    "load_policy",
    "mine",
    "mine_file",
    "recall_file",
    "rerank",
    "rerank_file",
    "score",
    "score_file",
    "teach",
    "teach_file",
    "train",
}
DOCUMENTED = [  # what the guides show beside the names of the package
    ("ecom_rag.evaluation", ("bootstrap", "compare", "evaluate_run", "fit_fusion", "judge", "judge_labels")),
    ("ecom_rag.pipeline", ("Pipeline", "read_settings")),
    ("ecom_rag.files.records", ("read",)),
    ("ecom_rag.seeds.bank", ("BankSettings", "View", "add", "build", "create", "restore", "snapshot", "stats")),
    ("ecom_rag.retrieval.fusion", ("fuse",)),
    ("ecom_rag.retrieval.learned_fusion", ("load_fusion",)),
    ("ecom_rag.merging", ("Mix", "merge")),
    ("ecom_rag.mining", ("Rules", "Source")),
    ("ecom_rag.training.recipe", ("make_recipe", "read_recipe")),
]


def public_objects():
    for name in sorted(PUBLIC - {"__version__", "errors"}):
        yield f"ecom_rag.{name}", getattr(ecom_rag, name)
    for module, names in DOCUMENTED:
        for name in names:
            yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def callables():
    """Functions and classes, and the public methods of the classes that are no errors and no records of settings."""
    for name, found in public_objects():
        if inspect.isclass(found) and issubclass(found, Exception):
            continue
        yield name, found
        if inspect.isclass(found):
            for method, function in vars(found).items():
                if not method.startswith("_") and (callable(function) or isinstance(function, classmethod)):
                    yield f"{name}.{method}", getattr(found, method)


CALLABLES = dict(callables())
MADE_FOR_THE_USER = {"ecom_rag.Encoder", "ecom_rag.CrossEncoder", "ecom_rag.SeedBank", "ecom_rag.seeds.bank.View"}


def test_the_public_names():
    assert set(ecom_rag.__all__) == PUBLIC == set(dir(ecom_rag)) and len(ecom_rag.__all__) == len(PUBLIC)
    assert all(hasattr(ecom_rag, name) for name in PUBLIC)
    assert not hasattr(ecom_rag, "unknown")


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, ecom_rag; ecom_rag.errors.RecordError; from ecom_rag import UsageError, BankError, ModelError;"
        "print([name for name in ('torch', 'transformers', 'numba', 'openvino') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", CALLABLES)
def test_a_docstring_names_every_parameter(name):
    """Args for every parameter, no catch-all, and options by keyword only: at most three places."""
    found = CALLABLES[name]
    text = inspect.getdoc(found)
    assert text and text.splitlines()[0].endswith((".", "?")), f"{name} has no docstring of one line"
    parameters = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters), f"{name} takes anything"
    if name not in MADE_FOR_THE_USER:
        described = text.partition("Args:")[2]
        missing = [p.name for p in parameters if f"\n    {p.name}: " not in f"\n{described}"]
        assert not missing, f"{name} does not say what {missing} are"
    if not inspect.isclass(found):
        optional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty]
        assert len(optional) <= 1, f"{name} takes {optional} by place; make options keyword-only"
        assert all(p.annotation is not p.empty for p in parameters), f"{name} is not annotated"


@pytest.mark.parametrize("name", CALLABLES)
def test_a_function_that_takes_anything_from_outside_says_what_it_raises(name):
    found = CALLABLES[name]
    silent = {
        "ecom_rag.Recall.fitted",
        "ecom_rag.Recall.routes_of_file",
        "ecom_rag.Recall.check_reranker",
        "ecom_rag.Embeddings",
        "ecom_rag.Embeddings.take",
        "ecom_rag.Seeds.records",
        "ecom_rag.Pipeline.search",
        "ecom_rag.SeedBank.maintain",
        "ecom_rag.mining.Source",
        "ecom_rag.merging.Mix",
        "ecom_rag.evaluation.judge",
        "ecom_rag.evaluation.judge_labels",
    }
    takes = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    if not takes or name in silent or name in MADE_FOR_THE_USER:
        return
    assert "Raise" in (inspect.getdoc(found) or ""), f"{name} does not say what it raises"


def error_classes():
    """Every exception of the package, wherever it is defined."""
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(ecom_rag.__path__, "ecom_rag.")
        if not info.name.endswith("__main__")
    ]
    found = {
        item
        for module in modules
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Exception) and item.__module__.startswith("ecom_rag")
    }
    return sorted(found, key=lambda item: item.__qualname__)


def test_errors_survive_processes_and_copies():
    """An error that cannot be unpickled stops a pool of processes for ever."""
    classes = error_classes()
    assert {"RecordError", "DamagedError", "BankError"} <= {kind.__name__ for kind in classes}
    assert {kind for kind in classes if issubclass(kind, errors.EcomRagError)} >= {
        getattr(errors, name) for name in dir(errors) if name.endswith("Error")
    }
    for kind in classes:
        own = "__init__" in vars(kind)
        needed = list(inspect.signature(kind).parameters.values()) if own else []
        named = {one.name: f"{one.name} text" for one in needed if one.kind is one.KEYWORD_ONLY}
        error = kind(
            *(f"{one.name} text" for one in needed if one.name not in named) if own else ["what, where"], **named
        )
        error.__dict__.setdefault("extra", 1)
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert type(again) is kind and str(again) == str(error) and again.__dict__ == error.__dict__


def _fails(number):
    raise errors.RecordError(f"record {number}", "is none")


@pytest.mark.slow
def test_an_error_comes_out_of_a_pool_of_processes():
    code = (
        "import multiprocessing, test_python\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        try: pool.map(test_python._fails, [7])\n"
        "        except Exception as error: print(type(error).__name__, error, error.where)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert found.stdout.strip() == "RecordError record 7: is none record 7", found.stderr


def test_a_repr_is_one_line_that_says_what_matters(tmp_path, m3_folder, bert_reranker):
    encoder = ecom_rag.Encoder.from_pretrained(m3_folder, runtime="torch", precision="fp32")
    cross_encoder = ecom_rag.CrossEncoder.from_pretrained(bert_reranker, runtime="torch", precision="fp32")
    seeds = ecom_rag.Seeds([{"text": "a b"}], encoder=encoder)
    pipeline = ecom_rag.Pipeline(seeds, encoder=encoder, cross_encoder=cross_encoder)
    bank = built(tmp_path / "bank", [{"text": "a b"}], encoder=encoder)
    embeddings = encoder.encode(["a", "b"], outputs=encoder.outputs)
    shown = {
        encoder: ("bge-m3", "dense+sparse+multivector", "32", "512", "fp32", "cpu"),
        cross_encoder: ("bert-reranker", "512", "fp32"),
        seeds: ("1 seeds", "bm25+dense"),
        pipeline: ("bm25+dense", "1 seeds", "top_k=10", "bert-reranker"),
        bank: ("bank", "1 documents", "bm25+dense", "bge-m3"),
        embeddings: ("2 texts", "dense 2x32", "sparse 2x"),
        embeddings.multivector: ("2 rows", "x32"),
    }
    for item, parts in shown.items():
        text = repr(item)
        assert "\n" not in text and len(text) < 400 and text.startswith(type(item).__name__)
        assert all(part in text for part in parts), text
    with bank.view() as view:
        assert "1 seeds" in repr(view) and "\n" not in repr(view)
    bank.close()
    assert "closed" in repr(bank)
    assert repr(ecom_rag.Embeddings()) == "Embeddings(none)"


def test_one_encoder_in_several_threads_gives_what_it_gives_in_one(m3_folder):
    from concurrent.futures import ThreadPoolExecutor

    encoder = ecom_rag.Encoder.from_pretrained(m3_folder, runtime="torch", precision="fp32")
    batches = [[f"leather wallet {i} {j}" for j in range(5)] for i in range(12)]
    alone = [encoder.encode(texts, outputs=encoder.outputs) for texts in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda texts: encoder.encode(texts, outputs=encoder.outputs), batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.dense, other.dense)
        np.testing.assert_array_equal(one.sparse.toarray(), other.sparse.toarray())
        np.testing.assert_array_equal(one.multivector.values, other.multivector.values)
