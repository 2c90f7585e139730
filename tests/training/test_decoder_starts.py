"""Trainings that start from decoders: their EOS token is trained and saved; instructions around a text are refused."""

import pytest

from ecom_rag.errors import ModelError
from ecom_rag.models import Encoder
from ecom_rag.models.checkpoints.tokens import Tokenizer
from ecom_rag.training import checkpoints
from helpers import decoders, zoo
from helpers.small_runs import recipe_of

pytestmark = [pytest.mark.slow, pytest.mark.reference]


def test_the_eos_token_is_trained_and_saved(tmp_path):
    folder = decoders.make(tmp_path, "e5-mistral-7b-instruct", "Mistral", adds_eos=False)
    recipe = recipe_of(folder, "none.jsonl", tmp_path / "out", data_table={"max_length": 128})
    start = checkpoints.find_start(recipe)
    assert start.ends_with_eos
    model = checkpoints.load(recipe, start)
    (saved := tmp_path / "saved").mkdir()
    checkpoints.save(model.eval(), saved, start)
    texts = zoo.TEXTS[:5]
    expected = Encoder.from_pretrained(folder, precision="fp32").encode(texts).dense
    own = model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False)
    assert (own * expected).sum(axis=1).min() > 1 - 1e-5
    assert (Encoder.from_pretrained(saved, precision="fp32").encode(texts).dense * expected).sum(
        axis=1
    ).min() > 1 - 1e-5
    assert not Tokenizer(saved, ends_with_eos=True).eos_added  # by its own file now


def test_an_instruction_around_a_text_is_refused(tmp_path):
    folder = decoders.make(tmp_path, "bge-en-icl", "Mistral")
    with pytest.raises(ModelError, match="stands around a text"):
        checkpoints.find_start(recipe_of(folder, "none.jsonl", tmp_path / "out", data_table={"max_length": 128}))
    data = {"max_length": 128, "query_instruction": "<instruct>x\n<query>"}
    start = checkpoints.find_start(recipe_of(folder, "none.jsonl", tmp_path / "out", data_table=data))
    assert start.instructions[0] == data["query_instruction"]
