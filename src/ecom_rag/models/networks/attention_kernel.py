"""Attention (Vaswani et al. 2017, eq. 1) as one compiled loop over texts and heads, in float32 lanes.

A head's keys and values are widened once, its keys turned so that they lie across the lanes. Then four queries at a
time meet all keys: their products stay in registers until they are whole, the weights in the first cache. Of a text's
padding at most seven keys are computed, and masked.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ecom_rag.models.networks import lanes
from ecom_rag.models.networks.lanes import (
    WIDTH,
    fetch,
    fill,
    first,
    fma,
    largest,
    load,
    maximum,
    power_of_two,
    store,
    total,
)

UNIT = 8  # keys, and numbers of a key, that are turned at once
_ROWS = 4  # queries that meet the keys at once
_LOWEST = np.float32(-3.4e38)

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


def _tile(width: int) -> Any:
    """A product of ``_ROWS`` rows and ``width`` columns of float32, all its sums in registers.

    ``a (_ROWS, depth)`` and ``c (_ROWS, width)`` begin at 0 and ``c_at``, ``b (depth, width)`` at ``b_at``; a step is
    from one row to the next. Each sum is taken in the order of ``depth``, whatever the width of the tile.
    """
    index = types.intp
    tile_type = ir.VectorType(ir.FloatType(), width)

    @intrinsic
    def tile(typing, a, a_step, b, b_at, b_step, depth, c, c_at, c_step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, a_step, b, at, b_step, depth, c, c_at, c_step = arguments
            numbers = context.make_array(signature.args[0])(context, builder, a).data
            rows = [builder.mul(a_step, ir.Constant(a_step.type, row)) for row in range(_ROWS)]
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            d = builder.phi(depth.type)
            old = [builder.phi(tile_type) for _ in rows]
            at = builder.add(at, builder.mul(b_step, d))
            column = lanes.widened(context, builder, signature.args[2], b, at, width)
            new = []
            for row, value in zip(rows, old, strict=True):
                number = builder.load(builder.gep(numbers, [builder.add(row, d)]))
                new.append(lanes.call(builder, "fma", lanes.same(builder, number, width), column, value))
            following = builder.add(d, ir.Constant(d.type, 1))
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
            for value, start, more in zip([d, *old], [0, *[[0.0] * width] * _ROWS], [following, *new], strict=True):
                value.add_incoming(ir.Constant(value.type, start), before)
                value.add_incoming(more, loop)
            builder.position_at_end(after)
            for value in new:
                lanes.put(context, builder, signature.args[6], c, c_at, value)
                c_at = builder.add(c_at, c_step)
            return context.get_dummy_value()

        return types.void(a, index, b, index, index, index, c, index, index), build

    return tile


_tile_32, _tile_16, _tile_8 = _tile(32), _tile(16), _tile(8)


@intrinsic
def _turn(typing, source, at, step, count, target, target_at, target_step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """``UNIT`` rows of ``UNIT`` numbers as columns of float32; the last of the ``count`` rows that are there, again."""
    index = types.intp

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at, step, count, target, target_at, target_step = arguments
        rows = []
        for row in range(UNIT):
            rows.append(lanes.widened(context, builder, signature.args[0], source, at, UNIT))
            more = builder.icmp_signed("<", ir.Constant(count.type, row + 1), count)
            at = builder.add(at, builder.select(more, step, ir.Constant(step.type, 0)))
        for gap in (4, 2, 1):  # blocks of this size change places across the diagonal
            upper = [lane if not lane & gap else UNIT + (lane ^ gap) for lane in range(UNIT)]
            lower = [lane ^ gap if not lane & gap else UNIT + lane for lane in range(UNIT)]
            for row in (row for row in range(UNIT) if not row & gap):
                pair = rows[row], rows[row + gap]
                rows[row], rows[row + gap] = (lanes.shuffled(builder, *pair, order) for order in (upper, lower))
        for value in rows:
            lanes.put(context, builder, signature.args[4], target, target_at, value)
            target_at = builder.add(target_at, target_step)
        return context.get_dummy_value()

    return types.void(source, index, index, index, target, index, index), build


@_compiled
def _block(rest):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Columns of the next tile, where ``rest`` are to come: the last one has at most seven too many."""
    return 32 if rest > 32 - UNIT else 16 if rest > UNIT else UNIT


