"""The documents of a bank as records: bank.documents, and ecom-rag bank list, get and export."""

import json
import logging
import subprocess
import sys

import pytest

from ecom_rag.cli import main
from ecom_rag.errors import BankError, UsageError
from ecom_rag.files import records
from ecom_rag.seeds.bank import BankSettings, SeedBank, build, create
from helpers.small_banks import Hashing, assert_equals_a_file, built, seed

ODD = [
    {"text": "茶 without an id"},
    {"text": "茶 without an id", "metadata": {"price": 2**80}},
    {"text": "number", "metadata": {"id": 7, "a.b": {'q"q': [1, None, 2.5]}}, "shop": {"name": "s"}, "rank": 3},
]


@pytest.fixture
def bank(tmp_path):
    """Documents with gaps: one removed, one replaced, so that rows are not ids."""
    with built(tmp_path / "bank", [*map(seed, range(20)), *ODD], BankSettings(), encoder=Hashing()) as made:
        made.delete(["s3"])
        made.upsert([seed(5, turn=1)])
        yield made


@pytest.fixture
def here(monkeypatch, capfd):
    def go(*arguments):
        monkeypatch.setattr(sys, "argv", ["ecom-rag", "bank", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code, [json.loads(line) for line in out.splitlines()], err

    return go


def held():
    """What the bank of the fixture holds, in row order."""
    whole = [{"metadata": {}, **record} for record in ODD]
    return [*(seed(n) for n in range(20) if n not in (3, 5)), *whole, seed(5, turn=1)]


def test_documents_come_in_row_order_as_of_one_change(bank):
    assert list(bank.documents()) == held()
    assert list(bank.documents('label = "x" and not exists(turn)')) == [
        record for record in held() if record["metadata"].get("label") == "x"
    ]
    reading = bank.documents({"label": "y"})
    first = next(reading)
    bank.delete(filter='label = "y"', allow_most=True)
    assert [first, *reading] == [record for record in held() if record["metadata"].get("label") == "y"]
    assert bank.count('label = "y"') == 0


def test_a_filter_that_nothing_meets_is_said_and_one_that_is_none_is_refused(bank, caplog):
    with caplog.at_level(logging.WARNING):
        assert list(bank.documents('lable = "x"')) == []
    assert "0 of 22 seeds meet the filter" in caplog.text and "did you mean 'label'?" in caplog.text
    with pytest.raises(UsageError, match="filter, character"):
        next(bank.documents("label ="))


def test_a_bank_that_is_closed_while_documents_are_read(bank):
    reading = bank.documents()
    next(reading)
    bank.close()
    with pytest.raises(BankError, match="is closed"):
        next(reading)
    assert not bank.store._idle


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_a_bank_that_is_exported_and_built_again_is_equal(bank, here, tmp_path, ending):
    file = tmp_path / f"seeds{ending}"
    code, out, err = here("export", bank.path, "--output", file)
    assert (code, out, err) == (0, [], f"ecom-rag: exported 22 documents of {bank.path} -> {file}\n")
    columns = {"rank": None} if ending == ".parquet" else {}  # a column has a value in every row
    expected = [{**columns, **record} for record in held()]
    assert list(records.read(file)) == expected
    build(tmp_path / "again", records.read(file), bank.settings, encoder=Hashing())
    with SeedBank.open(tmp_path / "again") as again:
        assert list(again.documents()) == expected and again.settings == bank.settings
        for one, documents in ((bank, held()), (again, expected)):
            assert_equals_a_file(one, documents)
            assert_equals_a_file(one, documents, filter='label in ("x", "z")')
        ids = [7, *(f"s{n}" for n in range(20))]
        assert again.get(ids) == [record and {**columns, **record} for record in bank.get(ids)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["again", "bank", file.name])


def test_list_and_export_print_the_same(bank, here, tmp_path, caplog):
    assert here("list", bank.path)[:2] == (0, held())
    assert here("export", bank.path, "-o", "-") == (
        0,
        held(),
        f"ecom-rag: exported 22 documents of {bank.path} -> stdout\n",
    )
    code, out, err = here("list", bank.path, "--filter", 'label = "x"', "--limit", 2)
    assert (code, out, err) == (0, [seed(0), seed(6)], "")
    assert here("list", bank.path, "--limit", 3, "-o", tmp_path / "first.parquet")[0] == 0
    assert list(records.read(tmp_path / "first.parquet")) == held()[:3]
    code, out, err = here("list", bank.path, "--filter", 'lable = "x"')
    assert (code, out) == (0, []) and "did you mean 'label'?" in caplog.text


def test_get_names_the_ids_that_do_not_exist(bank, here):
    assert here("get", bank.path, "s1", "7", "s1") == (0, [seed(1), held()[-2], seed(1)], "")
    assert here("get", bank.path, "no", "s2", "s3") == (
        0,
        [seed(2)],
        f"ecom-rag: note: {bank.path} holds no document with the id no, s3\n",
    )
    code, out, err = here("get", bank.path, "no", "s3")
    assert (code, out, err.count("\n")) == (2, [], 1) and "holds no document with the id no, s3" in err
    code, out, err = here("get", bank.path, *(f"none{n}" for n in range(30)))
    assert code == 2 and "none19, ... (30 ids)" in err and "none20" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "{dir}/none"], "no such folder"),
        (["list", "{dir}/bank", "--filter", "label ="], "filter, character"),
        (["list", "{dir}/bank", "--limit", "0"], "--limit"),
        (["export", "{dir}/bank"], "--output"),
        (["export", "{dir}/bank", "-o", "{dir}/out.xlsx"], "unknown file type"),
        (["export", "{dir}/bank", "-o", "{dir}/bank"], "is a folder; expected a file name"),
        (["export", "{dir}/bank", "-o", "{dir}/no/out.json"], "does not exist; create it first"),
        (["get", "{dir}/bank", ""], "an id is ''"),
        (["get", "{dir}/bank"], "ID"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(bank, here, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*.*"))
    code, out, err = here(*[argument.replace("{dir}", str(tmp_path)) for argument in arguments])
    assert (code, out, err.count("\n")) == (2, [], 1) and message in err
    assert sorted(path for path in tmp_path.rglob("*.*") if "bank.db" not in path.name) == [
        path for path in before if "bank.db" not in path.name
    ]


def test_an_export_that_fails_leaves_the_file_of_before(bank, tmp_path, monkeypatch, here):
    for ending in (".jsonl", ".parquet"):
        file = tmp_path / f"out{ending}"
        file.write_bytes(b"before")

        def breaking(self, filter=None):
            yield from map(seed, range(5))
            raise BankError("is damaged")

        monkeypatch.setattr(SeedBank, "documents", breaking)
        code, out, err = here("export", bank.path, "-o", file)
        assert (code, out, err) == (2, [], "ecom-rag: is damaged\n") and file.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "out.jsonl", "out.parquet"]


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path):
    with create(tmp_path / "bank", BankSettings(routes=["bm25"])) as made:
        made.upsert([{"text": "x" * 1000, "metadata": {"id": n}} for n in range(3000)])
    for arguments in (["list", "bank"], ["export", "bank", "-o", "-"], ["export", "bank", "-o", "/dev/stdout"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "ecom_rag", "bank", *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert json.loads(process.stdout.readline())["metadata"] == {"id": 0}
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)
