"""Every bad input has its defined answer; every format gives back what was written."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ecom_rag.errors import RecordError, UsageError
from ecom_rag.files import json_files, records
from ecom_rag.files.records import ReadReport

GOOD = b'{"text": "a", "metadata": {"id": 1}}\n'


def write(path, data):
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"txt": "a", "id": 3}', r'"text" is missing \(found keys: txt, id\); every record needs a string "text"'),
        (b"[1, 2]", "found an array; expected an object"),
        (b'"just text"', "found a string"),
        (b"null", "found null"),
        (b'{"text": 5}', '"text" is a number; expected a string'),
        (b'{"text": null}', '"text" is null'),
        (b'{"text": ""}', '"text" is empty'),
        (b'{"text": " \\t\\n"}', '"text" is empty'),
        (b'{"text": "a", "metadata": [1]}', '"metadata" is an array; expected an object'),
        (b'{"text": "a", "metadata": {"score": NaN}}', "NaN is not JSON"),
        (b'{"text": "a"', "not valid JSON"),
        (b'{"text": "\xff"}', "not UTF-8 at byte"),
        (b'{"text": "a \xed\xa0\x80 b"}', "not UTF-8 at byte"),  # a surrogate as Java writes it
        (b'{"text": "a", "price": 1e999}', "the number 1e999 is too large"),
        (b'{"text": "a", "m": "\\u0041", "deep": ' + b"[" * 600 + b"]" * 600 + b"}", "nested too deep"),
        (b'{"text": "a", "m": ' + b"[" * 100_000 + b"}", "nested too deep|not valid JSON"),
    ],
)
def test_bad_lines_are_named_in_one_line(tmp_path, line, message):
    path = write(tmp_path / "q.jsonl", GOOD + line + b"\n" + GOOD)
    with pytest.raises(RecordError, match=message) as error:
        list(records.read(path))
    assert str(error.value).startswith(f"{path}:2: ")
    assert "\n" not in str(error.value)
    report = ReadReport()
    assert len(list(records.read(path, on_bad_line="skip", report=report))) == 2
    assert (report.accepted, report.rejected) == (2, 1)
    assert report.rejections[0]["where"] == f"{path}:2"


def test_bom_windows_line_ends_blank_lines_and_a_missing_last_newline(tmp_path):
    path = write(tmp_path / "q.jsonl", b"\xef\xbb\xbf" + b'{"text": "a"}\r\n\r\n  \n{"text": "b"}')
    assert [r["text"] for r in records.read(path)] == ["a", "b"]


def test_lone_surrogates_become_the_replacement_character(tmp_path):
    path = write(
        tmp_path / "q.jsonl", rb'{"text": "cut \ud83d", "metadata": {"k\ud800": ["\udc00"]}, "ok": "\ud83d\ude00"}'
    )
    report = ReadReport()
    record = next(records.read(path, report=report))
    assert record == {"text": "cut �", "metadata": {"k�": ["�"]}, "ok": "😀"}
    assert report.surrogates_replaced == 1
    records.dumps(record).decode()


def test_nothing_is_lost_in_passing(tmp_path):
    deep = value = {}
    for _ in range(50):
        value["a"] = {}
        value = value["a"]
    record = {"text": "t" * 100_000, "metadata": {"deep": deep, "big": 2**80, "f": 1.5, "n": None}, "other": [1, "x"]}
    path = tmp_path / "q.jsonl"
    path.write_bytes(records.dumps(record))
    assert next(records.read(str(path))) == record
    assert records.dumps(next(records.read(str(path)))) == path.read_bytes()


def test_metadata_may_be_left_out(tmp_path):
    assert next(records.read(write(tmp_path / "q.jsonl", b'{"text": "a"}')))["metadata"] == {}


def test_missing_files_folders_and_unknown_extensions(tmp_path):
    for path, message in [("no.jsonl", "no such file"), ("x.xlsx", "unknown file type"), ("d.jsonl", "is a folder")]:
        if path.startswith("d"):
            (tmp_path / path).mkdir()
        with pytest.raises(UsageError, match=message):
            list(records.read(str(tmp_path / path)))


def test_damaged_gzip_and_parquet(tmp_path):
    whole = gzip.compress(GOOD * 1000)
    torn = whole[:12] + b"\xff" * 40 + whole[52:]
    for data in (whole[: len(whole) // 2], b"not gzip", torn):
        with pytest.raises(RecordError, match="damaged gzip"):
            list(records.read(write(tmp_path / "q.jsonl.gz", data)))
    with pytest.raises(RecordError, match="not a parquet file"):
        list(records.read(write(tmp_path / "q.parquet", b"nonsense nonsense")))


def test_objects_of_any_keys(tmp_path):
    lines = b'\xef\xbb\xbf{"query": "a \\ud83d"}\r\n\n{"pos": ["\\udc00", 1]}'
    expected = [("1", {"query": "a \ufffd"}), ("3", {"pos": ["\ufffd", 1]})]
    for name, data in (("a.jsonl", lines), ("a.jsonl.gz", gzip.compress(lines))):
        path = write(tmp_path / name, data)
        assert list(records.objects(path)) == [(f"{path}:{number}", item) for number, item in expected]
    for data, message in [(b"{}\n[1]", ":2: is not an object but an array"), (b'{"a"', ":1: not valid JSON")]:
        with pytest.raises(RecordError, match=message):
            list(records.objects(write(tmp_path / "a.jsonl", data)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "a"}', "must hold one array"),
        (b'[{"text": "a"}, {"text": "b"}', "ends after item 2 without ]"),
        (b'[{"text": "a"} {"text": "b"}]', "expected , or ]"),
        (b'[{"text": "a"},]', "not valid JSON"),
        (b'[{"text": "a"}] x', "text after the end"),
        (b'[{"text": "a"', "item 1: not valid JSON"),
        (b'[{"text": "a", "n": ' + b"9" * 5000 + b"}]", "item 1: not valid JSON"),
    ],
)
def test_bad_arrays(tmp_path, data, message):
    with pytest.raises(RecordError, match=message):
        list(records.read(write(tmp_path / "q.json", data)))


def test_arrays_are_read_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "CHUNK", 7)
    items = [{"text": f'文本 {i} \\ " ] , [', "metadata": {"i": i}} for i in range(20)]
    path = write(tmp_path / "q.json", b"\xef\xbb\xbf \n" + json.dumps(items, indent=2, ensure_ascii=False).encode())
    assert list(records.read(path)) == items
    assert list(records.read(write(tmp_path / "e.json", b""))) == []
    assert list(records.read(write(tmp_path / "e.json", b" [ ] "))) == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
some_records = st.fixed_dictionaries(
    {
        "text": st.text(min_size=1).filter(str.strip),
        "metadata": st.dictionaries(st.text(max_size=5), json_values, max_size=4),
        "topk_sim": st.lists(st.floats(-1, 1), max_size=3),
    }
)
ODD_CELLS = [
    "=1+1",
    "007",
    "1",
    "",
    " ",
    'a "b", c',
    "a\r\nb",
    "\r",
    "\n",
    "\ufeff",
    "\x00",
    "null",
    "[1]",
    "茶",
    "'",
    "true",
]
some_keys = st.sampled_from(["", "a:json", "metadata.a", "price", "a,b", "\n", "\ufeff", "text:json", "茶"]) | st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=4
)
odd_records = st.builds(
    lambda more, record: {**more, **record},
    st.dictionaries(some_keys, st.sampled_from(ODD_CELLS) | json_values, max_size=4),
    st.fixed_dictionaries(
        {"text": st.sampled_from(ODD_CELLS).filter(str.strip) | st.text(min_size=1).filter(str.strip)},
        optional={"metadata": st.dictionaries(st.text(max_size=3), json_values, max_size=2), "shop": st.text()},
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(some_records, max_size=5))
@pytest.mark.parametrize("suffix", records.ENDINGS)
def test_every_format_gives_back_what_was_written(tmp_path_factory, suffix, items):
    folder = tmp_path_factory.mktemp("r")
    source, target, again = folder / "a.jsonl", folder / f"b{suffix}", folder / f"c{suffix}"
    source.write_bytes(b"".join(map(records.dumps, items)))
    records.convert(source, target, suffix)
    records.convert(source, again, suffix)
    assert target.read_bytes() == again.read_bytes()
    assert list(records.read(str(target))) == items


@settings(max_examples=150, deadline=None)
@given(st.lists(odd_records, max_size=5))
def test_csv_gives_back_whatever_the_keys_and_values(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("csv")
    (folder / "a.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    expected = list(records.read(str(folder / "a.jsonl")))
    records.convert(folder / "a.jsonl", folder / "b.csv", ".csv")
    assert list(records.read(str(folder / "b.csv"))) == expected
    assert (folder / "b.csv").read_bytes().startswith(b"\xef\xbb\xbf") and b"\0" not in (folder / "b.csv").read_bytes()


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_csv_of_other_tools(tmp_path, bom, end):
    rows = [
        "text,metadata.id,metadata.seller.level,metadata,price,",
        '"a ""b"", c",007,3,"{""label"": [1]}",1.50,',
        '"line one\nline two",,,,,',
        ",,,,,",
        "",
        f'{"茶" * 200_000},1,,,"",',
    ]
    path = write(tmp_path / "q.csv", bom + end.join(row.encode() for row in rows))
    assert list(records.placed(path)) == [
        (
            f"{path}:2",
            {"text": 'a "b", c', "metadata": {"label": [1], "id": "007", "seller": {"level": "3"}}, "price": "1.50"},
        ),
        (f"{path}:3", {"text": "line one\nline two", "metadata": {}}),
        (f"{path}:7", {"text": "茶" * 200_000, "metadata": {"id": "1"}}),
    ]
    assert list(records.read(write(tmp_path / "e.csv", bom))) == list(records.read(write(tmp_path / "e.csv", b"text")))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"a", "found 1 fields; expected 3 as in the header; put cells that hold commas"),
        (b"a,b,{},c", "found 4 fields; expected 3"),
        (b"a\0,b,{}", 'the column "text" holds a NUL character; remove it'),
        (b"\xb2\xe8,b,{}", r'the column "text" is not UTF-8; save the file as UTF-8 \(in Excel: CSV UTF-8\)'),
        (b"a,b,{1}", r'the column "metadata" is not valid JSON \(.* at column 2\); expected JSON'),
        (b"a,b,[1]", '"metadata" is an array; expected an object'),
        (b"a,b,NaN", "NaN is not JSON"),
        (b'"a"b,c,{}', "is not a row of CSV"),
        (b",b,{}", '"text" is missing'),
        (b'" ",b,{}', '"text" is empty'),
        (b'a,b,"{""label"": 1}"', 'the column "metadata.label" gives a key that another column gives too'),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path, row, message):
    path = write(tmp_path / "q.csv", b'text,metadata.label,metadata\n"a\n\nb",,{}\n' + row + b"\nz,,\n")
    with pytest.raises(RecordError, match=message) as error:
        list(records.read(path))
    assert str(error.value).startswith(f"{path}:5: ") and "\n" not in str(error.value)
    report = ReadReport()
    assert [record["text"] for record in records.read(path, on_bad_line="skip", report=report)] == ["a\n\nb", "z"]
    assert report.rejected == 1 and report.rejections[0]["where"] == f"{path}:5"


def test_tsv_has_tabs_between_cells(tmp_path):
    found = records.read(write(tmp_path / "q.tsv", b'text\tid\n"a\tb"\t1,5\n"c"d\t2\n'))
    assert next(found) == {"text": "a\tb", "id": "1,5", "metadata": {}}
    with pytest.raises(RecordError, match=r":3: is not a row of CSV or TSV \('\\t' expected"):
        next(found)


def test_the_refused_row_is_kept_as_it_lay_in_the_file(tmp_path):
    path = write(tmp_path / "q.csv", b'text,shop\n"a\nb",c,d\nz,\n')
    report = ReadReport()
    list(records.read(path, on_bad_line="skip", report=report))
    assert report.rejections[0]["raw"] == '"a\nb",c,d\n'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"title,label\na,b\n", r":1: the column \"text\" is missing \(found: 'title', 'label'\)"),
        (
            b"text;label\na;b\n",
            r":1: the column \"text\" is missing \(found: 'text;label'\); expected names with commas between",
        ),
        ("text,label\n".encode("utf-16"), ":1: the header row is not UTF-8"),
        (b"text,a,a\n", ':1: the column "a" stands twice'),
        (b"text,a,a:json\n", ':1: the column "a" stands twice'),
        (b"text,metadata.a.\n", r':1: the column "metadata\.a\.", character 3: found the end; expected a key'),
        (b'\ntext\na\nb\n"c\nd\n', ":5: a quote that opens here is never closed"),
    ],
)
def test_csv_files_that_cannot_be_read_on(tmp_path, data, message):
    path = write(tmp_path / "q.csv", data)
    with pytest.raises(RecordError, match=message):
        list(records.read(path, on_bad_line="skip", report=ReadReport()))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b'"', b",", b"\r", b"\n", b"\0", b"a", b"{}", b"\xff", "茶".encode(), b" "])).map(
        b"".join
    )
)
def test_any_bytes_are_rows_or_one_line(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("any") / "q.csv", b"text,metadata\n" + data)
    report = ReadReport()
    try:
        found = list(records.read(path, on_bad_line="skip", report=report))
    except RecordError as error:
        assert "never closed" in str(error) and "\n" not in str(error)
    else:
        assert len(found) == report.accepted and all(record["text"].strip() for record in found)


def test_parquet_of_other_tools(tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "metadata": [{"id": 1}, {"id": 2}], "extra": [1, None]}), path)
    assert next(records.read(str(path))) == {"text": "a", "metadata": {"id": 1}, "extra": 1}
    pq.write_table(pa.table({"text": ["a"], "metadata": ['{"id": 1}']}), path)
    assert next(records.read(str(path)))["metadata"] == {"id": 1}


def test_parquet_columns_that_json_cannot_hold(tmp_path):
    from decimal import Decimal

    path = str(tmp_path / "r.parquet")
    pq.write_table(pa.table({"text": ["a"], "price": [Decimal("9.90")]}), path)
    assert list(records.read(path)) == [{"text": "a", "price": 9.9, "metadata": {}}]
    pq.write_table(pa.table({"text": ["a"], "img": [b"\xff"]}), path)
    with pytest.raises(RecordError, match='row 1: the column "img" holds bytes, which JSON cannot hold'):
        list(records.read(path))


def test_parquet_times_of_nanoseconds(tmp_path):
    """What pandas writes; Python's own times end at microseconds."""
    path = str(tmp_path / "r.parquet")
    created = pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"text": ["a", "b"], "created": created}), path)
    first, second = map(records.dumps, records.read(path))
    assert b"2023-11-14T22:13:20.123456" in first and b"created" in second


