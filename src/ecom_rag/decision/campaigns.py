"""Campaigns of a stream: each text joins the near-duplicates seen before it, or begins a campaign.

Texts are compared by their sketches, found by MinHash bands (Broder 1997) as in ``text.near_duplicates``. What was seen
lies in two generations: a full one becomes the older, whose own elder is forgotten, and what is met in the older is
noted anew. So memory is bounded, and a campaign is remembered while its texts keep coming.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from ecom_rag.arguments import whole
from ecom_rag.decision.sketches import KEPT, Sketches, sketches_of
from ecom_rag.text.minhash import BANDS, NGRAM, WHOLE, band_key, check_similarity, mixed, plain, similar

NONE = 0  # no campaign
_COLUMNS = BANDS + 1  # the first is of the whole sketch: a text that was seen before is found whatever its bands hold
_VALUES = 64  # kept for a text on average; a generation of longer texts is full earlier
_DEPTH = 32  # newest texts of a bucket with which a text is compared
_STRANGER, _RELATIVE, _IDENTICAL = 0, 1, 2


class Assigned(NamedTuple):
    """What a stream says of texts.

    Args:
        campaigns: ``(texts,)`` int64, see ``names_of``.
        unseen: ``(texts,)`` whether no text of the same n-grams is in the newer generation yet.
        sketches: Of the texts.
    """

    campaigns: NDArray[np.int64]
    unseen: NDArray[np.bool_]
    sketches: Sketches


class _Generation(NamedTuple):
    heads: NDArray[np.uint32]  # (columns, buckets): newest text of a bucket, counted from 1; 0 for none
    previous: NDArray[np.uint32]  # (capacity, columns): the one before it in its bucket
    values: NDArray[np.uint32]  # of all sketches, one after the other
    offsets: NDArray[np.int64]  # (capacity + 1,)
    sizes: NDArray[np.int64]  # (capacity,)
    campaigns: NDArray[np.int64]  # (capacity,)
    filled: NDArray[np.int64]  # (1,)


class CampaignStream:
    """Assigns texts to campaigns, in the order in which they come, however they are cut into blocks.

    A text joins the campaign of a text before it if their n-grams have a Jaccard similarity of at least ``similarity``:
    exactly for texts of up to 256 n-grams, for longer ones by an estimate with a standard error of 0.022 (see
    ``sketches``). Campaigns are therefore transitive, as in ``near_duplicates``; those that a later text would join
    remain two. Of several relatives the text of the same n-grams is taken, then the first found. One is missed with a
    probability below 0.00001 at 0.85 (0.012 at 0.7), and more often among hundreds of texts just below ``similarity``.

    One changed character changes ``ngram`` n-grams. Two texts that differ by one character are therefore
    near-duplicates from 39 characters on with trigrams at 0.85, and from 13 on with bigrams at 0.7.

    Args:
        similarity: Jaccard similarity from which a text is a near-duplicate, 0.7 to 1.
        ngram: Characters of an n-gram.
        capacity: Texts of different n-grams per generation; one of a million takes up to 0.5 GB.

    Raises:
        UsageError: ``similarity`` or ``capacity`` is out of range.
    """

    def __init__(self, *, similarity: float = 0.85, ngram: int = NGRAM, capacity: int = 1_000_000) -> None:
        check_similarity(similarity)
        whole(ngram, "ngram")
        whole(capacity, "capacity")
        self.similarity = similarity
        self.capacity = capacity
        self.ngram = ngram
        self._new, self._old = _empty(capacity), _empty(1)

    def assign(self, texts: Sequence[str]) -> Assigned:
        """The campaigns of the next texts of the stream.

        Args:
            texts: Any texts.
        """
        forms = plain(texts)
        own = np.fromiter(map(_number_of, forms), np.int64, len(forms))
        sketches = sketches_of(forms, self.ngram)
        kinds = np.empty(len(forms), np.int8)
        done = 0
        while (done := _assign(self._new, self._old, *sketches, self.similarity, own, kinds, done)) < len(forms):
            self._turn()
        return Assigned(own, kinds != _IDENTICAL, sketches)

    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """The campaigns that texts would join, ``NONE`` where they would begin one; nothing is noted."""
        found: NDArray[np.int64] = _find(self._new, self._old, *sketches_of(plain(texts), self.ngram), self.similarity)
        return found

    def remember(self, sketches: Sketches, campaigns: NDArray[np.int64]) -> None:
        """Note texts of known campaigns, as if the stream had begun with them.

        Args:
            sketches: Of the texts.
            campaigns: ``(texts,)`` numbers of their campaigns.
        """
        done = 0
        while (done := _remember(self._new, *sketches, campaigns, done)) < len(campaigns):
            self._turn()

    def _turn(self) -> None:
        """Make the full generation the older."""
        self._old, self._new = self._new, _empty(self.capacity)


def names_of(campaigns: Iterable[int]) -> list[str]:
    """Campaigns as they are written: twelve hexadecimal digits, of a digest of the campaign's first text."""
    return [f"{campaign:012x}" for campaign in campaigns]


def _number_of(form: str) -> int:
    digest = hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return int.from_bytes(digest, "big") or 1


