"""keys add prints the key alone on stdout; list shows everything else; revoke takes it back."""

import json

import pytest

from ecom_rag.cli import main
from ecom_rag.serving.keys import Keys


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def call(*words: str):
        monkeypatch.setattr("sys.argv", ["ecom-rag", "keys", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capfd.readouterr()
        return ended.value.code, shown.out, shown.err

    return call


def test_a_key_from_making_to_revoking(run):
    code, out, err = run("add", "search", "--scopes", "read, write", "--expires", "2099-01-01")
    token = out.strip()
    assert code == 0 and out == f"{token}\n" and token.startswith("ecr_") and token not in err
    assert "added the key search to keys.json" in err
    assert Keys("keys.json").check(token).scopes == ("read", "write")
    code, out, err = run("list")
    assert code == 0 and not err and "search" in out and "read,write" in out and "2099-01-01" in out
    [shown] = map(json.loads, run("list", "--json")[1].splitlines())
    assert shown["name"] == "search" and not shown["expired"] and "sha256" not in shown
    assert run("revoke", "search")[0] == 0
    assert run("list") == (0, "", "ecom-rag: note: keys.json holds no keys\n")


def test_quiet_prints_the_key_alone(run):
    code, out, err = run("add", "search", "--scopes", "admin", "--file", "k.json", "--quiet")
    assert code == 0 and out.startswith("ecr_") and err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "a", "--scopes", "reed"], "--scopes: 'reed' is unknown; expected some of read, write, review, admin"),
        (["add", "a", "--scopes", "read", "--expires", "2020-01-01"], "--expires 2020-01-01 is past"),
        (["add", "a", "--scopes", "read", "--expires", "soon"], "--expires: 'soon' is no date"),
        (["add", "a b", "--scopes", "read"], "is not a name of a key"),
        (["list"], "keys.json: no such file"),
        (["revoke", "a"], "keys.json: no such file"),
    ],
)
def test_errors_in_one_line(run, words, said):
    code, out, err = run(*words)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err
