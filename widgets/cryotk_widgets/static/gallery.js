// Class averages in one sprite sheet. All that looking needs is in the page; Python is told of selections and commands.
function bytes(v) {
  if (!v) return new Uint8Array(0);
  return v instanceof DataView ? new Uint8Array(v.buffer, v.byteOffset, v.byteLength) : new Uint8Array(v.buffer ?? v);
}

function blur(src, n, sigma) {
  // separable Gaussian on one tile; sigma in pixels
  if (sigma <= 0.05) return src;
  const r = Math.ceil(3 * sigma), k = new Float32Array(2 * r + 1);
  let sum = 0;
  for (let i = -r; i <= r; i++) sum += k[i + r] = Math.exp(-0.5 * (i / sigma) ** 2);
  const tmp = new Float32Array(n * n), out = new Float32Array(n * n);
  for (let pass = 0; pass < 2; pass++) {
    const a = pass ? tmp : src, b = pass ? out : tmp;
    for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) {
      let s = 0;
      for (let i = -r; i <= r; i++) {
        const p = Math.min(n - 1, Math.max(0, (pass ? y : x) + i));
        s += k[i + r] * (pass ? a[p * n + x] : a[y * n + p]);
      }
      b[y * n + x] = s / sum;
    }
  }
  return out;
}

