"""Vector instructions for the innermost steps of kernels, where the compiler does not find them by itself.

Arrays are handed over flat, with positions in them: views made in an inner loop cost more (their owners are counted) than what is
done with them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "WIDE",
    "add_corner_pair",
    "add_four_rows",
    "add_products",
    "four_dots",
    "interpolate_corners",
    "product_and_power",
    "sum_and_difference",
    "transpose_tile",
]

WIDE = 16
"""Numbers that the widest vectors hold; machines with shorter ones take several."""

_I32 = ir.IntType(32)
_CONTRACT = ("contract",)


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _vector(builder: Any, values: list[Any]) -> Any:
    out = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for n, value in enumerate(values):
        out = builder.insert_element(out, value, ir.Constant(_I32, n))
    return out


def _load(builder: Any, pointer: Any, n: int) -> Any:
    out = builder.load(builder.bitcast(pointer, ir.VectorType(ir.FloatType(), n).as_pointer()))
    out.align = 4
    return out


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = 4


def _splat(builder: Any, value: Any, n: int) -> Any:
    one = builder.insert_element(ir.Constant(ir.VectorType(value.type, n), ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, n), [0] * n))


def _add_at(builder: Any, pointer: Any, index: Any, value: Any) -> None:
    place = builder.bitcast(builder.gep(pointer, [index]), value.type.as_pointer())
    old = builder.load(place)
    old.align = 8
    builder.store(builder.fadd(value, old, flags=_CONTRACT), place).align = 8


@intrinsic
def add_corner_pair(typingctx, data, weight, k, f, gx, fx, re, im, c):
    """Add ``f * (gx, fx) * (re + i im)`` to complex numbers k and k + 1, and ``f * (gx, fx) * c`` to their weights.

    ``data`` is the flat float64 view of the complex numbers, ``weight`` flat float64, ``k`` uint64; the rest are float64.
    """
    f8 = types.float64
    signature = types.void(data, weight, types.uint64, f8, f8, f8, f8, f8, f8)

    def codegen(context, builder, signature, args):
        data, weight, k, f, gx, fx, re, im, c = args
        values = builder.fmul(_vector(builder, [re, im, re, im]), _vector(builder, [gx, gx, fx, fx]))
        weights = builder.fmul(_vector(builder, [c, c]), _vector(builder, [gx, fx]))
        twice = builder.shl(k, ir.Constant(k.type, 1))
        factor = builder.fmul(values, _vector(builder, [f] * 4), flags=_CONTRACT)
        _add_at(builder, _data(context, builder, signature.args[0], data), twice, factor)
        factor = builder.fmul(weights, _vector(builder, [f] * 2), flags=_CONTRACT)
        _add_at(builder, _data(context, builder, signature.args[1], weight), k, factor)
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
        pointer = _data(context, builder, signature.args[0], v)
        four, undefined = ir.VectorType(ir.FloatType(), 4), ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
        total = None
        for position, weight in zip(rows, weights, strict=True):
            row = builder.load(builder.bitcast(builder.gep(pointer, [position]), four.as_pointer()))
            row.align = 4
            product = builder.fmul(_vector(builder, [weight] * 4), row, flags=_CONTRACT)
            total = product if total is None else builder.fadd(product, total, flags=_CONTRACT)
        low, high = (
            builder.shuffle_vector(total, undefined, ir.Constant(ir.VectorType(_I32, 2), pair)) for pair in ([0, 1], [2, 3])
        )
        low = builder.fmul(_vector(builder, [gx] * 2), low, flags=_CONTRACT)
        high = builder.fmul(_vector(builder, [fx] * 2), high, flags=_CONTRACT)
        both = builder.fadd(low, high, flags=_CONTRACT)
        parts = [builder.extract_element(both, ir.Constant(_I32, n)) for n in range(2)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, codegen


@intrinsic
def transpose_tile(typingctx, source, i, source_stride, out, j, out_stride):
    """Write WIDE rows of WIDE numbers, from position ``i`` of flat ``source`` on, as columns from ``j`` of flat ``out`` on.

    Both are float32; positions and strides are uint64.
    """
    u8 = types.uint64
    signature = types.void(source, u8, u8, out, u8, u8)

    def codegen(context, builder, signature, args):
        source, i, source_stride, out, j, out_stride = args
        source, out = (_data(context, builder, signature.args[n], a) for n, a in ((0, source), (3, out)))
        rows = []
        for _ in range(WIDE):
            rows.append(_load(builder, builder.gep(source, [i]), WIDE))
            i = builder.add(i, source_stride)
        distance = WIDE // 2
        while distance:
            # blocks off the diagonal change places
            upper = [k + WIDE - distance if k & distance else k for k in range(WIDE)]
            lower = [k + WIDE if k & distance else k + distance for k in range(WIDE)]
            for k in range(WIDE):
                if not k & distance:
                    pair = rows[k], rows[k + distance]
                    rows[k], rows[k + distance] = (
                        builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(_I32, WIDE), places)) for places in (upper, lower)
                    )
            distance //= 2
        for row in rows:
            _store(builder, row, builder.gep(out, [j]))
            j = builder.add(j, out_stride)
        return context.get_dummy_value()

    return signature, codegen


def _in_vectors(builder: Any, n: Any, body: Any) -> None:
    """Emit loops over ``n`` (uint64) numbers: the widest vectors, then four, then single ones; ``body(position, width)``."""
    start = ir.Constant(n.type, 0)
    for width, before in ((WIDE, None), (4, WIDE), (1, 4)):
        left = n if before is None else builder.and_(n, ir.Constant(n.type, before - 1))
        count = builder.udiv(left, ir.Constant(n.type, width))
        with cgutils.for_range(builder, count, intp=n.type) as loop:
            body(builder.add(start, builder.mul(loop.index, ir.Constant(n.type, width))), width)
        start = builder.add(start, builder.mul(count, ir.Constant(n.type, width)))


def _total(builder: Any, vector: Any, n: int) -> Any:
    while n > 1:
        n //= 2
        undefined = ir.Constant(vector.type, ir.Undefined)
        low, high = (
            builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(_I32, n), list(range(k, k + n)))) for k in (0, n)
        )
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(_I32, 0))


@intrinsic
def sum_and_difference(typingctx, total, t, difference, d, a, i, b, j, n):
    """``total = a + b`` and ``difference = a - b``: n numbers of flat float32 arrays, from positions (uint64) on."""
    u8 = types.uint64
    signature = types.void(total, u8, difference, u8, a, u8, b, u8, u8)

    def codegen(context, builder, signature, args):
        def place(k, p):
            return builder.gep(_data(context, builder, signature.args[k], args[k]), [builder.add(args[k + 1], p)])

        def body(p, width):
            a, b = _load(builder, place(4, p), width), _load(builder, place(6, p), width)
            _store(builder, builder.fadd(a, b), place(0, p))
            _store(builder, builder.fsub(a, b), place(2, p))

        _in_vectors(builder, args[8], body)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def product_and_power(typingctx, out, o, a, i, b, w, k, n):
    """``out = a conj(b)`` of n complex numbers; returns ``sum w |a|^2``.

    Flat float32 arrays, ``out``, ``a`` and ``w`` from positions (uint64) on; imaginary parts are behind the real ones.
    """
    u8 = types.uint64
    signature = types.float32(out, u8, a, u8, b, w, u8, u8)

    def codegen(context, builder, signature, args):
        out, o, a, i, b, w, k, n = args
        out, a, b, w = (_data(context, builder, signature.args[x], args[x]) for x in (0, 2, 4, 5))
        sums = {width: cgutils.alloca_once(builder, ir.VectorType(ir.FloatType(), width)) for width in (WIDE, 4, 1)}
        for width, place in sums.items():
            builder.store(ir.Constant(ir.VectorType(ir.FloatType(), width), [0.0] * width), place)

        def body(p, width):
            def at(array, first):
                first = builder.add(first, p)
                return builder.gep(array, [first]), builder.gep(array, [builder.add(first, n)])

            ar, ai = (_load(builder, x, width) for x in at(a, i))
            br, bi = (_load(builder, x, width) for x in at(b, ir.Constant(n.type, 0)))
            real, imaginary = at(out, o)

            def product(x, y):
                return builder.fmul(x, y, flags=_CONTRACT)

            _store(builder, builder.fadd(product(ar, br), product(ai, bi), flags=_CONTRACT), real)
            _store(builder, builder.fsub(product(ai, br), product(ar, bi), flags=_CONTRACT), imaginary)
            power = builder.fadd(product(ar, ar), product(ai, ai), flags=_CONTRACT)
            power = product(power, _load(builder, at(w, k)[0], width))
            builder.store(builder.fadd(builder.load(sums[width]), power, flags=_CONTRACT), sums[width])

        _in_vectors(builder, n, body)
        wide, four, one = (_total(builder, builder.load(sums[width]), width) for width in (WIDE, 4, 1))
        return builder.fadd(wide, builder.fadd(four, one))

    return signature, codegen


@intrinsic
def four_dots(typingctx, a, i, rows, j, n):
    """``sum_p a_p rows_qp`` of n numbers of ``a``, from ``i`` on, with four rows of n numbers, from ``j`` on (uint64)."""
    signature = types.UniTuple(types.float32, 4)(a, types.uint64, rows, types.uint64, types.uint64)

    def codegen(context, builder, signature, args):
        i, j, n = args[1], args[3], args[4]
        a, rows = (_data(context, builder, signature.args[x], args[x]) for x in (0, 2))
        starts = [j]
        for _ in range(3):
            starts.append(builder.add(starts[-1], n))
        sums = {width: [cgutils.alloca_once(builder, ir.VectorType(ir.FloatType(), width)) for _ in range(4)] for width in (WIDE, 4, 1)}
        for width, places in sums.items():
            for place in places:
                builder.store(ir.Constant(ir.VectorType(ir.FloatType(), width), [0.0] * width), place)

        def body(p, width):
            x = _load(builder, builder.gep(a, [builder.add(i, p)]), width)
            for start, place in zip(starts, sums[width], strict=True):
                row = _load(builder, builder.gep(rows, [builder.add(start, p)]), width)
                builder.store(builder.fadd(builder.load(place), builder.fmul(x, row, flags=_CONTRACT), flags=_CONTRACT), place)

        _in_vectors(builder, n, body)
        totals = []
        for q in range(4):
            wide, four, one = (_total(builder, builder.load(sums[width][q]), width) for width in (WIDE, 4, 1))
            totals.append(builder.fadd(wide, builder.fadd(four, one)))
        return context.make_tuple(builder, signature.return_type, totals)

    return signature, codegen


@intrinsic
def add_four_rows(typingctx, out, rows, j, n, w0, w1, w2, w3):
    """``out_p += sum_q w_q rows_qp`` with four rows of n numbers, from ``j`` on (uint64)."""
    signature = types.void(out, rows, types.uint64, types.uint64, *[types.float32] * 4)

    def codegen(context, builder, signature, args):
        j, n = args[2:4]
        out, rows = (_data(context, builder, signature.args[x], args[x]) for x in (0, 1))

        def body(p, width):
            place = builder.gep(out, [p])
            total, start = _load(builder, place, width), j
            for weight in args[4:]:
                row = _load(builder, builder.gep(rows, [builder.add(start, p)]), width)
                total = builder.fadd(total, builder.fmul(_splat(builder, weight, width), row, flags=_CONTRACT), flags=_CONTRACT)
                start = builder.add(start, n)
            _store(builder, total, place)

        _in_vectors(builder, n, body)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def add_products(typingctx, rows, row, weights, weight, mean, data, u, data_weight, uw, slices, v, sums, s, n, w):
    """What one orientation of an image adds to its row and to the image's mean slice.

    ``rows += u s``, ``weights += w uw``, ``mean += v conj(s)`` and, behind that, ``mean += w |v|^2``. Each flat float32 array is
    followed by the position (uint64) where its n numbers begin; complex ones have their imaginary parts next. ``mean`` is (3, n).
    """
    u8 = types.uint64
    signature = types.void(rows, u8, weights, u8, mean, data, u8, data_weight, u8, slices, u8, sums, u8, u8, types.float32)

    def codegen(context, builder, signature, args):
        row, weight, u, uw, v, s, n, w = (args[k] for k in (1, 3, 6, 8, 10, 12, 13, 14))

        def body(p, width):
            def place(k, first, part):
                at = p if first is None else builder.add(first, p)
                for _ in range(part):
                    at = builder.add(at, n)
                return builder.gep(_data(context, builder, signature.args[k], args[k]), [at])

            def both(k, first):
                return _load(builder, place(k, first, 0), width), _load(builder, place(k, first, 1), width)

            def add(where, *products):
                total = _load(builder, where, width)
                for join, a, b in products:
                    total = join(total, builder.fmul(a, b, flags=_CONTRACT), flags=_CONTRACT)
                _store(builder, total, where)

            (ur, ui), (vr, vi), (sr, si) = both(5, u), both(9, v), both(11, s)
            of_all = _splat(builder, w, width)
            plus, minus = builder.fadd, builder.fsub
            add(place(0, row, 0), (plus, ur, sr), (minus, ui, si))
            add(place(0, row, 1), (plus, ur, si), (plus, ui, sr))
            add(place(2, weight, 0), (plus, of_all, _load(builder, place(7, uw, 0), width)))
            add(place(4, None, 0), (plus, vr, sr), (plus, vi, si))
            add(place(4, None, 1), (plus, vi, sr), (minus, vr, si))
            squares = (builder.fmul(x, x, flags=_CONTRACT) for x in (vr, vi))
            add(place(4, None, 2), (plus, of_all, builder.fadd(*squares, flags=_CONTRACT)))

        _in_vectors(builder, n, body)
        return context.get_dummy_value()

    return signature, codegen
