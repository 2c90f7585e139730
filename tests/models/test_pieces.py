"""Sentencepiece in the place of ``tokenizers``: the same ids, whatever characters a text has."""

import gc
import json
import random
import shutil
import weakref

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

from ecom_rag.models.checkpoints import pieces, tokenizer_cache
from ecom_rag.models.checkpoints.tokens import Tokenizer as Ids

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SCRIPTS = (
    "abcdefghiklmnopqrstuvwxyzABCDEFS0123456789.,!?%-éñ～秒杀假货高仿手表代购令和かがハバ가각한국กำ💰😀ː◌゙́̈‍\u200d⃣\ufe0f"
)


@pytest.fixture(scope="module")
def whole():
    """A tokenizer of the same form as the starter's, of single characters and random runs of two and three."""
    chosen = random.Random(4)
    runs = {"".join(chosen.choices(SCRIPTS[:60], k=chosen.choice((2, 3)))) for _ in range(600)}
    words = {mark + piece for piece in runs | set(SCRIPTS) for mark in ("", "▁") if chosen.random() < 0.8}
    vocab = [(token, 0.0) for token in SPECIAL]
    vocab += [(piece, -chosen.uniform(1, 20)) for piece in sorted(words | set(SCRIPTS) | {"▁"})]
    made = Tokenizer(models.Unigram([*vocab, ("<mask>", 0.0)], unk_id=3))
    made.normalizer, made.pre_tokenizer = pieces.normalizer(), pieces.pre_tokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return made


@pytest.fixture(scope="module")
def ours(whole):
    model, needed = pieces.packed(json.loads(whole.to_str()))
    return pieces.Pieces(model, **needed)


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("ECOM_RAG_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "model"
    place.mkdir()
    whole.save(str(place / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    told |= {"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>", "model_max_length": 64}
    (place / "tokenizer_config.json").write_text(json.dumps(told))
    (place / "config.json").write_text("{}")
    return place


def by_tokenizers(whole, texts):
    return [one.ids for one in whole.encode_batch_fast(list(texts), add_special_tokens=False)]


def check(whole, ours, texts):
    """The same ids; of equally likely pieces, such as 88|8 and 8|88, the order may be another one."""
    found = ours.ids(texts, lambda odd: by_tokenizers(whole, odd))
    wrong = [
        (text, expected, own)
        for text, expected, own in zip(texts, by_tokenizers(whole, texts), found, strict=True)
        if sorted(expected) != sorted(own)
    ]
    assert not wrong, (len(wrong), wrong[:3])


@given(st.lists(st.text(st.one_of(st.sampled_from(SCRIPTS), st.characters(exclude_categories=("Cs",)))), max_size=20))
@example(["e\u0301", "ハ\uff9e", "か\u3099", "\u1100\u1161\u11a8", "a\u0344", "q\u0307\u0323", "👨\u200d👩", "1\ufe0f⃣"])
@example(["</s>", "a<mask>b", " <unk> <s>", "a\x85b", "\u00a0\u3000 a \u200b b", "", " ", "▁a ▁", "1～2"])
def test_random_texts(whole, ours, texts):
    check(whole, ours, texts)


def test_every_character(whole, ours):
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and (code < 0x20000 or not code % 37)]
    check(whole, ours, [f"手{chr(code)}a {chr(code)}" for code in codes])


def test_pairs_of_characters_that_may_join(whole, ours):
    chosen = random.Random(6)
    marks = [chr(code) for code in (*range(0x300, 0x370), 0x3099, 0x309A, 0xFF9E, 0xFF9F, *range(0x1161, 0x1170))]
    letters = [*SCRIPTS, *marks, *"ｶﾊａｂ①㈱ﬁ"]
    check(whole, ours, ["".join(chosen.choices(letters, k=chosen.randint(2, 6))) for _ in range(20000)])


def test_other_tokenizers_are_left_alone(whole, xlmr_reranker, bge_folder):
    for place in (xlmr_reranker, bge_folder):
        assert pieces.packed(json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))) is None
    lowering = Tokenizer.from_str(whole.to_str())
    lowering.normalizer = normalizers.Sequence([normalizers.Lowercase(), pieces.normalizer()])
    assert pieces.packed(json.loads(lowering.to_str())) is None


TEXTS = ["高仿手表 a", "秒杀！", "ab\u0301 </s>", "令和"]


def test_a_second_start_does_not_read_the_whole_tokenizer(folder, whole, monkeypatch):
    first = Ids(folder).ids(TEXTS, 64).values.tolist()
    monkeypatch.setattr(tokenizer_cache, "_from_checkpoint", None)
    monkeypatch.setattr(tokenizer_cache, "_loaded", None)
    second = Ids(folder)
    assert (
        second.ids(TEXTS, 64).values.tolist()
        == first
        == [number for ids in by_tokenizers(whole, TEXTS) for number in ids]
    )
    assert second.single.prefix.tolist() == [0]
    assert second.pair.middle.tolist() == [2, 2]
    monkeypatch.setattr(tokenizer_cache, "_kept", None)
    third = Ids(folder)
    assert third.ids(TEXTS[:2], 64).values.tolist() == first[: second.ids(TEXTS[:2], 64).offsets[-1]]


def test_a_dropped_tokenizer_is_freed_at_once(folder):
    """Not when the garbage is collected next: a cycle would keep the pieces until then."""
    Ids(folder)
    gc.disable()
    try:
        found = Ids(folder)
        found.ids(TEXTS, 64)
        gone = weakref.ref(found._engine)
        del found
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["*.pieces", "*.tokenizer", "*.json"])
@pytest.mark.parametrize("damage", [b"damaged", None])
def test_a_damaged_cache_changes_nothing(folder, tmp_path, name, damage):
    first = Ids(folder).ids(TEXTS, 64).values.tolist()
    (kept,) = (tmp_path / "cache" / "tokenizers").glob(name)
    kept.unlink()
    if damage is not None:
        kept.write_bytes(damage)
    assert Ids(folder).ids(TEXTS, 64).values.tolist() == first


def test_ids_are_the_same_where_nothing_can_be_kept(folder, tmp_path):
    first = Ids(folder).ids([*TEXTS, "8888 888a88"], 64).values.tolist()
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"a file is no folder")
    assert Ids(folder).ids([*TEXTS, "8888 888a88"], 64).values.tolist() == first
