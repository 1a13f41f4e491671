"""Where the pixels of central slices lie in a padded half transform, and values there, in vectors.

The compiler keeps to half vectors and converts one number at a time; here eight pixels are placed and sixteen looked up together.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cryotk.kernels._emit import CONTRACT, I32, WIDE, data_of, load, splat, store

__all__ = ["AT_ONCE", "CHUNK", "as_coordinates", "interpolate_many", "place_many"]

CHUNK = 64
"""Pixels whose places are found before what is there is read or written."""
AT_ONCE = 8
"""Pixels that :func:`place_many` places."""

_F64, _I64 = ir.DoubleType(), ir.IntType(64)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def as_coordinates(kx, ky, halves):
    """X and y as (2, n) float64, n the number of pixels rounded up to CHUNK; what fills up is outside every sphere.

    With ``halves`` pixels with x = 0 and y < 0, which repeat their mates, are outside too.
    """
    n = kx.shape[0]
    out = np.full((2, (n + CHUNK - 1) // CHUNK * CHUNK), 1e6)
    for p in range(n):
        if not (halves and kx[p] == 0 and ky[p] < 0):
            out[0, p], out[1, p] = kx[p], ky[p]
    return out


@intrinsic
def place_many(typingctx, x, y, p, matrix, limit, origin, steps, place, fractions, sign, q):
    """Where AT_ONCE pixels lie: the corner before each, how far it is behind it, and which half it is in.

    Parameters
    ----------
    x, y : flat float64, from p (uint64) on
    matrix : tuple of six float64
        Rows of the two columns that matter, times the padding.
    limit, origin : float64
        Squared radius beyond which nothing is, position of z = y = 0.
    steps : tuple of three float64
        Numbers between neighbours along x, y and z.
    place : flat int64 ; fractions : flat float32 or float64 (3 CHUNK,) ; sign : flat, as fractions
        OUT, from q (uint64) on. The sign is -1 where the opposite point was taken and 0 outside.
    """
    f8, u8 = types.float64, types.uint64
    signature = types.void(x, y, u8, types.UniTuple(f8, 6), f8, f8, types.UniTuple(f8, 3), place, fractions, sign, u8)

    def codegen(context, builder, signature, args):
        def flat(k):
            return data_of(context, builder, signature.args[k], args[k])

        wide = ir.VectorType(_F64, AT_ONCE)

        def every(value):
            return splat(builder, value, AT_ONCE)

        def constant(value):
            return ir.Constant(wide, [value] * AT_ONCE)

        def read(k, first):
            out = builder.load(builder.bitcast(builder.gep(flat(k), [first]), wide.as_pointer()))
            out.align = 8
            return out

        def multiply(a, b):
            return builder.fmul(a, b, flags=CONTRACT)

        p, q = args[2], args[10]
        qx, qy = read(0, p), read(1, p)
        a = [every(v) for v in _unpack(builder, args[3], 6)]
        step_x, step_y, step_z = (every(v) for v in _unpack(builder, args[6], 3))
        axes = [builder.fadd(multiply(a[2 * n], qx), multiply(a[2 * n + 1], qy), flags=CONTRACT) for n in range(3)]
        square = multiply(axes[0], axes[0])
        for v in axes[1:]:
            square = builder.fadd(square, multiply(v, v), flags=CONTRACT)
        outside = builder.fcmp_unordered(">", square, every(args[4]))
        negative = builder.fcmp_ordered("<", axes[0], constant(0.0))
        s = builder.select(negative, constant(-1.0), constant(1.0))
        begin = [constant(0.0), every(args[5]), every(args[5])]
        # one that is outside is looked up at the centre, and counts as zero
        axes = [
            builder.select(outside, o, builder.fadd(multiply(v, s), o, flags=CONTRACT)) for v, o in zip(axes, begin, strict=True)
        ]
        floor = cgutils.get_or_insert_function(builder.module, ir.FunctionType(wide, [wide]), f"llvm.floor.v{AT_ONCE}f64")
        low = [builder.call(floor, [v]) for v in axes]
        number = multiply(low[0], step_x)
        for v, step in ((low[1], step_y), (low[2], step_z)):
            number = builder.fadd(number, multiply(v, step), flags=CONTRACT)
        _write(builder, builder.fptosi(number, ir.VectorType(_I64, AT_ONCE)), flat(7), q)
        narrow = signature.args[8].dtype == types.float32
        single = ir.VectorType(ir.FloatType(), AT_ONCE)
        at = q
        for v, first in zip(axes, low, strict=True):
            fraction = builder.fsub(v, first)
            _write(builder, builder.fptrunc(fraction, single) if narrow else fraction, flat(8), at)
            at = builder.add(at, ir.Constant(at.type, CHUNK))
        s = builder.select(outside, constant(0.0), s)
        _write(builder, builder.fptrunc(s, single) if narrow else s, flat(9), q)
        return context.get_dummy_value()

    return signature, codegen


def _unpack(builder: Any, values: Any, n: int) -> list[Any]:
    return [builder.extract_value(values, k) for k in range(n)]


def _write(builder: Any, value: Any, array: Any, first: Any) -> None:
    element = value.type.element
    builder.store(value, builder.bitcast(builder.gep(array, [first]), value.type.as_pointer())).align = (
        4 if isinstance(element, ir.FloatType) else 8
    )


@intrinsic
def interpolate_many(typingctx, volume, row, sheet, place, fractions, sign, q, real, imaginary):
    """Values of WIDE pixels: weighted sums of eight corners each, conjugated where the opposite point was taken.

    ``volume`` is the flat float32 view of complex numbers, ``row`` and ``sheet`` (uint64) numbers between neighbours along y and z;
    ``place``, ``fractions`` and ``sign`` are as :func:`place_many` leaves them, from q (uint64) on. What comes out goes to flat
    float32 ``real`` and ``imaginary``, from q on.
    """
    u8 = types.uint64
    signature = types.void(volume, u8, u8, place, fractions, sign, u8, real, imaginary)

    def codegen(context, builder, signature, args):
        volume, place, fractions, sign, real, imaginary = (
            data_of(context, builder, signature.args[k], args[k]) for k in (0, 3, 4, 5, 7, 8)
        )
        row, sheet, q = args[1], args[2], args[6]
        one = ir.Constant(ir.VectorType(ir.FloatType(), WIDE), [1.0] * WIDE)
        after = [
            load(builder, builder.gep(fractions, [builder.add(q, ir.Constant(q.type, n * CHUNK))]), WIDE) for n in range(3)
        ]  # fmt: skip
        before = [builder.fsub(one, f) for f in after]
        weights = [builder.fmul(z, y) for z in (before[2], after[2]) for y in (before[1], after[1])]
        starts = [volume, builder.gep(volume, [row]), builder.gep(volume, [sheet]), builder.gep(volume, [builder.add(row, sheet)])]
        four = ir.VectorType(ir.FloatType(), 4)

        def pick(a, b, places):
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(places)), places))

        groups = []
        for g in range(WIDE // 4):
            at = [builder.load(builder.gep(place, [builder.add(q, ir.Constant(q.type, 4 * g + n))])) for n in range(4)]
            total = None
            for start, weight in zip(starts, weights, strict=True):
                parts = []
                for k in at:
                    part = builder.load(builder.bitcast(builder.gep(start, [k]), four.as_pointer()))
                    part.align = 4
                    parts.append(part)
                pairs = [pick(parts[n], parts[n + 1], list(range(8))) for n in (0, 2)]
                corners = pick(*pairs, list(range(16)))
                factor = pick(weight, weight, [4 * g + n // 4 for n in range(16)])
                product = builder.fmul(factor, corners, flags=CONTRACT)
                total = product if total is None else builder.fadd(product, total, flags=CONTRACT)
            # (1 - fx, 1 - fx, fx, fx) of each pixel
            along = pick(before[0], after[0], [4 * g + n // 4 + (16 if n % 4 > 1 else 0) for n in range(16)])
            groups.append(builder.fmul(total, along, flags=CONTRACT))
        halves = []
        for a, b in (groups[:2], groups[2:]):
            near = pick(a, b, [n for k in range(0, 16, 4) for n in (k, k + 1, k + 16, k + 17)])
            far = pick(a, b, [n for k in range(0, 16, 4) for n in (k + 2, k + 3, k + 18, k + 19)])
            halves.append(builder.fadd(near, far, flags=CONTRACT))
        # of each half: pixel n of its first group at 4 n, of its second at 4 n + 2
        places = [16 * (g // 2) + 4 * n + 2 * (g % 2) for g in range(4) for n in range(4)]
        s = load(builder, builder.gep(sign, [q]), WIDE)
        magnitude = builder.fmul(s, s)
        store(builder, builder.fmul(pick(*halves, places), magnitude), builder.gep(real, [q]))
        store(builder, builder.fmul(pick(*halves, [n + 1 for n in places]), s), builder.gep(imaginary, [q]))
        return context.get_dummy_value()

    return signature, codegen