@_compiled
def _products(a, a_step, b, row_major, depth, c, c_step, width):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """``c = a b``; ``b`` lies row by row, or tile by tile (``_block``) and in each row by row."""
    at = 0
    while at < width:
        block = _block(width - at)
        b_at, b_step = (at, width) if row_major else (at * depth, block)
        if block == 32:
            _tile_32(a, a_step, b, b_at, b_step, depth, c, at, c_step)
        elif block == 16:
            _tile_16(a, a_step, b, b_at, b_step, depth, c, at, c_step)
        else:
            _tile_8(a, a_step, b, b_at, b_step, depth, c, at, c_step)
        at += block


@_compiled
def _take(source, at, step, n, size, target):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A head's part of ``n`` rows, as float32 without gaps."""
    for j in range(n):
        for d in range(0, size, WIDTH):
            store(load(source, at + j * step + d), target, j * size + d)


@_compiled
def _take_keys(source, at, step, n, size, target):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """A head's part of ``n`` rows as float32 columns, tile by tile."""
    start = 0
    while start < n:
        block = _block(n - start)
        for j in range(start, start + block, UNIT):
            row = min(j, n - 1)
            for d in range(0, size, UNIT):
                _turn(source, at + row * step + d, step, n - row, target, start * size + d * block + j - start, block)
        start += block


@_compiled
def _exponentials(scores, at, n, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """``n`` scores become their powers of two by ``scale``, the largest of which is 1; gives what makes their sum 1."""
    lowest = fill(_LOWEST)
    top = lowest
    poison = fill(np.float32(0))  # becomes NaN where a score is NaN or infinite: damage must show
    for j in range(0, n, WIDTH):
        x = first(n - j, load(scores, at + j), lowest)
        top = maximum(x, top)
        poison = fma(x, fill(np.float32(0)), poison)
    shift = fill(-largest(top) * scale)
    weights = poison
    for j in range(0, n, WIDTH):
        x = first(n - j, load(scores, at + j), lowest)
        x = power_of_two(fma(x, fill(scale), shift))
        store(x, scores, at + j)
        weights = weights + x
    return np.float32(1) / total(weights)


@_compiled
def attend(qkv, starts, lengths, places, asked, heads, scale, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill the rows of ``out (rows, dim)`` for the first ``asked`` positions of each text.

    ``qkv (rows, 3 dim)`` and ``out`` are float32, or bf16 as bits in uint16. ``starts``, ``lengths`` and ``places
    (texts,)`` are a text's first row in ``qkv``, its tokens, and its first row in ``out``; ``scale`` is log2(e) /
    sqrt(head dimension). The head dimension is a multiple of 16. A text without tokens has one row: NaN.
    """
    dim = out.shape[1]
    size, step = dim // heads, 3 * dim
    unasked = dim if asked == 1 else 0  # of a row, its query
    source, target = qkv.reshape(-1), out.reshape(-1)
    most = (lengths.max() + WIDTH - 1) // WIDTH * WIDTH
    queries, mixed = np.zeros(_ROWS * size, np.float32), np.empty(_ROWS * size, np.float32)
    keys, values = np.empty(most * size, np.float32), np.empty(most * size, np.float32)
    scores, inverse = np.zeros(_ROWS * most, np.float32), np.empty(_ROWS, np.float32)
    for text in range(len(lengths)):
        n = lengths[text]
        if n == 0:
            for d in range(0, dim, WIDTH):
                store(fill(np.float32(np.nan)), target, places[text] * dim + d)
        for row in range(starts[text], starts[text] + n):  # at one go: head by head each would come too late
            for d in range(unasked, step, 64 // qkv.itemsize):
                fetch(source, row * step + d)
        for head in range(heads):
            at = starts[text] * step + head * size
            _take_keys(source, at + dim, step, n, size, keys)
            _take(source, at + 2 * dim, step, n, size, values)
            for i in range(0, min(asked, n), _ROWS):
                count = min(_ROWS, min(asked, n) - i)
                _take(source, at + i * step, step, count, size, queries)
                _products(queries, size, keys, False, size, scores, most, (n + UNIT - 1) // UNIT * UNIT)
                for row in range(count):
                    inverse[row] = _exponentials(scores, row * most, n, scale)
                _products(scores, most, values, True, n, mixed, size, size)
                for row in range(count):
                    place = (places[text] + i + row) * dim + head * size
                    for d in range(0, size, WIDTH):
                        store(load(mixed, row * size + d) * fill(inverse[row]), target, place + d)
