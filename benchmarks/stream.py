"""Peak memory of the score command: 1,000,000 queries against 100,000 seeds with the starter encoder."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import arguments, heading, texts


def main() -> None:
    options = arguments(__doc__, queries={"type": int, "default": 1_000_000}, seeds={"type": int, "default": 100_000})
    heading(f"Streaming {options.queries:,} queries against {options.seeds:,} seeds")
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    found = texts(options.data, "taobao_queries_zh", 100_000)
    with (work / "seeds.jsonl").open("w", encoding="utf-8") as sink:
        for i in range(options.seeds):
            sink.write(
                json.dumps({"text": f"{found[i % len(found)]} {i}", "metadata": {"id": i, "label": i % 12}}) + "\n"
            )
    with (work / "queries.jsonl").open("w", encoding="utf-8") as sink:
        for i in range(options.queries):
            sink.write(json.dumps({"text": f"{found[(i * 7) % len(found)]} {i % 13}", "metadata": {"id": i}}) + "\n")
    start = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "ecom_rag",
        "score",
        str(work / "queries.jsonl"),
        "--seeds",
        str(work / "seeds.jsonl"),
        "--model",
        "starter",
        "--output",
        str(work / "out.jsonl"),
    ]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{options.queries:,} queries in {seconds:.0f} s ({options.queries / seconds:.0f}/s), peak memory {peak:.0f} MiB, "
        f"query file {(work / 'queries.jsonl').stat().st_size / 2**20:.0f} MiB, "
        f"output {(work / 'out.jsonl').stat().st_size / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
