// What the contrast transfer function does to a particle. All of it is computed in the page: no kernel is needed to look.
// Images live on a field of view twice the box, as in a micrograph; the box is cut out at the end.
const CONTROLS = [
  // trait, label, unit, min, max, step, factor shown = trait / factor, digits, what it is
  ["defocus", "Defocus", "µm", -1, 4, 0.01, 1e4, 2, "mean of defocus U and V; underfocus is positive"],
  ["astigmatism", "Astigmatism", "Å", 0, 6000, 20, 1, 0, "defocus U minus defocus V"],
  ["defocus_angle", "Astigmatism angle", "°", 0, 180, 1, 1, 0, "azimuth of defocus U, from x towards y"],
  ["phase_shift", "Phase shift", "°", 0, 180, 1, 1, 0, "of a phase plate"],
  ["b_factor", "B-factor", "Å²", 0, 400, 5, 1, 0, "envelope exp(-B k² / 4)"],
  ["spherical_aberration", "Spherical aberration", "mm", 0, 5, 0.05, 1, 2, "Cs"],
  ["amplitude_contrast", "Amplitude contrast", "", 0, 0.5, 0.01, 1, 2, "fraction Q0"],
  ["fourfold", "Four-fold aberration", "rad Å⁴", -2000, 2000, 20, 1, 0, "even Zernike term n = 4, m = 4"],
  ["beam_tilt_x", "Beam tilt x", "mrad", -8, 8, 0.1, 1, 1, "coma: odd, so it moves phases and leaves |CTF| alone"],
  ["box_length", "Box", "Å", 84, 224, 3.5, 1, 0, "side of the box that is cut out of the micrograph"],
  ["noise", "Noise", "σ", 0, 4, 0.05, 1, 2, "standard deviation of the noise over that of the particle's image"],
];
const FINE = 8; // Å
const CORRECTIONS = [
  ["none", "as recorded"], ["flip", "phases flipped"], ["multiply", "multiplied by CTF"], ["wiener", "Wiener filter"],
];

function bytes(v) {
  if (!v) return new Uint8Array(0);
  return v instanceof DataView ? new Uint8Array(v.buffer, v.byteOffset, v.byteLength) : new Uint8Array(v.buffer ?? v);
}

export function wavelength(kv) {
  const v = kv * 1e3;
  return 12.2643247 / Math.sqrt(v * (1 + 0.978466e-6 * v));
}

// Constants of a set of parameters, then the CTF at a frequency (x, y) in 1/Å.
export function optics(p) {
  const lam = wavelength(p.voltage), a = p.defocus_angle * Math.PI / 180, c = Math.cos(a), s = Math.sin(a);
  const u = p.defocus + p.astigmatism / 2, v = p.defocus - p.astigmatism / 2;
  const k1 = Math.PI * lam;
  return {
    xx: -k1 * (u * c * c + v * s * s), xy: -2 * k1 * (u - v) * s * c, yy: -k1 * (u * s * s + v * c * c),
    k2: Math.PI / 2 * p.spherical_aberration * 1e7 * lam ** 3, four: p.fourfold, b: p.b_factor / 4,
    constant: -p.phase_shift * Math.PI / 180 - Math.atan(p.amplitude_contrast / Math.sqrt(1 - p.amplitude_contrast ** 2)),
    tilt: -2 * Math.PI * p.spherical_aberration * 1e7 * lam ** 2 * p.beam_tilt_x * 1e-3, lam,
  };
}
export function gammaAt(o, x, y) {
  const x2 = x * x, y2 = y * y, r2 = x2 + y2;
  return o.xx * x2 + o.xy * x * y + o.yy * y2 + o.k2 * r2 * r2 + o.four * (x2 * x2 - 6 * x2 * y2 + y2 * y2) + o.constant;
}
export function envelopeAt(o, x, y) { return Math.exp(-o.b * (x * x + y * y)); }
export function ctfAt(o, x, y) { return -Math.sin(gammaAt(o, x, y)) * envelopeAt(o, x, y); }
export function oddPhaseAt(o, x, y) { return o.tilt * (x * x + y * y) * x; }