function render({ model, el }) {
  const doc = el.ownerDocument;
  const make = (tag, cls, text) => {
    const e = doc.createElement(tag);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = text;
    return e;
  };
  const root = make("div", "cryotk ck-gallery");
  const setTheme = () => {
    root.classList.remove("dark", "light");
    const t = model.get("theme");
    if (t !== "auto") root.classList.add(t);
  };
  setTheme();
  const line = make("div", "ck-line"), lineIn = make("div");
  line.append(lineIn);
  const bar = make("div", "ck-bar"), grid = make("div", "ck-grid"), status = make("div", "ck-status"), foot = make("div", "ck-foot");
  grid.tabIndex = 0;
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", "Class averages");
  root.append(line, bar, status, grid, foot);
  el.append(root);

  // -- controls
  const iter = make("span", "ck-iter"), prev = make("button", "", "◀"), next = make("button", "", "▶");
  const iterSlider = make("input"), iterText = make("span");
  iterSlider.type = "range";
  iterSlider.setAttribute("aria-label", "Iteration");
  prev.setAttribute("aria-label", "Previous iteration");
  next.setAttribute("aria-label", "Next iteration");
  iter.append("iteration ", prev, iterSlider, next, iterText);
  const sort = make("select");
  sort.setAttribute("aria-label", "Sort by");
  for (const [v, t] of [["number", "number"], ["particles", "particles"], ["resolution", "resolution"]]) {
    const o = make("option", "", t);
    o.value = v;
    sort.append(o);
  }
  const slider = (name, min, max, step, value) => {
    const l = make("label", "", name), s = make("input");
    Object.assign(s, { type: "range", min, max, step, value });
    s.setAttribute("aria-label", name);
    l.append(s);
    bar.append(l);
    return s;
  };
  bar.append(iter);
  const sortLabel = make("label", "", "sort");
  sortLabel.append(sort);
  bar.append(sortLabel);
  const size = slider("size", 48, 320, 4, model.get("tile_size"));
  const contrast = slider("contrast", 0.3, 3, 0.05, model.get("contrast"));
  const lowpass = slider("low-pass", 0, 4, 0.1, 0);
  const per = make("label", "", "per tile"), perBox = make("input");
  perBox.type = "checkbox";
  per.append(perBox);
  bar.append(per);
  const count = make("span", "ck-count");
  bar.append(count);

  const text = make("span", "ck-text"), stop = make("button", "ck-stop", "■ Stop"), run = make("button", "ck-run", "▶ Run");
  stop.setAttribute("aria-label", "Stop");
  run.setAttribute("aria-label", "Run");
  status.append(text, run, stop);
  const button = (name, f) => {
    const b = make("button", "", name);
    b.addEventListener("click", f);
    foot.append(b);
    return b;
  };

  // -- state
  let tiles = [], order = [], current = 0, anchor = 0, pixels = null, n = 0, k = 0;
  const selected = () => new Set(model.get("selected"));
  const setSelected = (set) => {
    model.set("selected", [...set].sort((a, b) => a - b));
    model.save_changes();
    showSelection();
  };
  const sample = () => {
    n = model.get("tile_pixels");
    k = model.get("n_classes");
    pixels = bytes(model.get("sprite"));
    if (pixels.length < n * n * k) k = 0;
  };

  function draw(i) {
    const canvas = tiles[i].canvas, c = Number(contrast.value);
    const raw = new Float32Array(n * n);
    for (let p = 0; p < n * n; p++) raw[p] = pixels[i * n * n + p];
    const src = blur(raw, n, Number(lowpass.value));
    let lo = 0, hi = 255;
    if (perBox.checked) {
      lo = Infinity; hi = -Infinity;
      for (const v of src) { if (v < lo) lo = v; if (v > hi) hi = v; }
      if (hi <= lo) hi = lo + 1;
    }
    const mid = (lo + hi) / 2, g = c * 255 / (hi - lo);
    canvas.width = canvas.height = n;
    const ctx = canvas.getContext("2d"), im = ctx.createImageData(n, n);
    for (let p = 0; p < n * n; p++) {
      const v = (src[p] - mid) * g + 127.5;
      im.data[4 * p] = im.data[4 * p + 1] = im.data[4 * p + 2] = v;
      im.data[4 * p + 3] = 255;
    }
    ctx.putImageData(im, 0, 0);
  }

  const fmtRes = (r) => (r > 0 && r < 900 ? r.toFixed(1) + " Å" : "");
  function build() {
    sample();
    grid.textContent = "";
    tiles = [];
    if (!k) {
      grid.append(make("div", "ck-none", model.get("empty_text")));
      update();
      return;
    }
    for (let i = 0; i < k; i++) {
      const t = make("div", "ck-tile"), canvas = make("canvas"), cap = make("div", "ck-cap");
      t.setAttribute("role", "option");
      const share = make("span"), res = make("span");
      cap.append(share, res);
      t.append(canvas, cap);
      t.addEventListener("click", (e) => click(i, e));
      t.addEventListener("mouseenter", () => hover(i));
      t.addEventListener("mouseleave", () => hover(-1));
      tiles.push({ el: t, canvas, share, res });
    }
    arrange();
    update();
    for (let i = 0; i < k; i++) draw(i);
  }
  function arrange() {
    const occ = model.get("occupancy"), res = model.get("resolution"), by = sort.value;
    order = [...Array(k).keys()];
    if (by === "particles") order.sort((a, b) => occ[b] - occ[a] || a - b);
    if (by === "resolution") order.sort((a, b) => (res[a] || 1e9) - (res[b] || 1e9) || a - b);
    const frag = doc.createDocumentFragment();
    for (const i of order) frag.append(tiles[i].el);
    grid.append(frag);
  }
  function update() {
    const occ = model.get("occupancy"), res = model.get("resolution"), s = size.value + "px";
    for (let i = 0; i < tiles.length; i++) {
      const t = tiles[i];
      t.canvas.style.width = t.canvas.style.height = s;
      const empty = !(occ[i] > 0);
      t.el.classList.toggle("empty", empty);
      t.share.textContent = empty ? "" : (100 * occ[i]).toFixed(1) + " %";
      t.res.textContent = empty ? "" : fmtRes(res[i]);
      t.el.setAttribute("aria-label", `class ${i + 1}, ${t.share.textContent} ${t.res.textContent}`);
    }
    const its = model.get("n_iterations"), now = model.get("iteration");
    iter.style.display = its > 1 ? "" : "none";
    iterSlider.min = 0;
    iterSlider.max = Math.max(its - 1, 0);
    iterSlider.value = model.get("position");
    iterText.textContent = " " + now;
    showSelection();
    showProgress();
  }
  function showSelection() {
    const set = selected(), counts = model.get("counts");
    let particles = 0, total = 0;
    for (let i = 0; i < tiles.length; i++) {
      const on = set.has(i + 1);
      tiles[i].el.classList.toggle("sel", on);
      tiles[i].el.setAttribute("aria-selected", on);
      tiles[i].el.classList.toggle("cur", i === order[current] && doc.activeElement === grid);
      if (on) particles += counts[i] || 0;
      total += counts[i] || 0;
    }
    const f = (x) => x.toLocaleString("en").replaceAll(",", " ");
    count.textContent = `${set.size} of ${tiles.length} classes · ${f(particles)} of ${f(total)} particles`;
  }
  function showProgress() {
    const p = model.get("progress");
    lineIn.style.width = (p.running ? 100 * (p.fraction || 0) : 0) + "%";
    stop.style.display = p.running ? "" : "none";
    run.style.display = p.can_run && !p.running ? "" : "none";
    let s = p.message || "";
    if (p.running) {
      s = `iteration ${p.iteration} · ${Math.round(100 * (p.fraction || 0))} % of particles`;
      if (p.seconds_left > 0.5) s += ` · ${p.seconds_left < 10 ? p.seconds_left.toFixed(1) : Math.round(p.seconds_left)} s left`;
    }
    text.textContent = s || model.get("summary");
  }
  function hover(i) {
    if (i < 0) return showProgress();
    const counts = model.get("counts"), d = model.get("details")[i] || "";
    text.textContent = `class ${i + 1} · ${tiles[i].share.textContent || "empty"} · ${counts[i] || 0} particles · ${tiles[i].res.textContent}${d ? " · " + d : ""}`;
  }

  // -- selection
  function click(i, e) {
    const at = order.indexOf(i), set = selected();
    if (e.shiftKey) {
      const [a, b] = [Math.min(anchor, at), Math.max(anchor, at)];
      for (let j = a; j <= b; j++) set.add(order[j] + 1);
    } else {
      set.has(i + 1) ? set.delete(i + 1) : set.add(i + 1);
      anchor = at;
    }
    current = at;
    grid.focus({ preventScroll: true });
    setSelected(set);
  }
  const all = () => new Set(tiles.map((_, i) => i + 1).filter((i) => model.get("occupancy")[i - 1] > 0));
  const invert = () => { const s = selected(); return new Set([...all()].filter((i) => !s.has(i))); };
  grid.addEventListener("keydown", (e) => {
    if (!tiles.length || e.ctrlKey || e.metaKey || e.altKey) return;
    const perRow = Math.max(1, Math.floor(grid.clientWidth / (tiles[0].el.offsetWidth + 6)));
    const move = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow, Home: -1e9, End: 1e9 }[e.key];
    if (move !== undefined) {
      current = Math.min(order.length - 1, Math.max(0, current + move));
      if (e.shiftKey) { const s = selected(); s.add(order[current] + 1); setSelected(s); } else anchor = current;
      tiles[order[current]].el.scrollIntoView({ block: "nearest" });
      showSelection();
    } else if (e.key === " " || e.key === "Enter") {
      const s = selected(), i = order[current] + 1;
      s.has(i) ? s.delete(i) : s.add(i);
      setSelected(s);
    } else if (e.key === "a") setSelected(all());
    else if (e.key === "n") setSelected(new Set());
    else if (e.key === "i") setSelected(invert());
    else if (e.key === "/") filter.focus();
    else if (e.key === "Escape") grid.blur();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  grid.addEventListener("focus", showSelection);
  grid.addEventListener("blur", showSelection);

  button("All", () => setSelected(all()));
  button("Clear", () => setSelected(new Set()));
  button("Invert", () => setSelected(invert()));
  const fade = make("label"), fadeBox = make("input");
  fadeBox.type = "checkbox";
  fade.append(fadeBox, " show selection");
  fadeBox.addEventListener("change", () => root.classList.toggle("fade", fadeBox.checked));
  const filter = make("input");
  filter.type = "text";
  filter.placeholder = "/  filter: 1-5, >2%, <12A";
  filter.setAttribute("aria-label", "Select by number, share or resolution");
  filter.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "Escape") grid.focus();
    if (e.key !== "Enter") return;
    const occ = model.get("occupancy"), res = model.get("resolution"), q = filter.value.trim();
    const set = new Set();
    for (let i = 0; i < tiles.length; i++) {
      let ok = q.length > 0;
      for (const part of q.split(/[,\s]+/).filter(Boolean)) {
        let m;
        if ((m = part.match(/^([<>])([\d.]+)%$/))) ok &&= m[1] === ">" ? 100 * occ[i] > +m[2] : 100 * occ[i] < +m[2];
        else if ((m = part.match(/^([<>])([\d.]+)[AÅ]$/i))) ok &&= m[1] === ">" ? res[i] > +m[2] : res[i] < +m[2];
        else if ((m = part.match(/^(\d+)(?:-(\d+))?$/))) ok &&= i + 1 >= +m[1] && i + 1 <= +(m[2] || m[1]);
        else ok = false;
      }
      if (ok) set.add(i + 1);
    }
    setSelected(set);
  });
  foot.append(fade, filter);
  button("Save picture", () => {
    const per = Math.ceil(Math.sqrt(k)), c = make("canvas");
    c.width = per * n;
    c.height = Math.ceil(k / per) * n;
    order.forEach((i, j) => c.getContext("2d").drawImage(tiles[i].canvas, (j % per) * n, Math.floor(j / per) * n));
    const a = make("a");
    a.href = c.toDataURL("image/png");
    a.download = "classes.png";
    a.click();
  });

  // -- wiring
  const go = (p) => { model.set("position", Math.min(model.get("n_iterations") - 1, Math.max(0, p))); model.save_changes(); };
  iterSlider.addEventListener("input", () => go(Number(iterSlider.value)));
  prev.addEventListener("click", () => go(model.get("position") - 1));
  next.addEventListener("click", () => go(model.get("position") + 1));
  sort.addEventListener("change", () => { arrange(); showSelection(); });
  size.addEventListener("input", update);
  for (const s of [contrast, lowpass, perBox]) s.addEventListener("input", () => { for (let i = 0; i < k; i++) draw(i); });
  stop.addEventListener("click", () => { text.textContent = "stopping after this block…"; model.send({ cmd: "stop" }); });
  run.addEventListener("click", () => model.send({ cmd: "run" }));
  const onSprite = () => { if (model.get("n_classes") !== tiles.length) build(); else { sample(); for (let i = 0; i < k; i++) draw(i); update(); } };
  const handlers = [["change:sprite", onSprite], ["change:occupancy", update], ["change:selected", showSelection], ["change:progress", showProgress],
    ["change:n_iterations", update], ["change:position", update], ["change:summary", showProgress], ["change:theme", setTheme]];
  for (const [e, f] of handlers) model.on(e, f);
  build();
  return () => { for (const [e, f] of handlers) model.off(e, f); };
}
export default { render };
