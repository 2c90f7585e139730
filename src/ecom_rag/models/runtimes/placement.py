"""Where and how a network runs: ``auto`` resolved for this machine and this architecture."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecom_rag.errors import UsageError
from ecom_rag.models.runtimes import cpu

logger = logging.getLogger(__name__)

RUNTIMES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
# Architectures whose conversion is tested; others run in torch under ``auto``.
_CONVERTED = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra", "camembert")
# Decoders whose plain torch network is faster in bf16 on processors that prefer it: 2.3 times at Qwen3-0.6B's shape.
_DECODERS = ("qwen2", "qwen3", "mistral", "gemma2")

_PIECES = 8  # that a small input is cut into
_FEWEST_TOKENS = 64  # of a piece: with fewer, the calls cost more than the second core gives


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

    def batch_budget(self, tokens: int, most: int) -> int:
        """The budget of padded tokens a batch for one input: a small input is cut, where each core runs its own batch.

        It depends on the input alone, not on the number of cores: another cut gives other last digits.

        Args:
            tokens: Of all rows of the input, without padding.
            most: The largest budget.
        """
        if self.runtime == "torch" and not self.fused:
            return most
        return min(most, max(_FEWEST_TOKENS, tokens // _PIECES))


def choose(runtime: str, precision: str, device: str, config: Mapping[str, Any], *, reranks: bool = False) -> Placement:
    """Resolve ``auto`` for this machine and this architecture (the checkpoint's ``config.json``).

    On a CPU, BERT and XLM-R run in torch with fused layers: faster than OpenVINO there, and nothing has to be
    converted. What cannot be fused runs in OpenVINO. ``auto`` takes bf16 only where it is faster than float32, and
    never int8, which moves scores; nor bf16 for rerankers that are decoders, whose logits it moved by up to 0.3 in
    tests.

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
            raise UsageError(f"runtime openvino runs on the CPU; use `device` cpu, or `runtime` torch for {device}")
        if not _cuda_available():
            raise UsageError(f"device {device}: no CUDA GPU is visible to torch; use `device` cpu")
        if (number := int(device.partition(":")[2] or 0)) >= _cuda_count():
            raise UsageError(f"device {device}: torch sees {_cuda_count()} GPUs, numbered from 0; there is no {number}")
        if precision == "int8":
            raise UsageError(f"precision int8 is for CPUs; on {device} use fp16, or `device` cpu")
        return Placement("torch", "fp16" if precision == "auto" else precision, device)
    if precision == "auto":
        kind = config.get("model_type")
        converted = runtime == "openvino" or kind in _CONVERTED
        decodes = kind in _DECODERS and not reranks
        gains = decodes or (converted if runtime != "torch" else _fusible(config, "bf16"))
        precision = "bf16" if cpu.prefers_bf16() and gains else "fp32"
    fusible = _fusible(config, precision)
    if precision == "fp16":
        raise UsageError("precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    if precision == "int8":
        _check_int8(runtime, config, fusible)
    if runtime == "auto":
        runtime = "openvino" if config.get("model_type") in _CONVERTED and not fusible else "torch"
    if precision == "bf16" and not cpu.prefers_bf16():
        logger.warning("bf16 is slower than fp32 on this CPU; take `precision` fp32, or int8 where scores may differ")
    return Placement(runtime, precision, device, runtime == "torch" and fusible)


def _check_int8(runtime: str, config: Mapping[str, Any], fusible: bool) -> None:
    if runtime == "openvino":
        raise UsageError("precision int8 runs in torch; leave out `runtime` openvino")
    if not fusible:
        raise UsageError(
            f"precision int8 is for BERT, RoBERTa and XLM-R; this checkpoint is"
            f" {config.get('model_type')!r}: take bf16 or fp32"
        )
    if not cpu.multiplies_int8():
        raise UsageError("precision int8 needs a CPU with int8 instructions (VNNI, AMX); take fp32")


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


def _cuda_count() -> int:
    import torch

    return torch.cuda.device_count()


def _fusible(config: Any, precision: str) -> bool:
    from ecom_rag.models.networks.fused import supported

    return supported(config, precision)
