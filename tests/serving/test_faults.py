"""What goes wrong around a running service, and that nothing but the request at fault suffers from it."""

import asyncio
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from ecom_rag.models import collecting
from ecom_rag.serving.http import protocol
from ecom_rag.serving.settings import Limits
from helpers import small_service

LIMITS = Limits(queue_seconds=0.5, body_seconds=0.5)
SEEDS = "/v1/banks/goods/seeds"
numbers = itertools.count(10_000)


@pytest.fixture(scope="module")
def service(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("faults")
    with small_service.running(files.copied(folder).settings(folder, limits=LIMITS)) as running:
        yield running


def records(*texts):
    return {"records": [{"text": text, "metadata": {}} for text in texts]}


def error(answer, status, code):
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"message", "type", "code", "param"})
    assert answer.json()["error"]["code"] == code
    return answer.json()["error"]["message"]


def eventually(check, seconds=20.0):
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)


class Held:
    """A stage whose batches are noted, and wait for ``gate`` or take a time per unit."""

    def __init__(self, monkeypatch, batcher, *, seconds=0.0):
        self.batches, self.gate = [], threading.Event()
        run = batcher._run

        def held(key, units):
            self.batches.append(units)
            self.gate.wait(30)
            time.sleep(seconds * len(units))
            return run(key, units)

        monkeypatch.setattr(batcher, "_run", held)

    @property
    def texts(self):
        return [text for units in self.batches for _, text in units]


def test_ten_times_too_much_work_is_refused_and_forgotten(service, monkeypatch):
    batcher = service.service.engine.models.encoder.batcher
    monkeypatch.setattr(batcher, "_rate", None)
    stage = Held(monkeypatch, batcher, seconds=0.025)  # 40 texts per second
    stage.gate.set()
    longest = 0

    async def flood():
        nonlocal longest
        async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=httpx.Limits(max_connections=200)) as own:
            tasks = []
            for number in range(400):
                tasks.append(asyncio.create_task(own.post("/v1/embeddings", json={"input": f"text {number:03}"})))
                await asyncio.sleep(0.0025)
                longest = max(longest, batcher.waiting)
            return await asyncio.gather(*tasks)

    answers = asyncio.run(flood())
    statuses = {answer.status_code for answer in answers}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert statuses == {200, 429} and len(refused) > 100
    for answer in refused:
        assert error(answer, 429, "overloaded").endswith("try again later") and int(answer.headers["Retry-After"]) >= 1
    assert longest <= 13 * 150  # of 13 characters each: what gathered in the first batches, before a rate was known
    started = time.monotonic()
    assert service("POST", "/v1/embeddings", json={"input": "after"}).status_code == 200
    assert time.monotonic() - started < 5 and batcher.waiting == 0 and not batcher._queue


def test_what_a_deadline_or_a_vanished_client_leaves_is_not_computed(service, monkeypatch):
    batcher = service.service.engine.models.encoder.batcher
    stage = Held(monkeypatch, batcher)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(service, "POST", "/v1/embeddings", json={"input": "first"})
        eventually(lambda: stage.batches)
        late = service("POST", "/v1/embeddings", json={"input": "late", "deadline_ms": 60})
        assert "within 60 ms" in error(late, 504, "deadline_exceeded") and late.headers["Retry-After"] == "1"
        body = json.dumps({"input": "gone"}).encode()
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
        host, port = service.url.removeprefix("http://").split(":")
        for _ in range(10):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(head + str(len(body)).encode() + b"\r\n\r\n" + body)
                eventually(lambda: any(not one.answered.done() for one in batcher._queue))
            eventually(lambda: all(one.answered.done() for one in batcher._queue))
        stage.gate.set()
        assert first.result().status_code == 200
    assert service("POST", "/v1/embeddings", json={"input": "last"}).status_code == 200
    assert stage.texts == ["first", "last"]


