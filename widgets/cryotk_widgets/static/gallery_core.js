// What the class gallery knows without a page: order, filter, captions, grey levels. Tested with node, without a browser.
export function bytes(v) {
  if (!v) return new Uint8Array(0);
  if (v instanceof DataView || ArrayBuffer.isView(v)) return new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
  return new Uint8Array(v);
}

export const grouped = (x) => String(Math.round(x)).replace(/\B(?=(\d{3})+$)/g, " ");
export const known = (r) => r > 0 && r < 900;
export const percent = (s) => (100 * s).toFixed(1) + " %";
export const angstrom = (r) => (known(r) ? r.toFixed(1) + " Å" : "");

// Class indices (from 0) in the order asked for; empty classes last, ties by number.
export function arranged(by, share, resolution) {
  const order = [...share.keys()];
  const value = { particles: (i) => -share[i], resolution: (i) => (known(resolution[i]) ? resolution[i] : 1e6) }[by];
  if (value) order.sort((a, b) => (share[a] > 0 ? 0 : 1) - (share[b] > 0 ? 0 : 1) || value(a) - value(b) || a - b);
  return order;
}

// "1-5 9", "> 2 %", "< 12 Å" (all that are given must hold; numbers are alternatives). Returns classes from 1, or null with a reason.
export function filtered(query, share, resolution) {
  const numbers = new Set(), tests = [];
  const rest = query.replace(/([<>])\s*(\d+(?:\.\d+)?)\s*(%|Å|A)/gi, (_, sign, x, unit) => {
    const limit = Number(x), less = sign === "<";
    if (unit === "%") tests.push((i) => (less ? 100 * share[i] < limit : 100 * share[i] > limit));
    else tests.push((i) => known(resolution[i]) && (less ? resolution[i] < limit : resolution[i] > limit));
    return " ";
  }).replace(/(\d+)\s*-\s*(\d+)/g, (_, a, b) => {
    for (let i = Number(a); i <= Math.min(Number(b), share.length); i++) numbers.add(i);
    return " ";
  });
  for (const word of rest.split(/[\s,;]+/).filter(Boolean)) {
    if (!/^\d+$/.test(word)) return { classes: null, reason: `“${word}” is not understood: try 1-5, > 2 % or < 12 Å` };
    numbers.add(Number(word));
  }
  if (!numbers.size && !tests.length) return { classes: null, reason: "" };
  const classes = [];
  for (let i = 0; i < share.length; i++) {
    if ((!numbers.size || numbers.has(i + 1)) && tests.every((t) => t(i))) classes.push(i + 1);
  }
  return { classes, reason: classes.length ? "" : "no class fits" };
}

export function progressText(p, summary) {
  if (!p.running) return p.message || summary;
  if (p.phase === "maximization") return `iteration ${p.iteration} · new averages`;
  let s = `iteration ${p.iteration} · ${Math.round(100 * (p.fraction || 0))} % of particles`;
  if (p.seconds_left >= 1) s += ` · ${duration(p.seconds_left)} left`;
  return s;
}
export function duration(s) {
  if (s < 90) return `${Math.round(s)} s`;
  return s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}

// New selection (a Set of class numbers) after a click at place `at` of the order.
export function clicked(selected, order, at, anchor, extend) {
  const set = new Set(selected);
  if (extend) {
    for (let j = Math.min(anchor, at); j <= Math.max(anchor, at); j++) set.add(order[j] + 1);
  } else if (!set.delete(order[at] + 1)) set.add(order[at] + 1);
  return set;
}

// Gaussian low-pass whose gain is one half at 1 / resolution; sigma in pixels.
export const sigmaOf = (resolution, pixel) => (resolution > 0 ? Math.sqrt(2 * Math.LN2) / (2 * Math.PI) * resolution / pixel : 0);

export function smooth(src, n, sigma) {
  if (sigma < 0.2) return src;
  const r = Math.min(n - 1, Math.ceil(2.8 * sigma)), w = new Float32Array(r + 1);
  let total = 0;
  for (let i = 0; i <= r; i++) { w[i] = Math.exp(-0.5 * (i / sigma) ** 2); total += i ? 2 * w[i] : w[i]; }
  for (let i = 0; i <= r; i++) w[i] /= total;
  const out = new Float32Array(n * n), line = new Float32Array(n + 2 * r);
  for (let pass = 0; pass < 2; pass++) {
    const from = pass ? out : src, step = pass ? n : 1, next = pass ? 1 : n;
    for (let l = 0; l < n; l++) {
      const o = l * next;
      for (let i = -r; i < n + r; i++) line[i + r] = from[o + step * Math.min(n - 1, Math.max(0, i))];
      for (let i = 0; i < n; i++) {
        let s = w[0] * line[i + r];
        for (let j = 1; j <= r; j++) s += w[j] * (line[i + r - j] + line[i + r + j]);
        out[o + step * i] = s;
      }
    }
  }
  return out;
}

// Grey limits of one tile: 1st and 99.5th percentile inside its circle.
export function tileLimits(values, n) {
  const inside = [], c = n >> 1, r2 = (0.45 * n) ** 2;
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) if ((y - c) ** 2 + (x - c) ** 2 < r2) inside.push(values[y * n + x]);
  inside.sort((a, b) => a - b);
  const lo = inside[Math.floor(0.01 * (inside.length - 1))], hi = inside[Math.floor(0.995 * (inside.length - 1))];
  return hi > lo ? [lo, hi] : [lo, lo + 1];
}

// Fill RGBA words: black at lo, white at hi; contrast above 1 narrows the range about its middle.
export function paint(words, values, lo, hi, contrast) {
  const gain = 255 * contrast / (hi - lo), mid = (lo + hi) / 2;
  for (let p = 0; p < words.length; p++) {
    let v = (values[p] - mid) * gain + 127.5;
    v = v < 0 ? 0 : v > 255 ? 255 : v & 255;
    words[p] = 0xff000000 | (v << 16) | (v << 8) | v;
  }
}
