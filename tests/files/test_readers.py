"""What users write may be nested without end, endless in its numbers, or no text at all: one error, no traceback."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_rag.errors import EcomRagError, RecordError, UsageError
from ecom_rag.files import json_text, readers, records
from ecom_rag.merging.validation import read_spec
from ecom_rag.pipeline import read_settings
from ecom_rag.retrieval.learned_fusion import load_fusion
from ecom_rag.seeds.bank.copies import restore
from ecom_rag.training.recipe import make_recipe, read_recipe

LEVELS = 200


def nested(levels, *, of=list):
    value = []
    for _ in range(levels - 1):
        value = [value] if of is list else {"k": value}
    return value


BAD = {
    "brackets": b"[" * 100_000,
    "brackets of a value": b"k = " + b"[" * 100_000,
    "closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"k":' * 100_000,
    "an integer": b"k = 1" + b"0" * 5000,
    "not UTF-8": b"\xff\xfe\x00",
    "a zero byte": b"\x00",
    "NaN": b"NaN",
    "a list": b"[1]",
    "a number": b"1",
    "nothing": b"",
}
READERS = {
    "recipe": lambda path: read_recipe(path, "embedder"),
    "config": lambda path: read_settings(path, {}),
    "sets": read_spec,
    "fusion": load_fusion,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_every_settings_file_is_refused_in_one_line(tmp_path, reader, name):
    path = tmp_path / "file"
    path.write_bytes(BAD[name])
    if reader == "config" and name == "nothing":
        return  # no settings: all by default
    with pytest.raises(EcomRagError) as raised:
        READERS[reader](str(path))
    assert len(str(raised.value)) < 400 and str(path) in str(raised.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["none", "folder", "zero byte"])
def test_no_file_to_read(tmp_path, reader, kind):
    path = {"none": tmp_path / "none", "folder": tmp_path, "zero byte": "a\0b"}[kind]
    with pytest.raises(UsageError):
        READERS[reader](str(path))


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_note_of_a_snapshot(tmp_path, name):
    (tmp_path / "snapshot.json").write_bytes(BAD[name])
    with pytest.raises(EcomRagError, match="is not a snapshot"):
        restore(tmp_path, tmp_path / "bank")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + "0" * 400])
@pytest.mark.parametrize("key", ["[sampling]\nalpha", "[loss]\ntemperature", "[sampling]\nnested.deeper"])
def test_every_number_of_settings_is_finite(tmp_path, key, value):
    path = tmp_path / "r.toml"
    path.write_text(f'model = "m"\noutput = "o"\n{key} = {value}\n')
    with pytest.raises(UsageError, match="expected a finite number"):
        readers.read_toml(path, remedy="")
    with pytest.raises(UsageError, match=r"sampling\.alpha is nan; expected a finite number"):
        make_recipe({"model": "m", "output": "o", "sampling": {"alpha": float("nan")}}, "embedder")


@pytest.mark.parametrize("of", [list, dict])
@pytest.mark.parametrize("levels", [LEVELS - 3, 230, 300, 900, 3000])
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet", "string.parquet"])
def test_what_is_read_can_be_written_and_deeper_is_a_bad_line(tmp_path, of, levels, suffix):
    import pyarrow as pa
    import pyarrow.parquet as pq

    deep = {"k": nested(levels, of=of)}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        text = json.dumps(deep)
    finally:
        sys.setrecursionlimit(limit)
    lines, path = tmp_path / "lines", tmp_path / f"q{suffix}"
    lines.write_text(f'{{"text": "a", "metadata": {text}}}\n')
    if suffix.endswith(".parquet"):
        if suffix == ".parquet" and levels > LEVELS:
            return  # such a file cannot be written by us
        column = pa.field("metadata", pa.string(), metadata=None)
        pq.write_table(pa.table([["a"], [text]], schema=pa.schema([pa.field("text", pa.string()), column])), path)
    elif suffix == ".csv":
        cell = text.replace('"', '""')
        path.write_text(f'text,metadata\na,"{cell}"\n')
    else:
        records.convert(lines, path, suffix) if suffix != ".jsonl" else path.write_bytes(lines.read_bytes())
    if suffix == ".json" and levels > 900:  # its end cannot be found, and so not the next item
        with pytest.raises(RecordError, match="item 1: nested too deep"):
            next(records.read(str(path), on_bad_line="skip", report=records.ReadReport()))
        return
    report = records.ReadReport()
    found = list(records.read(str(path), on_bad_line="skip", report=report))
    if levels < LEVELS:
        assert report.rejected == 0
        result = {**found[0], "topk_metadata": [found[0]["metadata"]], "topk_evidence": [{"a": {"b": 1}}]}
        (tmp_path / "again").write_bytes(records.dumps(result))
        records.convert(tmp_path / "again", tmp_path / "again.parquet", ".parquet")
        assert next(records.read(str(tmp_path / "again.parquet")))["topk_metadata"] == [deep]
    else:
        assert not found and report.rejected == 1 and "nested too deep" in report.rejections[0]["reason"]
        with pytest.raises(RecordError, match="nested too deep"):
            next(records.read(str(path)))


@pytest.mark.parametrize("levels", [300, 3000, 100_000])
def test_what_python_hands_over_is_refused_too(levels):
    with pytest.raises(RecordError, match="nested too deep"):
        records.dumps({"metadata": nested(levels)})


SCALARS = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_not_deep_comes_back(value):
    assert records.loads(records.dumps(value)) == value


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**400, -0.0, 1e300, 2**64])


@given(st.lists(st.recursive(SCALARS | NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))))
def test_lines_of_several_items_come_back(items):
    found = json_text.loads_all(json_text.dumps_all(items))
    assert repr(found) == repr(items)
    assert json_text.dumps_all(found) == json_text.dumps_all(items)


def test_lines_of_results_with_the_deepest_metadata_come_back():
    items = [{"text": "a\r\u2028", "topk_metadata": [nested(LEVELS)]}]
    assert json_text.loads_all(json_text.dumps_all(items)) == items


@given(st.integers(1, 400), st.sampled_from([list, dict]))
def test_the_levels_are_counted_right(levels, of):
    raw = json.dumps(nested(levels, of=of)).encode()
    try:
        records.loads(raw)
    except ValueError as error:
        assert levels > LEVELS and str(error) == json_text.TOO_DEEP
    else:
        assert levels <= LEVELS
