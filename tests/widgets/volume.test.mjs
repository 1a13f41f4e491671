// Run with: node --test tests/widgets/
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const folder = process.env.CRYOTK_STATIC ?? new URL("../../widgets/cryotk_widgets/static/", import.meta.url);
const core = await import("data:text/javascript," + encodeURIComponent(readFileSync(new URL("volume_core.js", folder), "utf8")));
const near = (a, b, eps = 1e-9) => assert.ok(a.flat().every((v, i) => Math.abs(v - b.flat()[i]) < eps), `${a} is not ${b}`);

test("rotations: a quarter turn about z takes x to y; products act from the right", () => {
  const z = core.about(0, 0, 1, Math.PI / 2), x = core.about(1, 0, 0, Math.PI / 2);
  near(core.apply(core.matrixOf(z), [1, 0, 0]), [0, 1, 0]);
  near(core.apply(core.matrixOf(core.multiplied(x, z)), [1, 0, 0]), [0, 0, 1]);
  // a drag to the right brings the front to the right
  near(core.apply(core.matrixOf(core.turned([0, 0, 0, 1], 50, 0, 100)), [0, 0, 1]), [1, 0, 0]);
  // a drag down (screen y grows) brings the front down
  near(core.apply(core.matrixOf(core.turned([0, 0, 0, 1], 0, 50, 100)), [0, 0, 1]), [0, -1, 0]);
});

test("blocks hold the greatest value a sample inside can meet", () => {
  const shape = [20, 17, 11], data = Uint8Array.from({ length: 20 * 17 * 11 }, (_, i) => (i * 7919) % 251);
  const { data: found, shape: [bz, by, bx] } = core.blockMax(data, shape);
  assert.deepEqual([bz, by, bx], [3, 3, 2]);
  for (let z = 0, i = 0; z < bz; z++) for (let y = 0; y < by; y++) for (let x = 0; x < bx; x++, i++) {
    let most = 0;
    for (let c = Math.max(0, 8 * z - 1); c <= Math.min(19, 8 * z + 8); c++) for (let b = Math.max(0, 8 * y - 1); b <= Math.min(16, 8 * y + 8); b++)
      for (let a = Math.max(0, 8 * x - 1); a <= Math.min(10, 8 * x + 8); a++) most = Math.max(most, data[(c * 17 + b) * 11 + a]);
    assert.equal(found[i], most);
  }
  const one = new Uint8Array(16 ** 3);
  one[(3 * 16 + 12) * 16 + 2] = 9;
  assert.deepEqual(core.reach(core.blockMax(one, [16, 16, 16]), 5, [16, 16, 16]), [[0, 8, 0], [8, 16, 8]]);
  assert.equal(core.reach(core.blockMax(one, [16, 16, 16]), 10, [16, 16, 16]), null);
});

test("slices: y and z point up", () => {
  const shape = [2, 3, 4], data = Uint8Array.from({ length: 24 }, (_, i) => i), at = (z, y, x) => (z * 3 + y) * 4 + x;
  const xy = core.slice(data, shape, "z", 1);
  assert.deepEqual([xy.width, xy.height, xy.values[0], xy.values.at(-1)], [4, 3, at(1, 2, 0), at(1, 0, 3)]);
  const xz = core.slice(data, shape, "y", 2);
  assert.deepEqual([xz.width, xz.height, xz.values[0], xz.values.at(-1)], [4, 2, at(1, 2, 0), at(0, 2, 3)]);
  const yz = core.slice(data, shape, "x", 3);
  assert.deepEqual([yz.width, yz.height, yz.values[0], yz.values.at(-1)], [3, 2, at(1, 0, 3), at(0, 2, 3)]);
});

test("a contour goes around, at the level between two pixels", () => {
  const values = Uint8Array.from([0, 0, 0, 0, 100, 0, 0, 0, 0]), piece = core.contour({ values, width: 3, height: 3 }, 25);
  assert.equal(piece.length, 16);
  for (let k = 0; k < piece.length; k += 2) assert.ok(Math.abs(Math.hypot(piece[k] - 1.5, piece[k + 1] - 1.5) - 0.75) < 1e-9);
});

test("means of cells, histogram, round numbers", () => {
  assert.deepEqual([...core.cellMean(new Uint8Array(512).fill(40), [8, 8, 8]).data], Array(8).fill(40));
  const h = core.histogram(Uint8Array.from([0, 3, 3, 255]));
  assert.deepEqual([h[0], h[3], h[255], h[4]], [1, 2, 1, 0]);
  assert.deepEqual([100, 354, 60, 26].map(core.roundLength), [20, 50, 10, 5]);
  assert.deepEqual([0, 0.0846, 12.34, 1234.5, 0.00012, 20].map(core.figures), ["0", "0.0846", "12.3", "1235", "1.20e-4", "20.0"]);
});
