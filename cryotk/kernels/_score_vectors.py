"""Vector instructions for what is done with scores, in one pass each."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cryotk.kernels._emit import I32, WIDE, at_end, data_of, in_vectors, load, running, splat, store

__all__ = ["above", "any_at_least", "half_turn_scores", "largest"]


def _lesser(builder: Any) -> Any:
    return lambda a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b)


@intrinsic
def largest(typingctx, values, n):
    """The largest of n (uint64) numbers of a flat float32 array; NaN is passed over, -inf of none."""
    signature = types.float32(values, types.uint64)

    def codegen(context, builder, signature, args):
        values, places = data_of(context, builder, signature.args[0], args[0]), running(builder, ir.FloatType(), -np.inf)

        def join(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def body(p, width):
            new = load(builder, builder.gep(values, [p]), width)
            builder.store(join(new, builder.load(places[width])), places[width])

        in_vectors(builder, args[1], body)
        return at_end(builder, places, join)

    return signature, codegen


@intrinsic
def above(typingctx, scores, weights, n, limit):
    """Of n (uint64) samples with a weight above the limit: sum of weights, number, lowest score (inf of none)."""
    signature = types.Tuple((types.float64, types.int64, types.float32))(scores, weights, types.uint64, types.float32)

    def codegen(context, builder, signature, args):
        scores, weights = (data_of(context, builder, signature.args[x], args[x]) for x in (0, 1))
        f4, f8, i4 = ir.FloatType(), ir.DoubleType(), I32
        sums, counts, lows = running(builder, f8, 0.0), running(builder, i4, 0), running(builder, f4, np.inf)

        def body(p, width):
            w = load(builder, builder.gep(weights, [p]), width)
            s = load(builder, builder.gep(scores, [p]), width)
            taken = builder.fcmp_ordered(">", w, splat(builder, args[3], width))
            none = ir.Constant(w.type, [0.0] * width)
            wide = builder.fpext(builder.select(taken, w, none), ir.VectorType(f8, width))
            builder.store(builder.fadd(builder.load(sums[width]), wide), sums[width])
            one = builder.zext(taken, ir.VectorType(i4, width))
            builder.store(builder.add(builder.load(counts[width]), one), counts[width])
            low = builder.select(taken, s, ir.Constant(w.type, [np.inf] * width))
            builder.store(_lesser(builder)(low, builder.load(lows[width])), lows[width])

        in_vectors(builder, args[2], body)
        total = at_end(builder, sums, builder.fadd)
        count = builder.zext(at_end(builder, counts, builder.add), ir.IntType(64))
        return context.make_tuple(builder, signature.return_type, (total, count, at_end(builder, lows, _lesser(builder))))

    return signature, codegen


@intrinsic
def any_at_least(typingctx, values, i, limit):
    """Whether one of the WIDE numbers from position ``i`` (uint64) on of a flat float32 array is at least ``limit``."""
    signature = types.boolean(values, types.uint64, types.float32)

    def codegen(context, builder, signature, args):
        values = load(builder, builder.gep(data_of(context, builder, signature.args[0], args[0]), [args[1]]), WIDE)
        found = builder.fcmp_ordered(">=", values, splat(builder, args[2], WIDE))
        mask = builder.bitcast(found, ir.IntType(WIDE))
        return builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0))

    return signature, codegen


@intrinsic
def half_turn_scores(typingctx, even, e, odd, self_term, w, prior, log_prior, r, n, scores, s):
    """Coarse scores of n (uint64) orientations and of those half a turn in the plane from them.

    ``scores = even - self_term + prior + odd + log_prior``, and the same with ``- odd`` n further on in ``scores`` and ``log_prior``.
    Flat float32 arrays, from positions (uint64) on; ``odd`` at those of ``even``.
    """
    u8 = types.uint64
    signature = types.void(even, u8, odd, self_term, u8, types.float32, log_prior, u8, u8, scores, u8)

    def codegen(context, builder, signature, args):
        _, e, _, _, w, prior, _, r, n, _, s = args
        even, odd, self_term, log_prior, scores = (data_of(context, builder, signature.args[x], args[x]) for x in (0, 2, 3, 6, 9))

        def body(p, width):
            def at(array, first):
                return builder.gep(array, [builder.add(first, p)])

            base = builder.fsub(load(builder, at(even, e), width), load(builder, at(self_term, w), width))
            base = builder.fadd(base, splat(builder, prior, width))
            turn = load(builder, at(odd, e), width)
            for join, more in ((builder.fadd, None), (builder.fsub, n)):
                first, place = (r, s) if more is None else (builder.add(r, more), builder.add(s, more))
                store(builder, builder.fadd(join(base, turn), load(builder, at(log_prior, first), width)), at(scores, place))

        in_vectors(builder, n, body)
        return context.get_dummy_value()

    return signature, codegen
