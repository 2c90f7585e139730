"""Where the time of one transformer layer goes on one core: its parts in ms, beside the rate of its bare products."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common import heading
from ecom_rag.models.checkpoints.weights import Weights
from ecom_rag.models.networks import fused
from ecom_rag.models.networks.int8 import Int8Layer

SHAPES = [(384, 12, tokens) for tokens in (8, 11, 20, 28, 64, 320)] + [(768, 12, 28), (1024, 16, 28)]
ROWS = 1024  # tokens of a batch, as the encoder cuts them
PARTS = ("qkv", "attention", "out + residual", "up + GELU", "up alone", "down + residual", "two norms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32", "int8"])
    parser.add_argument("--dims", nargs="+", type=int, default=[384, 768, 1024])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    heading("One layer, one core, ms")
    torch.set_num_threads(1)
    columns = ["precision", "dim", "tokens a text", *PARTS, "layer", "GFLOP/s", "bare product GFLOP/s", "share"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for precision in options.precisions:
        for dim, heads, tokens in SHAPES:
            if dim in options.dims:
                row(precision, dim, heads, tokens, options.rounds)


def row(precision: str, dim: int, heads: int, tokens: int, rounds: int) -> None:
    """One line of the table."""
    network = fused.FusedTransformer(
        {
            "model_type": "bert",
            "vocab_size": 9,
            "hidden_size": dim,
            "num_hidden_layers": 1,
            "num_attention_heads": heads,
        },
        Weights(random_layer(dim), Path("random")),
        precision,
    )
    [layer] = network._layers
    texts = ROWS // tokens
    rows = texts * tokens
    x = torch.randn(rows, dim).to(network._dtype)
    qkv, wide = layer.qkv(x), torch.randn(rows, 4 * dim).to(network._dtype)
    batch = fused._Texts.of(torch.ones(texts, tokens), packed=True)
    calls: dict[str, Callable[[], object]] = {
        "qkv": lambda: layer.qkv(x),
        "attention": lambda: network._attention(qkv, batch, tokens),
        "layer": lambda: layer.finish(network._attention(layer.qkv(x), batch, tokens), x),
        "bare": bare(precision, rows, dim),
    }
    if not isinstance(layer, Int8Layer):  # where the parts after attention are made a few rows at a time
        calls |= {
            "out + residual": lambda: layer._attention_out.plus(x, x),
            "up + GELU": lambda: layer._up(x, "gelu"),
            "up alone": lambda: layer._up(x),
            "down + residual": lambda: layer._down.plus(wide, x),
            "two norms": lambda: layer._norm(layer._attention_norm(x)),
        }
    ms = in_turn(calls, rounds)
    attention = 4 * tokens * rows * dim
    products = 2 * rows * dim * 12 * dim
    cells = [f"{ms[name]:.2f}" if name in ms else "" for name in PARTS]
    rate, most = (products + attention) / ms["layer"] / 1e6, 2 * rows * dim * 4 * dim / ms["bare"] / 1e6
    cells += [f"{ms['layer']:.1f}", f"{rate:.0f}", f"{most:.0f}", f"{rate / most:.0%}"]
    print(f"| {precision} | {dim} | {tokens} | {' | '.join(cells)} |", flush=True)


def random_layer(dim: int) -> dict[str, Tensor]:
    """Tensors of a BERT of one layer."""
    torch.manual_seed(0)
    embeddings = {"word": (9, dim), "position": (512, dim), "token_type": (2, dim)}
    found = {f"embeddings.{name}_embeddings.weight": torch.randn(shape) for name, shape in embeddings.items()}
    at = "encoder.layer.0"
    linear = {f"{at}.attention.self.{part}": (dim, dim) for part in ("query", "key", "value")}
    linear |= {f"{at}.attention.output.dense": (dim, dim)}
    linear |= {f"{at}.intermediate.dense": (4 * dim, dim), f"{at}.output.dense": (dim, 4 * dim)}
    for name, shape in linear.items():
        found |= {f"{name}.weight": torch.randn(shape) / shape[1] ** 0.5, f"{name}.bias": torch.zeros(shape[0])}
    for name in ("embeddings", f"{at}.attention.output", f"{at}.output"):
        found |= {f"{name}.LayerNorm.weight": torch.ones(dim), f"{name}.LayerNorm.bias": torch.zeros(dim)}
    return found


def bare(precision: str, rows: int, dim: int) -> Callable[[], object]:
    """The product of the widest part and nothing else."""
    if precision == "int8":
        a, b = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((rows, dim), (4 * dim, dim)))
        return lambda: torch._int_mm(a, b.t())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, weight = torch.randn(rows, dim, dtype=dtype), torch.randn(4 * dim, dim, dtype=dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "none")


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median ms of each in the time of this thread alone, so that other work on the machine counts less."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, call in calls.items():
                start = time.thread_time()
                call()
                taken[name].append(time.thread_time() - start)
    return {name: statistics.median(values[1:]) * 1e3 for name, values in taken.items()}


if __name__ == "__main__":
    main()
