// Three central planes with one cross-hair; the wheel goes through the planes, a click sets the cross-hair.
// state(): { data, shape, voxel, range, limits, cursor: [x, y, z] Å, level or null, colour, tint, palette, tintShown, mask, contrast }
function createSlices(view, { state, move, planes = ["z", "y", "x"] }) {
  const { make, named } = view;
  const across = { z: ["x", "y"], y: ["x", "z"], x: ["y", "z"] }, index = { x: 0, y: 1, z: 2 };
  const el = make("div", "ck-slices");
  const drawn = planes.map((axis) => {
    const [u, v] = across[axis], canvas = named(make("canvas"), `Slice ${u}${v}`), caption = make("div", "ck-cap");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.title = "click sets the cross-hair · wheel or page keys go through the planes · arrow keys move the cross-hair";
    el.append(make("div", "ck-slice", canvas, caption));
    return { axis, u, v, canvas, caption, back: null };
  });
  const centre = (shape) => ({ x: shape[2] >> 1, y: shape[1] >> 1, z: shape[0] >> 1 });
  const place = (s, axis) => {
    const n = s.shape[2 - index[axis]];
    return Math.min(n - 1, Math.max(0, Math.round(s.cursor[index[axis]] / s.voxel) + centre(s.shape)[axis]));
  };
  const bounded = (s, c) => c.map((value, k) => {
    const n = s.shape[2 - k], half = n >> 1;
    return Math.min((n - 1 - half) * s.voxel, Math.max(-half * s.voxel, value));
  });
  function draw() {
    const s = state();
    if (!s || !s.data.length) return;
    const ratio = Math.max(1, globalThis.devicePixelRatio || 1);
    // grey of each of the 256 values
    const grey = new Uint8Array(256), scale = (s.range[1] - s.range[0]) / 255, gain = s.contrast ?? 1, mid = (s.limits[0] + s.limits[1]) / 2, spread = (s.limits[1] - s.limits[0]) || 1;
    for (let i = 0; i < 256; i++) grey[i] = Math.min(255, Math.max(0, 127.5 + 255 * gain * (s.range[0] + i * scale - mid) / spread));
    // small pictures of many lines: drawn by the processor, which a card that is busy with the surface does not keep waiting
    for (const p of drawn) {
      const at = place(s, p.axis), plane = slice(s.data, s.shape, p.axis, at), { width: w, height: h, values } = plane;
      p.back ??= p.canvas.ownerDocument.createElement("canvas");
      p.back.width = w;
      p.back.height = h;
      const small = p.back.getContext("2d", { willReadFrequently: true }), image = small.createImageData(w, h), out = image.data;
      const tint = s.tint?.length === s.data.length ? slice(s.tint, s.shape, p.axis, at).values : null;
      const mask = s.mask?.length === s.data.length ? slice(s.mask, s.shape, p.axis, at).values : null;
      for (let i = 0; i < values.length; i++) {
        let r = grey[values[i]], g = r, b = r;
        if (tint && tint[i] && values[i] >= s.level * 0.75) {
          const c = 3 * Math.min(255, Math.max(0, Math.round(255 * (tint[i] - s.tintShown[0]) / (s.tintShown[1] - s.tintShown[0])))), k = 0.35 + 0.65 * r / 255;
          [r, g, b] = [s.palette[c] * k, s.palette[c + 1] * k, s.palette[c + 2] * k];
        }
        if (mask) { const m = 0.45 * mask[i] / 255; r += m * (86 - r) * 0.6; g += m * (180 - g); b += m * (233 - b); }
        out[4 * i] = r; out[4 * i + 1] = g; out[4 * i + 2] = b; out[4 * i + 3] = 255;
      }
      small.putImageData(image, 0, 0);
      const cssW = p.canvas.clientWidth || 160, W = Math.round(cssW * ratio), H = Math.round(W * h / w), zoom = W / w;
      if (p.canvas.width !== W || p.canvas.height !== H) { p.canvas.width = W; p.canvas.height = H; }
      const c = p.canvas.getContext("2d", { willReadFrequently: true });
      c.imageSmoothingEnabled = zoom < 6;
      c.drawImage(p.back, 0, 0, W, H);
      const lines = (values, level, tone, dash = []) => {
        const piece = contour(values, level);
        c.strokeStyle = tone;
        c.lineWidth = 1.2 * ratio;
        c.setLineDash(dash);
        c.beginPath();
        for (let k = 0; k < piece.length; k += 4) { c.moveTo(piece[k] * zoom, piece[k + 1] * zoom); c.lineTo(piece[k + 2] * zoom, piece[k + 3] * zoom); }
        c.stroke();
        c.setLineDash([]);
      };
      if (mask) {
        lines({ values: mask, width: w, height: h }, 250, "#56b4e9");
        lines({ values: mask, width: w, height: h }, 4, "#56b4e9", [4 * ratio, 3 * ratio]);
      }
      if (s.level !== null && s.level !== undefined && !tint) lines(plane, s.level, rgb(s.colour));
      const x = (place(s, p.u) + 0.5) * zoom, y = H - (place(s, p.v) + 0.5) * zoom;
      c.strokeStyle = "rgba(255,255,255,0.45)";
      c.lineWidth = 1;
      c.beginPath();
      for (const [a, b, d, e] of [[x, 0, x, y - 7 * ratio], [x, y + 7 * ratio, x, H], [0, y, x - 7 * ratio, y], [x + 7 * ratio, y, W, y]]) { c.moveTo(a, b); c.lineTo(d, e); }
      c.stroke();
      p.caption.textContent = `${p.u}${p.v} · ${p.axis} = ${figures((at - centre(s.shape)[p.axis]) * s.voxel)} Å`;
    }
  }
  const shift = (axis, steps) => {
    const s = state(), c = [...s.cursor];
    c[index[axis]] = (Math.round(c[index[axis]] / s.voxel) + steps) * s.voxel;
    move(bounded(s, c));
  };
  for (const p of drawn) {
    const set = (e) => {
      const s = state(), b = p.canvas.getBoundingClientRect(), n = centre(s.shape), c = [...s.cursor];
      c[index[p.u]] = (Math.floor((e.clientX - b.left) / b.width * s.shape[2 - index[p.u]]) - n[p.u]) * s.voxel;
      c[index[p.v]] = (Math.floor((b.bottom - e.clientY) / b.height * s.shape[2 - index[p.v]]) - n[p.v]) * s.voxel;
      move(bounded(s, c));
    };
    p.canvas.addEventListener("pointerdown", (e) => {
      p.canvas.setPointerCapture(e.pointerId);
      set(e);
      p.canvas.addEventListener("pointermove", set);
      p.canvas.addEventListener("pointerup", () => p.canvas.removeEventListener("pointermove", set), { once: true });
    });
    p.canvas.addEventListener("wheel", (e) => { e.preventDefault(); shift(p.axis, e.deltaY > 0 ? -1 : 1); }, { passive: false });
    p.canvas.addEventListener("dblclick", () => move([0, 0, 0]));
    p.canvas.addEventListener("keydown", (e) => {
      const go = { ArrowRight: [p.u, 1], ArrowLeft: [p.u, -1], ArrowUp: [p.v, 1], ArrowDown: [p.v, -1], PageUp: [p.axis, 1], PageDown: [p.axis, -1] }[e.key];
      if (go) shift(...go);
      else if (e.key === "Home") move([0, 0, 0]);
      else if (e.key === "Escape") p.canvas.blur();
      else return;
      e.preventDefault();
      e.stopPropagation();
    });
  }
  const watch = typeof ResizeObserver === "undefined" ? null : new ResizeObserver(draw);
  watch?.observe(el);
  return { el, draw, canvases: drawn.map((p) => p.canvas), close() { watch?.disconnect(); } };
}
