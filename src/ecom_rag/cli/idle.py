"""When each option of each command has an effect; ``command`` holds every command line against these tables.

An option that is in no table is an error of the program, which a test finds. What the conditions look at are the
values of the command's options, and what ``idle_values.MORE`` adds to them.
"""

from collections.abc import Mapping
from typing import Any

from ecom_rag.idle import ALWAYS, Needs, Table

ENCODED = frozenset(("dense", "sparse", "multivector", "hybrid"))


def _always(names: str) -> dict[str, tuple[Needs, ...]]:
    """These options of a command, and those of all commands, have an effect whatever the others are."""
    return dict.fromkeys((*names.split(), "verbose", "quiet"), ALWAYS)


def _each(names: str, *needs: Needs) -> dict[str, tuple[Needs, ...]]:
    """The same needs for several options."""
    return dict.fromkeys(names.split(), needs)


def _encoded(values: Mapping[str, Any]) -> bool:
    return not ENCODED.isdisjoint(values["routes"])


_PLACEMENT = "runtime precision device batch_tokens"
_ROUTES = "with --routes {routes_shown}"
_FILE = Needs(lambda v: v["bank"] is None, "with --bank, which brings its own", "search --seeds")
_BM25 = Needs(lambda v: "bm25" in v["routes"], _ROUTES, "add bm25 to --routes")
_ENCODER = Needs(_encoded, _ROUTES, "add dense, sparse or multivector to --routes")
_READ = Needs(
    lambda v: _encoded(v) or "bm25" in v["routes"], _ROUTES, "add bm25, dense, sparse or multivector to --routes"
)
_DENSE = Needs(lambda v: "dense" in v["routes"], _ROUTES, "add dense to --routes")
_SEVERAL = Needs(lambda v: len(v["routes"]) > 1, "with one route ({routes_shown})", "name two --routes or more")
_POLICY = Needs(lambda v: v["policy"] is not None, "without a policy", "name one with --policy")
_RERANKER = Needs(lambda v: v["rerank"] is not None, "without a reranker", "name one with --rerank")
_A_MODEL = Needs(
    lambda v: _encoded(v) or v["rerank"] is not None,
    f"{_ROUTES} and no reranker: no model is loaded",
    "add dense, sparse or multivector to --routes, or --rerank",
)
_OWN_WEIGHTS = Needs(
    lambda v: not str(v["fusion"]).endswith(".json"),
    "with --fusion {fusion}, which has its own weights",
    "choose another --fusion",
)

_CLUSTER = Needs(lambda v: v["ray"] is not None, "without a cluster", "name one with --ray")
_OF_A_BANK = Needs(lambda v: v["bank"] is not None, "with --seeds: workers open a bank", "build one, and search --bank")

_SCORE: Table = {
    "ray": (_OF_A_BANK,),
    **_each("workers shards", _CLUSTER),
    **_always("queries seeds bank model output mode top_k filter exclude_self id_key resume on_bad_line"),
    **_each("max_length query_instruction query_task query_examples deobfuscate", _FILE),
    **_each(_PLACEMENT),
    "weights": (Needs(lambda v: v["mode"] == "hybrid", "with --mode {mode}", "choose --mode hybrid"),),
    "pooling": (
        _FILE,
        Needs(lambda v: v["mode"] in ("dense", "hybrid"), "with --mode {mode}", "choose --mode dense or hybrid"),
    ),
    "truncate_dim": (
        _FILE,
        Needs(lambda v: v["mode"] != "sparse", "with --mode sparse", "choose another --mode"),
    ),
}
_RERANK: Table = {
    **_always("results model output top_k normalize blend when max_length ray resume on_bad_line"),
    "reuse": (Needs(lambda v: v["ray"] is None, "with --ray: machines do not share the file", "leave out --ray"),),
    "workers": (_CLUSTER,),
    **_each("template instruction exit_layer compress_ratio compress_layers"),  # it depends on the checkpoint
    **_each(_PLACEMENT),
}
_RECALL: Table = {
    "ray": (_OF_A_BANK,),
    **_each("workers shards", _CLUSTER),
    **_always("queries output seeds bank routes rerank top_k filter exclude_self id_key config resume on_bad_line"),
    "model": (_ENCODER,),
    "fusion": (_SEVERAL,),
    "weights": (_SEVERAL, _OWN_WEIGHTS),
    "label_key": (
        _SEVERAL,
        Needs(lambda v: v["fusion"] == "auto", "with fusion {fusion}", "choose --fusion auto"),
    ),
    "rrf_constant": (_SEVERAL, Needs(lambda v: v["fusion"] == "rrf", "with fusion {fusion}", "choose the fusion rrf")),
    "depth": (
        Needs(
            lambda v: len(v["routes"]) > 1 or v["rerank"] is not None,
            "with one route ({routes_shown}) and no reranker",
            "name two --routes or more, or --rerank",
        ),
    ),
    **_each("normalize blend", _RERANKER),
    "policy": (
        Needs(lambda v: v["rerank"] is None, "with a reranker: policies stand on routes", "leave out --rerank"),
    ),
    **_each("strict campaigns flood_limit reviewed", _POLICY),
    "hybrid_weights": (Needs(lambda v: "hybrid" in v["routes"], _ROUTES, "add hybrid to --routes"),),
    "exact_multivector": (
        Needs(lambda v: "multivector" in v["routes"], _ROUTES, "add multivector to --routes"),
        Needs(lambda v: len(v["routes"]) > 1, "with multivector alone, which is exact by itself", "name more --routes"),
    ),
    **_each("stem simplify words", _FILE, _BM25),
    **_each("max_length query_instruction query_task query_examples", _FILE, _ENCODER),
    "deobfuscate": (_FILE, _READ),
    **_each(_PLACEMENT, _A_MODEL),
}

