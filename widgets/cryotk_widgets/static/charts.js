// Small figures as SVG: curves over spatial frequency, numbers over iterations, bars; and the map of directions on a canvas.
const ESCAPED = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const plain = (s) => String(s).replace(/[&<>"]/g, (c) => ESCAPED[c]);
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#999999"];

function createChart(view, { name, width = 420, height = 240 }) {
  const { make, doc } = view;
  const svg = doc.createElementNS("http://www.w3.org/2000/svg", "svg"), readout = make("div", "ck-readout"), el = make("div", "ck-chart", svg, readout);
  svg.setAttribute("role", "img");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const left = 50, right = width - 12, top = 12, bottom = height - 34;
  let shown = null;
  // lines: [{ x, y, colour, width, opacity, dash, label }]; dots: [{ x, y, r, colour, label }]; marks: [{ x, y, text }]; ticks: [[value, text], ...]
  function draw({ lines = [], dots = [], marks = [], levels = [], bars = [], x: [x0, x1], y: [y0, y1], xTicks = [], yTicks = [], xName = "", yName = "", log = false, read = null }) {
    const f = (v) => (log ? Math.log10(Math.max(v, 1e-12)) : v), a = f(y0), b = f(y1);
    const px = (v) => left + (right - left) * (v - x0) / (x1 - x0 || 1), py = (v) => bottom - (bottom - top) * (Math.min(Math.max(f(v), a), b) - a) / (b - a || 1);
    const line = (cls, ax, ay, bx, by, style = "") => `<line class="${cls}" x1="${ax.toFixed(1)}" y1="${ay.toFixed(1)}" x2="${bx.toFixed(1)}" y2="${by.toFixed(1)}" style="${style}"/>`;
    let out = line("ck-axis", left, bottom, right, bottom) + line("ck-axis", left, top, left, bottom);
    for (const [v, t] of xTicks) out += line("ck-axis", px(v), bottom, px(v), bottom + 4) + `<text x="${px(v).toFixed(1)}" y="${bottom + 15}" text-anchor="middle">${plain(t)}</text>`;
    for (const [v, t] of yTicks) out += line("ck-axis", left - 4, py(v), left, py(v)) + `<text x="${left - 6}" y="${(py(v) + 3).toFixed(1)}" text-anchor="end">${plain(t)}</text>`;
    for (const v of levels) out += line("ck-thin", left, py(v), right, py(v));
    for (const { x, y, colour, w = 0.8, label } of bars) out += `<rect x="${(px(x - w / 2)).toFixed(1)}" y="${py(y).toFixed(1)}" width="${Math.max(1, px(x + w / 2) - px(x - w / 2)).toFixed(1)}" height="${Math.max(0, bottom - py(y)).toFixed(1)}" fill="${colour}"><title>${plain(label ?? "")}</title></rect>`;
    for (const l of lines) {
      const points = l.y.map((v, i) => (Number.isFinite(v) ? `${px(l.x[i]).toFixed(1)},${py(v).toFixed(1)}` : "")).filter(Boolean).join(" ");
      out += `<polyline points="${points}" style="stroke:${l.colour ?? "var(--ck-fg)"};stroke-width:${l.width ?? 1.5};opacity:${l.opacity ?? 1};${l.dash ? `stroke-dasharray:${l.dash}` : ""}"><title>${plain(l.label ?? "")}</title></polyline>`;
    }
    for (const d of dots) out += `<circle cx="${px(d.x).toFixed(1)}" cy="${py(d.y).toFixed(1)}" r="${d.r}" style="fill:${d.colour};stroke:none"><title>${plain(d.label ?? "")}</title></circle>`;
    for (const m of marks) {
      const end = px(m.x) > right - 80;
      out += `<circle cx="${px(m.x).toFixed(1)}" cy="${py(m.y).toFixed(1)}" r="3.5" style="fill:${m.colour ?? "var(--ck-fg)"}"/><text class="ck-mark" x="${(px(m.x) + (end ? -7 : 7)).toFixed(1)}" y="${(py(m.y) - 6).toFixed(1)}" text-anchor="${end ? "end" : "start"}">${plain(m.text)}</text>`;
    }
    out += `<text x="${(left + right) / 2}" y="${height - 4}" text-anchor="middle">${plain(xName)}</text><text transform="translate(9 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">${plain(yName)}</text>`;
    svg.innerHTML = out;
    svg.setAttribute("aria-label", name);
    shown = { x0, x1, read };
  }
  svg.addEventListener("pointermove", (e) => {
    if (!shown?.read) return;
    const b = svg.getBoundingClientRect(), v = shown.x0 + (shown.x1 - shown.x0) * ((e.clientX - b.left) / b.width * width - left) / (right - left);
    readout.textContent = shown.read(Math.min(shown.x1, Math.max(shown.x0, v)));
  });
  svg.addEventListener("pointerleave", () => { readout.textContent = ""; });
  return { el, draw };
}
// Ticks at round resolutions for an axis of frequencies up to `last`.
function angstromTicks(last) {
  const all = [100, 50, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.5, 1.2, 1], out = [];
  let before = 0;
  for (const d of all) {
    const f = 1 / d;
    if (f > last * 1.001) break;
    if (f - before < last / 7) continue;
    out.push([f, `${d} Å`]);
    before = f;
  }
  return out;
}
// Directions: image (uint8, 0 outside) in colours (768 bytes), with a frame.
function drawSphere(canvas, image, width, colours, dots = []) {
  const height = width / 2, c = canvas.getContext("2d");
  canvas.width = 2 * width;
  canvas.height = 2 * height;
  const small = canvas.ownerDocument.createElement("canvas");
  small.width = width;
  small.height = height;
  const s = small.getContext("2d"), data = s.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const v = image[i];
    if (!v) continue;
    const k = 3 * v;
    data.data.set([colours[k], colours[k + 1], colours[k + 2], 255], 4 * i);
  }
  s.putImageData(data, 0, 0);
  c.clearRect(0, 0, canvas.width, canvas.height);
  c.imageSmoothingEnabled = false;
  c.drawImage(small, 0, 0, canvas.width, canvas.height);
  c.strokeStyle = "rgba(255,255,255,0.25)";
  c.lineWidth = 1;
  const theta = (lat) => { let t = lat; for (let i = 0; i < 12; i++) t -= (2 * t + Math.sin(2 * t) - Math.PI * Math.sin(lat)) / (2 + 2 * Math.cos(2 * t) + 1e-9); return t; };
  const place = (lon, lat) => { const t = theta(lat); return [width * (1 + lon / Math.PI * Math.cos(t)), height * (1 - Math.sin(t))]; };
  for (const lat of [-60, -30, 0, 30, 60]) { c.beginPath(); for (let l = -180; l <= 180; l += 6) c.lineTo(...place(l * Math.PI / 180, lat * Math.PI / 180)); c.stroke(); }
  for (const lon of [-120, -60, 0, 60, 120]) { c.beginPath(); for (let l = -90; l <= 90; l += 3) c.lineTo(...place(lon * Math.PI / 180, l * Math.PI / 180)); c.stroke(); }
  const most = Math.max(1e-12, ...dots.map((d) => d[2]));
  for (const [rot, tilt, weight] of [...dots].sort((a, b) => a[2] - b[2])) {
    const [x, y] = place(rot * Math.PI / 180, (90 - tilt) * Math.PI / 180), k = 3 * Math.round(255 * weight / most);
    c.fillStyle = `rgb(${colours[k]}, ${colours[k + 1]}, ${colours[k + 2]})`;
    c.beginPath();
    c.arc(x, y, 2.5 + 4 * Math.sqrt(weight / most), 0, 7);
    c.fill();
  }
}
// The map of directions with nothing on it.
function emptySphere(width) {
  const out = new Uint8Array(width * width / 2);
  for (let y = 0, i = 0; y < width / 2; y++) for (let x = 0; x < width; x++, i++) {
    const v = (y + 0.5) / (width / 4) - 1, u = (x + 0.5) / (width / 2) - 1;
    if (u * u + v * v < 1) out[i] = 1;
  }
  return out;
}
