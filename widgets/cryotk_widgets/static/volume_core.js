// What volume views know without a page: rotations, blocks that rays skip, slices, contours, round numbers. Tested with node.
// Axes: x to the right, y up, z towards the viewer. Arrays are (z, y, x), x fastest. A rotation turns the map: view = R map.
export function octets(v) {
  if (!v) return new Uint8Array(0);
  if (v instanceof DataView || ArrayBuffer.isView(v)) return new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
  return new Uint8Array(v);
}

// -- quaternions [x, y, z, w]
export function multiplied(a, b) {
  return [
    a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1], a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0],
    a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3], a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2],
  ];
}
export function normalised(q) {
  const s = Math.hypot(...q) || 1;
  return q.map((v) => v / s);
}
export function about(x, y, z, angle) {
  const s = Math.sin(angle / 2) / (Math.hypot(x, y, z) || 1);
  return [x * s, y * s, z * s, Math.cos(angle / 2)];
}
// Rows of the rotation matrix.
export function matrixOf([x, y, z, w]) {
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
  ];
}
export const apply = (m, v) => m.map((r) => r[0] * v[0] + r[1] * v[1] + r[2] * v[2]);
// A drag turns the map under the pointer: to the right about the vertical, down about the horizontal.
export function turned(q, dx, dy, size) {
  const angle = Math.hypot(dx, dy) / size * Math.PI;
  return angle ? normalised(multiplied(about(dy, dx, 0, angle), q)) : q;
}

// -- blocks: the greatest value that a sample inside each block can meet, so that rays jump over the rest
export const BLOCK = 8;
export function blockMax(data, [nz, ny, nx], block = BLOCK) {
  const bz = Math.ceil(nz / block), by = Math.ceil(ny / block), bx = Math.ceil(nx / block);
  // along x first, then y, then z: each pass keeps the maximum of a block and one neighbour on both sides
  const fold = (from, planes, n, stride, count) => {
    const out = new Uint8Array(planes * count * stride);
    for (let p = 0; p < planes; p++) for (let b = 0; b < count; b++) {
      const first = Math.max(0, b * block - 1), last = Math.min(n - 1, (b + 1) * block), o = (p * count + b) * stride;
      for (let i = first; i <= last; i++) {
        const at = (p * n + i) * stride;
        for (let s = 0; s < stride; s++) { const v = from[at + s]; if (v > out[o + s]) out[o + s] = v; }
      }
    }
    return out;
  };
  const z = fold(data, 1, nz, ny * nx, bz), y = fold(z, bz, ny, nx, by);
  return { data: fold(y, bz * by, nx, 1, bx), shape: [bz, by, bx] };
}
// Mean of cells of `cell`^3 voxels: what surrounds a point, for soft shadows.
export function cellMean(data, [nz, ny, nx], cell = 4) {
  const cz = Math.ceil(nz / cell), cy = Math.ceil(ny / cell), cx = Math.ceil(nx / cell);
  const sum = new Float32Array(cz * cy * cx), out = new Uint8Array(sum.length);
  for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) {
    const row = (Math.floor(z / cell) * cy + Math.floor(y / cell)) * cx;
    for (let x = 0; x < nx; x++, i++) sum[row + (x / cell | 0)] += data[i];
  }
  for (let i = 0; i < sum.length; i++) out[i] = sum[i] / cell ** 3;
  return { data: out, shape: [cz, cy, cx] };
}
// Box of blocks that reach a level, in voxels: [[x0, y0, z0], [x1, y1, z1]]; null when nothing does.
export function reach(blocks, level, [nz, ny, nx], block = BLOCK) {
  const [bz, by, bx] = blocks.shape, lo = [1e9, 1e9, 1e9], hi = [-1, -1, -1];
  for (let z = 0, i = 0; z < bz; z++) for (let y = 0; y < by; y++) for (let x = 0; x < bx; x++, i++) {
    if (blocks.data[i] < level) continue;
    [x, y, z].forEach((v, k) => { lo[k] = Math.min(lo[k], v); hi[k] = Math.max(hi[k], v + 1); });
  }
  return hi[0] < 0 ? null : [lo.map((v) => v * block), hi.map((v, k) => Math.min(v * block, [nx, ny, nz][k]))];
}

export function histogram(data) {
  const h = new Float64Array(256);
  for (let i = 0; i < data.length; i++) h[data[i]]++;
  return h;
}

// -- slices: one plane as {values, width, height}, row 0 on top (so that y and z point up)
export function slice(data, [nz, ny, nx], axis, index) {
  const [w, h] = { z: [nx, ny], y: [nx, nz], x: [ny, nz] }[axis], values = new Uint8Array(w * h);
  const at = axis === "z" ? (u, v) => (index * ny + v) * nx + u : axis === "y" ? (u, v) => (v * ny + index) * nx + u : (u, v) => (v * ny + u) * nx + index;
  for (let r = 0, i = 0; r < h; r++) { const v = h - 1 - r; for (let u = 0; u < w; u++, i++) values[i] = data[at(u, v)]; }
  return { values, width: w, height: h };
}
// Line pieces [x0, y0, x1, y1, ...] where a plane crosses a level, in pixels of the plane (pixel centres at 0.5).
export function contour({ values, width: w, height: h }, level) {
  const out = [];
  for (let y = 0; y + 1 < h; y++) for (let x = 0; x + 1 < w; x++) {
    const i = y * w + x, a = values[i], b = values[i + 1], c = values[i + w + 1], d = values[i + w];
    const code = (a >= level ? 1 : 0) | (b >= level ? 2 : 0) | (c >= level ? 4 : 0) | (d >= level ? 8 : 0);
    if (code === 0 || code === 15) continue;
    const f = (p, q) => (level - p) / (q - p);
    const top = () => [x + 0.5 + f(a, b), y + 0.5], right = () => [x + 1.5, y + 0.5 + f(b, c)];
    const bottom = () => [x + 0.5 + f(d, c), y + 1.5], left = () => [x + 0.5, y + 0.5 + f(a, d)];
    const pieces = {
      1: [left, top], 2: [top, right], 3: [left, right], 4: [right, bottom], 5: [left, top, right, bottom], 6: [top, bottom],
      7: [left, bottom], 8: [bottom, left], 9: [bottom, top], 10: [top, right, bottom, left], 11: [bottom, right], 12: [right, left],
      13: [right, top], 14: [top, left],
    }[code];
    for (let k = 0; k < pieces.length; k += 2) out.push(...pieces[k](), ...pieces[k + 1]());
  }
  return out;
}

// A round length of about a fifth of `whole`.
export function roundLength(whole) {
  const aim = whole / 5, power = 10 ** Math.floor(Math.log10(aim));
  return power * [5, 2, 1].find((m) => m * power <= aim);
}
// Three figures, without a tail of zeros.
export function figures(v) {
  if (v === 0) return "0";
  const a = Math.abs(v);
  return a >= 1e4 || a < 1e-3 ? v.toExponential(2) : v.toFixed(Math.max(0, 2 - Math.floor(Math.log10(a))));
}
