// One class, large: wheel zooms at the pointer, drag pans, double click resets; beside it the signal-to-noise of its shells.
function createLoupe({ make, named, model, root, close, step }) {
  const side = 320;
  const canvas = make("canvas"), frame = make("div", "ck-big", canvas), title = make("div", "ck-title");
  const svg = root.ownerDocument.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img");
  const button = (glyph, name, f) => { const b = named(make("button", "ck-icon", glyph), name); b.addEventListener("click", f); return b; };
  const bar = make("div", "ck-loupe-bar", button("◀", "Previous class", () => step(-1)), button("▶", "Next class", () => step(1)), title,
    button("✕", "Close", close));
  const el = make("div", "ck-loupe", bar, make("div", "ck-loupe-body", frame, svg));
  el.hidden = true;
  let which = -1, source = null, sharp = null, zoom = 1, x = 0, y = 0;

  function place() {
    canvas.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
  }
  function redraw() {
    if (el.hidden || !source) return;
    const now = source(), picture = sharp && !(model.get("lowpass") > 0) ? sharp : { values: now.values, n: now.n };
    canvas.width = canvas.height = picture.n;
    const ctx = canvas.getContext("2d"), im = ctx.createImageData(picture.n, picture.n);
    paint(new Uint32Array(im.data.buffer), picture.values, ...now.limits, model.get("contrast"));
    ctx.putImageData(im, 0, 0);
  }
  function curve(values, pixelSize, box, resolution) {
    // log scale, 0.1 to 10 000; the resolution is where the curve falls below one
    const W = 300, H = 236, left = 34, right = W - 8, bottom = 204, top = 8, px = (i) => left + (right - left) * i / (values.length - 1);
    const py = (v) => bottom - (bottom - top) * (Math.log10(Math.min(1e4, v)) + 1) / 5;
    let end = values.findIndex((v, i) => i > 1 && v < 0.1);
    if (end < 0) end = values.length;
    const points = values.slice(0, end).map((v, i) => `${px(i).toFixed(1)},${py(Math.max(0.1, v)).toFixed(1)}`).slice(1).join(" ");
    const line = (cls, x1, y1, x2, y2) => `<line class="${cls}" x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"/>`;
    const tick = (v) => `<text x="${left - 5}" y="${py(v) + 3}" text-anchor="end">${v}</text>`;
    const mark = known(resolution) ? px(box * pixelSize / resolution) : 0;
    const below = [0.25, 0.5, 0.75, 1].map((q) => {
      const i = q * (values.length - 1);
      return `<text x="${px(i)}" y="${bottom + 13}" text-anchor="${q === 1 ? "end" : "middle"}">${(box * pixelSize / i).toFixed(1)} Å</text>`;
    }).join("");
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
    svg.innerHTML = line("ck-axis", left, bottom, right, bottom) + line("ck-axis", left, top, left, bottom) + line("ck-thin", left, py(1), right, py(1))
      + [1, 10, 100, 1000].map(tick).join("") + below
      + (mark ? line("ck-thin", mark, top, mark, bottom) + `<text x="${mark + 4}" y="${top + 10}">${resolution.toFixed(1)} Å</text>` : "")
      + `<polyline points="${points}"/><text x="${left}" y="${H - 2}">signal-to-noise ratio, over spatial frequency</text>`;
    svg.setAttribute("aria-label", `signal-to-noise ratio of class ${which + 1}`);
    svg.style.display = "";
  }
  frame.style.width = frame.style.height = side + "px";
  frame.addEventListener("wheel", (e) => {
    e.preventDefault();
    const b = frame.getBoundingClientRect(), px = e.clientX - b.left, py = e.clientY - b.top;
    const to = Math.min(16, Math.max(1, zoom * Math.exp(-e.deltaY / 300)));
    x = to === 1 ? 0 : px - (px - x) * to / zoom;
    y = to === 1 ? 0 : py - (py - y) * to / zoom;
    zoom = to;
    place();
  }, { passive: false });
  frame.addEventListener("pointerdown", (e) => {
    frame.setPointerCapture(e.pointerId);
    const from = [e.clientX - x, e.clientY - y];
    const drag = (m) => { x = m.clientX - from[0]; y = m.clientY - from[1]; place(); };
    frame.addEventListener("pointermove", drag);
    frame.addEventListener("pointerup", () => frame.removeEventListener("pointermove", drag), { once: true });
  });
  frame.addEventListener("dblclick", () => { zoom = 1; x = y = 0; place(); });
  return {
    el, redraw, shown: () => !el.hidden,
    show(i, text, pictureOf) {
      if (which !== i) { sharp = null; svg.style.display = "none"; }
      which = i;
      source = pictureOf;
      el.hidden = false;
      title.textContent = text;
      redraw();
      model.send({ cmd: "full", index: i });
    },
    hide() { el.hidden = true; },
    receive(m, buffers) {
      if (m.full !== which) return;
      const raw = bytes(buffers[0]), [lo, hi] = m.range, values = new Float32Array(raw.length);
      for (let p = 0; p < raw.length; p++) values[p] = lo + (hi - lo) / 255 * raw[p];
      sharp = { values, n: m.n };
      if (m.curve.length > 1) curve(m.curve, m.pixel_size, m.box, m.resolution);
      redraw();
    },
  };
}
