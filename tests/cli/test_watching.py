"""choose and monitor as commands: exit codes, and what is printed where."""

import json

import pytest

from ecom_rag.cli import main
from ecom_rag.decision.betting import alarm_after, log_wealth
from helpers import jsonl
from helpers.decided import decided, policy_file


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """A function that runs a command line in a folder of its own; exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    policy_file(tmp_path / "policy.json")
    jsonl.write(tmp_path / "bad.jsonl", [decided(n, truth="x" if n % 4 == 0 else "fraud") for n in range(60)])
    jsonl.write(tmp_path / "good.jsonl", [decided(n, truth="fraud") for n in range(60)])

    def run(*words):
        monkeypatch.setattr("sys.argv", ["ecom-rag", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capfd.readouterr()
        return ended.value.code, shown.out, shown.err

    return run


def test_no_alarm_ends_with_0_and_an_alarm_with_3(run, tmp_path):
    code, out, err = run("monitor", "good.jsonl", "--policy", "policy.json")
    assert code == 0 and out.startswith("class ") and err == ""
    code, out, err = run("monitor", "bad.jsonl", "--policy", "policy.json", "--plot", "p.svg", "--output", "f.json")
    after = alarm_after(log_wealth([n % 4 == 0 for n in range(60)], 0.05), 0.05)
    assert code == 3 and f"after {after}" in out
    assert err == "ecom-rag: alarm: fraud: 15 of 60 audited decisions wrong, 5.0% promised\n"
    assert json.loads((tmp_path / "f.json").read_text())["classes"]["fraud"]["alarm_after"] == after
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").startswith("<svg")


def test_quiet_keeps_the_exit_code_and_figures_may_go_to_standard_output(run):
    code, out, err = run("monitor", "bad.jsonl", "--policy", "policy.json", "--quiet", "--output", "-")
    assert code == 3 and err == "" and json.loads(out)["alarm"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["good.jsonl", "--policy", "none.json"], "none.json: no such file"),
        (["none.jsonl", "--policy", "policy.json"], "none.jsonl"),
        (
            ["good.jsonl", "--policy", "policy.json", "--alpha", "1"],
            "--alpha is 1.0; expected a number above 0, below 1",
        ),
        (["good.jsonl", "--policy", "policy.json", "--label-key", "verdict"], "no audited decision among 60 records"),
        (["good.jsonl", "--policy", "policy.json", "--plot", "p.png"], "p.png: ends in no known format of a picture"),
        (["good.jsonl", "--policy", "policy.json", "--plot", "a.svg", "-o", "a.svg"], "is named for two outputs"),
        (["good.jsonl", "--policy", "policy.json", "-o", "policy.json"], "policy.json: is also an input of this run"),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(run, tmp_path, words, said):
    before = sorted(tmp_path.iterdir())
    code, out, err = run("monitor", *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err
    assert sorted(tmp_path.iterdir()) == before


def test_choose(run, tmp_path):
    code, out, err = run("choose", "good.jsonl", "--count", "10", "--output", "to_label.jsonl")
    told = "ecom-rag: chose 8 uncertain texts and 2 for the audit, of 60 campaigns in 60 records -> to_label.jsonl\n"
    assert (code, out, err) == (0, "", told)
    chosen = jsonl.lines(tmp_path / "to_label.jsonl")
    assert [one["chosen"]["by"] for one in chosen] == ["uncertainty"] * 8 + ["audit"] * 2


def test_what_choose_says(run):
    code, _, err = run("choose", "good.jsonl", "--count", "100", "--output", "o.jsonl")
    assert (
        code == 0 and "note: there are 60 campaigns in 60 records, fewer than the --count 100; all were chosen" in err
    )
    code, _, err = run(
        "choose", "good.jsonl", "--count", "5", "--audit-share", "0", "--seed", "1", "--output", "p.jsonl"
    )
    assert code == 2 and "--seed has no effect with --audit-share 0, which draws nothing; leave it out" in err


def test_what_was_chosen_is_watched_after_it_was_labelled(run, tmp_path):
    """The round trip: only the audit's part counts."""
    assert run("choose", "good.jsonl", "--count", "40", "--audit-share", "0.5", "--output", "labelled.csv")[0] == 0
    code, out, err = run("monitor", "labelled.csv", "--policy", "policy.json")
    assert code == 0 and "fraud  5 %             20       0" in out
    assert "20 records were chosen for their uncertainty and do not count" in err