// Radix-2 transform of an n x n complex image in place; re, im are Float64Array(n * n).
export class Fourier {
  constructor(n) {
    this.n = n;
    this.cos = new Float64Array(n / 2); this.sin = new Float64Array(n / 2);
    for (let i = 0; i < n / 2; i++) { this.cos[i] = Math.cos(2 * Math.PI * i / n); this.sin[i] = Math.sin(2 * Math.PI * i / n); }
    this.rev = new Uint32Array(n);
    const bits = Math.log2(n);
    for (let i = 0; i < n; i++) { let r = 0; for (let b = 0; b < bits; b++) if (i >> b & 1) r |= 1 << (bits - 1 - b); this.rev[i] = r; }
    this.a = new Float64Array(n); this.b = new Float64Array(n);
  }
  line(re, im, start, stride, sign) {
    const { n, cos, sin, rev, a, b } = this;
    for (let i = 0; i < n; i++) { const j = start + rev[i] * stride; a[i] = re[j]; b[i] = im[j]; }
    for (let size = 2; size <= n; size *= 2) {
      const half = size / 2, step = n / size;
      for (let i = 0; i < n; i += size) for (let j = 0, k = 0; j < half; j++, k += step) {
        const p = i + j, q = p + half, c = cos[k], s = sign * sin[k];
        const x = a[q] * c - b[q] * s, y = a[q] * s + b[q] * c;
        a[q] = a[p] - x; b[q] = b[p] - y; a[p] += x; b[p] += y;
      }
    }
    for (let i = 0; i < n; i++) { const j = start + i * stride; re[j] = a[i]; im[j] = b[i]; }
  }
  run(re, im, inverse = false) {
    const n = this.n, sign = inverse ? 1 : -1;
    for (let y = 0; y < n; y++) this.line(re, im, y * n, 1, sign);
    for (let x = 0; x < n; x++) this.line(re, im, x, n, sign);
    if (inverse) { const f = 1 / (n * n); for (let i = 0; i < re.length; i++) { re[i] *= f; im[i] *= f; } }
  }
}

// Repeatable standard normal numbers.
function normals(count, seed = 7) {
  const out = new Float64Array(count);
  const next = () => { seed = seed + 0x6d2b79f5 | 0; let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t; return ((t ^ t >>> 14) >>> 0) / 4294967296; };
  for (let i = 0; i < count; i += 2) {
    const r = Math.sqrt(-2 * Math.log(1 - next())), a = 2 * Math.PI * next();
    out[i] = r * Math.cos(a); if (i + 1 < count) out[i + 1] = r * Math.sin(a);
  }
  return out;
}

