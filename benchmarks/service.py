"""The service under load, beside what teams use: a plain FastAPI service over FlagEmbedding, faiss and bm25s, and infinity.

All servers run at once on the same checkpoint and seeds, and idle while another one is measured; wrk sends each the same
bodies over loopback, in turns. Needs ``wrk`` (a Debian package). ``--infinity`` names the command ``infinity_emb`` of an
environment of its own: ``pip install "infinity-emb[server,torch]==0.0.78" "optimum<2" "transformers<4.49" "click==8.1.7"
"typer==0.12.5" "sentence-transformers==3.4.1"``.

Usage: python benchmarks/service.py --bank BANK --seeds SEEDS.jsonl.gz [--infinity ENVIRONMENT/bin/infinity_emb]; the bank holds
the seeds over bm25, dense and variant
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from common import arguments, checkpoint, heading, texts
from ecom_rag import SeedBank

HERE = Path(__file__).parent
POST = """
local bodies, at, wait = {}, 0, tonumber(os.getenv("WRK_DELAY") or "0")
for line in io.lines(os.getenv("WRK_BODIES")) do bodies[#bodies + 1] = line end
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
function init(args) math.randomseed(os.time()); at = math.random(#bodies) end
function request() at = at %% #bodies + 1; return wrk.format(nil, nil, nil, bodies[at]) end
if wait > 0 then function delay() return math.floor(-math.log(1 - math.random()) * wait) end end
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, name: str, command: list[str], port: int, **environment: str) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )

    def wait(self, path: str) -> None:
        """Until it answers a path with 200."""
        for _ in range(1200):
            if self.process.poll() is not None:  # also where an older server has the port
                raise SystemExit(f"{self.name} ended: {Path(self.log.name).read_text()[-2000:]}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + path).status_code == 200:
                    return
            time.sleep(0.25)
        raise SystemExit(f"{self.name} does not answer")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()

    def memory(self) -> float:
        """Resident, in MiB."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024 if found else float("nan")


def load(server: Server, path: str, bodies: Path, *, connections: int, seconds: float, delay: float = 0) -> dict:
    """Requests a second, and latencies in milliseconds; ``delay``: mean pause of a connection in milliseconds."""
    script = bodies.with_suffix(".lua")
    script.write_text(POST.replace("%%", "%"))
    environment = {**os.environ, "WRK_BODIES": str(bodies), "WRK_DELAY": str(delay)}
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--timeout",
        "60s",
        "--latency",
        "-s",
        str(script),
    ]
    shown = subprocess.run([*command, server.url + path], capture_output=True, text=True, env=environment, check=True)
    found = {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", shown.stdout)[1])}
    for share in ("50", "99"):
        value, unit = re.search(rf"\s{share}%\s+([\d.]+)(us|ms|s|m)\b", shown.stdout).groups()
        found[f"p{share}"] = float(value) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", shown.stdout)
    timeouts = re.search(r"Socket errors:.*", shown.stdout)
    found["failed"] = (int(failed[1]) if failed else 0, timeouts[0] if timeouts else "")
    return found


@contextlib.contextmanager
def health_asked(server: Server) -> Iterator[list[float]]:
    """Asks ``/healthz`` ten times a second meanwhile; gives milliseconds."""
    found, stop = [], threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not stop.wait(0.1):
                start = time.monotonic()
                client.get(server.url + "/healthz")
                found.append(1000 * (time.monotonic() - start))

    thread = threading.Thread(target=ask)
    thread.start()
    yield found
    stop.set()
    thread.join()


def bodies(folder: Path, name: str, items: list[dict]) -> Path:
    place = folder / f"{name}.jsonl"
    place.write_text("".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items), encoding="utf-8")
    return place


def started(args: object, folder: Path, stack: contextlib.ExitStack) -> dict[str, Server]:
    """The servers, ready; the stack ends them."""
    model = checkpoint("starter", args.data, args.work)
    with SeedBank.open(args.bank) as bank, bank.view() as view:
        vectors = folder / "vectors.npy"
        _, seeds = view.sample(len(bank))
        np.save(vectors, seeds.embeddings.dense)
    python, threads = sys.executable, str(args.threads)
    serve = [python, "-m", "ecom_rag", "serve", "--bank", args.bank, "--quiet"]
    plain = [python, "-m", "uvicorn", "plain_service:app", "--port", "8802", "--no-access-log", "--app-dir", str(HERE)]
    found = {
        "ecom_rag": Server("ecom_rag", [*serve, "--port", "8800"], 8800),
        "plain": Server(
            "plain",
            plain,
            8802,
            PLAIN_MODEL=str(model),
            PLAIN_SEEDS=args.seeds,
            PLAIN_VECTORS=str(vectors),
            OMP_NUM_THREADS=threads,
        ),
    }
    if "amx_bf16" in Path("/proc/cpuinfo").read_text():  # elsewhere the default is fp32
        found["ecom_rag fp32"] = Server("ecom_rag fp32", [*serve, "--port", "8801", "--precision", "fp32"], 8801)
    if args.infinity:
        own = [
            "--engine",
            "torch",
            "--no-bettertransformer",
            "--dtype",
            "float32",
            "--port",
            "8803",
            "--log-level",
            "error",
        ]
        command = [args.infinity, "v2", "--model-id", str(model), *own]
        found["infinity fp32"] = Server("infinity fp32", command, 8803, DO_NOT_TRACK="1", INFINITY_MODEL_WARMUP="0")
    for server in found.values():
        stack.callback(server.stop)
    for name, server in found.items():
        server.wait("/readyz" if name.startswith("ecom_rag") else "/health" if "infinity" in name else "/healthz")
    return found


def main() -> None:
    args = arguments(
        __doc__,
        bank={"required": True},
        seeds={"required": True},
        infinity={"default": None},
        threads={"type": int, "default": 2, "help": "of the plain service; try 1 and 2, and quote the better"},
        seconds={"type": float, "default": 8},
        connections={"default": "1,16,64"},
    )
    heading("The service under load")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        place = Path(folder)
        titles = texts(args.data, "taobao_titles_zh", 4000)
        recalls = bodies(place, "recall", [{"records": [{"text": text}]} for text in titles])
        embeds = bodies(place, "embed", [{"input": [text]} for text in titles])
        lists = bodies(place, "lists", [{"input": titles[at : at + 32]} for at in range(0, 3900, 32)])
        servers = started(args, place, stack)
        cases = [("/v1/recall", recalls, int(c)) for c in args.connections.split(",")]
        cases += [("/v1/embeddings", embeds, int(c)) for c in args.connections.split(",")]
        cases += [("/v1/embeddings", lists, 4)]
        for path, sent, connections in cases:
            compare(servers, path, sent, connections, args)
        half(servers["ecom_rag"], recalls, args)
        print(" ".join(f"{name}: {server.memory():.0f} MiB;" for name, server in servers.items()))


def compare(servers: dict[str, Server], path: str, sent: Path, connections: int, args: object) -> None:
    """One table: medians of the rounds."""
    print(
        f"\n{path}, {sent.stem}, {connections} connections\n\n| server | requests/s | p50 ms | p99 ms | health p99 ms |"
    )
    print("|---|---|---|---|---|")
    rounds: dict[str, list[dict]] = {}
    for turn in range(args.rounds + 1):  # the first one warms
        for name, server in servers.items():
            if "infinity" in name and "recall" in path:
                continue
            where = path.removeprefix("/v1") if "infinity" in name else path
            with health_asked(server) if "infinity" not in name else contextlib.nullcontext([]) as health:
                found = load(server, where, sent, connections=connections, seconds=args.seconds if turn else 3)
            found["health"] = float(np.quantile(health, 0.99)) if health else float("nan")
            if turn:
                rounds.setdefault(name, []).append(found)
    for name, found in rounds.items():
        middle = {key: statistics.median(one[key] for one in found) for key in ("rate", "p50", "p99", "health")}
        failed = [one["failed"] for one in found if one["failed"] != (0, "")]
        print(
            f"| {name} | {middle['rate']:.1f} | {middle['p50']:.1f} | {middle['p99']:.1f} | {middle['health']:.1f} |"
            f"{f' failed: {failed}' if failed else ''}",
            flush=True,
        )


def half(server: Server, sent: Path, args: object) -> None:
    """Latencies at half of the load that the server can do."""
    full = load(server, "/v1/recall", sent, connections=16, seconds=args.seconds)
    pause = 1000 * 16 / (full["rate"] / 2) - full["p50"] / 4
    found = load(server, "/v1/recall", sent, connections=16, seconds=2 * args.seconds, delay=pause)
    print(
        f"\nhalf load: {found['rate']:.1f} of {full['rate']:.1f} requests/s, p50 {found['p50']:.1f} ms,"
        f" p99 {found['p99']:.1f} ms, ratio {found['p99'] / found['p50']:.1f}"
    )


if __name__ == "__main__":
    main()