def test_slow_and_large_heads_slow_bodies_and_what_is_no_http(service, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    host, port = service.url.removeprefix("http://").split(":")
    post = (
        b"POST /v1/recall HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    )
    for sent, status, code in (
        (b"", 408, "slow_headers"),
        (b"GET /healthz HTTP/1.1\r\nhost: local", 408, "slow_headers"),
        (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nho", 408, "slow_headers"),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 400_000, 431, "headers_too_large"),
        (b"\x16\x03\x01\x02", 400, "invalid_http"),
        (post, 408, "slow_body"),
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(sent)
            found = b""
            while part := connection.recv(65_536):
                found += part
        last = found[found.rindex(b"HTTP/1.1 ") :]
        assert (
            last.split()[1] == str(status).encode() and json.loads(last.split(b"\r\n\r\n")[1])["error"]["code"] == code
        )


def test_a_text_of_which_the_model_makes_nan_fails_alone(service, monkeypatch):
    encoder = service.service.engine.models.encoder
    tokens, usual = (set(encoder.encoder.prepare([text]).ids.values.tolist()) for text in ("😀", "a"))
    [poison] = tokens - usual
    add = collecting.Collector.add

    def poisoned(self, batch, arrays, truncate_dim):
        rows = (batch.input_ids == poison).any(axis=1)
        arrays = {name: np.where(rows.reshape(-1, *[1] * (one.ndim - 1)), np.nan, one) for name, one in arrays.items()}
        add(self, batch, arrays, truncate_dim)

    monkeypatch.setattr(collecting.Collector, "add", poisoned)
    stage = Held(monkeypatch, encoder.batcher)
    with ThreadPoolExecutor(12) as pool:
        texts = ["first", *"abcdefgh", "😀", "i"]
        found = [pool.submit(service, "POST", "/v1/recall", json=records(texts[0]))]
        eventually(lambda: stage.batches)
        found += [pool.submit(service, "POST", "/v1/recall", json=records(text)) for text in texts[1:]]
        eventually(lambda: len(encoder.batcher._queue) == len(texts) - 1)
        stage.gate.set()
        answers = {text: one.result() for text, one in zip(texts, found, strict=True)}
    assert len(stage.batches[1]) == 10  # together in one batch
    assert "gave no usable numbers" in error(answers.pop("😀"), 500, "bad_embeddings")
    assert {one.status_code for one in answers.values()} == {200}


def test_a_full_disk_is_507_and_then_all_is_well_again(small_disk, tmp_path, files):
    place = small_disk(tmp_path / "disk", kib=24 * 1024)
    (place / "own").mkdir()
    with small_service.running(files.copied(place / "own").settings(place)) as running:
        assert running("POST", "/v1/decide", json=records("before")).status_code == 200
        with (place / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
            for size in (1 << 16, 1 << 12):
                while True:
                    filler.write(bytes(size))
        seeds = {"records": [{"text": "seed " * 5000, "metadata": {"id": f"n{n}", "label": "fraud"}} for n in range(9)]}
        full = running("PUT", SEEDS, json=seeds, headers={"Idempotency-Key": "full"})
        assert "nothing was written" in error(full, 507, "disk_full")
        answers = [running("POST", "/v1/decide", json=records(*[f"{n} text " * 300 for n in range(40)])) for _ in "ab"]
        assert error(answers[-1], 507, "disk_full")
        assert running("POST", "/v1/recall", json=records("meanwhile")).status_code == 200
        (place / "filler").unlink()
        written = running("PUT", SEEDS, json=seeds, headers={"Idempotency-Key": "full"}).json()
        assert (written["added"], written["repeated"], written["sequence"]) == (9, False, 2)
        assert running("POST", "/v1/decide", json=records("after")).status_code == 200
        assert running.service.engine.decisions.journal.verify().sequence >= 2


def test_a_bank_is_replaced_under_load(tmp_path, files):
    other = small_service.make_bank(tmp_path / "other", files.encoder, small_service.listings(60, start=500))
    stop, failed, banks = threading.Event(), [], set()
    with small_service.running(files.settings(tmp_path)) as running:

        def load():
            with httpx.Client(base_url=running.url, timeout=30) as own:
                while not stop.is_set():
                    answer = own.post("/v1/recall", json=records("加微信 私下转账"))
                    if answer.status_code != 200:
                        failed.append(answer.text)
                    banks.add((answer.json()["bank"]["id"], answer.json()["bank"]["sequence"]))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for path in (other, files.bank, other):
            assert running("POST", "/v1/admin/banks/goods:swap", json={"path": str(path)}).status_code == 200
            decided = running("POST", "/v1/decide", json=records("加微信"))
            if path == other:
                assert "another bank than the policy was calibrated on" in error(decided, 409, "policy_conflict")
            else:
                assert decided.status_code == 200
        wrong = running("POST", "/v1/admin/banks/goods:swap", json={"path": str(tmp_path)})
        assert "served as before: not a seed bank" in error(wrong, 422, "no_successor")
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed and len(banks) == 2 and {sequence for _, sequence in banks} == {1}


def test_of_two_writers_with_the_same_sequence_one_wins(service):
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            at = {"If-Match": f'"{service("GET", "/v1/banks").json()["data"][0]["sequence"]}"'}
            seeds = [{"records": [{"text": f"茶 {n}", "metadata": {"id": f"w{n}", "label": "x"}}]} for n in (1, 2)]
            answers = list(pool.map(lambda body, at=at: service("PUT", SEEDS, json=body, headers=at), seeds))
            assert sorted(answer.status_code for answer in answers) == [200, 412]


def test_the_wall_clock_is_set_back(service, monkeypatch):
    body = {"records": [{"text": "clock", "metadata": {"id": "clock", "label": "x"}}]}
    before = service("POST", "/v1/decide", json=records("before")).json()["results"][0]["decision"]["id"]
    first = service("PUT", SEEDS, json=body, headers={"Idempotency-Key": "clock"}).json()
    now, nanoseconds = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() - 86_400 * 10**9)
    after = service("POST", "/v1/decide", json=records("after")).json()["results"][0]["decision"]["id"]
    said = service("POST", f"/v1/decisions/{after}/feedback", json={"label": "fraud"})
    again = service("PUT", SEEDS, json=body, headers={"Idempotency-Key": "clock"}).json()
    listed = [one["id"] for one in service("GET", "/v1/decisions?limit=2").json()["data"]]
    assert said.status_code == 200 and listed == [after, before] and again == {**first, "repeated": True}
    service.service.engine.decisions.journal.verify()


@pytest.mark.parametrize(
    "id_", ["a/b", "a//b/", "50%", "%2F", "商品 1", "?x#y", "q\"'", "new\nline\n", "+ +", "\x00", 7]
)
def test_an_id_may_hold_anything(service, id_):
    seed = {"text": f"odd {next(numbers)}", "metadata": {"id": id_, "label": "x"}}
    assert service("PUT", SEEDS, json={"records": [seed]}).status_code == 200
    path = f"{SEEDS}/{quote(str(id_), safe='')}"
    assert service("GET", path).json() == seed
    assert service("DELETE", path).json()["removed"] == 1
    assert error(service("GET", path), 404, "no_seed")
