// One class, large: wheel zooms at the pointer, drag pans, double click resets; beside it the signal-to-noise of its shells.
function createLoupe({ make, named, model, root, close, step }) {
  const side = 320;
  const canvas = make("canvas"), frame = make("div", "ck-big", canvas), title = make("div", "ck-title");
  const svg = root.ownerDocument.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 300 170");
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
    // log scale, 0.1 to 1000; the resolution is where the curve falls below one
    const W = 300, H = 170, left = 30, bottom = 148, top = 8, px = (i) => left + (W - left - 8) * i / (values.length - 1);
    const py = (v) => bottom - (bottom - top) * (Math.log10(Math.min(1000, Math.max(0.1, v))) + 1) / 4;
    const points = values.map((v, i) => `${px(i).toFixed(1)},${py(v).toFixed(1)}`).slice(1).join(" ");
    const tick = (v, t) => `<text x="${left - 4}" y="${py(v) + 3}" text-anchor="end">${t}</text>`;
    const mark = known(resolution) ? px(box * pixelSize / resolution) : 0;
    svg.innerHTML = `<line class="ck-axis" x1="${left}" y1="${bottom}" x2="${W - 8}" y2="${bottom}"/><line class="ck-axis" x1="${left}" y1="${top}" x2="${left}" y2="${bottom}"/>`
      + `<line class="ck-thin" x1="${left}" y1="${py(1)}" x2="${W - 8}" y2="${py(1)}"/>` + tick(1, "1") + tick(10, "10") + tick(100, "100")
      + (mark ? `<line class="ck-thin" x1="${mark}" y1="${top}" x2="${mark}" y2="${bottom}"/><text x="${mark + 4}" y="${top + 10}">${resolution.toFixed(1)} Å</text>` : "")
      + `<polyline points="${points}"/><text x="${left}" y="164">signal-to-noise ratio over spatial frequency, to ${(2 * pixelSize).toFixed(1)} Å</text>`;
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