// The microscope: an object of n x n pixels, imaged with parameters p. Element 0 of every image is its first pixel.
export class Microscope {
  constructor(object, n, pixel) {
    this.n = n; this.pixel = pixel; this.field = 2 * n;
    this.object = object;
    this.big = new Fourier(2 * n); this.small = new Fourier(n);
    const F = this.field;
    this.re = new Float64Array(F * F); this.im = new Float64Array(F * F);
    // centre of the object at element 0, so that transforms are about the centre
    for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) {
      const Y = (y - n / 2 + F) % F, X = (x - n / 2 + F) % F;
      this.re[Y * F + X] = object[y * n + x];
    }
    this.big.run(this.re, this.im);
    this.white = null;
  }
  frequency(i, size) { return (i <= size / 2 ? i : i - size) / (size * this.pixel); }
  image(p) {
    const { n, field: F, big, small } = this, o = optics(p);
    const re = new Float64Array(F * F), im = new Float64Array(F * F), pr = new Float64Array(F * F), pi = new Float64Array(F * F);
    const limit = (0.5 / this.pixel) ** 2; // a round limit, so that the point spread shows the optics, not the lattice
    for (let j = 0, i = 0; j < F; j++) {
      const y = this.frequency(j, F);
      for (let k = 0; k < F; k++, i++) {
        const x = this.frequency(k, F), c = ctfAt(o, x, y), odd = o.tilt ? oddPhaseAt(o, x, y) : 0;
        const cr = odd ? c * Math.cos(odd) : c, ci = odd ? c * Math.sin(odd) : 0;
        if (x * x + y * y < limit) { pr[i] = cr; pi[i] = ci; }
        const ar = this.re[i] * cr - this.im[i] * ci, ai = this.re[i] * ci + this.im[i] * cr;
        // one transform makes two real images: all of the signal in the real part, what is finer than FINE in the imaginary
        const fine = x * x + y * y > 1 / (FINE * FINE) && x * x + y * y < limit;
        re[i] = fine ? ar - ai : ar; im[i] = fine ? ai + ar : ai;
      }
    }
    big.run(re, im, true); big.run(pr, pi, true);
    const cut = (src, out) => {
      for (let y = 0; y < n; y++) for (let x = 0; x < n; x++)
        out[y * n + x] = src[(y - n / 2 + F) % F * F + (x - n / 2 + F) % F];
      return out;
    };
    const clean = cut(re, new Float64Array(n * n));
    // the constant part of the image is no information: leave it out of what is lost
    const mean = re.reduce((s, v) => s + v, 0) / re.length;
    const whole = re.reduce((s, v) => s + (v - mean) ** 2, 0), half = Math.min(n / 2, Math.round(p.box_length / this.pixel / 2));
    let inside = 0, fineInside = 0, fineWhole = 0;
    for (let i = 0; i < im.length; i++) fineWhole += im[i] * im[i];
    for (let y = -half; y < half; y++) for (let x = -half; x < half; x++) {
      inside += (clean[(y + n / 2) * n + x + n / 2] - mean) ** 2;
      fineInside += im[(y + F) % F * F + (x + F) % F] ** 2;
    }
    const recorded = Float64Array.from(clean);
    if (p.noise > 0) {
      this.white ??= normals(n * n);
      const m = clean.reduce((s, v) => s + v, 0) / clean.length;
      const sigma = p.noise * Math.sqrt(clean.reduce((s, v) => s + (v - m) ** 2, 0) / clean.length);
      for (let i = 0; i < recorded.length; i++) recorded[i] += sigma * this.white[i];
    }
    const sr = new Float64Array(n * n), si = new Float64Array(n * n);
    for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) sr[(y + n / 2) % n * n + (x + n / 2) % n] = recorded[y * n + x];
    small.run(sr, si);
    const power = Float64Array.from(sr, (v, i) => v * v + si[i] * si[i]);
    let shown = recorded;
    if (p.correction !== "none") {
      for (let j = 0, i = 0; j < n; j++) for (let k = 0; k < n; k++, i++) {
        const x = this.frequency(k, n), y = this.frequency(j, n), c = ctfAt(o, x, y);
        const f = p.correction === "flip" ? Math.sign(c) : p.correction === "multiply" ? c : c / (c * c + 0.1);
        const odd = o.tilt ? -oddPhaseAt(o, x, y) : 0, cr = f * Math.cos(odd), ci = f * Math.sin(odd), r = sr[i];
        sr[i] = r * cr - si[i] * ci; si[i] = r * ci + si[i] * cr;
      }
      small.run(sr, si, true);
      shown = new Float64Array(n * n);
      for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) shown[y * n + x] = sr[(y + n / 2) % n * n + (x + n / 2) % n];
    }
    return { shown, power, spread: pr, lost: whole > 0 ? 1 - inside / whole : 0, lostFine: fineWhole > 0 ? 1 - fineInside / fineWhole : 0, optics: o };
  }
}

