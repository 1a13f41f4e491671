"""Vector instructions for the innermost steps of the slice kernels, where the compiler does not find them by itself."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cryotk.kernels._emit import CONTRACT, I32, data_of, vector_of

__all__ = ["add_corner_pair", "interpolate_corners"]


def _add_at(builder: Any, pointer: Any, index: Any, value: Any) -> None:
    place = builder.bitcast(builder.gep(pointer, [index]), value.type.as_pointer())
    old = builder.load(place)
    old.align = 8
    builder.store(builder.fadd(value, old, flags=CONTRACT), place).align = 8


@intrinsic
def add_corner_pair(typingctx, data, weight, k, f, gx, fx, re, im, c):
    """Add ``f * (gx, fx) * (re + i im)`` to complex numbers k and k + 1, and ``f * (gx, fx) * c`` to their weights.

    ``data`` is the flat float64 view of the complex numbers, ``weight`` flat float64, ``k`` uint64; the rest are float64.
    """
    f8 = types.float64
    signature = types.void(data, weight, types.uint64, f8, f8, f8, f8, f8, f8)

    def codegen(context, builder, signature, args):
        data, weight, k, f, gx, fx, re, im, c = args
        values = builder.fmul(vector_of(builder, [re, im, re, im]), vector_of(builder, [gx, gx, fx, fx]))
        weights = builder.fmul(vector_of(builder, [c, c]), vector_of(builder, [gx, fx]))
        twice = builder.shl(k, ir.Constant(k.type, 1))
        factor = builder.fmul(values, vector_of(builder, [f] * 4), flags=CONTRACT)
        _add_at(builder, data_of(context, builder, signature.args[0], data), twice, factor)
        factor = builder.fmul(weights, vector_of(builder, [f] * 2), flags=CONTRACT)
        _add_at(builder, data_of(context, builder, signature.args[1], weight), k, factor)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def interpolate_corners(typingctx, v, b00, b01, b10, b11, w00, w01, w10, w11, gx, fx):
    """Real and imaginary part of ``sum_j w_j (gx V[b_j] + fx V[b_j + 1])`` over four rows of complex numbers.

    ``v`` is the flat float32 view of the complex numbers and ``b`` positions in it (uint64); the rest are float32.
    """
    signature = types.UniTuple(types.float32, 2)(v, *[types.uint64] * 4, *[types.float32] * 6)

    def codegen(context, builder, signature, args):
        v, rows, weights, (gx, fx) = args[0], args[1:5], args[5:9], args[9:11]
        pointer = data_of(context, builder, signature.args[0], v)
        four, undefined = ir.VectorType(ir.FloatType(), 4), ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
        total = None
        for position, weight in zip(rows, weights, strict=True):
            row = builder.load(builder.bitcast(builder.gep(pointer, [position]), four.as_pointer()))
            row.align = 4
            product = builder.fmul(vector_of(builder, [weight] * 4), row, flags=CONTRACT)
            total = product if total is None else builder.fadd(product, total, flags=CONTRACT)
        low, high = (
            builder.shuffle_vector(total, undefined, ir.Constant(ir.VectorType(I32, 2), pair)) for pair in ([0, 1], [2, 3])
        )
        low = builder.fmul(vector_of(builder, [gx] * 2), low, flags=CONTRACT)
        high = builder.fmul(vector_of(builder, [fx] * 2), high, flags=CONTRACT)
        both = builder.fadd(low, high, flags=CONTRACT)
        parts = [builder.extract_element(both, ir.Constant(I32, n)) for n in range(2)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, codegen
