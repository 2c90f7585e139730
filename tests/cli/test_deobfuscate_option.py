"""``--deobfuscate`` reaches encoder and bm25 of every command that searches a file, and a bank keeps it."""

import sys

import pytest

from ecom_rag.errors import UsageError
from ecom_rag.files import records

pytestmark = pytest.mark.slow

SEEDS = {
    "S1": "online casino with real money",
    "S2": "代办證件，盖章齐全",
    "S3": "leather wallet for men",
    "S4": "红包封套",
}
LISTINGS = {"S1": "Onl1ne c@s1no, r3al m0ney", "S2": "代 办 證 件"}


@pytest.fixture
def ecom_rag(tmp_path, monkeypatch, capfd):
    """Runs a command in here, in a folder of seeds and listings; gives exit code and what it said."""
    for name, texts in (("seeds", SEEDS), ("listings", LISTINGS)):
        made = [{"text": text, "metadata": {"id": key, "label": key[0]}} for key, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(records.dumps, made)))
    monkeypatch.chdir(tmp_path)

    def go(*words):
        from ecom_rag.cli import main

        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capfd.readouterr().err

    return go


def recalled(path):
    return [(one["topk_metadata"], one["topk_sim"]) for one in records.read(str(path))]


def test_a_file_and_a_bank_are_read_alike(ecom_rag, tmp_path, bge_folder):
    recall = ("recall", "listings.jsonl", "--top-k", "2")
    over_file = ("--seeds", "seeds.jsonl", "--model", bge_folder)
    assert ecom_rag(*recall, *over_file, "--deobfuscate", "--output", "file.jsonl")[0] == 0
    assert ecom_rag("bank", "build", "bank", "--seeds", "seeds.jsonl", "--model", bge_folder, "--deobfuscate")[0] == 0
    assert ecom_rag(*recall, "--bank", "bank", "--output", "bank.jsonl")[0] == 0
    found = recalled("file.jsonl")
    assert [one[0][0]["id"] for one in found] == list(LISTINGS) and found == recalled("bank.jsonl")
    code, told = ecom_rag(*recall, "--bank", "bank", "--deobfuscate", "--output", "none.jsonl")
    assert code == 2 and "with --bank, which brings its own" in told
    _, told = ecom_rag("calibrate", "file.jsonl", *over_file, "--output", "policy.json")
    _, same = ecom_rag("calibrate", "file.jsonl", *over_file, "--deobfuscate", "--output", "policy.json")
    assert "-deobfuscated-" in told and "-deobfuscated-" not in same


@pytest.mark.parametrize(("words", "reads"), [((), False), (("--deobfuscate",), True)])
def test_an_audit_of_a_file(ecom_rag, monkeypatch, words, reads):
    def seen(output, asked, *, model, analyzer, **_):
        raise UsageError(f"encoder {model.options.get('deobfuscate', False)}, bm25 {analyzer.reader is not None}")

    monkeypatch.setattr("ecom_rag.decision.audit_files.audit_file", seen)
    code, told = ecom_rag("audit", "--seeds", "seeds.jsonl", "--model", "starter", *words, "--output", "made.jsonl")
    assert code == 2 and f"encoder {reads}, bm25 {reads}" in told, told


def test_bm25_alone(ecom_rag):
    recall = ("recall", "listings.jsonl", "--seeds", "seeds.jsonl", "--routes", "bm25", "--top-k", "1")
    assert ecom_rag(*recall, "--output", "written.jsonl")[0] == 0
    assert ecom_rag(*recall, "--deobfuscate", "--output", "read.jsonl")[0] == 0
    assert [one[0] and one[0][0]["id"] for one in recalled("read.jsonl")] == list(LISTINGS)
    assert recalled("written.jsonl") != recalled("read.jsonl")
    code, told = ecom_rag(*recall[:5], "variant", "--deobfuscate", "--output", "none.jsonl")
    assert code == 2 and "--routes variant" in told, told
