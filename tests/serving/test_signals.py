"""The real command in a process of its own: how it ends, what is left of it, and why it does not start."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from ecom_rag.cli import main
from ecom_rag.seeds.bank import SeedBank
from ecom_rag.serving.journal.journal import Journal
from helpers import small_service

SEEDS = "/v1/banks/goods/seeds"


@contextlib.contextmanager
def command(files, folder, **others):
    """``ecom-rag serve`` in a process group of its own; gives the process and its address."""
    toml = [f"drain_delay = {others.pop('drain_delay', 0.0)}", "[recall]", "top_k = 5", "depth = 20"]
    (folder / "serve.toml").write_text("\n".join(toml))
    words = ["--bank", f"goods={files.bank}", "--policy", str(files.policy), "--state", str(folder / "state")]
    options = ["--config", str(folder / "serve.toml"), "--port", "0", "--precision", "fp32"]
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "ecom_rag", "serve", *words, *options], stderr=stderr, start_new_session=True
        )
    try:
        until = time.monotonic() + 90
        while not (found := re.search(r"serving on (\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield process, found[1], log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def nothing_left(group):
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


class Load:
    """Threads that send requests until the service is gone, and note how each ended."""

    def __init__(self, *sends):
        self.ended, self.stop = [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(send,)) for send in sends]
        for thread in self.threads:
            thread.start()

    def _run(self, send):
        for number in range(100_000):
            try:
                self.ended.append(send(number))
            except httpx.HTTPError as error:
                self.ended.append(error)
                if isinstance(error, httpx.ConnectError):
                    return
            if self.stop.is_set():
                return

    def join(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.slow
def test_sigterm_answers_all_that_was_accepted_and_leaves_nothing(files, tmp_path):
    body = {"records": [{"text": f"加微信 {number}", "metadata": {}} for number in range(20)]}
    with command(files, tmp_path, drain_delay=0.7) as (process, url, log):
        with httpx.Client(base_url=url, timeout=30) as kept:

            def fresh(number):
                return httpx.post(f"{url}/v1/decide", json=body, timeout=30)

            load = Load(fresh, fresh, lambda number: kept.post("/v1/recall", json=body))
            while len(load.ended) < 10:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            ready = None
            with contextlib.suppress(httpx.ConnectError):
                for _ in range(100):
                    ready = httpx.get(f"{url}/readyz", timeout=30)
                    if ready.status_code == 503:
                        break
            assert ready.json()["error"]["code"] == "draining" and ready.headers["connection"] == "close"
            load.join()
            assert process.wait(30) == 0
        nothing_left(process.pid)
        lost = [one for one in load.ended if isinstance(one, Exception) and not isinstance(one, httpx.ConnectError)]
        assert not lost
        assert {one.status_code for one in load.ended if not isinstance(one, Exception)} == {200}
        told = log.read_text()
        assert told.endswith("ecom-rag: stopped\n") and "Traceback" not in told and "error" not in told
        ids = {one["decision"]["id"] for answer in load.ended if not isinstance(answer, Exception)
               for one in answer.json()["results"] if "decision" in one}  # fmt: skip
        with Journal.open(tmp_path / "state" / "journal.db") as journal:
            assert all(journal.get(id_) for id_ in sorted(ids)[:50])
            assert journal.verify().sequence == len(ids)


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(files, tmp_path):
    own = files.copied(tmp_path)
    ids, written = [], {}

    def decide(url, number):
        body = {"records": [{"text": f"私下转账 {number} {n}", "metadata": {}} for n in range(3)]}
        answer = httpx.post(f"{url}/v1/decide", json=body, timeout=30)
        ids.extend(one["decision"]["id"] for one in answer.json()["results"])
        return answer

    def write(url, key):
        body = {"records": [{"text": f"茶 {key}", "metadata": {"id": f"new {key}", "label": "medical"}}]}
        answer = httpx.put(f"{url}{SEEDS}", json=body, headers={"Idempotency-Key": f"write {key}"}, timeout=30)
        assert answer.status_code == 200
        return answer.json()

    with command(own, tmp_path) as (process, url, _):
        load = Load(lambda number: decide(url, number), lambda number: written.update({number: write(url, number)}))
        while len(written) < 6 or len(ids) < 6:
            time.sleep(0.01)
        process.kill()
        load.join()
        process.wait(30)
        nothing_left(process.pid)
    with Journal.open(tmp_path / "state" / "journal.db") as journal:
        assert journal.verify().sequence >= len(ids)
        assert all(journal.get(id_) for id_ in ids)
    with SeedBank.open(own.bank) as bank:
        assert None not in bank.get([f"new {key}" for key in written])
        assert len(written) <= bank.sequence - 1 <= len(written) + 1
    with small_service.running(own.settings(tmp_path, rerank=None)) as again:
        for key, change in written.items():
            assert write(again.url, key) == {**change, "repeated": True}
        more = decide(again.url, 0)
        assert more.status_code == 200 and again.service.engine.decisions.journal.verify().sequence > len(ids) - 3


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["ecom-rag", "serve", *map(str, words)])
        monkeypatch.setattr("ecom_rag.serving.http.logs.install", lambda *_, **__: None)
        with pytest.raises(SystemExit) as ended:
            main()
        err = [line for line in capfd.readouterr().err.splitlines() if "loading models" not in line]
        assert ended.value.code == 2 and len(err) == 1 and err[0].startswith("ecom-rag: "), err
        return err[0]

    return call


def test_what_cannot_be_started_is_one_line_and_2(run, files, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run("--bank", f"goods={files.bank}", "--port", port)
        assert said.endswith(f"cannot listen on 127.0.0.1, port {port} (address already in use); choose another port")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.toml").write_text("prot = 1")
    (tmp_path / "range.toml").write_text("port = 70000")
    (tmp_path / "policy.json").write_text(json.dumps({"kind": "other"}))
    bank = ("--port", 0, "--bank", f"goods={files.bank}")
    for words, wanted in (
        ((), "there is nothing to serve"),
        (("--port", 0, "--bank", tmp_path / "none"), "none: no such folder"),
        (("--port", 0, "--bank", tmp_path / "empty"), "not a seed bank"),
        (("--port", 0, "--bank", f"a/b={files.bank}"), "'a/b' cannot be the name of a bank"),
        (("--port", 0, "--model", tmp_path / "empty"), "empty"),
        ((*bank, "--rerank", tmp_path / "none"), "none"),
        ((*bank, "--policy", tmp_path / "policy.json", "--state", tmp_path / "s"), "is not a policy"),
        ((*bank, "--policy", files.policy), "give --state"),
        ((*bank, "--policy", f"other={files.policy}", "--state", tmp_path / "s"), "which is none of the banks"),
        ((*bank, "--host", "0.0.0.0"), "without keys everybody may do everything"),
        ((*bank, "--keys", tmp_path / "no.json"), "no.json"),
        ((*bank, "--config", tmp_path / "wrong.toml"), "prot is unknown; did you mean port?"),
        (
            ("--bank", files.bank, "--config", tmp_path / "range.toml"),
            "port is 70000; expected a number from 0 to 65535",
        ),
    ):
        assert wanted in run(*words)


def test_a_policy_of_another_bank_is_one_line_and_2(run, files, tmp_path):
    other = small_service.make_bank(tmp_path / "other", files.encoder, small_service.listings(30, start=500))
    said = run(
        "--port", 0, "--precision", "fp32", "--bank", other, "--policy", files.policy, "--state", tmp_path / "state"
    )
    assert f"{files.policy}: does not fit the bank 'other': " in said and "from another bank than the policy" in said
