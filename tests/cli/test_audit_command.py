"""``ecom-rag audit``: the summary, the files, and errors of one line."""

import pytest

from ecom_rag.cli import main
from helpers.jsonl import lines, write
from helpers.listings import listings


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """The command on a file of seeds, in its folder."""
    write(tmp_path / "seeds.jsonl", listings(40, seed=0))
    monkeypatch.chdir(tmp_path)

    def call(*options):
        monkeypatch.setattr("sys.argv", ["ecom-rag", "audit", "--seeds", "seeds.jsonl", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capfd.readouterr()

    return call


def test_findings_go_to_the_file_and_the_summary_to_standard_output(run, tmp_path):
    code, shown = run("--output", "a.jsonl", "--report", "a.html", "--innocent", "ok")
    assert code == 0
    assert "40 seeds with a label, in 40 campaigns" in shown.out and "thin_class" in shown.out
    assert "too few campaigns to fit" in shown.err
    assert {one["audit"]["kind"] for one in lines(tmp_path / "a.jsonl")} >= {"thin_class"}
    assert (tmp_path / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "a.jsonl", "--report", "a.jsonl"], "named for two outputs"),
        (["--output", "seeds.jsonl"], "seeds.jsonl"),
        (["--output", "a.jsonl", "--innocent", "zz"], "no seed has the innocent label 'zz'"),
        (["--output", "a.jsonl", "--first", "3"], "--first has no effect without --queries"),
    ],
)
def test_a_mistake_is_one_line(run, options, said):
    code, shown = run(*options)
    assert code == 2 and shown.out == ""
    assert shown.err.count("\n") == 1 and said in shown.err
