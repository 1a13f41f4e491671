"""Vector instructions for scores and sums over shifts: products of slices and images, and tables turned."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cryotk.kernels._emit import CONTRACT, I32, WIDE, at_end, data_of, in_vectors, load, running, splat, store

__all__ = ["add_products", "product_and_power", "sum_and_difference", "transpose_tile"]


@intrinsic
def transpose_tile(typingctx, source, i, source_stride, out, j, out_stride):
    """Write WIDE rows of WIDE numbers, from position ``i`` of flat ``source`` on, as columns from ``j`` of flat ``out`` on.

    Both are float32; positions and strides are uint64.
    """
    u8 = types.uint64
    signature = types.void(source, u8, u8, out, u8, u8)

    def codegen(context, builder, signature, args):
        source, i, source_stride, out, j, out_stride = args
        source, out = (data_of(context, builder, signature.args[n], a) for n, a in ((0, source), (3, out)))
        rows = []
        for _ in range(WIDE):
            rows.append(load(builder, builder.gep(source, [i]), WIDE))
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
                        builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, WIDE), places)) for places in (upper, lower)
                    )
            distance //= 2
        for row in rows:
            store(builder, row, builder.gep(out, [j]))
            j = builder.add(j, out_stride)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def sum_and_difference(typingctx, total, t, difference, d, a, i, b, j, n):
    """``total = a + b`` and ``difference = a - b``: n numbers of flat float32 arrays, from positions (uint64) on."""
    u8 = types.uint64
    signature = types.void(total, u8, difference, u8, a, u8, b, u8, u8)

    def codegen(context, builder, signature, args):
        def place(k, p):
            return builder.gep(data_of(context, builder, signature.args[k], args[k]), [builder.add(args[k + 1], p)])

        def body(p, width):
            a, b = load(builder, place(4, p), width), load(builder, place(6, p), width)
            store(builder, builder.fadd(a, b), place(0, p))
            store(builder, builder.fsub(a, b), place(2, p))

        in_vectors(builder, args[8], body)
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
        out, a, b, w = (data_of(context, builder, signature.args[x], args[x]) for x in (0, 2, 4, 5))
        sums = running(builder, ir.FloatType(), 0.0)

        def body(p, width):
            def at(array, first):
                first = builder.add(first, p)
                return builder.gep(array, [first]), builder.gep(array, [builder.add(first, n)])

            ar, ai = (load(builder, x, width) for x in at(a, i))
            br, bi = (load(builder, x, width) for x in at(b, ir.Constant(n.type, 0)))
            real, imaginary = at(out, o)

            def product(x, y):
                return builder.fmul(x, y, flags=CONTRACT)

            store(builder, builder.fadd(product(ar, br), product(ai, bi), flags=CONTRACT), real)
            store(builder, builder.fsub(product(ai, br), product(ar, bi), flags=CONTRACT), imaginary)
            power = builder.fadd(product(ar, ar), product(ai, ai), flags=CONTRACT)
            power = product(power, load(builder, at(w, k)[0], width))
            builder.store(builder.fadd(builder.load(sums[width]), power, flags=CONTRACT), sums[width])

        in_vectors(builder, n, body)
        return at_end(builder, sums, builder.fadd)

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
                return builder.gep(data_of(context, builder, signature.args[k], args[k]), [at])

            def both(k, first):
                return load(builder, place(k, first, 0), width), load(builder, place(k, first, 1), width)

            def add(where, *products):
                total = load(builder, where, width)
                for join, a, b in products:
                    total = join(total, builder.fmul(a, b, flags=CONTRACT), flags=CONTRACT)
                store(builder, total, where)

            (ur, ui), (vr, vi), (sr, si) = both(5, u), both(9, v), both(11, s)
            of_all = splat(builder, w, width)
            plus, minus = builder.fadd, builder.fsub
            add(place(0, row, 0), (plus, ur, sr), (minus, ui, si))
            add(place(0, row, 1), (plus, ur, si), (plus, ui, sr))
            add(place(2, weight, 0), (plus, of_all, load(builder, place(7, uw, 0), width)))
            add(place(4, None, 0), (plus, vr, sr), (plus, vi, si))
            add(place(4, None, 1), (plus, vi, sr), (minus, vr, si))
            squares = (builder.fmul(x, x, flags=CONTRACT) for x in (vr, vi))
            add(place(4, None, 2), (plus, of_all, builder.fadd(*squares, flags=CONTRACT)))

        in_vectors(builder, n, body)
        return context.get_dummy_value()

    return signature, codegen
