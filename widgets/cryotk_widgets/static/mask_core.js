// The mask of a preview: squared distances to a set of voxels, exact up to a reach, and a raised-cosine edge. Tested with node.
const FAR = 1e9;
// Squared distance of each voxel to the nearest one that is set, up to `reach` voxels; beyond, FAR.
export function squaredDistance(inside, [nz, ny, nx], reach) {
  const r = Math.ceil(reach), size = nz * ny * nx, out = new Float32Array(size).fill(FAR);
  let lo = [nz, ny, nx], hi = [-1, -1, -1];
  for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++) {
    if (!inside[i]) continue;
    out[i] = 0;
    if (z < lo[0]) lo[0] = z; if (z > hi[0]) hi[0] = z;
    if (y < lo[1]) lo[1] = y; if (y > hi[1]) hi[1] = y;
    if (x < lo[2]) lo[2] = x; if (x > hi[2]) hi[2] = x;
  }
  if (hi[0] < 0) return out;
  lo = lo.map((v) => Math.max(0, v - r));
  hi = hi.map((v, k) => Math.min([nz, ny, nx][k] - 1, v + r));
  const squares = Float32Array.from({ length: r + 1 }, (_, k) => k * k), stride = [ny * nx, nx, 1];
  const line = new Float32Array(Math.max(nz, ny, nx));
  for (const axis of [2, 1, 0]) {
    const [a, b] = [0, 1, 2].filter((k) => k !== axis), s = stride[axis], from = lo[axis], to = hi[axis];
    for (let p = lo[a]; p <= hi[a]; p++) for (let q = lo[b]; q <= hi[b]; q++) {
      const start = p * stride[a] + q * stride[b];
      let some = false;
      for (let i = from; i <= to; i++) { const v = out[start + i * s]; line[i] = v; if (v < FAR) some = true; }
      if (!some) continue;
      for (let i = from; i <= to; i++) {
        let best = line[i];
        if (best > 0) {
          const left = Math.max(from, i - r), right = Math.min(to, i + r);
          for (let j = left; j <= right; j++) { const v = line[j] + squares[j < i ? i - j : j - i]; if (v < best) best = v; }
          out[start + i * s] = best;
        }
      }
    }
  }
  return out;
}
// uint8 mask of what reaches `level` (0 to 255): extended or shrunk by `extend`, then an edge of `edge`, both in voxels of the whole
// map, of which this one has `scale` voxels for each. At scale 1 this is what cryotk.create_mask makes; otherwise distances are
// such that the outline is that of the whole map.
export function softMask(data, shape, level, extend, edge, scale = 1) {
  const n = data.length, exact = scale === 1, inside = new Uint8Array(n), mask = new Uint8Array(n);
  for (let i = 0; i < n; i++) inside[i] = data[i] >= level ? 1 : 0;
  if (extend < 0 && (extend < -1 || !exact)) {
    const limit = exact ? -extend : 0.4 + scale * (-extend - 0.4), d = squaredDistance(inside.map((v) => 1 - v), shape, limit + 1);
    for (let i = 0; i < n; i++) if (d[i] < limit * limit - 1e-9) inside[i] = 0;
  }
  if (exact && extend > 1) {
    const d = squaredDistance(inside, shape, extend);
    for (let i = 0; i < n; i++) if (d[i] < extend * extend - 1e-9) inside[i] = 1;
  }
  // growing a ball of voxels by all within r moves its border by r less 0.3 to 0.5 voxels (measured), on large voxels and on small ones
  const width = edge > 1 ? edge * scale : 0, grown = (extend > 1 ? extend - 0.35 : 0) + (edge > 1 ? Math.max(0, edge / 2 - (edge < 3 ? 1 : 0.5)) : 0);
  const start = exact || !grown ? 0 : 0.4 + scale * grown - width / 2, reach = start + width;
  const d = reach > 0 ? squaredDistance(inside, shape, reach + 1) : null;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    if (inside[i]) mask[i] = 255;
    else if (d && d[i] < FAR) {
      const t = Math.sqrt(d[i]) - start;
      if (t <= 0) mask[i] = 255;
      else if (t < width) mask[i] = Math.round(255 * (0.5 + 0.5 * Math.cos(Math.PI * t / width)));
    }
    if (mask[i] > 127) sum++;
  }
  return { mask, fraction: sum / n };
}
