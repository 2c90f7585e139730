"""Ways to run a network over batches: torch (CPU, CUDA), torch with fused layers (CPU) and OpenVINO (CPU).

All are given the same ``torch.nn.Module`` whose ``forward(input_ids, attention_mask[, token_type_ids])`` returns a
tuple of tensors, and all answer ``run(batches, outputs)`` with float32 arrays, in order.
"""

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier, Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecom_rag import environment
from ecom_rag.errors import ModelError, UsageError
from ecom_rag.files import cache
from ecom_rag.models import cpu
from ecom_rag.models.batching import Batch

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

RUNTIMES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
# Architectures whose conversion is tested; others run in torch under ``auto``.
_CONVERTED = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra", "camembert")
_GRAPH_VERSION = 1  # raise it when the modules' outputs change, so that old conversions are not used

Outputs = tuple[NDArray[np.float32], ...]


class Runtime(Protocol):
    """A loaded network."""

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """Run batches.

        Args:
            batches: What to run; consumed lazily.
            outputs: Positions in the module's output tuple that are wanted.

        Yields:
            ``(batch, arrays)``; a batch may come back in parts, each with its own rows.
        """
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how exactly a network runs, all ``auto`` resolved; ``fused`` by ``FusedTransformer``."""

    runtime: str
    precision: str
    device: str
    fused: bool = False

    @property
    def batch_tokens(self) -> int:
        """Default budget of padded tokens a batch: fits the caches of a CPU, fills a GPU."""
        if self.device != "cpu":
            return 65536
        return 1024 if self.fused else 2048


def choose(runtime: str, precision: str, device: str, config: Mapping[str, Any]) -> Placement:
    """Resolve ``auto`` for this machine and this architecture (the checkpoint's ``config.json``).

    On a CPU, BERT and XLM-R run in torch with fused layers: faster than OpenVINO there, and nothing has to be
    converted. What cannot be fused runs in OpenVINO. ``auto`` takes bf16 only where it is faster than float32, and
    never int8, which moves scores.

    Raises:
        UsageError: The three do not go together, or the device is not there.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r} is unknown; expected one of {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown; expected one of {', '.join(PRECISIONS)}")
    if device == "auto":
        device = "cuda" if runtime != "openvino" and _cuda_available() else "cpu"
    if device != "cpu":
        if not re.fullmatch(r"cuda(:\d+)?", device):
            raise UsageError(f"device {device!r} is unknown; expected auto, cpu, cuda or cuda:N")
        if runtime == "openvino":
            raise UsageError(f"runtime openvino runs on the CPU; use --device cpu, or --runtime torch for {device}")
        if not _cuda_available():
            raise UsageError(f"device {device}: no CUDA GPU is visible to torch; use --device cpu")
        if (number := int(device.partition(":")[2] or 0)) >= _cuda_count():
            raise UsageError(f"device {device}: torch sees {_cuda_count()} GPUs, numbered from 0; there is no {number}")
        if precision == "int8":
            raise UsageError(f"precision int8 is for CPUs; on {device} use fp16, or --device cpu")
        return Placement("torch", "fp16" if precision == "auto" else precision, device)
    if precision == "auto":
        converted = runtime == "openvino" or config.get("model_type") in _CONVERTED
        precision = (
            "bf16" if cpu.prefers_bf16() and (converted if runtime != "torch" else _fusible(config, "bf16")) else "fp32"
        )
    fusible = _fusible(config, precision)
    if precision == "fp16":
        raise UsageError("precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    if precision == "int8":
        _check_int8(runtime, config, fusible)
    if runtime == "auto":
        runtime = "openvino" if config.get("model_type") in _CONVERTED and not fusible else "torch"
    if precision == "bf16" and not cpu.prefers_bf16():
        logger.warning("bf16 is slower than fp32 on this CPU; take --precision fp32, or int8 where scores may differ")
    return Placement(runtime, precision, device, runtime == "torch" and fusible)


def _check_int8(runtime: str, config: Mapping[str, Any], fusible: bool) -> None:
    if runtime == "openvino":
        raise UsageError("precision int8 runs in torch; leave out --runtime openvino")
    if not fusible:
        raise UsageError(
            f"precision int8 is for BERT, RoBERTa and XLM-R; this checkpoint is"
            f" {config.get('model_type')!r}: take bf16 or fp32"
        )
    if not cpu.multiplies_int8():
        raise UsageError("precision int8 needs a CPU with int8 instructions (VNNI, AMX); take fp32")


def load(build: "Callable[[], torch.nn.Module]", placement: Placement, cache_key: str) -> Runtime:
    """Load a network on its runtime.

    Args:
        build: Makes the module with its weights; not called where a converted model is in the cache.
        placement: Where to run it.
        cache_key: Names the conversion: the checkpoint's fingerprint and what was built on it.
    """
    if placement.runtime == "torch":
        return FusedRuntime(build()) if placement.fused else TorchRuntime(build(), placement)
    return OpenVinoRuntime(build, placement, cache_key)


class TorchRuntime:
    """Runs the module itself; on a GPU, a batch that does not fit is halved and the size remembered."""

    def __init__(self, module: "torch.nn.Module", placement: Placement) -> None:
        import torch

        self._torch = torch
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[placement.precision]
        self._module = module.to(device=placement.device, dtype=dtype).eval()
        self._device = torch.device(placement.device)
        self._fits: int | None = None  # padded tokens, known after the first batch that did not

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """See ``Runtime.run``."""
        for batch in batches:
            waiting = [batch]
            while waiting:
                part = waiting.pop(0)
                size = part.input_ids.size
                if self._fits is not None and size > self._fits and len(part.rows) > 1:
                    waiting = [*part.halves(), *waiting]
                    continue
                try:
                    yield part, self._forward(part, outputs)
                except self._torch.OutOfMemoryError:
                    self._torch.cuda.empty_cache()
                    if len(part.rows) == 1:
                        raise ModelError(
                            f"out of memory on {self._device} with one text of {size} tokens;"
                            " lower --max-length or use another device"
                        ) from None
                    self._fits = size // 2
                    logger.warning("out of memory on %s: going on with batches of %d tokens", self._device, self._fits)
                    waiting = [*part.halves(), *waiting]

    def _forward(self, batch: Batch, outputs: Sequence[int]) -> Outputs:
        arrays = [batch.input_ids, batch.attention_mask]
        if batch.token_type_ids is not None:
            arrays.append(batch.token_type_ids)
        with self._torch.inference_mode():
            tensors = [self._torch.from_numpy(array).to(self._device) for array in arrays]
            results = self._module(*tensors, outputs=tuple(outputs))
        return tuple(result.float().cpu().numpy() for result in results)


class FusedRuntime:
    """Runs a fused module on a CPU, a batch to each core at a time: faster than all cores on one batch."""

    def __init__(self, module: "torch.nn.Module") -> None:
        import torch

        self._torch = torch
        self._module = module.eval()
        cores = _cores()
        self._workers = _streams(cores)
        self._threads = max(1, cores // self._workers)

    def run(self, batches: Iterable[Batch], outputs: Sequence[int]) -> Iterator[tuple[Batch, Outputs]]:
        """See ``Runtime.run``."""
        before = self._torch.get_num_threads()
        ready = Barrier(self._workers + 1)
        with ThreadPoolExecutor(self._workers) as pool:
            for _ in range(self._workers):
                pool.submit(self._enter, ready)
            ready.wait()
            self._torch.set_num_threads(before)  # threads made from here on; the workers keep their own number
            busy: deque[tuple[Batch, Future[Outputs]]] = deque()
            for batch in batches:
                if len(busy) > self._workers:  # one more than can run, so that none waits for its input
                    yield busy[0][0], busy[0][1].result()
                    busy.popleft()
                busy.append((batch, pool.submit(self._forward, batch, tuple(outputs))))
            for batch, future in busy:
                yield batch, future.result()

    def _enter(self, ready: Barrier) -> None:
        self._torch.set_num_threads(self._threads)
        ready.wait()

    def _forward(self, batch: Batch, outputs: tuple[int, ...]) -> Outputs:
        arrays = [batch.input_ids, batch.attention_mask]
        if batch.token_type_ids is not None:
            arrays.append(batch.token_type_ids)
        with self._torch.inference_mode():
            results = self._module(*(self._torch.from_numpy(array) for array in arrays), outputs=outputs)
        return tuple(result.float().numpy() for result in results)


class OpenVinoRuntime:
    """Runs a converted module, a batch to each core at a time: faster than all cores on one batch."""

    def __init__(self, build: "Callable[[], torch.nn.Module]", placement: Placement, cache_key: str) -> None:
        ov = self._ov = environment.openvino()
        self._core = ov.Core()
        name = f"{cache_key}-g{_GRAPH_VERSION}-{ov.__version__.split('-')[0]}.xml"
        path = cache.cache_folder() / "openvino" / name
        self._path = path if self._reads(path) else _converted(build(), path)
        cores = _cores()
        self._config = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[placement.precision],
            "NUM_STREAMS": str(_streams(cores)),
            "INFERENCE_NUM_THREADS": str(cores),
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
            arrays = [batch.input_ids, batch.attention_mask]
            if batch.token_type_ids is not None:
                arrays.append(batch.token_type_ids)
            request.start_async(dict(enumerate(arrays)))
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


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


def _cuda_count() -> int:
    import torch

    return torch.cuda.device_count()


def _fusible(config: Any, precision: str) -> bool:
    from ecom_rag.models.fused import supported

    return supported(config, precision)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _streams(cores: int) -> int:
    """Batches run at a time."""
    return cores if cores <= 4 else max(4, cores // 2)
