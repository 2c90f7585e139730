"""The flood guard inside a file job that is killed and resumed: the same bytes, counted once."""

from itertools import islice, pairwise

import numpy as np
import pytest

from ecom_rag.decision.flood_file import FloodFile
from ecom_rag.files.digest import of_texts
from ecom_rag.files.jobs import Cut, Job, run
from helpers.campaigns import variations

TEXTS = variations(100, templates=4, length=80, edits=2, seed=1)


def decide(output, campaigns, *, fail_at=None, resume=False, break_commit=False):
    """As a command does it: what an interrupted run has done is read once more, and only the guard sees it."""
    passed, held = [0], []

    def read(report):
        for text in TEXTS:
            passed[0] += not held
            yield {"text": text}

    def start(cache):
        file = FloodFile(campaigns, batch=of_texts(TEXTS), cache=cache)
        held.extend((file, guard := file.guard(limit=3, capacity=500)))
        done = list(islice(TEXTS, passed[0]))
        for first, last in pairwise([*range(0, len(done), 7), len(done)]):  # cuts of its own
            admit(guard, done[first:last])
        return lambda block: process(guard, block)

    def admit(guard, texts):
        return guard.admit(texts, ["spam"] * len(texts), np.ones(len(texts), bool))

    def process(guard, block):
        if fail_at is not None and block[0]["text"] == TEXTS[fail_at]:
            raise KeyboardInterrupt
        found = admit(guard, [record["text"] for record in block])
        shown = zip(block, found.campaigns, found.flooded.tolist(), strict=True)
        return [record | {"campaign": name, "flood": flooded} for record, name, flooded in shown], {}

    def accept(summary):
        held[0].commit(held[1])
        if break_commit:
            raise KeyboardInterrupt

    job = Job(str(output), {}, read, start, Cut(max_records=10), accept)
    try:
        run(job, started=0.0, resume=resume)
    finally:
        if held:
            held[0].close()


@pytest.mark.parametrize("fail_at", [10, 50, 90])
def test_killed_and_resumed(tmp_path, fail_at):
    output, campaigns = tmp_path / "out.jsonl", tmp_path / "campaigns"
    decide(tmp_path / "whole.jsonl", tmp_path / "other")
    expected = (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        decide(output, campaigns, fail_at=fail_at)
    assert not campaigns.exists()
    with pytest.raises(KeyboardInterrupt):
        decide(output, campaigns, resume=True, break_commit=True)  # the file has the batch, the output not its name
    counted = campaigns.read_bytes()
    decide(output, campaigns, resume=True)
    decide(tmp_path / "again.jsonl", campaigns)
    assert output.read_bytes() == (tmp_path / "again.jsonl").read_bytes() == expected
    with FloodFile(campaigns, batch=None) as file:
        known = {name: count.before for name, count in file.guard().counts.items()}
    assert sum(known.values()) == 12 and counted[:16] == b"SQLite format 3\0"
