"""Small matrix products whose sums stay in registers: children of an orientation times shifts, over pixels.

A dot product reads two numbers for each of its operations, and a table of shifts is more than the first cache holds. Tiles of four
children and four shifts read a quarter of that. Sums of vectors are turned into vectors of sums pair by pair.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from cryotk.kernels._emit import CONTRACT, I32, data_of, load, splat, store

__all__ = ["GROUP", "LEAST", "TALL", "dots_of_one", "dots_of_tall", "dots_of_two", "sums_of_group", "sums_of_one", "sums_of_two"]

# Thirty-two registers of 16 numbers, or sixteen of 8: what a tile holds must fit.
_MANY = "+avx512f" in (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
_WIDE = 16 if _MANY else 8
_ACROSS = 4
TALL = 4 if _MANY else 2
"""Children in a tile of dot products."""
GROUP = 8 if _MANY else 4
"""Children in a tile of weighted sums."""
LEAST = 4 * _WIDE
"""Rows must have as many numbers."""


def _pick(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(places)), places))


def _sums_of_each(builder: Any, vectors: list[Any]) -> Any:
    """One vector with the sum over each of at most ``_WIDE`` vectors, a power of two of them."""
    width, size = _WIDE, _WIDE
    while size > 1:
        # every vector holds width / size groups of partial sums
        size //= 2
        first = [k for k in range(width) if not k & size]
        second = [k + size for k in first]
        if len(vectors) > 1:
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            first, second = (half + [k + width for k in half] for half in (first, second))
        else:
            pairs, width = [(vectors[0], vectors[0])], width // 2
        vectors = [builder.fadd(_pick(builder, *pair, first), _pick(builder, *pair, second)) for pair in pairs]
    return vectors[0]


def _dots(n_rows: int) -> Any:
    """``out[c, q] = sum_p a[c, p] rows[q, p] + base[c] + prior[q]`` of ``n_rows`` rows c of ``a`` and four rows q.

    Flat float32 arrays with positions (uint64): row c of ``a`` is at ``i + c n``, row q at ``j + q n``, what comes out at
    ``o + c stride + q``. There are ``LEAST`` numbers in a row at least.
    """

    @intrinsic
    def dots(typingctx, out, o, stride, a, i, rows, j, n, base, b, prior):
        u8 = types.uint64
        signature = types.void(out, u8, u8, a, u8, rows, u8, u8, base, u8, prior)

        def codegen(context, builder, signature, args):
            o, stride, i, j, n, b = (args[k] for k in (1, 2, 4, 6, 7, 9))
            out, a, rows, base, prior = (data_of(context, builder, signature.args[k], args[k]) for k in (0, 3, 5, 8, 10))
            vector = ir.VectorType(ir.FloatType(), _WIDE)
            zero = ir.Constant(vector, [0.0] * _WIDE)

            def starts(array, first, count):
                places = [builder.gep(array, [first])]
                for _ in range(count - 1):
                    places.append(builder.gep(places[-1], [n]))
                return places

            lefts, rights = starts(a, i, n_rows), starts(rows, j, _ACROSS)
            sums = [cgutils.alloca_once(builder, vector) for _ in range(n_rows * _ACROSS)]
            for place in sums:
                builder.store(zero, place)

            def add(p, kept=None):
                left = [load(builder, builder.gep(x, [p]), _WIDE) for x in lefts]
                if kept is not None:
                    left = [builder.select(kept, x, zero) for x in left]
                right = [load(builder, builder.gep(x, [p]), _WIDE) for x in rights]
                for c, x in enumerate(left):
                    for q, y in enumerate(right):
                        place = sums[c * _ACROSS + q]
                        builder.store(builder.fadd(builder.load(place), builder.fmul(x, y, flags=CONTRACT), flags=CONTRACT), place)

            wide = ir.Constant(n.type, _WIDE)
            with cgutils.for_range(builder, builder.udiv(n, wide), intp=n.type) as loop:
                add(builder.mul(loop.index, wide))
            tail = builder.urem(n, wide)
            with builder.if_then(builder.icmp_unsigned("!=", tail, ir.Constant(n.type, 0))):
                # the last vector once more from its end: what was counted counts as nothing
                lane = ir.Constant(ir.VectorType(I32, _WIDE), list(range(_WIDE)))
                counted = builder.trunc(builder.sub(wide, tail), I32)
                add(builder.sub(n, wide), builder.icmp_unsigned(">=", lane, splat(builder, counted, _WIDE)))
            dots = _sums_of_each(builder, [builder.load(place) for place in sums])
            of_row = load(builder, builder.gep(base, [b]), n_rows) if n_rows > 1 else splat(builder, builder.load(builder.gep(base, [b])), 1)
            offset = _pick(builder, of_row, of_row, [c for c in range(n_rows) for _ in range(_ACROSS)])
            of_shift = load(builder, prior, _ACROSS)
            of_shift = _pick(builder, of_shift, of_shift, [q for _ in range(n_rows) for q in range(_ACROSS)])
            total = builder.fadd(dots, builder.fadd(offset, of_shift))
            for c in range(n_rows):
                store(builder, _pick(builder, total, total, [c * _ACROSS + q for q in range(_ACROSS)]), builder.gep(out, [o]))
                o = builder.add(o, stride)
            return context.get_dummy_value()

        return signature, codegen

    return dots


def _weighted_sums(n_rows: int) -> Any:
    """``out[c, p] = sum_s weights[s, c] rows[places[s] + p]`` of ``n_rows`` rows c.

    Flat float32 arrays with positions (uint64): row c of ``out`` is at ``o + c n``, weight c of s at ``w + s stride + c``.
    There are ``n_places`` of the ``places`` (uint64) and ``LEAST`` numbers in a row at least.
    """
    n_vectors = min(_ACROSS, 16 // n_rows) if _MANY else min(_ACROSS, 8 // n_rows)

    @intrinsic
    def sums(typingctx, out, o, weights, w, stride, rows, places, n_places, n):
        u8 = types.uint64
        signature = types.void(out, u8, weights, u8, u8, rows, places, u8, u8)

        def codegen(context, builder, signature, args):
            o, w, stride, n_places, n = (args[k] for k in (1, 3, 4, 7, 8))
            out, weights, rows, places = (data_of(context, builder, signature.args[k], args[k]) for k in (0, 2, 5, 6))
            vector = ir.VectorType(ir.FloatType(), _WIDE)
            held = [[cgutils.alloca_once(builder, vector) for _ in range(n_vectors)] for _ in range(n_rows)]
            block = ir.Constant(n.type, n_vectors * _WIDE)

            def along(p):
                for place in (x for row in held for x in row):
                    builder.store(ir.Constant(vector, [0.0] * _WIDE), place)
                with cgutils.for_range(builder, n_places, intp=n.type) as loop:
                    at = builder.add(builder.load(builder.gep(places, [loop.index])), p)
                    vectors = [
                        load(builder, builder.gep(rows, [builder.add(at, ir.Constant(n.type, v * _WIDE))]), _WIDE)
                        for v in range(n_vectors)
                    ]
                    first = builder.add(w, builder.mul(loop.index, stride))
                    for c in range(n_rows):
                        weight = builder.load(builder.gep(weights, [builder.add(first, ir.Constant(n.type, c))]))
                        factor = splat(builder, weight, _WIDE)
                        for place, x in zip(held[c], vectors, strict=True):
                            total = builder.fadd(builder.load(place), builder.fmul(factor, x, flags=CONTRACT), flags=CONTRACT)
                            builder.store(total, place)
                row = builder.add(o, p)
                for c in range(n_rows):
                    for v, place in enumerate(held[c]):
                        store(builder, builder.load(place), builder.gep(out, [builder.add(row, ir.Constant(n.type, v * _WIDE))]))
                    row = builder.add(row, n)

            with cgutils.for_range(builder, builder.udiv(n, block), intp=n.type) as loop:
                along(builder.mul(loop.index, block))
            with builder.if_then(builder.icmp_unsigned("!=", builder.urem(n, block), ir.Constant(n.type, 0))):
                along(builder.sub(n, block))  # the last numbers, some of them once more
            return context.get_dummy_value()

        return signature, codegen

    return sums


dots_of_tall, dots_of_two, dots_of_one = _dots(TALL), _dots(2), _dots(1)
sums_of_group, sums_of_two, sums_of_one = _weighted_sums(GROUP), _weighted_sums(2), _weighted_sums(1)
