"""What data hold is shown on a terminal, never obeyed: labels, keys, names of runs and classes."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ecom_rag.cli import app
from ecom_rag.evaluation import tables
from ecom_rag.files.keys import written
from ecom_rag.seeds.bank import BankSettings, create

ODD = st.text(st.sampled_from("\x1b\x07\x9b\r\u202ea[31mb"), min_size=1)


def obeyed(text):
    return {character for character in text if character in "\x1b\x07\x9b\r\u202e"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=ODD)
def test_bank_info_shows_labels_and_keys(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("b") / "bank"
    with create(path, BankSettings(routes=["bm25"], id_key=written(label))) as bank:
        bank.upsert([{"text": "t", "metadata": {label: "x", "label": label}}])
    done = CliRunner().invoke(app, ["bank", "info", str(path)])
    assert done.exit_code == 0 and not obeyed(done.stdout)
    assert len(done.stdout.splitlines()) == 8


@given(st.lists(st.lists(ODD, min_size=2, max_size=2), min_size=1))
def test_tables_are_aligned_whatever_is_in_a_cell(body):
    shown = tables.table(["label", "figure"], body)
    assert not obeyed(shown) and len(shown.split("\n")) == 1 + len(body)
