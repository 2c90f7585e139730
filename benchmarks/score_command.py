"""The whole `ecom-rag score` command, from start to written file, against the obvious script over FlagEmbedding."""

import json
import subprocess
import sys
from pathlib import Path

from common import arguments, checkpoint, heading, in_turn, texts


def write(path: Path, items: list[str]) -> Path:
    lines = (json.dumps({"text": text, "metadata": {"id": i}}, ensure_ascii=False) for i, text in enumerate(items))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main() -> None:
    options = arguments(__doc__)
    heading("The score command, end to end")
    print("| checkpoint | queries x seeds | script s | ecom-rag s | ratio |\n|---|---|---|---|---|")
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    for shape, name, counts in (
        ("minilm", "homedepot", (5000, 5000)),
        ("bge-small-zh", "taobao_queries_zh", (10000, 10000)),
        ("bge-base", "taobao_queries_zh", (1000, 1500)),
    ):
        folder = checkpoint(shape, options.data, options.work)
        found = texts(options.data, name, sum(counts))
        queries, seeds = write(work / "q.jsonl", found[: counts[0]]), write(work / "s.jsonl", found[counts[0] :])
        pooling = "mean" if shape == "minilm" else "cls"
        script = [
            sys.executable,
            str(Path(__file__).parent / "flag_script.py"),
            str(queries),
            str(seeds),
            str(folder),
            pooling,
            str(work / "flag.jsonl"),
        ]
        command = [
            sys.executable,
            "-m",
            "ecom_rag",
            "score",
            str(queries),
            "--seeds",
            str(seeds),
            "--model",
            str(folder),
            "--output",
            str(work / "ours.jsonl"),
            "--max-length",
            "512",
            "--query-instruction",
            "",
        ]
        seconds = in_turn(
            {
                "flag": lambda c=script: subprocess.run(c, check=True, capture_output=True),
                "ours": lambda c=command: subprocess.run(c, check=True, capture_output=True),
            },
            options.rounds,
        )
        print(
            f"| {shape} | {name} {counts[0]} x {counts[1]} | {seconds['flag']:.1f} | {seconds['ours']:.1f} "
            f"| **{seconds['flag'] / seconds['ours']:.1f}x** |",
            flush=True,
        )
        ours = [json.loads(line) for line in (work / "ours.jsonl").open(encoding="utf-8")]
        flag = [json.loads(line) for line in (work / "flag.jsonl").open(encoding="utf-8")]
        print(f"<!-- {shape}: {agreement(ours, flag)} -->", flush=True)


def agreement(ours: list[dict], flag: list[dict]) -> str:
    """Queries whose top 10 agree: every seed of ours scores at least the script's 10th less 0.002 there."""
    agree, largest = 0, 0.0
    for a, b in zip(ours, flag, strict=True):
        theirs = {m["id"]: s for m, s in zip(b["topk_metadata"], b["topk_sim"], strict=True)}
        own = {m["id"]: s for m, s in zip(a["topk_metadata"], a["topk_sim"], strict=True)}
        largest = max([largest, *(abs(own[i] - theirs[i]) for i in own.keys() & theirs.keys())])
        agree += all(i in theirs or s <= b["topk_sim"][-1] + 0.002 for i, s in own.items())
    return f"same top 10 up to ties within 0.002: {agree} of {len(ours)}; largest score difference {largest:.5f}"


if __name__ == "__main__":
    main()
