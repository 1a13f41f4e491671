// Isosurfaces by ray marching in WebGL2. One context serves every view of a page (browsers allow few); each view copies its picture
// out of it. Textures belong to the map and are made again when the context was lost.
const VERTEX = `#version 300 es
out vec2 at; void main() { at = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0; gl_Position = vec4(at, 0.0, 1.0); }`;
const FRAGMENT = `#version 300 es
precision highp float; precision highp sampler3D;
in vec2 at; out vec4 pixel;
uniform sampler3D map, blocks, cells, tint; uniform sampler2D palette;
uniform mat3 turn;               // view to map
uniform vec3 centre, size, lo, hi;
uniform vec2 half_view, pan;     // voxels
uniform vec2 jitter;             // of the point in a pixel, in half pictures
uniform float level, pace, near, front, far, cell, tinted, fine, pass;
uniform vec2 tint_shown;         // 8-bit range that the palette spans
uniform vec3 colour, background;
const float B = 8.0;
float value(vec3 p) { return texture(map, p / size).r; }
vec3 slope(vec3 p, float h) {
  return vec3(value(p + vec3(h, 0, 0)) - value(p - vec3(h, 0, 0)), value(p + vec3(0, h, 0)) - value(p - vec3(0, h, 0)),
    value(p + vec3(0, 0, h)) - value(p - vec3(0, 0, h)));
}
vec3 eye, beam;
float cell_at(vec3 p) { return texture(cells, p / cell / vec3(textureSize(cells, 0))).r; }
float hides(float v) { return smoothstep(0.3 * level, 0.95 * level, v); }
// how much stands between p and the sky towards w: the map itself near by, cells of it farther away; nothing before a clipping plane
float hidden(vec3 p, vec3 w) {
  float room = dot(w, beam) < 0.0 ? (dot(p - eye, beam) - near) / -dot(w, beam) : 1e9;
  float o = room > 2.6 ? 0.85 * smoothstep(0.75 * level, 1.1 * level, value(p + w * 2.6)) : 0.0;
  if (room > 5.0) o = max(o, smoothstep(0.75 * level, 1.1 * level, value(p + w * 5.0)));
  if (room > 9.0) o = max(o, 0.95 * hides(cell_at(p + w * 9.0)));
  if (room > 15.0) o = max(o, 0.85 * hides(cell_at(p + w * 15.0)));
  return room > 25.0 ? max(o, 0.7 * hides(cell_at(p + w * 25.0))) : o;
}
void main() {
  pixel = vec4(0.0);
  vec3 d = turn * vec3(0, 0, -1), o = turn * vec3((at + jitter) * half_view + pan, 0.0) + centre;
  eye = o; beam = d;
  vec3 inverse = 1.0 / (mix(vec3(-1), vec3(1), greaterThanEqual(d, vec3(0))) * max(abs(d), vec3(1e-6)));
  vec3 a = (lo - o) * inverse, b = (hi - o) * inverse, first = min(a, b), last = max(a, b);
  float box = max(max(first.x, first.y), first.z), t = max(box, near), end = min(min(last.x, last.y), last.z);
  if (t >= end) return;
  t += 1e-3;
  bool found = false, cap = false;
  if (near > box && value(o + d * t) >= level) { found = cap = true; }
  float before = t;
  for (int i = 0; i < 900 && !found && t < end; i++) {
    vec3 p = o + d * t;
    ivec3 block = ivec3(p / B);
    vec3 edge = ((vec3(block) + step(vec3(0), d)) * B - p) * inverse;
    float leave = t + max(min(min(edge.x, edge.y), edge.z), 0.0) + 2e-3;
    if (texelFetch(blocks, block, 0).r < level) { t = leave; before = t; continue; }
    for (int j = 0; j < 40; j++) {
      if (value(o + d * t) >= level) { found = true; break; }
      before = t;
      t += pace;
      if (t > leave || t > end) break;
    }
  }
  if (!found) return;
  vec3 n;
  if (cap) n = -d;
  else {
    float x = before, y = t;
    int steps = fine > 0.5 ? 5 : 3;
    for (int i = 0; i < steps; i++) { float m = 0.5 * (x + y); if (value(o + d * m) >= level) y = m; else x = m; }
    t = y;
    vec3 q = o + d * t, g;
    if (fine > 0.5) g = slope(q, 1.2);
    else g = vec3(value(q + vec3(1.4, 0, 0)), value(q + vec3(0, 1.4, 0)), value(q + vec3(0, 0, 1.4))) - value(q);
    n = dot(g, g) > 0.0 ? -normalize(g) : -d;
    if (dot(n, d) > 0.0) n = -n;
  }
  vec3 p = o + d * t, view = n * turn;          // transpose: map to view
  // a key light from the upper left with soft shadows, light from the whole sky where it is open, a little from the right
  vec3 lamp = vec3(-0.48, 0.58, 0.66);
  float open = 1.0, lit = 1.0;
  if (fine > 0.5 && !cap) {
    vec3 u = normalize(cross(n, abs(n.z) < 0.8 ? vec3(0, 0, 1) : vec3(1, 0, 0))), v = cross(n, u);
    float around = 0.0;
    for (int i = 0; i < 3; i++) {               // of 24 directions, three in each pass over the picture
      float j = float(i) * 8.0 + pass, up = sqrt(1.0 - (j + 0.5) / 24.0), out_ = sqrt((j + 0.5) / 24.0), angle = 2.399963 * j;
      around += hidden(p, out_ * (cos(angle) * u + sin(angle) * v) + up * n);
    }
    open = 1.0 - around / 3.0;
    open *= 1.0 - 0.45 * smoothstep(0.75 * level, 1.1 * level, value(p + n * 1.7));
    lit = 1.0 - hidden(p + n, turn * normalize(lamp + 0.14 * vec3(cos(2.4 * pass), sin(2.4 * pass), 0)));
  } else if (!cap) {
    float room = dot(p - eye, d) - near;
    open = 1.0 - 0.75 * max(hides(cell_at(p + n * min(6.0, room))), room > 14.0 ? 0.8 * hides(cell_at(p + n * 14.0)) : 0.0);
    lit = room > 14.0 ? 1.0 - 0.8 * hides(cell_at(p + n * 3.0 + turn * lamp * 11.0)) : 1.0;
  }
  float key = max(dot(view, normalize(lamp)), 0.0), sky = 0.5 + 0.5 * view.y, side = max(dot(view, vec3(0.66, -0.2, 0.72)), 0.0);
  float shine = pow(max(dot(view, normalize(vec3(-0.26, 0.31, 0.91))), 0.0), 36.0), rim = smoothstep(0.0, 0.42, view.z);
  vec3 base = colour;
  if (tinted > 0.5) {
    float c = texture(tint, p / size).r * 255.0;
    base = c < 0.5 ? vec3(0.62) : texture(palette, vec2(clamp((c - tint_shown.x) / (tint_shown.y - tint_shown.x), 0.002, 0.998), 0.5)).rgb;
  }
  base *= base;                                 // light adds in linear space
  vec3 light = base * ((0.08 + 0.92 * open) * (0.24 + 0.32 * sky + 0.16 * side) + 0.92 * key * lit * (0.5 + 0.5 * open)) + 0.12 * shine * lit * open;
  light *= mix(0.45, 1.0, rim);                 // a dark rim parts what is in front from what is behind
  if (cap) light = base * (0.36 + 0.6 * clamp((value(p) - level) / (1.0 - level), 0.0, 1.0));
  vec3 shown = sqrt(light);
  float depth = clamp((t - front) / (far - front), 0.0, 1.0);
  depth = clamp((depth - 0.3) / 0.7, 0.0, 1.0);
  pixel = vec4(mix(shown, background, 0.34 * depth * depth * (0.3 + 0.7 * open)), 1.0);
}`;

