"""Weights that do not fit in memory are refused by what their files state, before any is read."""

import json
from pathlib import Path

import pytest
import torch

from ecom_rag.errors import ModelError
from ecom_rag.models import CrossEncoder, Encoder
from ecom_rag.models.checkpoints.size import parameters
from ecom_rag.models.checkpoints.weights import read_weights
from ecom_rag.models.networks.fused import FusedTransformer
from ecom_rag.models.runtimes import memory
from ecom_rag.models.runtimes.placement import Placement
from helpers import prompted, zoo

pytestmark = pytest.mark.slow


def numbers(folder):
    from safetensors.torch import load_file

    return sum(tensor.numel() for path in folder.glob("model*.safetensors") for tensor in load_file(path).values())


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that says how many bytes are free, in the machine and, where asked, in its container."""

    def set_free(free, *, group=None):
        (tmp_path / "meminfo").write_text(f"MemTotal: 999999999 kB\nMemAvailable: {free // 1024} kB\n")
        monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "_GROUP", tmp_path)
        for name, value in (("max", group), ("current", 1000)):
            (tmp_path / f"memory.{name}").write_text(f"{value or 'max'}\n")
        (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 400\n")

    return set_free


def test_parameters_are_those_of_the_files(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    zoo.plain(folder)
    expected = numbers(folder)
    assert parameters(folder) == expected
    zoo.pickled(zipped=True)(folder)
    assert expected <= parameters(folder) < 1.5 * expected  # a pickle has names and alignment beside the numbers


def test_shards_are_counted_and_decoders_are_not(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=100, **sizes))
    model.save_pretrained(tmp_path, max_shard_size="20kB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert parameters(tmp_path) == sum(value.numel() for value in model.encoder.parameters())


def test_what_does_not_fit_is_refused_in_one_line(bge_folder, bert_reranker, machine, monkeypatch):
    for name in ("read_weights", "load_transformer"):
        monkeypatch.setattr(
            f"ecom_rag.models.networks.modules.{name}", lambda *_, **__: pytest.fail("weights were read")
        )
    for folder, kind in ((bge_folder, Encoder), (bert_reranker, CrossEncoder)):
        needed = 4 * numbers(folder)
        machine(needed - 2048)
        with pytest.raises(ModelError, match=r"GB in fp32, but cpu has .* of free memory; use `precision` bf16") as no:
            kind.from_pretrained(folder, precision="fp32", runtime="torch")
        assert "\n" not in str(no.value)
        machine(needed // 2 - 2048)
        with pytest.raises(ModelError, match="memory; use a smaller model") as no:
            kind.from_pretrained(folder, precision="bf16", runtime="torch")
        assert "`precision` bf16" not in str(no.value)
    monkeypatch.undo()


def test_of_a_layerwise_reranker_what_is_loaded_counts(tmp_path, machine):
    prompted.layerwise(tmp_path / "layerwise")
    loaded = CrossEncoder.from_pretrained(tmp_path / "layerwise", precision="bf16", exit_layer=3)
    network = loaded._loaded.runtime._module
    assert {value.dtype for value in network.parameters()} == {torch.bfloat16}
    head = network._head.numel()
    counted = parameters(tmp_path / "layerwise", layers=3)
    assert counted == sum(value.numel() for value in network.parameters()) - head
    machine(2 * counted + 2048)
    CrossEncoder.from_pretrained(tmp_path / "layerwise", precision="bf16", exit_layer=3)
    with pytest.raises(ModelError, match=r"GB in bf16, but cpu has .* of free memory; use a smaller model"):
        CrossEncoder.from_pretrained(tmp_path / "layerwise", precision="bf16")
    with pytest.raises(ModelError, match="GB in fp32, but cpu has"):
        CrossEncoder.from_pretrained(tmp_path / "layerwise", exit_layer=3)


def test_what_fits_is_loaded(bge_folder, machine):
    machine(4 * numbers(bge_folder) + 2048)
    assert len(Encoder.from_pretrained(bge_folder, precision="fp32", runtime="torch").encode(["a"])) == 1


def test_a_containers_limit_counts(tmp_path, machine):
    machine(10**9, group=5000)  # 1,000 of it are used, 400 of these can be dropped
    at = Placement("torch", "fp16", "cpu")
    memory.check_fits(tmp_path, 2200, at)
    with pytest.raises(ModelError, match="in fp16, but cpu has"):
        memory.check_fits(tmp_path, 2201, at)


def test_a_system_that_does_not_tell_refuses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    memory.check_fits(tmp_path, 10**15, Placement("torch", "fp32", "cpu"))


def test_numbers_that_are_only_stated_count(tmp_path, bge_folder):
    """A header of more than any machine has; the file holds nothing else."""
    import shutil

    folder = shutil.copytree(bge_folder, tmp_path / "large")
    header = json.dumps({"layer": {"dtype": "BF16", "shape": [10**7, 10**7], "data_offsets": [0, 2 * 10**14]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match=r"take 400,000\.00 GB in fp32"):
        Encoder.from_pretrained(folder, precision="fp32")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_layers_are_packed_from_leaves_the_memory(tmp_path, precision):
    import transformers

    maps = Path("/proc/self/smaps")
    if not maps.exists():
        pytest.skip("this system does not say which pages are in memory")
    shape = {"vocab_size": 100, "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4}
    model = transformers.BertModel(transformers.BertConfig(**shape, intermediate_size=1024))
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    network = FusedTransformer(model.config.to_dict(), read_weights(tmp_path), precision)
    lines = maps.read_text().splitlines()
    own = [number for number, line in enumerate(lines) if line.endswith(str(file))]
    resident = sum(int(next(line for line in lines[number:] if line.startswith("Rss:")).split()[1]) for number in own)
    assert own  # the embeddings are used as they lie
    assert 1024 * resident < file.stat().st_size / 4
    with torch.inference_mode():
        ids = torch.arange(20)[None]
        found = network(ids, torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(
            found, model.eval()(ids).last_hidden_state, atol=1e-4 if precision == "fp32" else 0.2, rtol=0
        )
