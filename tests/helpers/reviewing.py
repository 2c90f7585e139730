"""A review page over a journal of made-up decisions, with banks that are lists and keys that are names."""

import contextlib
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from ecom_rag.decision.combiner import votes
from ecom_rag.decision.policy import Guarantee, Policy, Rule
from ecom_rag.errors import UsageError
from ecom_rag.pipeline.provenance import Provenance
from ecom_rag.serving.journal import Journal
from ecom_rag.serving.problems import Problem
from ecom_rag.serving.review import Labels, Review, Similar, router

LABELS = ("fraud", "spam", "fake", "innocent")
MANY = (*(f"label {n}" for n in range(12)), "fraud", "spam", "innocent")
EVIL = '<script>window.hacked=1</script>"><img src=x onerror="window.hacked=1">{{7*7}}'
HIDDEN = "加\u200b微\u200d信 \u202eevil\u202c txt\u2066 \ufeff end"
SEEDS = (
    ("加微信私下转账便宜", "fraud", "S1", {"bm25": (4.2, 1), "dense": (0.91, 1), "variant": (0.83, 1)}),
    ("加我微信低价出售", "fraud", "S2", {"dense": (0.88, 2), "variant": (0.7, 2)}),
    ("请通过平台正常下单付款", "innocent", "S3", {"bm25": (1.1, 2), "dense": (0.6, 3)}),
)


def decided(text, *, label="fraud", probability=0.62, threshold=0.9, reason="below_threshold", campaign=None, **more):
    """A record with seeds; an automatic decision where ``reason`` is ``None``."""
    action = "review" if reason else "innocent" if label == "innocent" else "label"
    evidence = [{route: {"score": score, "rank": rank} for route, (score, rank) in seed[3].items()} for seed in SEEDS]
    return {
        "text": text,
        "metadata": {"id": f"L{abs(hash(text)) % 1000}", "shop": "A1", **more},
        "topk_sim": [0.91, 0.84, 0.33],
        "topk_seed": [seed[0] for seed in SEEDS],
        "topk_metadata": [{"id": seed[2], "label": seed[1], "added": "2026-03-01"} for seed in SEEDS],
        "topk_evidence": evidence,
        "decision": {
            "action": action,
            "label": label,
            "probability": probability,
            "threshold": threshold,
            "reason": reason,
            "guarantee": None,
            "campaign": campaign,
            "probabilities": {label: probability, "innocent": round(0.97 - probability, 6)},
            "because": [{"seed": "S1", "label": "fraud", "share": 0.666667, "routes": {"bm25": 1}}],
            "against": [{"seed": "S3", "label": "innocent", "share": 0.333333, "routes": {"bm25": 2}}],
            "policy": "a1b2c3d4e5f6",
        },
    }


def policy_of(labels=LABELS):
    """A policy that promises something for fraud and spam."""
    rules = {
        label: Rule(0.95, 0.9 if label in ("fraud", "spam") else None, 60, 0, 0.95, 1.0, 1.0, 60, 0, "none is wrong")
        for label in labels
    }
    made = Provenance(("bm25",), 10, {}, None, None, "label", None, 0, 60)
    combiner = votes(tuple(rules), ("bm25",), 10, why="made by hand")
    return Policy(made, combiner, Guarantee(0.95, 0.1, jointly=False, similarity=0.85), rules, ("innocent",))


class World:
    """What the page works on, and what it did to the bank."""

    def __init__(self, folder, *, labels=LABELS, second_looks=0.0, lease_seconds=600.0):
        self.path = folder / "journal.db"
        self.labels = labels
        self.second_looks = second_looks
        self.lease_seconds = lease_seconds
        self.seeds = {}
        self.refusing = None
        self.journal = Journal.open(self.path, second_looks=second_looks)

    def put(self, *records, bank="shop"):
        return self.journal.record(list(records), bank=bank, sequence=1, actor="api")

    def fill(self, count=12):
        """Texts of all kinds, the hostile ones first in the queue."""
        reasons = ("flood", "below_threshold", "seeds_disagree", "no_guarantee", "no_similar_seed")
        texts = [EVIL, HIDDEN, "便宜出售，加薇❤信详谈，非诚勿扰"]
        texts += [f"第{n}款手机壳，加v信看图，包邮 item {n}" for n in range(count - 3)]
        records = [
            decided(text, reason=reasons[n % 5], probability=0.85 - 0.03 * n, campaign=f"C{n}")
            for n, text in enumerate(texts)
        ]
        return self.put(*records)

    @property
    def review(self):
        return Review(
            journal=self.journal,
            actor_of=lambda request: request.cookies.get("who") or None,
            login=self._login,
            logout=lambda request: "who=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict",
            banks=lambda: ["shop"],
            labels=lambda bank: Labels(self.labels, ("innocent",)),
            policy=lambda bank: policy_of(self.labels),
            similar_waiting=self._similar,
            duplicates=self._duplicates,
            add_seed=self._add,
            remove_seed=self._remove,
            lease_seconds=self.lease_seconds,
        )

    @property
    def app(self):
        app = FastAPI()
        app.include_router(router(self.review))
        return app

    def restart(self):
        self.journal.close()
        self.journal = Journal.open(self.path, second_looks=self.second_looks)

    @staticmethod
    def _login(request, key):
        if not key.startswith("key-"):
            raise Problem(401, "the key is unknown", code="invalid_key")
        return f"who={key.removeprefix('key-')}; Path=/; HttpOnly; SameSite=Strict"

    async def _similar(self, bank, text):
        page = self.journal.waiting(limit=5)
        return [Similar(one.record["text"], 0.9, one.id) for one in page.items]

    async def _duplicates(self, bank, text):
        return [{"text": SEEDS[0][0], "metadata": {"id": "S1", "label": "fraud"}}]

    async def _add(self, bank, record, actor):
        if self.refusing:
            raise UsageError(self.refusing)
        self.seeds[record["metadata"]["id"]] = record
        return record["metadata"]["id"]

    async def _remove(self, bank, seed, actor):
        if self.refusing:
            raise UsageError(self.refusing)
        self.seeds.pop(seed, None)


@contextlib.contextmanager
def served(app):
    """The address of an application that a real server serves in a thread."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(5)
