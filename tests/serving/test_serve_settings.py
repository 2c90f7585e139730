"""The settings of a service, from a TOML file and on top of it."""

import pytest

from ecom_rag import UsageError
from ecom_rag.serving.settings import Limits, Serve, read_serve

TOML = """
host = "0.0.0.0"
keys = "keys.json"
drain_delay = 5
[banks]
goods = "banks/goods"
[limits]
texts = 64
queue_seconds = 2
[recall]
top_k = 5
"""


def test_a_file_and_what_is_said_on_top(tmp_path):
    path = tmp_path / "serve.toml"
    path.write_text(TOML)
    found = read_serve(path, {"port": 9000, "host": None, "placement": {"precision": "fp32"}})
    assert found == Serve(
        banks={"goods": "banks/goods"},
        host="0.0.0.0",
        port=9000,
        keys="keys.json",
        drain_delay=5,
        placement={"precision": "fp32"},
        recall={"top_k": 5},
        limits=Limits(texts=64, queue_seconds=2),
    )


def test_the_placement_of_the_command_line_is_put_over_that_of_the_file(tmp_path):
    path = tmp_path / "serve.toml"
    path.write_text('[placement]\nprecision = "fp32"\nbatch_tokens = 4096\n')
    assert read_serve(path, {"placement": {}}).placement == {"precision": "fp32", "batch_tokens": 4096}
    assert read_serve(path, {"placement": {"precision": "bf16"}}).placement["precision"] == "bf16"


def test_the_command_line_says_only_what_was_typed(tmp_path, monkeypatch):
    """A default of the command line must not win over the file."""
    from ecom_rag.cli import main
    from ecom_rag.serving import run
    from ecom_rag.serving.http import logs

    path, found = tmp_path / "serve.toml", []
    path.write_text('model = "starter"\n[placement]\nprecision = "fp32"\n')
    monkeypatch.setattr(logs, "install", lambda stream, *, level: None)  # other tests read the log
    monkeypatch.setattr(run, "serve", lambda settings, **_: found.append(settings.placement))
    monkeypatch.setattr("sys.argv", ["ecom-rag", "serve", "--config", str(path), "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and found == [{"precision": "fp32", "device": "cpu"}]


def test_nothing_said_is_the_defaults():
    assert read_serve(None, {"keys": None}) == Serve()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hots = 1", "serve.toml: hots is unknown; did you mean host?"),
        ("port = true", "port is True; expected a whole number"),
        ("port = 80.5", "port is 80.5; expected a whole number"),
        ("port = -1", "port is -1; expected a number from 0 to 65535"),
        ("keys = 3", "keys is 3; expected text"),
        ("banks = 'bank'", "banks is 'bank'; expected a table"),
        ("[banks]\ngoods = 3", "expected a path for each name of a bank"),
        ("limits = 3", "limits is 3; expected a table of settings"),
        ("[limits]\ntext = 3", "limits.text is unknown; did you mean texts?"),
        ("[limits]\nqueue_seconds = '3'", "limits.queue_seconds is '3'; expected a number"),
    ],
)
def test_what_makes_no_sense(tmp_path, text, told):
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_serve(path, {})
    assert told in str(raised.value)