_EVALUATES = Needs(
    lambda v: bool(v["results"]) or v["searches"], "without RESULTS to evaluate", "name RESULTS, or --model or --routes"
)
_LABELS = Needs(lambda v: v["labels"], "without --labels", "add --labels")
_BEIR = Needs(lambda v: v["beir"] is not None, "without --beir", "name a folder with --beir")
_SEARCH = (_BEIR, Needs(lambda v: not v["results"], "beside RESULTS: it searches the --beir folder", "name no RESULTS"))
_RECORDS = Needs(
    lambda v: v["records"],
    "without RESULTS that are records: TREC runs and --beir folders name their ids",
    "name results of score or recall",
)
_EVALUATE: Table = {
    **_always("results beir"),
    **_each(
        "qrels labels measures output per_query report fit_fusion write_run write_qrels resamples seed", _EVALUATES
    ),
    "split": (_BEIR,),
    "id_key": (_EVALUATES, _RECORDS),
    "exclude_self": (_EVALUATES,),
    **_each("label_key votes fixed_precision positive", _LABELS),
    **_each("export_queries export_seeds", _BEIR),
    "model": (*_SEARCH, _ENCODER),
    "routes": _SEARCH,
    "fusion": (*_SEARCH, _SEVERAL),
    "rerank": _SEARCH,
}

_FOLDER = Needs(lambda v: v["kind"] == "beir", "where QUERIES is not a BEIR folder", "mine from a folder")
_LABELLED = Needs(
    lambda v: v["kind"] == "labelled", "where QUERIES are not labelled records", "mine from records with labels"
)
_CROSS_ENCODER = Needs(lambda v: v["reranker"] is not None, "without a reranker", "name one with --reranker")
_SEARCHED = Needs(lambda v: v["run"] is None, "with --run, whose candidates are taken", "leave out --run")
_LOADED = Needs(
    lambda v: v["reranker"] is not None or (v["run"] is None and v["route"] != "bm25"),
    "where no model is loaded",
    "search with a --model, or name a --reranker",
)
_MINE: Table = {
    **_always("queries output seeds run negatives ranks margin percentage reranker pick resume"),
    "model": (_SEARCHED, Needs(lambda v: v["route"] != "bm25", "with --route bm25", "choose another --route")),
    "route": (_SEARCHED,),
    **_each("reranker_threshold reranker_margin", _CROSS_ENCODER),
    **_each("label positives", _LABELLED),
    **_each("split min_grade judged_only grades", _FOLDER),
    "seed": (
        Needs(lambda v: v["pick"] == "random" or v["kind"] == "labelled", "with --pick top", "choose --pick random"),
    ),
    **_each(_PLACEMENT, _LOADED),
}
_BY_EMBEDDER = Needs(lambda v: v["teacher"] == "embedder", "with --teacher {teacher}", "choose --teacher embedder")
_BY_RERANKER = Needs(lambda v: v["teacher"] == "reranker", "with --teacher {teacher}", "choose --teacher reranker")
_TEACH: Table = {
    **_always("train model output teacher max_length resume"),
    **_each("mode query_instruction query_task", _BY_EMBEDDER),
    **_each("normalize template instruction", _BY_RERANKER),
    **_each(_PLACEMENT),
}

_VALIDATE = Needs(lambda v: v["validate"] is not None, "without --validate", "find weights with --validate")
_NO_ADAPTER = Needs(lambda v: v["adapter"] is None, "with --adapter, which is added as it is", "leave out --adapter")
_MERGE: Table = {
    **_always("models output adapter"),
    **_each("method base examples validate", _NO_ADAPTER),
    "density": (Needs(lambda v: v["method"] == "ties", "with --method {method}", "choose --method ties"),),
    "scale": (
        Needs(
            lambda v: v["method"] in ("task-arithmetic", "ties"),
            "with --method {method}",
            "choose --method task-arithmetic or ties",
        ),
        Needs(
            lambda v: v["method"] != "ties" or v["validate"] is None,
            "with --validate, which searches that of ties",
            "choose --method task-arithmetic",
        ),
    ),
    "temperature": (Needs(lambda v: v["examples"] is not None, "without --examples", "compute weights by --examples"),),
    **_each("blocks budget", _VALIDATE),
    "device": (
        Needs(
            lambda v: v["examples"] is not None or v["validate"] is not None,
            "where no model is run",
            "compute weights by --examples or --validate",
        ),
    ),
}