def test_parquet_of_results_that_do_not_fit_their_columns(tmp_path):
    """Null in place of a list, a number among texts, and integers that a float would round."""
    items = [
        {"text": "a", "metadata": {}, "topk_evidence": [{"bm25": 1}], "topk_seed": ["x"], "price": 1.5, "id": 2**60},
        {"text": "b", "metadata": {}, "topk_evidence": None, "topk_seed": ["x", 3], "price": 2**53 + 1, "id": 7},
    ]
    (tmp_path / "r.jsonl").write_bytes(b"".join(map(records.dumps, items)))
    path = tmp_path / "r.parquet"
    records.convert(tmp_path / "r.jsonl", path, ".parquet")
    found = list(records.read(str(path)))
    assert found[0] == items[0]
    assert {key: value for key, value in found[1].items() if value is not None} == {
        key: value for key, value in items[1].items() if value is not None
    }
    assert pq.read_schema(path).field("id").type == pa.int64()


def test_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD * 2)))
    assert len(list(records.read("-"))) == 2


@settings(max_examples=25, deadline=None)
@given(
    number=st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    metadata=st.recursive(
        st.just("NUMBER"),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=2)
            | st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2)
        ),
        max_leaves=3,
    ),
    how=st.sampled_from(["object", "marked string", "plain string", "column"]),
)
def test_a_number_that_json_does_not_know_is_a_bad_line_in_every_format(tmp_path_factory, number, metadata, how):
    folder = tmp_path_factory.mktemp("numbers")
    text = json.dumps({"price": metadata}).replace('"NUMBER"', json.dumps(number))
    bad = {"text": "b", "metadata": json.loads(text)}
    (folder / "bad.jsonl").write_text(f'{{"text": "b", "metadata": {text}}}\n')
    marked = {b"ecom_rag": b"json"} if how == "marked string" else None
    columns = {
        "object": lambda: pa.Table.from_pylist([bad]),
        "column": lambda: pa.table({"text": ["b"], "price": [number]}),
    }
    schema = pa.schema([pa.field("text", pa.string()), pa.field("metadata", pa.string(), metadata=marked)])
    try:
        table = columns.get(how, lambda: pa.Table.from_pylist([{"text": "b", "metadata": text}], schema=schema))()
    except pa.ArrowInvalid:  # a list of numbers and lists is no column of Parquet
        assume(False)
    pq.write_table(table, folder / "bad.parquet")
    for name in ("bad.parquet", "bad.jsonl"):
        report = ReadReport()
        assert list(records.read(str(folder / name), on_bad_line="skip", report=report)) == []
        assert report.rejected == 1, name
    with pytest.raises(RecordError, match=r"nan|inf"):
        list(records.cleaned([bad]))
