"""Blocks as Arrow batches, for engines that map a function over them, such as ``mapInArrow`` of Spark."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ecom_rag.files import json_text
from ecom_rag.files.jobs import Process, Work

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = (
    "text string, metadata string, topk_sim array<double>, topk_seed array<string>, topk_metadata string,"
    " topk_evidence string"
)
"""Columns of the results as Spark writes a schema; metadata and evidence are JSON."""

_READY: dict[str, Process] = {}  # works that this process has made ready, by the digest of what was sent


class ArrowBlocks:
    """A work as a function over batches; it can be pickled.

    A process makes the work ready once, models and bank included, however many batches and partitions it is given: so
    the engine should keep its processes (Spark does, unless told otherwise).

    Args:
        work: Of ``pipeline.recall_work``.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._name = hashlib.sha256(pickle.dumps(work)).hexdigest()

    def __call__(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        """The results of some batches.

        Args:
            batches: With a column ``text``, and one ``metadata`` of JSON objects or nulls, which may be missing.

        Yields:
            For each batch one with the columns of ``RESULTS``.

        Raises:
            EcomRagError: The work cannot be done here as where it was made, or a record is none.
        """
        if self._name not in _READY:
            _READY[self._name] = self._work.start()
        process = _READY[self._name]
        for batch in batches:
            block = [
                {"text": row["text"], "metadata": json_text.loads((row.get("metadata") or "{}").encode())}
                for row in batch.to_pylist()
            ]
            results, _ = process(block)
            yield _batch(results)


def _batch(results: list[dict[str, Any]]) -> "pa.RecordBatch":
    import pyarrow as pa

    rows = [
        {
            "text": one["text"],
            "metadata": _json(one["metadata"]),
            "topk_sim": one["topk_sim"],
            "topk_seed": one["topk_seed"],
            "topk_metadata": _json(one["topk_metadata"]),
            "topk_evidence": _json(one.get("topk_evidence")),
        }
        for one in results
    ]
    kinds = {"topk_sim": pa.list_(pa.float64()), "topk_seed": pa.list_(pa.string())}
    schema = pa.schema([(name.split()[0], kinds.get(name.split()[0], pa.string())) for name in RESULTS.split(", ")])
    return pa.RecordBatch.from_pylist(rows, schema)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
