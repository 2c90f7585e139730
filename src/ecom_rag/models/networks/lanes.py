"""Sixteen float32 at a time in compiled loops, as a numba type: what is written here is what runs.

LLVM vectorises a plain loop or leaves it, by rules that differ from processor to processor, and so do the last digits
of what it sums. Loops over these lanes say themselves what is done at once and in which order: the same bytes wherever
they run, in one instruction with AVX512 and in two with AVX2. Functions are called from compiled code only; ``array``
is one-dimensional, ``at`` an index in it that is not checked. A uint16 array holds bf16 by its bits.

numba keeps compiled functions by the file that they are in: after a change here, touch the kernels that import this.
"""

import operator
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

WIDTH = 16
# The Taylor series of 2^f, ln(2)^n / n!: to 1.3e-7 for f in [-1/2, 1/2].
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c) for c in (0.69314718, 0.24022651, 0.05550411, 0.00961813, 0.00133336, 0.00015404)
)
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__("Lanes")


_LANES = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: _Lanes) -> None:
        super().__init__(manager, lanes, _FLOATS)


def place(context: Any, builder: Any, kind: Any, array: Any, at: Any, width: int = WIDTH) -> Any:
    """In LLVM: the address of ``width`` numbers of an array of numba's type ``kind``, and the bytes of one."""
    data = context.make_array(kind)(context, builder, array).data
    element = data.type.pointee
    pointer = builder.bitcast(builder.gep(data, [at]), ir.VectorType(element, width).as_pointer())
    return pointer, kind.dtype.bitwidth // 8


def widened(context: Any, builder: Any, kind: Any, array: Any, at: Any, width: int = WIDTH) -> Any:
    """In LLVM: ``width`` numbers of an array as float32, from float32, int32 or bf16."""
    pointer, size = place(context, builder, kind, array, at, width)
    value = builder.load(pointer, align=size)
    if kind.dtype == types.uint16:
        bits = builder.zext(value, ir.VectorType(_INT, width))  # a float32 is its bf16 bits followed by 16 zeros
        bits = builder.shl(bits, ir.Constant(bits.type, [16] * width))
        return builder.bitcast(bits, ir.VectorType(_FLOAT, width))
    return builder.sitofp(value, ir.VectorType(_FLOAT, width)) if kind.dtype == types.int32 else value


def put(context: Any, builder: Any, kind: Any, array: Any, at: Any, value: Any) -> None:
    """In LLVM: float32 lanes into an array of them."""
    pointer, size = place(context, builder, kind, array, at, value.type.count)
    builder.store(value, pointer, align=size)


