"""OpenVINO on a CPU: a converted network, kept in the cache."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ecom_rag import environment
from ecom_rag.errors import ModelError
from ecom_rag.files import cache
from ecom_rag.models.runtimes import cpu
from ecom_rag.models.runtimes.batching import Batch, Outputs
from ecom_rag.models.runtimes.placement import Placement

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_GRAPH_VERSION = 1  # raise it when the modules' outputs change, so that old conversions are not used


class OpenVinoRuntime:
    """Runs a converted module, a batch to each core at a time: faster than all cores on one batch."""

    def __init__(self, build: "Callable[[], torch.nn.Module]", placement: Placement, cache_key: str) -> None:
        ov = self._ov = environment.openvino()
        self._core = ov.Core()
        name = f"{cache_key}-g{_GRAPH_VERSION}-{ov.__version__.split('-')[0]}.xml"
        path = cache.cache_folder() / "openvino" / name
        self._path = path if self._reads(path) else _converted(build(), path)
        self._config = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[placement.precision],
            "NUM_STREAMS": str(cpu.streams()),
            "INFERENCE_NUM_THREADS": str(cpu.cores()),
        }
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._turn = Lock()

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """See ``Runtime.run``."""
        idle = deque(self._requests(tuple(outputs)))
        busy: deque[tuple[Batch, Any]] = deque()
        for batch in batches:
            if not idle:
                yield self._finish(*busy[0], len(outputs))
                idle.append(busy.popleft()[1])
            request = idle.popleft()
            request.start_async(dict(enumerate(batch.inputs)))
            busy.append((batch, request))
        while busy:
            yield self._finish(*busy.popleft(), len(outputs))

    def _reads(self, path: Path) -> bool:
        """Whether a conversion is there, and whole."""
        try:
            return path.with_suffix(".bin").exists() and self._core.read_model(path) is not None
        except RuntimeError as error:
            logger.info("%s cannot be read and is made anew (%s)", path, cache.reason(error))
            return False

    @staticmethod
    def _finish(batch: Batch, request: Any, count: int) -> tuple[Batch, Outputs]:
        request.wait()
        return batch, tuple(request.get_output_tensor(position).data.copy() for position in range(count))

    def _requests(self, outputs: tuple[int, ...]) -> list[Any]:
        """Inference requests of the network cut down to some outputs, for one run: threads do not share them."""
        with self._turn:
            if outputs not in self._compiled:
                whole = self._core.read_model(self._path)
                kept = [whole.outputs[position].node for position in outputs]
                model = self._ov.Model(kept, whole.get_parameters())
                self._compiled[outputs] = self._core.compile_model(model, "CPU", self._config)
            compiled = self._compiled[outputs]
        count = int(self._config["NUM_STREAMS"]) + 1  # one more than can run, so that none waits for its input
        return [compiled.create_infer_request() for _ in range(count)]


def _converted(module: "torch.nn.Module", path: Path) -> Path:
    """Convert a module; returns where it was put: ``path``, or a temporary folder where the cache cannot be written."""
    converted = _convert(module)
    logger.info("the model was converted for OpenVINO; the result is kept in %s", path.parent)
    try:
        _save(converted, path)
    except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError of openvino's
        path = cache.fallback(path, error)
        try:
            _save(converted, path)
        except (OSError, RuntimeError) as second:
            raise ModelError(f"{path}: cannot be written ({cache.reason(second)}); {cache.REMEDY}") from None
    return path


def _convert(module: "torch.nn.Module") -> Any:
    import warnings

    import torch

    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [5, 6, 7, 8, 0, 0, 0]])
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    example: tuple[torch.Tensor, ...] = (ids, mask)
    if getattr(module, "uses_token_types", False):
        example = (ids, mask, torch.tensor([[0] * 3 + [1] * 4, [0, 0, 1, 1, 0, 0, 0]]))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape it makes dynamic
        return environment.openvino().convert_model(module.eval(), example_input=example)


def _save(converted: Any, path: Path) -> None:
    """Save under the final name only when whole, so that a killed or parallel run does no harm."""
    with cache.being_made(path) as folder:
        fresh = folder / path.name
        environment.openvino().save_model(converted, fresh, compress_to_fp16=False)
        fresh.with_suffix(".bin").replace(path.with_suffix(".bin"))
        fresh.replace(path)
