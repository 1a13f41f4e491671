// Run with: node --test tests/widgets/
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const folder = process.env.CRYOTK_STATIC ?? new URL("../../widgets/cryotk_widgets/static/", import.meta.url);
const source = readFileSync(new URL("gallery_core.js", folder), "utf8");
const core = await import("data:text/javascript," + encodeURIComponent(source));

const share = [0.1, 0.4, 0, 0.3, 0.2], resolution = [20, 12, 0, 9, 0];

test("order: empty classes last, unknown resolution after known, ties by number", () => {
  assert.deepEqual(core.arranged("number", share, resolution), [0, 1, 2, 3, 4]);
  assert.deepEqual(core.arranged("particles", share, resolution), [1, 3, 4, 0, 2]);
  assert.deepEqual(core.arranged("resolution", share, resolution), [3, 1, 0, 4, 2]);
});

test("filter by number, share and resolution", () => {
  const f = (q) => core.filtered(q, share, resolution).classes;
  assert.deepEqual(f("1-2, 5"), [1, 2, 5]);
  assert.deepEqual(f("> 15 %"), [2, 4, 5]);
  assert.deepEqual(f("<15A"), [2, 4]);
  assert.deepEqual(f(">15% < 10 Å"), [4]);
  assert.deepEqual(f("1-9 >15%"), [2, 4, 5]);
  assert.equal(f(""), null);
  assert.match(core.filtered("nice ones", share, resolution).reason, /not understood/);
  assert.equal(core.filtered("> 90 %", share, resolution).reason, "no class fits");
});

test("click toggles, shift-click extends along the order shown", () => {
  const order = [1, 3, 4, 0, 2];
  assert.deepEqual([...core.clicked(new Set([4]), order, 1, 0, false)], []);
  assert.deepEqual([...core.clicked(new Set(), order, 2, 0, true)], [2, 4, 5]);
  assert.deepEqual([...core.clicked(new Set(), order, 0, 2, true)], [2, 4, 5]);
});

test("progress in words", () => {
  const p = { running: true, iteration: 7, fraction: 0.634, seconds_left: 12.4, phase: "expectation" };
  assert.equal(core.progressText(p, ""), "iteration 7 · 63 % of particles · 12 s left");
  assert.equal(core.progressText({ running: false, message: "" }, "9.0 Å"), "9.0 Å");
  assert.equal(core.duration(600), "10 min");
  assert.equal(core.duration(7200), "2.0 h");
  assert.equal(core.grouped(3912), "3 912");
  assert.equal(core.grouped(120345678), "120 345 678");
});

test("low-pass keeps the mean, halves the wave at its resolution", () => {
  const n = 64, pixel = 2, period = 16, src = new Float32Array(n * n);
  for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) src[y * n + x] = 3 + Math.cos(2 * Math.PI * x / period);
  const out = core.smooth(src, n, core.sigmaOf(period * pixel, pixel));
  assert.ok(Math.abs(out[32 * n + 32] - 3.5) < 0.02, `gain at the limit is ${out[32 * n + 32] - 3}`);
  assert.ok(Math.abs(out[32 * n + 40] - 2.5) < 0.02);
  assert.equal(core.smooth(src, n, 0), src);
});

test("grey levels", () => {
  const words = new Uint32Array(4);
  core.paint(words, [-1, 0, 0.5, 2], 0, 1, 1);
  assert.deepEqual([...words].map((w) => w & 255), [0, 0, 127, 255]);
  assert.ok([...words].every((w) => w >>> 24 === 255));
  const [lo, hi] = core.tileLimits(Float32Array.from({ length: 1024 }, (_, i) => i), 32);
  assert.ok(lo < 120 && hi > 900);
  assert.deepEqual(core.tileLimits(new Float32Array(64), 8), [0, 1]);
});

test("bytes of what a kernel sends", () => {
  const b = new Uint8Array([9, 1, 2, 3]).buffer;
  assert.deepEqual([...core.bytes(new DataView(b, 1, 2))], [1, 2]);
  assert.equal(core.bytes(undefined).length, 0);
});