def shuffled(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    """In LLVM: the lanes of ``a`` and ``b`` that ``order`` names, those of ``b`` counted on."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(order)), order))


def same(builder: Any, number: Any, width: int = WIDTH) -> Any:
    """In LLVM: one number in all lanes."""
    empty = ir.Constant(ir.VectorType(number.type, width), ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(_INT, 0))
    return shuffled(builder, one, empty, [0] * width)


def call(builder: Any, name: str, *values: Any) -> Any:
    """In LLVM: one of its functions over float32 lanes, such as ``fma``."""
    kind = values[0].type
    function_type = ir.FunctionType(kind, [kind] * len(values))
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.v{kind.count}f32")
    return builder.call(function, values)


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """Lanes of a float32, int32 or bf16 array."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return widened(context, builder, signature.args[0], *arguments)

    return _LANES(array, types.intp), build


@intrinsic
def store(typing: Any, lanes: Any, array: Any, at: Any) -> Any:
    """Put lanes into an array: float32 as they are, bf16 rounded to the nearest and ties to even, int8 cut."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[1]
        value = arguments[0]
        pointer, size = place(context, builder, kind, *arguments[1:])
        if kind.dtype == types.uint16:
            bits = builder.bitcast(value, _INTS)
            above = builder.lshr(bits, _ints(16))
            bits = builder.add(builder.add(bits, _ints(0x7FFF)), builder.and_(above, _ints(1)))
            value = builder.trunc(builder.lshr(bits, _ints(16)), pointer.type.pointee)
        elif kind.dtype == types.int8:
            value = builder.trunc(builder.fptosi(value, _INTS), pointer.type.pointee)
        builder.store(value, pointer, align=size)
        return context.get_dummy_value()

    return types.void(_LANES, array, types.intp), build


@intrinsic
def fetch(typing: Any, array: Any, at: Any) -> Any:
    """Have the processor bring a number and its neighbours into the first cache, where it can."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        address = builder.bitcast(place(context, builder, signature.args[0], *arguments)[0], byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [address, _INT(0), _INT(2), _INT(1)])  # to read, often, data
        return context.get_dummy_value()

    return types.void(array, types.intp), build


def _ints(number: int) -> Any:
    return ir.Constant(_INTS, [number] * WIDTH)


def _function(of: Callable[..., Any], takes: str, gives: Any = _LANES) -> Any:
    """A function of compiled code; ``takes`` is ``l`` for lanes, ``f`` a float32, ``i`` an index."""
    kinds = [{"l": _LANES, "f": types.float32, "i": types.intp}[letter] for letter in takes]

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return of(builder, *arguments)

    def one(typing: Any, a: Any) -> Any:
        return gives(*kinds), build

    def two(typing: Any, a: Any, b: Any) -> Any:
        return gives(*kinds), build

    def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return gives(*kinds), build

    return intrinsic((one, two, three)[len(kinds) - 1])


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _below(builder: Any, count: Any, lanes: Any, other: Any) -> Any:
    count = same(builder, builder.trunc(count, _INT))
    return builder.select(builder.icmp_signed("<", ir.Constant(_INTS, list(range(WIDTH))), count), lanes, other)


def _raised(builder: Any, lanes: Any, power: Any) -> Any:
    power = builder.shl(builder.fptosi(power, _INTS), _ints(23))
    return builder.bitcast(builder.add(builder.bitcast(lanes, _INTS), power), _FLOATS)


def _folded(step: Callable[..., Any]) -> Callable[..., Any]:
    def fold(builder: Any, lanes: Any) -> Any:
        half = WIDTH // 2
        while half:
            order = [*range(half, 2 * half), *range(2 * half, WIDTH), *range(half)]
            lanes = step(builder, lanes, shuffled(builder, lanes, lanes, order))
            half //= 2
        return builder.extract_element(lanes, ir.Constant(_INT, 0))

    return fold


fill = _function(same, "f")  # one number in all lanes
fma = _function(lambda builder, a, b, c: call(builder, "fma", a, b, c), "lll")  # a b + c, rounded once
maximum = _function(_larger, "ll")  # the second where either is NaN
absolute = _function(lambda builder, a: call(builder, "fabs", a), "l")
nearest = _function(lambda builder, a: call(builder, "rint", a), "l")  # whole number, ties to even
raised = _function(_raised, "ll")  # a 2^b of whole b, by the bits of a
first = _function(_below, "ill")  # a number of lanes of the first, the others of the second
total = _function(_folded(lambda builder, a, b: builder.fadd(a, b)), "l", types.float32)  # halves upon each other
largest = _function(_folded(_larger), "l", types.float32)


def _operator(symbol: Callable[..., Any], name: str) -> None:
    compiled = _function(lambda builder, a, b: getattr(builder, name)(a, b), "ll")

    def apply(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return compiled(a, b)

    @overload(symbol)
    def found(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return apply if a is _LANES and b is _LANES else None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


@numba.njit(error_model="numpy")
def power_of_two(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``2^x`` to 2.5e-7 of itself for x from -126 to 0; below, as of -126."""
    x = maximum(x, fill(np.float32(-126)))  # the smallest power whose bits can be put together
    whole = nearest(x)
    f = x - whole
    p = fma(f, fill(_C6), fill(_C5))
    p = fma(f, p, fill(_C4))
    p = fma(f, p, fill(_C3))
    p = fma(f, p, fill(_C2))
    p = fma(f, p, fill(_C1))
    return raised(fma(f, p, fill(np.float32(1))), whole)