_OF_BANK = Needs(
    lambda v: v["loads"], "on a bank whose routes need no model", "build one with dense, sparse or multivector"
)
_LOADS_ENCODER = Needs(
    lambda v: v["bank"] is not None or v["model"] is not None, "without an encoder", "name one with --model"
)
_CALIBRATE: Table = {
    **_always("recalled output page seeds bank precision delta jointly pool innocent false_positive_rate evasive"),
    **_always("filter label_key similarity"),
    "model": (_FILE,),
    "deobfuscate": (_FILE,),
    **_each("runtime encoder_precision device batch_tokens", _LOADS_ENCODER),
}
_AUDIT: Table = {
    **_always("output seeds bank queries report innocent conflict precision delta similarity"),
    "model": (_FILE,),
    **_each(
        "first label_key", Needs(lambda v: v["queries"] is not None, "without --queries", "name results of recall")
    ),
    "deobfuscate": (_FILE,),
    **_each("runtime encoder_precision device batch_tokens", _LOADS_ENCODER),
}
_AUDITS = Needs(
    lambda v: v["audit_share"] > 0, "with --audit-share 0, which draws nothing", "choose a larger --audit-share"
)
TABLES: Mapping[str, Table] = {
    "score": _SCORE,
    "rerank": _RERANK,
    "recall": _RECALL,
    "calibrate": _CALIBRATE,
    "audit": _AUDIT,
    "decide": _always("recalled policy output strict campaigns flood_limit reviewed id_key resume on_bad_line"),
    "scan": {
        **_always("new_seeds listings bank output policy depth resume"),
        "top_k": (Needs(lambda v: v["policy"] is None, "with a policy, which says how many", "leave out --policy"),),
        **_each(_PLACEMENT, _OF_BANK),
    },
    "evaluate": _EVALUATE,
    "mine": _MINE,
    "teach": _TEACH,
    "merge": _MERGE,
    "models": _always("model as_json"),
    "choose": {**_always("decided output count audit_share"), "seed": (_AUDITS,)},
    "monitor": _always("audited policy label_key alpha jointly count_selected output plot"),
    "demo": {
        **_always("folder serve"),
        "show_all": (Needs(lambda v: not v["serve"], "with --serve, which prints no listing", "leave out --serve"),),
        "port": (Needs(lambda v: v["serve"], "without --serve", "add --serve"),),
    },
    "serve": {
        **_always("bank model rerank host port keys settings_file"),
        **_each(_PLACEMENT),
        "policy": (Needs(lambda v: v["bank"] or v["settings_file"], "without a bank", "name one with --bank"),),
        "state": (Needs(lambda v: v["policy"] or v["settings_file"], "without a policy", "name one with --policy"),),
    },
    "train embedder": _always("recipe resume"),
    "train reranker": _always("recipe resume"),
    "bank build": {
        **_always("bank seeds routes id_key label_key index_key resume on_bad_line"),
        **_each(f"model max_length query_instruction query_task query_examples {_PLACEMENT}", _ENCODER),
        "deobfuscate": (_READ,),
        "pooling": (_DENSE,),
        "truncate_dim": (
            Needs(lambda v: not {"dense", "multivector"}.isdisjoint(v["routes"]), _ROUTES, "add dense to --routes"),
        ),
    },
    "bank add": {**_always("bank file on_bad_line"), **_each(f"model {_PLACEMENT}", _OF_BANK)},
    "bank delete": {
        **_always("bank id filter dry_run"),
        "yes": (
            Needs(lambda v: v["filter"] is not None, "without --filter: ids are removed as asked", "give --filter"),
            Needs(lambda v: not v["dry_run"], "with --dry-run", "leave out --dry-run"),
        ),
    },
    "bank info": _always("bank as_json"),
    "bank list": _always("bank output filter limit"),
    "bank get": _always("bank ids"),
    "bank export": _always("bank output filter"),
    "bank migrate": _always("source target routes resume"),
    "bank refresh": _always("bank"),
    "bank snapshot": _always("bank out"),
    "bank restore": _always("snapshot bank"),
    "keys add": _always("name scopes file expires"),
    "keys list": _always("file as_json"),
    "keys revoke": _always("name file"),
    "journal verify": _always("file known"),
    "journal export": _always("file output kind bank label_key"),
}


AMBIENT: Mapping[str, Table] = {
    "score": {**_SCORE, "model": (_FILE,)},
    "recall": {**_RECALL, "model": (_FILE, _ENCODER)},
}
"""Where values of the environment have an effect, if otherwise than given ones: a bank keeps its own model."""
