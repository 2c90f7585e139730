"""The commands over a bank in Milvus: the same outputs as over a bank on disk, and one line for what cannot be."""

import json

import pytest
from test_bank_postgres import listings, run, write

pytestmark = pytest.mark.slow
run = run  # the fixture


@pytest.fixture
def both(run, tmp_path, milvus_lite, m3_folder):
    """A folder and an address with the same seeds, built and changed by the commands."""
    url, seeds, more = milvus_lite.url("commands"), tmp_path / "seeds.jsonl", tmp_path / "more.jsonl"
    write(seeds, listings(60))
    write(more, listings(30, 50))
    for bank in ("disk", url):
        model = ("--model", m3_folder, "--runtime", "torch", "--routes", "bm25,dense,sparse")
        code, _, err = run("bank", "build", bank, "--seeds", seeds, *model)
        assert code == 0 and "of 60 records" in err, err
        assert run("bank", "add", bank, more, "--runtime", "torch")[0] == 0
        assert "would remove 11 of 80" in run("bank", "delete", bank, "--filter", "price = 3", "--dry-run")[2]
        assert run("bank", "delete", bank, "--filter", "price = 3")[0] == 0
    return url


def test_outputs_are_those_of_a_bank_on_disk(run, both, tmp_path):
    texts = ("watch 3", "销.量.弟一", "wallet", "w4llet")
    queries = write(tmp_path / "queries.jsonl", [{"text": text} for text in texts])
    for bank, name in (("disk", "ours"), (both, "theirs")):
        plain = ("--bank", bank, "--runtime", "torch")
        assert run("recall", queries, *plain, "--output", f"{name}-recall.jsonl", "--filter", 'label != "a"')[0] == 0
        assert run("score", queries, *plain, "--output", f"{name}-score.jsonl", "--top-k", 5)[0] == 0
        assert run("audit", "--bank", bank, "--runtime", "torch", "--output", f"{name}-audit.jsonl")[0] == 0
        assert run("bank", "export", bank, "--output", f"{name}-export.jsonl")[0] == 0
    for kind in ("recall", "score", "audit", "export"):
        ours, theirs = ((tmp_path / f"{name}-{kind}.jsonl").read_bytes() for name in ("ours", "theirs"))
        assert ours == theirs and ours.count(b"\n") > 3, kind
    info, other = (json.loads(run("bank", "info", bank, "--json")[1]) for bank in (both, "disk"))
    for key in ("documents", "sequence", "model", "routes", "labels", "analyzer"):
        assert info[key] == other[key], key
    assert info["exactness"] == "exact" and "results  exact" in run("bank", "info", both)[1]
    assert "Milvus Lite 3." in run("bank", "info", both)[1]
    assert "made the terms of" in run("bank", "refresh", both)[2]
    code, _, err = run("bank", "migrate", both, "again", "--routes", "bm25,dense")
    assert code == 0 and "copied 69 documents as of change 3 -> again" in err, err
    for command in (("bank", "snapshot", both, "copy"), ("serve", "--bank", both)):
        code, _, err = run(*command)
        assert code == 2 and err.count("\n") == 1 and "is a bank in Milvus" in err, err
    secret = both.replace("127", "me:secret@127")
    for command in (("bank", "get", secret, "none"), ("bank", "info", secret), ("bank", "migrate", secret, "disk")):
        code, out, err = run(*command)
        assert "secret" not in out + err and "Traceback" not in err, err
