"""Records into an output of any format: what is read again is what was written, and a stream needs no ending."""

import os
import threading

import pytest

from ecom_rag.errors import UsageError
from ecom_rag.files import records
from ecom_rag.files.writing import write

ITEMS = [{"text": f"茶 {n}", "metadata": {"id": n, "big": 2**80}, "tags": ["a", "b"]} for n in range(7)]


@pytest.mark.parametrize("ending", records.ENDINGS)
def test_every_format_is_read_again_and_the_same_records_give_the_same_bytes(tmp_path, ending):
    one, other = tmp_path / f"one{ending}", tmp_path / f"other{ending}"
    assert write(str(one), iter(ITEMS)) == write(str(other), ITEMS) == 7
    assert list(records.read(one)) == ITEMS and one.read_bytes() == other.read_bytes()
    assert write(str(one), []) == 0 and list(records.read(one)) == []


@pytest.mark.parametrize("name", ["pipe", "pipe.json"])
def test_a_pipe_is_written_as_it_is_named(tmp_path, name):
    os.mkfifo(tmp_path / name)
    writer = threading.Thread(target=write, args=(str(tmp_path / name), ITEMS))
    writer.start()
    found = (tmp_path / name).read_bytes()
    writer.join()
    assert found.startswith(b"[" if name.endswith(".json") else b"{") and found.count("茶".encode()) == 7
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_output_is_refused_before_a_record_is_read(tmp_path):
    for name in ("out.xlsx", "no/out.jsonl", "."):
        with pytest.raises(UsageError):
            write(str(tmp_path / name), iter(lambda: pytest.fail("read"), None))
