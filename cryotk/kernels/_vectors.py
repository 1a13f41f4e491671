"""Vector instructions for the innermost steps of the slice kernels, where the compiler does not find them by itself."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cryotk.kernels._emit import CONTRACT, data_of, vector_of

__all__ = ["add_corner_pair"]


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
