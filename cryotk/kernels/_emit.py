"""What the vector instructions of this folder are made of: pieces of LLVM code for ``numba.extending.intrinsic``.

Arrays are handed over flat, with positions in them: views made in an inner loop cost more (their owners are counted) than what is
done with them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

__all__ = ["CONTRACT", "I32", "WIDE", "at_end", "data_of", "in_vectors", "load", "running", "splat", "store", "vector_of"]

WIDE = 16
"""Numbers that the widest vectors hold; machines with shorter ones take several."""
I32 = ir.IntType(32)
CONTRACT = ("contract",)
"""Products and sums may become one instruction; nothing else is reordered."""


def data_of(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def vector_of(builder: Any, values: list[Any]) -> Any:
    out = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for n, value in enumerate(values):
        out = builder.insert_element(out, value, ir.Constant(I32, n))
    return out


def load(builder: Any, pointer: Any, n: int) -> Any:
    out = builder.load(builder.bitcast(pointer, ir.VectorType(ir.FloatType(), n).as_pointer()))
    out.align = 4
    return out


def store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = 4


def splat(builder: Any, value: Any, n: int) -> Any:
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, n), [0] * n))


def in_vectors(builder: Any, n: Any, body: Any) -> None:
    """Emit loops over ``n`` (uint64) numbers: the widest vectors, then four, then single ones; ``body(position, width)``."""
    start = ir.Constant(n.type, 0)
    for width, before in ((WIDE, None), (4, WIDE), (1, 4)):
        left = n if before is None else builder.and_(n, ir.Constant(n.type, before - 1))
        count = builder.udiv(left, ir.Constant(n.type, width))
        with cgutils.for_range(builder, count, intp=n.type) as loop:
            body(builder.add(start, builder.mul(loop.index, ir.Constant(n.type, width))), width)
        start = builder.add(start, builder.mul(count, ir.Constant(n.type, width)))


def _reduce(builder: Any, vector: Any, n: int, join: Any) -> Any:
    """The one number that ``join`` makes of a vector's, half by half."""
    while n > 1:
        n //= 2
        undefined = ir.Constant(vector.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(I32, n), list(range(k, k + n)))) for k in (0, n)
        )
        vector = join(low, high)
    return builder.extract_element(vector, ir.Constant(I32, 0))


def running(builder: Any, kind: Any, value: float) -> dict[int, Any]:
    """Places for what loops of each width hold."""
    places = {}
    for width in (WIDE, 4, 1):
        vector = ir.VectorType(kind, width)
        places[width] = cgutils.alloca_once(builder, vector)
        builder.store(ir.Constant(vector, [value] * width), places[width])
    return places


def at_end(builder: Any, places: dict[int, Any], join: Any) -> Any:
    wide, four, one = (_reduce(builder, builder.load(places[width]), width, join) for width in (WIDE, 4, 1))
    return join(wide, join(four, one))
