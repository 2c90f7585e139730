"""Pairs in a prompt: the token ids of FlagEmbedding and of Qwen3-Reranker's card, cut to the length asked for."""

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_rag.errors import ModelError
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.models.prompts import BGE, QWEN3, frame_of, of_prompted_pairs, word_id
from helpers.prompted import PAIRS, flag_ids, gemma_tokenizer, qwen_tokenizer
from helpers.zoo import write

TOKENIZERS = {
    "gemma": gemma_tokenizer,
    "llama": lambda: gemma_tokenizer(dummy_space=True),
    "qwen": qwen_tokenizer,
}
TEXTS = st.text(st.sampled_from(" \n\t:?.,a连衣裙é́'s1３<|>"), max_size=12) | st.sampled_from(
    ["<|im_end|>", "b<think>\n"]
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    found = {}
    for name, made in TOKENIZERS.items():
        found[name] = tmp_path_factory.mktemp("prompts") / name
        made().save_pretrained(found[name])
        write(found[name] / "config.json", {"model_type": "qwen3"})
    return found


@pytest.mark.reference
@pytest.mark.parametrize("max_length", [20, 64, 512])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_equal_flag_embedding(folders, tmp_path, name, max_length):
    tokenizer = Tokenizer(folders[name])
    frame = frame_of(BGE, tokenizer, BGE.instruction, max_length)
    ids = of_prompted_pairs(tokenizer, PAIRS, frame, model="m")
    theirs, before, tail = flag_ids(folders[name], tmp_path, PAIRS, max_length=max_length)
    assert [row.tolist() for row in (ids.ids[number] for number in ids.rows)] == theirs
    assert ids.second_starts[ids.rows].tolist() == before and len(frame.end) == tail
    assert ids.truncated.any() == (max_length == 20) or max_length == 64
    assert int(ids.tokens.max()) <= frame.longest


@pytest.fixture(scope="module")
def qwen(folders):
    card = transformers.AutoTokenizer.from_pretrained(folders["qwen"])
    tokenizer = Tokenizer(folders["qwen"])
    return card, tokenizer, frame_of(QWEN3, tokenizer, QWEN3.instruction, 512)


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_ids_equal_the_card_of_qwen3_reranker(qwen, pairs):
    """The card tokenises instruction, query and document as one text; the parts give the same, whatever they end in."""
    card, tokenizer, frame = qwen
    prefix, suffix = (card.encode(text, add_special_tokens=False) for text in (QWEN3.start[0], QWEN3.end[0]))
    ids = of_prompted_pairs(tokenizer, pairs, frame, model="m")
    for number, (query, document) in zip(ids.rows, pairs, strict=True):
        text = f"<Instruct>: {QWEN3.instruction}\n<Query>: {query}\n<Document>: {document}"
        assert ids.ids[number].tolist() == prefix + card(text)["input_ids"] + suffix
    assert not ids.truncated.any()


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), room=st.integers(4, 24))
def test_a_pair_is_cut_to_the_room_of_the_prompt(qwen, pairs, room):
    card, tokenizer, whole = qwen
    frame = frame_of(QWEN3, tokenizer, QWEN3.instruction, 512 - whole.room + room)
    assert frame.room == room and frame.longest == 512 - whole.room + room
    ids = of_prompted_pairs(tokenizer, pairs, frame, model="m")
    full = of_prompted_pairs(tokenizer, pairs, whole, model="m")
    for number, (query, _) in zip(ids.rows, pairs, strict=True):
        row, start = ids.ids[number].tolist(), int(ids.second_starts[number])
        assert len(row) <= frame.longest and row[-len(frame.end) :] == frame.end.tolist()
        own = card.encode(" " + query, add_special_tokens=False)
        if len(own) > frame.query_room:
            expected = [*frame.start, *own[: frame.query_room], *frame.behind]
            assert row[:start] == expected and ids.lost[number] >= len(own) - frame.query_room
        assert (ids.lost[number] == 0) == (row == full.ids[number].tolist())


def test_the_tokens_of_answers(folders):
    gemma, qwen = Tokenizer(folders["gemma"]), Tokenizer(folders["qwen"])
    card = transformers.AutoTokenizer.from_pretrained(folders["qwen"])
    assert word_id(qwen, "yes", whole=True, folder=folders["qwen"]) == card.convert_tokens_to_ids("yes")
    assert (
        word_id(gemma, "Yes", whole=False, folder=folders["gemma"])
        == gemma_tokenizer()("Yes", add_special_tokens=False)["input_ids"][0]
    )
    with pytest.raises(ModelError, match="tokens of the answer 'dresses'; expected one"):
        word_id(qwen, "dresses", whole=True, folder=folders["qwen"])
