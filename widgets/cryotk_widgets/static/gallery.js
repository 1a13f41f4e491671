// Class averages as tiles. Everything that looking needs is in the page; Python hears of selections and commands by messages,
// which arrive also while a cell waits, and answers with traits.
function render({ model, el }) {
  const doc = el.ownerDocument;
  const make = (tag, cls, ...children) => {
    const e = doc.createElement(tag);
    if (cls) e.className = cls;
    e.append(...children.filter((c) => c !== undefined));
    return e;
  };
  const named = (e, name, key) => {
    e.setAttribute("aria-label", name);
    e.title = key ? `${name} (${key})` : name;
    return e;
  };
  const get = (name) => model.get(name);
  const root = make("div", "cryotk ck-gallery");
  el.append(root);

  // -- to Python: one message per change, the last one wins
  let sent = 0, heard = 0, mine = null;
  const tell = (name, value) => {
    model.set(name, value);
    model.send({ cmd: "set", name, value });
  };

  // -- frame
  const done = make("div"), line = make("div", "ck-line", done);
  line.setAttribute("role", "progressbar");
  line.setAttribute("aria-label", "Particles of this iteration");
  const previous = named(make("button", "ck-icon", "◀"), "Previous iteration"), next = named(make("button", "ck-icon", "▶"), "Next iteration");
  const slider = (name, min, max, step) => {
    const s = named(make("input"), name);
    Object.assign(s, { type: "range", min, max, step });
    return s;
  };
  const iterSlider = slider("Iteration", 0, 0, 1), iterText = make("b");
  const iter = make("span", "ck-iter", make("span", "ck-word", "iteration"), previous, iterSlider, next, iterText);
  const text = make("span", "ck-text"), notice = make("span", "ck-notice");
  notice.setAttribute("role", "status");
  const stop = named(make("button", "ck-stop", "■ Stop"), "Stop"), run = named(make("button", "ck-run", "▶ Run"), "Run");
  const filter = named(make("input", "ck-filter"), "Select by number, share or resolution", "/");
  Object.assign(filter, { type: "text", placeholder: "/  1-5   > 2 %   < 12 Å" });
  const top = make("div", "ck-bar ck-top", iter, text, filter, run, stop);
  const sort = named(make("select"), "Sort by");
  for (const v of ["number", "particles", "resolution"]) sort.append(Object.assign(make("option", "", v), { value: v }));
  const again = named(make("button", "ck-icon", "↻"), "Sort again");
  const size = slider("Size", 48, 320, 4), contrast = slider("Contrast", 0.3, 4, 0.05), lowpass = slider("Low-pass", 0, 60, 1);
  const lowText = make("output"), each = Object.assign(make("input"), { type: "checkbox" });
  const label = (...c) => make("label", "", ...c);
  const tools = make("div", "ck-bar", make("span", "ck-sort", label("sort ", sort), again), label("size", size), label("contrast", contrast),
    label("low-pass", lowpass, lowText), label(each, "grey levels per tile"));
  each.title = "Each tile over its own range of grey";
  const grid = make("div", "ck-grid");
  grid.tabIndex = 0;
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", "Class averages");
  const loupe = createLoupe({ make, named, model, root, close: () => { loupe.hide(); grid.focus({ preventScroll: true }); }, step: (d) => move(d, false) });
  const foot = make("div", "ck-foot");
  root.append(line, top, tools, loupe.el, grid, foot);

  // -- state of the page
  let tiles = [], order = [], current = 0, anchor = 0, pixels = bytes(), n = 0, waiting = 0;
  const chosen = () => new Set(mine ?? get("selected"));
  const choose = (set) => {
    mine = [...set].sort((a, b) => a - b);
    model.set("selected", mine);
    model.send({ cmd: "select", classes: mine, serial: ++sent });
    showSelection();
  };
  const sample = () => {
    n = get("tile_pixels");
    pixels = bytes(get("sprite"));
    for (const t of tiles) t.values = null;
  };

  // -- drawing: visible tiles first, the rest in the pauses
  function values(i) {
    const t = tiles[i];
    if (t.values) return t.values;
    const [lo, hi] = get("tile_ranges")[i] ?? [0, 1], scale = (hi - lo) / 255, raw = new Float32Array(n * n), at = i * n * n;
    for (let p = 0; p < n * n; p++) raw[p] = lo + scale * pixels[at + p];
    return (t.values = smooth(raw, n, sigmaOf(get("lowpass"), get("pixel_size"))));
  }
  function draw(i) {
    const canvas = tiles[i].canvas;
    if (canvas.width !== n) canvas.width = canvas.height = n;
    const ctx = canvas.getContext("2d");
    if (!(get("occupancy")[i] > 0)) return ctx.clearRect(0, 0, n, n);
    const v = values(i), [lo, hi] = get("per_tile") ? tileLimits(v, n) : get("limits");
    const im = ctx.createImageData(n, n);
    paint(new Uint32Array(im.data.buffer), v, lo, hi, get("contrast"));
    ctx.putImageData(im, 0, 0);
  }
  function redraw() {
    const first = visibleFrom(), todo = order.slice(first).concat(order.slice(0, first)), turn = ++waiting;
    const some = () => {
      if (turn !== waiting) return;
      for (const until = performance.now() + 12; todo.length && performance.now() < until;) draw(todo.shift());
      if (todo.length) requestAnimationFrame(some);
    };
    some();
    loupe.redraw();
  }
  function visibleFrom() {
    const at = order.findIndex((i) => tiles[i].el.offsetTop + tiles[i].el.offsetHeight > grid.scrollTop);
    return Math.max(at, 0);
  }

  // -- tiles
  function build() {
    tiles = [];
    sample();
    grid.textContent = "";
    const k = pixels.length >= n * n * get("n_classes") ? get("n_classes") : 0;
    if (!k) grid.append(make("div", "ck-none", get("empty_text")));
    for (let i = 0; i < k; i++) {
      const canvas = make("canvas"), share = make("span"), res = make("span");
      const t = make("div", "ck-tile", make("div", "ck-frame", canvas), make("div", "ck-cap", share, res));
      t.setAttribute("role", "option");
      t.id = `${id}-${i + 1}`;
      t.addEventListener("click", (e) => click(i, e));
      t.addEventListener("dblclick", () => open(i));
      t.addEventListener("mouseenter", () => hover(i));
      t.addEventListener("mouseleave", () => hover(-1));
      tiles.push({ el: t, canvas, share, res, values: null });
    }
    arrange();
    update();
    redraw();
  }
  function arrange() {
    order = arranged(get("sort"), get("occupancy").slice(0, tiles.length), get("resolution"));
    const active = doc.activeElement === grid;
    grid.append(...order.map((i) => tiles[i].el));
    if (active) grid.focus({ preventScroll: true });
    again.style.visibility = "hidden";
  }
  function update() {
    const share = get("occupancy"), resolution = get("resolution");
    root.style.setProperty("--ck-tile", get("tile_size") + "px");
    tiles.forEach((t, i) => {
      const empty = !(share[i] > 0);
      t.el.classList.toggle("empty", empty);
      t.share.textContent = empty ? "empty" : percent(share[i]);
      t.res.textContent = empty ? "" : angstrom(resolution[i]);
      t.el.setAttribute("aria-label", `class ${i + 1}, ${t.share.textContent} ${t.res.textContent}`);
    });
    if (tiles.length) again.style.visibility = arranged(get("sort"), share, resolution).some((v, j) => v !== order[j]) ? "" : "hidden";
    const many = get("n_iterations");
    iter.style.display = many > 1 ? "" : "none";
    iterSlider.max = Math.max(many - 1, 0);
    iterSlider.value = get("position");
    previous.disabled = get("position") <= 0;
    next.disabled = get("position") >= many - 1;
    iterText.textContent = get("iteration");
    showSettings();
    showSelection();
    showProgress();
  }
  function showSettings() {
    sort.value = get("sort");
    size.value = get("tile_size");
    contrast.value = get("contrast");
    lowpass.value = get("lowpass");
    lowText.textContent = get("lowpass") > 0 ? `${get("lowpass").toFixed(0)} Å` : "off";
    each.checked = get("per_tile");
    fade.checked = get("fade");
    root.classList.toggle("fade", get("fade"));
    root.classList.remove("dark", "light");
    if (get("theme") !== "auto") root.classList.add(get("theme"));
  }
  function showSelection() {
    const set = chosen(), counts = get("counts");
    let some = 0, all = 0;
    tiles.forEach((t, i) => {
      const on = set.has(i + 1);
      t.el.classList.toggle("sel", on);
      t.el.setAttribute("aria-selected", on);
      t.el.classList.toggle("cur", i === order[current]);
      if (on) some += counts[i] || 0;
      all += counts[i] || 0;
    });
    if (tiles.length) grid.setAttribute("aria-activedescendant", tiles[order[current]].el.id);
    count.textContent = tiles.length ? `${set.size} of ${tiles.length} classes · ${grouped(some)} of ${grouped(all)} particles` : "";
    save.disabled = !set.size || !get("can_save");
  }
  function showProgress() {
    const p = get("progress");
    done.style.width = (p.running ? 100 * (p.fraction || 0) : 0) + "%";
    line.setAttribute("aria-valuenow", Math.round(100 * (p.fraction || 0)));
    stop.style.display = p.running ? "" : "none";
    run.style.display = p.can_run && !p.running ? "" : "none";
    stop.disabled = false;
    say(progressText(p, get("summary")));
  }
  function say(words) {
    text.textContent = text.title = words;
  }
  function about(i) {
    const share = get("occupancy")[i], parts = [`class ${i + 1}`];
    if (!(share > 0)) return `class ${i + 1} · empty`;
    parts.push(percent(share), `${grouped(get("counts")[i] || 0)} particles`, angstrom(get("resolution")[i]), get("details")[i]);
    return parts.filter(Boolean).join(" · ");
  }
  function hover(i) {
    if (i < 0) showProgress();
    else say(about(i));
  }
  function open(i) {
    current = order.indexOf(i);
    showSelection();
    loupe.show(i, about(i), () => ({ values: values(i), n, limits: get("per_tile") ? tileLimits(values(i), n) : get("limits") }));
  }

  // -- answers
  function click(i, e) {
    const at = order.indexOf(i);
    const set = clicked(chosen(), order, at, anchor, e.shiftKey);
    if (!e.shiftKey) anchor = at;
    current = at;
    grid.focus({ preventScroll: true });
    choose(set);
  }
  function move(by, extend) {
    current = Math.min(order.length - 1, Math.max(0, current + by));
    if (extend) choose(new Set([...chosen(), order[current] + 1]));
    else anchor = current;
    tiles[order[current]].el.scrollIntoView({ block: "nearest", inline: "nearest" });
    showSelection();
    hover(order[current]);
    if (loupe.shown()) open(order[current]);
  }
  const full = () => new Set(order.map((i) => i + 1).filter((k) => get("occupancy")[k - 1] > 0));
  const inverse = () => { const s = chosen(); return new Set([...full()].filter((k) => !s.has(k))); };
  grid.addEventListener("keydown", (e) => {
    if (!tiles.length || e.ctrlKey || e.metaKey || e.altKey || e.target !== grid) return;
    const row = Math.max(1, tiles.filter((t) => t.el.offsetTop === tiles[order[0]].el.offsetTop).length);
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -1e9, End: 1e9 }[e.key];
    if (by !== undefined) move(by, e.shiftKey);
    else if (e.key === " ") choose(clicked(chosen(), order, current, anchor, false));
    else if (e.key === "Enter") open(order[current]);
    else if (e.key === "a") choose(full());
    else if (e.key === "n") choose(new Set());
    else if (e.key === "i") choose(inverse());
    else if (e.key === "/") filter.focus();
    else if (e.key === "Escape") { if (loupe.shown()) loupe.hide(); else grid.blur(); } else return;
    // JupyterLab has shortcuts on the same letters
    e.preventDefault();
    e.stopPropagation();
  });

  // -- foot
  const button = (name, key, f) => {
    const b = named(make("button", "", name), name, key);
    b.addEventListener("click", f);
    foot.append(b);
    return b;
  };
  const save = button("Save selection…", "", () => { saving.hidden = !saving.hidden; if (!saving.hidden) { path.focus(); path.select(); } });
  button("All", "a", () => choose(full()));
  button("Clear", "n", () => choose(new Set()));
  button("Invert", "i", () => choose(inverse()));
  const fade = Object.assign(make("input"), { type: "checkbox" });
  foot.append(label(fade, "fade others"));
  button("Save picture", "", () => {
    const across = Math.ceil(Math.sqrt(tiles.length)), c = make("canvas");
    c.width = across * n;
    c.height = Math.ceil(tiles.length / across) * n;
    order.forEach((i, j) => { draw(i); c.getContext("2d").drawImage(tiles[i].canvas, (j % across) * n, Math.floor(j / across) * n); });
    Object.assign(make("a"), { href: c.toDataURL("image/png"), download: `classes_it${String(get("iteration")).padStart(3, "0")}.png` }).click();
  });
  const path = named(make("input", "ck-path"), "File for the selected particles");
  Object.assign(path, { type: "text", value: "selected_particles.star" });
  const write = make("button", "", "Write"), saving = make("span", "ck-saving", path, write);
  saving.hidden = true;
  const count = make("span", "ck-count");
  count.setAttribute("aria-live", "polite");
  foot.append(count, make("div", "ck-row", saving, notice));
  const send = () => { model.send({ cmd: "save", path: path.value, classes: [...chosen()] }); saving.hidden = true; };
  write.addEventListener("click", send);
  path.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "Enter") send(); if (e.key === "Escape") saving.hidden = true; });
  filter.addEventListener("keydown", (e) => {
    e.stopPropagation();
    if (e.key === "Escape") grid.focus();
    if (e.key !== "Enter") return;
    const { classes, reason } = filtered(filter.value, get("occupancy"), get("resolution"));
    notice.textContent = reason;
    if (classes) choose(new Set(classes));
  });

  // -- wiring
  let asked = null;
  const go = (p) => {
    const first = asked === null;
    asked = Math.min(get("n_iterations") - 1, Math.max(0, p));
    iterSlider.value = asked;
    // at most 12 requests a second, the last one wins
    if (first) setTimeout(() => { tell("position", asked); asked = null; }, 80);
  };
  iterSlider.addEventListener("input", () => go(Number(iterSlider.value)));
  previous.addEventListener("click", () => go((asked ?? get("position")) - 1));
  next.addEventListener("click", () => go((asked ?? get("position")) + 1));
  sort.addEventListener("change", () => tell("sort", sort.value));
  again.addEventListener("click", () => { arrange(); showSelection(); });
  size.addEventListener("input", () => tell("tile_size", Number(size.value)));
  contrast.addEventListener("input", () => tell("contrast", Number(contrast.value)));
  lowpass.addEventListener("input", () => tell("lowpass", Number(lowpass.value)));
  each.addEventListener("change", () => tell("per_tile", each.checked));
  fade.addEventListener("change", () => tell("fade", fade.checked));
  stop.addEventListener("click", () => { say("stopping after this block…"); stop.disabled = true; model.send({ cmd: "stop" }); });
  run.addEventListener("click", () => model.send({ cmd: "run" }));
  const onMessage = (m, buffers) => {
    if (m.selected !== undefined) { heard = Math.max(heard, m.selected); if (heard >= sent) { mine = null; showSelection(); } }
    if (m.full !== undefined) loupe.receive(m, buffers);
  };
  const onSprite = () => { if (get("n_classes") !== tiles.length) build(); else { sample(); redraw(); } };
  const handlers = {
    "change:sprite": onSprite, "change:occupancy": update, "change:counts": showSelection, "change:selected": showSelection, "change:progress": showProgress,
    "change:n_iterations": update, "change:position": update, "change:iteration": update, "change:summary": showProgress, "change:theme": showSettings,
    "change:sort": () => { arrange(); update(); }, "change:tile_size": update, "change:contrast": () => { showSettings(); redraw(); },
    "change:lowpass": () => { for (const t of tiles) t.values = null; showSettings(); redraw(); },
    "change:per_tile": () => { showSettings(); redraw(); }, "change:fade": showSettings,
    "change:notice": () => { notice.textContent = get("notice"); }, "msg:custom": onMessage,
  };
  for (const [event, f] of Object.entries(handlers)) model.on(event, f);
  const id = `ck-${Math.random().toString(36).slice(2, 8)}`;
  build();
  return () => { waiting++; for (const [event, f] of Object.entries(handlers)) model.off(event, f); };
}
export default { render };