export function graphics() {
  const kept = globalThis.__cryotk_gl;
  if (kept && !kept.gl.isContextLost()) return kept;
  const canvas = document.createElement("canvas"), gl = canvas.getContext("webgl2", { alpha: true, antialias: false, depth: false, powerPreference: "high-performance" });
  if (!gl) return null;
  const shader = (type, text) => { const s = gl.createShader(type); gl.shaderSource(s, text); gl.compileShader(s); return s; };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, VERTEX));
  const fragment = shader(gl.FRAGMENT_SHADER, FRAGMENT);
  gl.attachShader(program, fragment);
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getShaderInfoLog(fragment) || gl.getProgramInfoLog(program));
  const where = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const name = gl.getActiveUniform(program, i).name;
    where[name] = gl.getUniformLocation(program, name);
  }
  gl.bindVertexArray(gl.createVertexArray());
  gl.useProgram(program);
  ["map", "blocks", "cells", "tint", "palette"].forEach((name, unit) => gl.uniform1i(where[name], unit));
  return (globalThis.__cryotk_gl = { gl, canvas, where, most: gl.getParameter(gl.MAX_3D_TEXTURE_SIZE) });
}

// A map ready to be drawn: uint8 values (z, y, x), voxel in Å.
export class DrawnMap {
  constructor(data, shape, voxel) {
    Object.assign(this, { data, shape, voxel, made: null, textures: {}, tint: null });
    this.blocks = blockMax(data, shape);
    this.cells = cellMean(data, shape);
    this.counts = histogram(data);
  }
  setTint(data) { this.tint = data && data.length === this.data.length ? data : null; this.forget("tint"); }
  setPalette(data) { this.palette = data; this.forget("palette"); }
  forget(name) {
    if (this.textures[name]) this.made.gl.deleteTexture(this.textures[name]);
    delete this.textures[name];
  }
  drop() { if (this.made) Object.keys(this.textures).forEach((name) => this.forget(name)); }
  bind(g) {
    const { gl } = g;
    if (this.made !== g) { this.made = g; this.textures = {}; }
    const use = (unit, name, make) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      const target = name === "palette" ? gl.TEXTURE_2D : gl.TEXTURE_3D;
      if (this.textures[name]) return gl.bindTexture(target, this.textures[name]);
      gl.bindTexture(target, (this.textures[name] = gl.createTexture()));
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      const smooth = name === "blocks" ? gl.NEAREST : gl.LINEAR;
      for (const p of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(target, p, smooth);
      for (const p of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(target, p, gl.CLAMP_TO_EDGE);
      make(target);
    };
    const solid = ({ data, shape: [z, y, x] }) => (target) => gl.texImage3D(target, 0, gl.R8, x, y, z, 0, gl.RED, gl.UNSIGNED_BYTE, data);
    use(0, "map", solid(this));
    use(1, "blocks", solid(this.blocks));
    use(2, "cells", solid(this.cells));
    use(3, "tint", solid(this.tint ? { data: this.tint, shape: this.shape } : { data: new Uint8Array(1), shape: [1, 1, 1] }));
    const colours = this.palette?.length === 768 ? this.palette : new Uint8Array(768);
    use(4, "palette", (target) => gl.texImage2D(target, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, colours));
  }
}

// Draw into the shared context and copy to `context` (2D) at [x, y, w, h]; `scale` pixels of the drawing per pixel of the target.
// what: { rotation, level (0 to 255), half: half height in Å, pan: [x, y] Å, clip: 0 to 1, colour, background, fine, tintShown }
export function drawMap(context, [x, y, w, h], map, what, scale = 1) {
  const g = graphics();
  if (!g) return false;
  const { gl, canvas, where } = g, W = Math.max(1, Math.round(w * scale)), H = Math.max(1, Math.round(h * scale));
  // exactly what is drawn: the copy below takes the whole canvas, and a turning map keeps its size
  if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
  gl.viewport(0, 0, W, H);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const [nz, ny, nx] = map.shape, box = reach(map.blocks, what.level, map.shape);
  if (box) {
    map.bind(g);
    const m = matrixOf(what.rotation), radius = 0.5 * Math.hypot(nx, ny, nz), f = (name, v) => gl.uniform1f(where[name], v);
    // turn is the transpose of R, and GLSL wants columns: the rows of R as they are
    gl.uniformMatrix3fv(where.turn, false, new Float32Array(m.flat()));
    // index n // 2 is the centre of the map; texel i is sampled at i + 0.5
    gl.uniform3f(where.centre, (nx >> 1) + 0.5, (ny >> 1) + 0.5, (nz >> 1) + 0.5);
    gl.uniform3f(where.size, nx, ny, nz);
    gl.uniform3fv(where.lo, box[0]);
    gl.uniform3fv(where.hi, box[1]);
    const half = what.half / map.voxel;
    gl.uniform2f(where.half_view, half * w / h, half);
    gl.uniform2f(where.pan, -what.pan[0] / map.voxel, -what.pan[1] / map.voxel);
    // depth is measured over the sphere that holds the map, whatever the threshold, so that a clipping plane stays where it is
    const ball = Math.min(radius, (what.radius || 1e9) / map.voxel);
    f("near", what.clip > 0 ? (2 * what.clip - 1) * ball : -radius);
    f("front", -ball);
    f("far", ball);
    f("level", what.level / 255);
    f("pace", what.fine ? 0.6 : 1.3);
    f("cell", 4);
    f("fine", what.fine ? 1 : 0);
    // passes over a picture at rest differ by less than a pixel, and in the directions that they look for shadows
    const pass = what.pass ?? 0, part = (k) => ((0.5 + pass * k) % 1) - 0.5;
    f("pass", pass);
    gl.uniform2f(where.jitter, what.fine ? 2 * part(0.7548777) / W : 0, what.fine ? 2 * part(0.5698403) / H : 0);
    f("tinted", map.tint && what.tinted !== false ? 1 : 0);
    gl.uniform2fv(where.tint_shown, what.tintShown || [1, 255]);
    gl.uniform3fv(where.colour, what.colour);
    gl.uniform3fv(where.background, what.background);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
  // reading a pixel waits for the drawing, so that its cost is known
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = scale > 1 ? "high" : "low";
  context.drawImage(canvas, 0, 0, W, H, x, y, w, h);
  return true;
}