def _empty(capacity: int) -> _Generation:
    return _Generation(
        heads=np.zeros((_COLUMNS, 1 << (capacity - 1).bit_length()), np.uint32),
        previous=np.empty((capacity, _COLUMNS), np.uint32),
        values=np.empty(max(capacity * _VALUES, KEPT), np.uint32),
        offsets=np.zeros(capacity + 1, np.int64),
        sizes=np.empty(capacity, np.int64),
        campaigns=np.empty(capacity, np.int64),
        filled=np.zeros(1, np.int64),
    )


@numba.njit(cache=True, nogil=True)
def _assign(new, old, values, offsets, sizes, similarity, campaigns, kinds, start):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill in ``kinds``, and replace the ``campaigns`` of texts that join one; stop before a text that has no room."""
    keys = np.empty(_COLUMNS, np.uint64)
    for text in range(start, sizes.shape[0]):
        own = values[offsets[text] : offsets[text + 1]]
        if not _has_room(new, own):
            return text
        _fill_keys(own, sizes[text], keys)
        kinds[text], found = _located(new, old, own, sizes[text], keys, similarity)
        if kinds[text] != _STRANGER:
            campaigns[text] = found
        if kinds[text] != _IDENTICAL:
            _note(new, own, sizes[text], keys, campaigns[text])
    return sizes.shape[0]


@numba.njit(cache=True, nogil=True)
def _find(new, old, values, offsets, sizes, similarity):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    keys = np.empty(_COLUMNS, np.uint64)
    campaigns = np.empty(sizes.shape[0], np.int64)
    for text in range(sizes.shape[0]):
        own = values[offsets[text] : offsets[text + 1]]
        _fill_keys(own, sizes[text], keys)
        campaigns[text] = _located(new, old, own, sizes[text], keys, similarity)[1]
    return campaigns


@numba.njit(cache=True, nogil=True)
def _remember(new, values, offsets, sizes, campaigns, start):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    keys = np.empty(_COLUMNS, np.uint64)
    for text in range(start, sizes.shape[0]):
        own = values[offsets[text] : offsets[text + 1]]
        if not _has_room(new, own):
            return text
        _fill_keys(own, sizes[text], keys)
        if _identical(new, own, sizes[text], keys[0]) == 0:
            _note(new, own, sizes[text], keys, campaigns[text])
    return sizes.shape[0]


@numba.njit(cache=True, nogil=True)
def _has_room(generation, own):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    count = generation.filled[0]
    room = generation.values.shape[0] - generation.offsets[count]
    return count < generation.sizes.shape[0] and own.shape[0] <= room


@numba.njit(cache=True, nogil=True)
def _fill_keys(own, size, keys):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    key = np.uint64(size)
    for value in own:
        key = mixed(key + np.uint64(value))
    keys[0] = key
    for band in range(BANDS):
        keys[band + 1] = band_key(own, band)


@numba.njit(cache=True, nogil=True)
def _located(new, old, own, size, keys, similarity):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """What a text is to those before it, and the campaign that it joins."""
    entry = _identical(new, own, size, keys[0])
    if entry:
        return _IDENTICAL, new.campaigns[entry - 1]
    entry = _identical(old, own, size, keys[0])
    if entry:
        return _RELATIVE, old.campaigns[entry - 1]
    entry = _relative(new, own, size, keys, similarity)
    if entry:
        return _RELATIVE, new.campaigns[entry - 1]
    entry = _relative(old, own, size, keys, similarity)
    if entry:
        return _RELATIVE, old.campaigns[entry - 1]
    return _STRANGER, NONE


@numba.njit(cache=True, nogil=True)
def _identical(generation, own, size, key):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The text of the same n-grams, counted from 1; 0 for none."""
    entry = np.int64(generation.heads[0, np.int64(key & np.uint64(generation.heads.shape[1] - 1))])
    while entry:
        other = generation.values[generation.offsets[entry - 1] : generation.offsets[entry]]
        if generation.sizes[entry - 1] == size and np.array_equal(own, other):
            break
        entry = np.int64(generation.previous[entry - 1, 0])
    return entry


@numba.njit(cache=True, nogil=True)
def _relative(generation, own, size, keys, similarity):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A text that is similar, counted from 1; 0 for none."""
    for column in range(1, _COLUMNS):
        entry = np.int64(generation.heads[column, np.int64(keys[column] & np.uint64(generation.heads.shape[1] - 1))])
        for _ in range(_DEPTH):
            if entry == 0:
                break
            start, end, others = generation.offsets[entry - 1], generation.offsets[entry], generation.sizes[entry - 1]
            if min(size, others) >= similarity * max(size, others):
                limit = WHOLE if max(size, others) <= KEPT else KEPT
                if similar(own, generation.values[start:end], similarity, limit):
                    return entry
            entry = np.int64(generation.previous[entry - 1, column])
    return np.int64(0)


@numba.njit(cache=True, nogil=True)
def _note(generation, own, size, keys, campaign):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    count = generation.filled[0]
    start = generation.offsets[count]
    generation.values[start : start + own.shape[0]] = own
    generation.offsets[count + 1] = start + own.shape[0]
    generation.sizes[count] = size
    generation.campaigns[count] = campaign
    for column in range(_COLUMNS):
        bucket = np.int64(keys[column] & np.uint64(generation.heads.shape[1] - 1))
        generation.previous[count, column] = generation.heads[column, bucket]
        generation.heads[column, bucket] = count + 1
    generation.filled[0] = count + 1
