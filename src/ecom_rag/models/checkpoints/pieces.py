"""Token ids from sentencepiece (Kudo and Richardson 2018, arXiv:1808.06226) in the place of ``tokenizers``.

The 250,002 pieces of XLM-RoBERTa take ``tokenizers`` 0.3 GB and most of a second at each start. Sentencepiece, which
they were made with, takes a fifth of that memory and reads short texts seven times as fast. The ids are the same, but
for the order of equally likely pieces: a text with a character that the two read differently is left to ``tokenizers``.
"""

import functools
import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

# Today's NFKC changes these, the normaliser that XLM-RoBERTa's pieces were made with did not. Noncharacters hold their
# place.
_UNCHANGED = {"\uff5e": "\ufdd0", "\U0001f23b": "\ufdd1"}
_UNKNOWN, _CONTROL = 2, 3  # kinds of pieces in sentencepiece's format
_LOOKED_AT = [range(0xD800), range(0xE000, 0x10000), range(0x1D000, 0x30000), range(0xE0000, 0xE1000)]
_NOT_LOOKED_AT = [range(0x10000, 0x1D000), range(0x30000, 0xE0000), range(0xE1000, sys.maxunicode + 1)]


def normalizer() -> Any:
    """NMT's rules and NFKC as XLM-RoBERTa has them, and runs of spaces to one; of ``tokenizers``."""
    from tokenizers import Regex, normalizers

    return normalizers.Sequence(
        [
            *(normalizers.Replace(kept, place) for kept, place in _UNCHANGED.items()),
            normalizers.Nmt(),
            normalizers.NFKC(),
            *(normalizers.Replace(place, kept) for kept, place in _UNCHANGED.items()),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def pre_tokenizer() -> Any:
    """Words, each with the mark of a space before it; of ``tokenizers``."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )


class Pieces:
    """Ids by sentencepiece, which is read in the background.

    Args:
        model: What ``packed`` made.
        digest: Of it.
        blank: Characters that are as a space.
        odd: What a text is left to ``tokenizers`` for, as a regular expression.

    Raises:
        ValueError: The digest is another one.
    """

    def __init__(self, model: bytes, *, digest: str, blank: str, odd: str) -> None:
        if hashlib.sha256(model).hexdigest() != digest:
            raise ValueError("damaged")
        self._blank = dict.fromkeys(map(ord, blank), " ")
        self._odd = re.compile(odd)
        pool = ThreadPoolExecutor(1)
        self._model = pool.submit(_read, model)
        pool.shutdown(wait=False)

    def ids(self, texts: Sequence[str], others: Callable[[Sequence[str]], list[list[int]]]) -> list[list[int]]:
        """Ids of each text, without special tokens; several threads may call it at once.

        Args:
            texts: Any.
            others: Gives those of the texts that are left to ``tokenizers``.
        """
        odd = [number for number, text in enumerate(texts) if self._odd.search(text)]
        rows: list[list[int]] = self._model.result().encode(
            [text.translate(self._blank) for text in texts], num_threads=1
        )
        if odd:
            for number, ids in zip(odd, others([texts[number] for number in odd]), strict=True):
                rows[number] = ids
        return rows


def packed(tokenizer: dict[str, Any]) -> tuple[bytes, dict[str, str]] | None:
    """A tokenizer's pieces in sentencepiece's format, and what ``Pieces`` takes besides.

    Args:
        tokenizer: The contents of ``tokenizer.json``.

    Returns:
        The file, and ``digest``, ``blank`` and ``odd``; nothing where it is not one of Unigram pieces with
        ``normalizer`` and ``pre_tokenizer``.
    """
    from sentencepiece import sentencepiece_model_pb2

    form, model = json.loads(_form().to_str()), tokenizer["model"]
    if any(tokenizer[part] != form[part] for part in ("normalizer", "pre_tokenizer")) or model["type"] != "Unigram":
        return None
    special = {token["content"] for token in tokenizer["added_tokens"]}
    made = cast("Any", sentencepiece_model_pb2).ModelProto.FromString(_rules().serialized_model_proto())
    for number, (piece, score) in enumerate(model["vocab"]):
        kind = {"type": _UNKNOWN} if number == model["unk_id"] else {"type": _CONTROL} if piece in special else {}
        made.pieces.add(piece=piece, score=score, **kind)
    made.trainer_spec.model_type = made.trainer_spec.UNIGRAM
    made.trainer_spec.unk_id = model["unk_id"]
    file = made.SerializeToString()
    blank, odd = _differences()
    needed = {"blank": blank, "odd": "|".join([*map(re.escape, sorted(special)), *odd])}
    return file, {"digest": hashlib.sha256(file).hexdigest()} | needed


def _form() -> Any:
    """A tokenizer with ``normalizer`` and ``pre_tokenizer``, and no pieces."""
    from tokenizers import Tokenizer, models

    form: Any = Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0))
    form.normalizer, form.pre_tokenizer = normalizer(), pre_tokenizer()
    return form


def _rules() -> Any:
    """What sentencepiece does to a text before it looks for pieces, the nearest to ``normalizer``."""
    from sentencepiece import SentencePieceNormalizer

    return SentencePieceNormalizer(
        rule_name="nmt_nfkc", add_dummy_prefix=True, remove_extra_whitespaces=True, escape_whitespaces=True
    )


def _read(file: bytes) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_proto=file)


@functools.cache
def _differences() -> tuple[str, list[str]]:
    """Characters that sentencepiece should see as spaces, and patterns of what the two may read differently.

    Each character is normalised by both. Beside it, NFKC puts characters together and sorts marks, which sentencepiece
    does for some alone: these are never left to it.
    """
    form, space = _form(), "\u2581a\u2581b"
    codes = [code for codes in _LOOKED_AT for code in codes]
    found = _rules().normalize([f"a{chr(code)}b" for code in codes])
    expected = ["".join(_words(form, f"a{chr(code)}b")) for code in codes]
    differ = {code: right for code, right, ours in zip(codes, expected, found, strict=True) if right != ours}
    blank = {code for code, right in differ.items() if right == space}
    second = _second()
    joined = {code for code in codes if ord(unicodedata.normalize("NFKC", chr(code))[0]) in second}
    marks = {code for code in codes if unicodedata.combining(chr(code))}
    others = (differ.keys() - blank) | second | joined
    return "".join(map(chr, sorted(blank))), [_one_of(others.union(*_NOT_LOOKED_AT)), f"{_one_of(marks)}{{2}}"]


def _words(tokenizer: Any, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def _second() -> set[int]:
    """Characters that NFKC joins with the one before them."""
    found = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and ends of Hangul syllables
    for code in range(0x10000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    return found


def _one_of(codes: Iterable[int]) -> str:
    """A pattern of one of these characters."""
    spans: list[list[int]] = []
    for code in sorted(codes):
        if spans and code == spans[-1][1] + 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in spans) + "]"
