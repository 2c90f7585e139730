"""A real service over a small bank, in a thread on a free port, and its bank and policy for the command line."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ecom_rag.decision import Calibrate, calibrate
from ecom_rag.files.records import Record
from ecom_rag.models import Encoder
from ecom_rag.pipeline import Pipeline, Recall
from ecom_rag.seeds.bank import BankSettings, SeedBank, build
from ecom_rag.serving import run
from ecom_rag.serving.settings import Serve

ROUTES = ("bm25", "dense", "sparse", "variant")
SAYINGS = {
    "fraud": ["加微信 私下转账 便宜 {}", "扫码 返现 红包 {}"],
    "medical": ["七天 瘦二十斤 减肥茶 {}", "包治百病 神奇 药酒 {}"],
    "innocent": ["真皮 钱包 卡位 {}", "手机壳 透明 防摔 {}"],
}
CHARACTERS = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥天地玄黄宇宙洪荒日月盈昃寒来暑往秋收冬藏"


def listings(count: int, *, start: int = 0) -> list[Record]:
    """Records with labels, no two near-duplicates of each other; of other starts others."""
    found: list[Record] = []
    for number in range(start, start + count):
        label = list(SAYINGS)[number % 3]
        tail = "".join(np.random.default_rng(number).choice(list(CHARACTERS), 16))
        text = SAYINGS[label][number // 3 % 2].format(tail)
        found.append({"text": text, "metadata": {"id": f"s{number}", "label": label}})
    return found


def make_bank(folder: Path, model: Path, seeds: Sequence[Record] | None = None) -> Path:
    """A bank of 120 seeds over four routes."""
    encoder = Encoder.from_pretrained(model, precision="fp32")
    build(folder, seeds or listings(120), BankSettings(ROUTES), encoder=encoder, model=str(model))
    return folder


def make_policy(path: Path, bank: Path) -> Path:
    """A policy that decides much of what looks like the seeds."""
    with SeedBank.open(bank) as seeds:
        pipeline = Pipeline(seeds, Recall(routes=ROUTES, top_k=5))
        asked = Calibrate(precision=0.8, delta=0.2, innocent=("innocent",))
        calibrate(listings(300, start=1000), pipeline, asked).policy.save(path)
    return path


@dataclass(frozen=True)
class Files:
    """What a service is started with."""

    bank: Path
    policy: Path
    encoder: Path
    reranker: Path

    def copied(self, folder: Path) -> "Files":
        """The same bank, so that the policy fits, for a test that changes it."""
        shutil.copytree(self.bank, folder / "bank")
        return Files(folder / "bank", self.policy, self.encoder, self.reranker)

    def settings(self, folder: Path, **others) -> Serve:
        """Of a service with everything, on a free port."""
        return Serve(
            **{
                "banks": {"goods": str(self.bank)},
                "rerank": str(self.reranker),
                "policies": {"goods": str(self.policy)},
                "state": str(folder / "state"),
                "port": 0,
                "placement": {"precision": "fp32"},
                "recall": {"top_k": 5, "depth": 20},
                **others,
            }
        )


def make_files(folder: Path, encoder: Path, reranker: Path) -> Files:
    """What a service with everything is started with."""
    bank = make_bank(folder / "bank", encoder)
    return Files(bank, make_policy(folder / "policy.json", bank), encoder, reranker)


@dataclass(frozen=True, slots=True)
class Running:
    """A service that runs.

    Args:
        url: Its address.
        service: What its endpoints stand on.
        server: Of uvicorn.
    """

    url: str
    service: Any
    server: Any

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request."""
        return httpx.request(method, f"{self.url}{path}", timeout=30, **request)


@contextlib.contextmanager
def running(settings: Serve) -> Iterator[Running]:
    """A service in a thread, until the block ends."""
    server, listening = run.prepared(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    with listening:
        thread.start()
        try:
            until = time.monotonic() + 60
            while server.address is None:
                if server.service.failure is not None:
                    raise server.service.failure
                assert thread.is_alive()
                assert time.monotonic() < until
                time.sleep(0.01)
            yield Running(server.address, server.service, server)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