// Grey picture of values; centred: element 0 is the middle of the picture.
function paint(canvas, values, n, { low, high, centred = false, gamma = null }) {
  canvas.width = canvas.height = n;
  const context = canvas.getContext("2d"), picture = context.createImageData(n, n), d = picture.data, scale = 255 / (high - low || 1);
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) {
    const s = centred ? (y + n / 2) % n * n + (x + n / 2) % n : y * n + x;
    let v = values[s];
    if (gamma) v = gamma(v);
    const g = Math.max(0, Math.min(255, (v - low) * scale)), t = 4 * (y * n + x);
    d[t] = d[t + 1] = d[t + 2] = g; d[t + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}
function percentiles(values, ...at) {
  const s = Float64Array.from(values).sort();
  return at.map(q => s[Math.min(s.length - 1, Math.floor(q * s.length))]);
}

function render({ model, el }) {
  const doc = el.ownerDocument, win = doc.defaultView;
  const make = (tag, cls, text) => { const e = doc.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e; };
  const root = make("div", "cryotk ck-ctf"), side = make("div", "ck-side"), main = make("div", "ck-main");
  root.append(side, main); el.append(root);
  const setTheme = () => { root.classList.remove("dark", "light"); const t = model.get("theme"); if (t !== "auto") root.classList.add(t); };
  setTheme();

  const NAMES = CONTROLS.map(c => c[0]).concat("voltage", "correction");
  const start = Object.fromEntries(NAMES.map(k => [k, model.get(k)]));
  const params = () => Object.fromEntries(NAMES.map(k => [k, model.get(k)]));

  // -- sliders
  const inputs = {};
  for (const [name, label, unit, low, high, step, factor, digits, help] of CONTROLS) {
    const row = make("label", "ck-row"), input = make("input"), value = make("output");
    const length = model.get("box") * model.get("pixel_size"), own = name === "box_length";
    row.title = help; input.type = "range"; input.min = own ? length * 0.375 : low; input.max = own ? length : high;
    input.step = own ? 2 * model.get("pixel_size") : step;
    input.setAttribute("aria-label", unit ? `${label} in ${unit}` : label);
    input.dataset.name = name;
    const show = () => { input.value = model.get(name) / factor; value.textContent = (model.get(name) / factor).toFixed(digits).replace("-", "−") + (unit ? ` ${unit}` : ""); };
    input.addEventListener("input", () => { model.set(name, +input.value * factor); show(); save(); schedule(); });
    row.append(make("span", "", label), value, input); side.append(row);
    inputs[name] = show; show();
  }
  const choose = (name, label, options, parse) => {
    const row = make("label", "ck-row ck-choice"), select = make("select");
    for (const [value, text] of options) { const o = make("option", "", text); o.value = value; select.append(o); }
    select.setAttribute("aria-label", label); select.dataset.name = name;
    const show = () => { select.value = String(model.get(name)); };
    select.addEventListener("change", () => { model.set(name, parse(select.value)); save(); schedule(); });
    row.append(make("span", "", label), select); side.append(row); inputs[name] = show; show();
  };
  choose("voltage", "Voltage", [["100", "100 kV"], ["200", "200 kV"], ["300", "300 kV"]], Number);
  choose("correction", "Correction", CORRECTIONS, String);
  const reset = make("button", "", "Reset");
  reset.addEventListener("click", () => { for (const k of NAMES) { model.set(k, start[k]); inputs[k](); } save(); schedule(); });
  side.append(reset);
  // Python hears of a slider at most ten times a second; the page does not wait for it
  let pending = null;
  const save = () => { pending ??= win.setTimeout(() => { pending = null; model.save_changes(); }, 100); };

  // -- pictures
  const curve = make("canvas", "ck-curve"), readout = make("div", "ck-readout");
  curve.setAttribute("role", "img"); curve.setAttribute("aria-label", "CTF against spatial frequency");
  const tiles = make("div", "ck-tiles"), canvases = {};
  for (const [key, title, help] of [
    ["object", "object", "projection of the molecule, no microscope"],
    ["image", "image", "the same particle as the microscope sees it, box cut out"],
    ["ctf", "CTF", "white +1, black −1, to the Nyquist frequency"],
    ["power", "power spectrum", "logarithm of the image's power: Thon rings"],
    ["spread", "point spread", "where the signal of one atom goes; the frame is the box"],
  ]) {
    const figure = make("figure"), frame = make("div", "ck-frame"), canvas = make("canvas"), caption = make("figcaption", "", title);
    figure.title = help; canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `${title}: ${help}`);
    canvas.dataset.name = key; frame.append(canvas); figure.append(frame, caption); tiles.append(figure); canvases[key] = canvas;
    if (key === "spread" || key === "image") { const box = make("div", "ck-box"); frame.append(box); (canvases.frames ??= {})[key] = box; }
    if (key === "image") canvases.caption = caption;
  }
  const numbers = make("div", "ck-numbers");
  main.append(curve, readout, tiles, numbers);

  let scope = null, hover = null;
  const load = () => {
    const n = model.get("box"), raw = bytes(model.get("object_pixels"));
    const object = raw.byteLength ? new Float32Array(raw.slice().buffer) : new Float32Array(n * n);
    scope = new Microscope(object, n, model.get("pixel_size"));
    const [low, high] = percentiles(object, 0.01, 0.998);
    paint(canvases.object, object, n, { low, high });
  };

  const drawCurve = p => {
    const o = optics(p), style = win.getComputedStyle(root), nyquist = 0.5 / model.get("pixel_size");
    const colour = name => style.getPropertyValue(name).trim() || "#888";
    const width = Math.max(280, curve.clientWidth || 640), height = 250, ratio = win.devicePixelRatio || 1;
    curve.width = width * ratio; curve.height = height * ratio;
    const c = curve.getContext("2d"); c.scale(ratio, ratio); c.clearRect(0, 0, width, height);
    const left = 34, right = 10, top = 20, bottom = 34, w = width - left - right, h = height - top - bottom;
    const X = k => left + k / nyquist * w, Y = v => top + (1 - v) / 2 * h;
    c.font = `11px ${style.fontFamily}`; c.lineWidth = 1; c.textAlign = "center"; c.textBaseline = "middle";
    c.strokeStyle = colour("--ck-border"); c.fillStyle = colour("--ck-fg-soft");
    for (const v of [-1, 0, 1]) {
      c.beginPath(); c.moveTo(left, Y(v)); c.lineTo(left + w, Y(v)); c.stroke();
      c.textAlign = "right"; c.fillText(String(v).replace("-", "−"), left - 6, Y(v)); c.textAlign = "center";
    }
    const step = nyquist > 0.2 ? 0.05 : 0.02;
    for (let k = 0; k <= nyquist + 1e-9; k += step) c.fillText(k.toFixed(2), X(k), height - 24);
    c.fillText("spatial frequency (1/Å)", left + w / 2, height - 8);
    for (const d of [40, 20, 15, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5]) {
      const x = X(1 / d);
      if (x > left + w - 14) break;
      if (x < left + 24 || (drawCurve.lastX && x - drawCurve.lastX < 34)) continue;
      drawCurve.lastX = x; c.fillText(`${d} Å`, x, 9);
      c.beginPath(); c.moveTo(x, top - 4); c.lineTo(x, top); c.stroke();
    }
    drawCurve.lastX = 0;
    const a = p.defocus_angle * Math.PI / 180, lines = [[Math.cos(a), Math.sin(a), "--ck-accent"]];
    if (p.astigmatism || p.fourfold) lines.push([-Math.sin(a), Math.cos(a), "--ck-accent-2"]);
    const trace = f => { c.beginPath(); for (let i = 0; i <= 2 * w; i++) { const k = i / (2 * w) * nyquist, y = Y(f(k)); i ? c.lineTo(X(k), y) : c.moveTo(X(k), y); } c.stroke(); };
    if (p.b_factor) { c.setLineDash([4, 4]); c.strokeStyle = colour("--ck-fg-soft"); trace(k => envelopeAt(o, k, 0)); trace(k => -envelopeAt(o, k, 0)); c.setLineDash([]); }
    c.lineWidth = 1.6;
    for (const [x, y, name] of lines.reverse()) { c.strokeStyle = colour(name); trace(k => ctfAt(o, k * x, k * y)); }
    if (hover !== null) {
      c.lineWidth = 1; c.strokeStyle = colour("--ck-fg"); c.setLineDash([2, 3]);
      c.beginPath(); c.moveTo(X(hover), top); c.lineTo(X(hover), top + h); c.stroke(); c.setLineDash([]);
    }
    drawCurve.at = px => { const k = (px - left) / w * nyquist; return k > 0 && k <= nyquist ? k : null; };
    const say = k => {
      const along = ctfAt(o, k * Math.cos(a), k * Math.sin(a)), across = ctfAt(o, -k * Math.sin(a), k * Math.cos(a));
      const sign = v => v.toFixed(2).replace("-", "−");
      return `${(1 / k).toFixed(1)} Å: CTF ${sign(along)} along defocus U` + (lines.length > 1 ? `, ${sign(across)} along V` : "");
    };
    readout.textContent = hover !== null ? say(hover) : lines.length > 1 ? "blue: along defocus U · orange: along defocus V" : "point at the curve to read it";
  };

  const draw = () => {
    if (!scope) load();
    const p = params(), n = model.get("box"), F = 2 * n, r = scope.image(p), o = r.optics;
    drawCurve(p);
    const [low, high] = percentiles(r.shown, 0.005, 0.998);
    paint(canvases.image, r.shown, n, { low, high });
    canvases.caption.textContent = `image, ${CORRECTIONS.find(c => c[0] === p.correction)[1]}`;
    const ctf = new Float64Array(n * n);
    for (let j = 0, i = 0; j < n; j++) for (let k = 0; k < n; k++, i++) ctf[i] = ctfAt(o, scope.frequency(k, n), scope.frequency(j, n));
    paint(canvases.ctf, ctf, n, { low: -1, high: 1, centred: true });
    const log = Float64Array.from(r.power, v => Math.log10(v + 1e-12)), [pl, ph] = percentiles(log, 0.05, 0.999);
    paint(canvases.power, log, n, { low: Math.max(pl, ph - 6), high: ph, centred: true });
    const top = r.spread.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-12);
    paint(canvases.spread, r.spread, F, { low: 0, high: 0.8, centred: true, gamma: v => Math.sqrt(Math.abs(v) / top) });
    const share = Math.min(1, p.box_length / (n * model.get("pixel_size")));
    canvases.frames.image.style.inset = `${50 * (1 - share)}%`; canvases.frames.image.hidden = share > 0.995;
    canvases.frames.spread.style.inset = `${50 * (1 - share / 2)}%`;
    const nyquist = 0.5 / model.get("pixel_size");
    const reach = k => Math.abs(o.lam * p.defocus * k - p.spherical_aberration * 1e7 * o.lam ** 3 * k ** 3);
    let zero = null;
    for (let k = 0.002, before = ctfAt(o, 0.001, 0); k < nyquist; k += 0.0005) {
      const v = ctfAt(o, k, 0); if (v * before < 0) { zero = k; break; } before = v;
    }
    numbers.replaceChildren(...[
      ["first zero along x", zero ? `${(1 / zero).toFixed(1)} Å` : "none"],
      [`reach of the signal at ${FINE} Å`, `${reach(1 / FINE).toFixed(0)} Å`],
      [`at ${(1 / nyquist).toFixed(1)} Å`, `${reach(nyquist).toFixed(0)} Å`],
      ["signal outside the box", `${(100 * r.lost).toFixed(1)} %`], [`finer than ${FINE} Å`, `${(100 * r.lostFine).toFixed(1)} %`],
    ].map(([label, value]) => { const s = make("span", "", `${label} `); s.append(make("b", "", value)); return s; }));
    root.dataset.lost = r.lost; root.dataset.lostFine = r.lostFine; root.dataset.ready = "yes";
  };
  let frame = 0;
  const schedule = () => { frame ||= win.requestAnimationFrame(() => { frame = 0; draw(); }); };

  curve.addEventListener("pointermove", e => { hover = drawCurve.at?.(e.offsetX) ?? null; drawCurve(params()); });
  curve.addEventListener("pointerleave", () => { hover = null; drawCurve(params()); });
  const changed = NAMES.map(k => [`change:${k}`, () => { inputs[k](); schedule(); }]);
  changed.push(["change:object_pixels", () => { load(); schedule(); }], ["change:theme", () => { setTheme(); schedule(); }]);
  for (const [event, f] of changed) model.on(event, f);
  const watch = new win.MutationObserver(schedule);
  watch.observe(doc.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  const resize = new win.ResizeObserver(() => schedule());
  resize.observe(main);
  draw();
  return () => { for (const [event, f] of changed) model.off(event, f); watch.disconnect(); resize.disconnect(); win.cancelAnimationFrame(frame); };
}

export default { render };
