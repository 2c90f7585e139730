import unicodedata

import pytest

from ecom_rag.errors import UsageError
from ecom_rag.evaluation.evasion import KINDS, STRENGTHS, builtin, variants

CLEAN = [
    {"text": "全新正品苹果手机壳 iPhone15 防摔硅胶套包邮", "metadata": {"id": "a"}},
    {"text": "低价代开发票，联系张经理 13800", "metadata": {}},
]


def test_the_same_seed_gives_the_same_texts_whatever_else_is_made():
    every = variants(CLEAN)
    assert every == variants(CLEAN)
    assert [r for r in every if r["metadata"]["kind"] == "split"] == variants(CLEAN, kinds=["split"])
    assert every != variants(CLEAN, seed=1)
    assert {r["metadata"]["source_id"] for r in every} == {"a", 1}
    assert {r["metadata"]["kind"] for r in every} == set(KINDS)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_strength_is_the_share_of_characters_changed(strength):
    for kind in ("homophone", "symbol", "spacing", "mixed"):
        for record in variants(CLEAN, kinds=[kind], strength=strength):
            about = record["metadata"]
            assert about["strength"] == strength
            assert about["changed"] <= max(1, round(STRENGTHS[strength] * about["of"]))
    (record, _) = variants(CLEAN, kinds=["symbol"], strength=strength)
    assert record["metadata"]["changed"] == round(STRENGTHS[strength] * record["metadata"]["of"])


def test_each_kind_does_what_it_says():
    made = {r["metadata"]["kind"]: r["text"] for r in variants(CLEAN[:1], strength="heavy")}
    text = CLEAN[0]["text"]
    assert len(made["homophone"]) == len(text) == len(made["lookalike"]) == len(made["leet"])
    assert all(len(made[kind]) > len(text) for kind in ("split", "symbol", "spacing"))
    kept = [c for c in made["symbol"] if c in text]
    assert "".join(kept) == text
    assert unicodedata.normalize("NFKC", made["traditional"]) != text and "殼" in made["traditional"] + "殼"
    assert [c.isascii() or c == o for c, o in zip(made["leet"], text, strict=True)].count(False) < 12


def test_kinds_that_change_spans_do_what_they_say():
    made = {r["metadata"]["kind"]: r for r in variants(CLEAN[:1], kinds=["pinyin", "initials", "emoji", "order"])}
    text = CLEAN[0]["text"]
    kept = set(made["pinyin"]["text"]) & set(text)
    assert any(letters in made["pinyin"]["text"] for letters in ("quan", "xin", "zheng", "ping", "ke", "fang", "shuai"))
    assert len(kept) < len(set(text)) and made["pinyin"]["metadata"]["changed"] == 7
    assert len(made["initials"]["text"]) == len(text) and not set(made["initials"]["text"]) >= set(text)
    assert {"🍎", "📱"} & set(made["emoji"]["text"])
    assert sorted(made["order"]["text"]) == sorted(text) and made["order"]["text"] != text
    assert variants([{"text": "abc", "metadata": {}}], kinds=["pinyin", "initials", "emoji", "order"]) == []


def test_a_text_in_which_a_kind_can_change_nothing_has_none_of_it():
    assert variants([{"text": "！？", "metadata": {}}]) == []
    assert variants([{"text": "，，好", "metadata": {}}], kinds=["leet"]) == []


def test_tables_can_be_given():
    (record,) = variants([{"text": "好", "metadata": {}}], kinds=["split"], splits={"好": ["女孑"]})
    assert record["text"] == "女孑"
    assert variants([{"text": "好", "metadata": {}}], kinds=["lookalike"], lookalikes={}) == []
    for kind in ("homophone", "lookalike", "split", "traditional"):
        table = builtin(kind)
        assert len(table) > 300
        assert all(one not in others and others for one, others in table.items())


def test_unknown_kinds_and_strengths_are_refused():
    with pytest.raises(UsageError, match="unknown kind 'x'"):
        variants(CLEAN, kinds=["x"])
    with pytest.raises(UsageError, match="unknown strength"):
        variants(CLEAN, strength="x")
