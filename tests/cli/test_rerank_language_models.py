"""``ecom-rag rerank`` with a language model: the numbers of the library, and one line for mistakes."""

import sys

import pytest

from ecom_rag import CrossEncoder
from ecom_rag.files import records
from helpers import prompted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layerwise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "layerwise"
    prompted.layerwise(folder)
    return folder


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "scored.jsonl"
    made = [
        {
            "text": query,
            "metadata": {},
            "topk_sim": [0.9, 0.8, 0.7],
            "topk_seed": [*prompted.DOCUMENTS[:2], "cheap pills"],
            "topk_metadata": [{"id": number} for number in range(3)],
        }
        for query in prompted.QUERIES[:3]
    ]
    path.write_bytes(b"".join(map(records.dumps, made)))
    return path


@pytest.fixture
def rerank(results, layerwise, tmp_path, monkeypatch, capfd):
    """Runs the command in here; gives exit code, what it said, and the records that it wrote."""

    def go(*options, model=layerwise):
        from ecom_rag.cli import main

        output = tmp_path / "out.jsonl"
        words = ["rerank", results, "--model", model, "--output", output, "--precision", "fp32", *options]
        monkeypatch.setattr(sys, "argv", ["ecom-rag", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        written = list(map(records.loads, output.read_bytes().splitlines())) if output.exists() else []
        output.unlink(missing_ok=True)
        return ended.value.code or 0, capfd.readouterr().err, written

    return go


def test_the_exit_layer_reaches_the_model(rerank, layerwise):
    code, told, written = rerank("--exit-layer", "3", "--instruction", "Is B against the rule of A?")
    assert code == 0, told
    asked = {"exit_layer": 3, "instruction": "Is B against the rule of A?"}
    encoder = CrossEncoder.from_pretrained(layerwise, precision="fp32", **asked)
    for record in written:
        expected = encoder.score([(record["text"], seed) for seed in record["topk_seed"]])
        assert record["topk_sim"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert record["topk_sim"] == sorted(record["topk_sim"], reverse=True)
    assert rerank("--exit-layer", "2")[2] != written


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--exit-layer", "9"], "--exit-layer is 9; "),
        (["--compress-ratio", "2"], "--compress-ratio has no effect on "),
        (["--compress-ratio", "3"], "--compress-ratio is 3; expected one of 1, 2, 4, 8"),
        (["--compress-layers", "2,x"], "--compress-layers '2,x' are not whole numbers"),
        (["--compress-layers", "2"], "--compress-layers has no effect without --compress-ratio"),
        (["--max-length", "1020"], "max length 1020 leaves"),
    ],
)
def test_mistakes_are_one_line(rerank, options, said):
    code, told, written = rerank(*options)
    assert code == 2 and said in told and told.count("\n") == 1 and not written


def test_options_of_language_models_are_refused_elsewhere(rerank, xlmr_reranker):
    code, told, _ = rerank("--exit-layer", "3", model=xlmr_reranker)
    assert code == 2 and "--exit-layer has no effect on" in told and "no language model" in told
