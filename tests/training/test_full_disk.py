"""Training on a disk that becomes full ends in one line that names it; what it writes is for all readers."""

import errno
import os
import stat

import pytest

from ecom_rag import cli
from ecom_rag.training.fit import train
from ecom_rag.training.trainer import _arguments
from helpers.small_runs import labelled, recipe_of, weights

pytestmark = pytest.mark.slow


def _recipe(folder, data, output):
    return recipe_of(folder, data, output, schedule={"epochs": 1, "device": "cpu", "save_every": 2})


@pytest.mark.parametrize("kib", [8, 300, 700, 1200])
def test_train_on_a_full_disk_names_the_place(kib, bge_folder, small_disk, tmp_path):
    """Wherever it becomes full: before the first step, in the weights, the optimizer or the finished folder."""
    data = labelled(tmp_path / "data.jsonl")
    place = small_disk(tmp_path / "disk", kib=kib)
    with pytest.raises(OSError) as caught:
        train(_recipe(bge_folder, data, place / "out"))
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).startswith(str(place))
    assert not (place / "out").exists()


def test_the_command_says_it_in_one_line(bge_folder, small_disk, tmp_path, monkeypatch, capsys):
    labelled(tmp_path / "data.jsonl")
    place = small_disk(tmp_path / "disk", kib=300)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "{bge_folder}"\noutput = "{place}/out"\n[data]\ntrain = "{tmp_path}/data.jsonl"\nmax_length = 32\n'
        '[schedule]\nepochs = 1\ndevice = "cpu"\n[sampling]\nclasses_per_batch = 2\ntexts_per_class = 3\n'
    )
    monkeypatch.setattr("sys.argv", ["ecom-rag", "train", "embedder", str(recipe)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ecom-rag: ")]
    assert caught.value.code == 2
    assert "No space left on device" in said[-1] and str(place) in said[-1]


@pytest.mark.parametrize("task", ["embedder", "reranker"])
def test_what_training_writes_has_the_modes_of_the_umask(task, bge_folder, bert_reranker, tmp_path):
    from helpers.small_runs import grouped

    if task == "embedder":
        recipe = _recipe(bge_folder, labelled(tmp_path / "data.jsonl"), tmp_path / "out")
    else:
        recipe = recipe_of(
            bert_reranker,
            grouped(tmp_path / "data.jsonl"),
            tmp_path / "out",
            task=task,
            schedule={"epochs": 1, "device": "cpu"},
        )
    before = os.umask(0o027)
    try:
        train(recipe)
    finally:
        os.umask(before)
    assert weights(tmp_path / "out")
    for item in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(item.stat().st_mode) == (0o750 if item.is_dir() else 0o640), item


def test_the_trainer_reports_to_nobody(bge_folder, tmp_path):
    import sentence_transformers

    recipe = _recipe(bge_folder, labelled(tmp_path / "data.jsonl"), tmp_path / "out")
    for kind in (sentence_transformers.SentenceTransformerTrainer, sentence_transformers.CrossEncoderTrainer):
        assert _arguments(recipe, kind.training_args_class, None, tmp_path / "work", 4).report_to == []
