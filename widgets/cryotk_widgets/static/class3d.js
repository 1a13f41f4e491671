// 3D classes side by side: surfaces that turn together, their slices, what is known of each, how they filled, and which are chosen.
function render(context) {
  const view = viewOf(context, "ck-class3d"), { root, make, get, model, tell, follow, button, named } = view;
  const bar = createRunBar(view);
  let cards = [], background = [1, 1, 1], ink = [0, 0, 0], current = 0, anchor = 0, mine = null, sent = 0, heard = 0;
  const range = () => get("value_range"), level = () => 255 * (get("threshold") - range()[0]) / (range()[1] - range()[0] || 1);
  const colourOf = (k) => { const h = PALETTE[k % PALETTE.length]; return [1, 3, 5].map((i) => parseInt(h.slice(i, i + 2), 16) / 255); };
  const tone = (k) => (k === 0 ? WARM : k === 1 ? COOL : colourOf(k).map((v) => 0.35 + 0.6 * v));
  const turn = (camera) => { tell("camera", camera); show(); cards.forEach((c) => c.surface.move()); };
  const threshold = createThreshold(view, { name: "Threshold of all classes", colour: WARM, change: (v) => { tell("threshold", v); show(); cards.forEach((c) => { c.surface.move(); c.slices.draw(); }); } });
  const grid = make("div", "ck-grid"), none = make("div", "ck-none"), chart = createChart(view, { name: "Share of each class over iterations", width: 520, height: 200 });
  grid.tabIndex = 0;
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", "Classes");
  const count = make("span", "ck-about"), notice = make("span", "ck-notice");
  notice.setAttribute("role", "status");
  const path = named(make("input", "ck-path"), "File for the selected particles"), write = button("Write", "Write the selected particles", "", () => {
    model.send({ cmd: "save", path: path.value, classes: [...chosen()] });
    saving.hidden = true;
  });
  Object.assign(path, { type: "text", value: "selected_particles.star" });
  path.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "Enter") write.click(); if (e.key === "Escape") saving.hidden = true; });
  const saving = make("span", "ck-saving", path, write);
  saving.hidden = true;
  const save = button("Save selection…", "Save selection", "", () => { saving.hidden = !saving.hidden; if (!saving.hidden) path.select(); });
  const foot = make("div", "ck-bar ck-foot", save, saving, button("All", "All", "a", () => choose(full())), button("Clear", "Clear", "n", () => choose(new Set())),
    button("Invert", "Invert", "i", () => choose(inverse())), button("Reset view", "Reset the view", "double click", () => turn(get("start"))), notice, count);
  const below = make("div", "ck-below", make("div", "", make("div", "ck-title", "threshold of all classes"), threshold.el), make("div", "", make("div", "ck-title", "share of each class over iterations"), chart.el));
  root.append(bar.line, bar.el, none, grid, below, foot);

  const chosen = () => new Set(mine ?? get("selected"));
  const full = () => new Set(cards.map((_, i) => i + 1).filter((k) => get("occupancy")[k - 1] > 0));
  const inverse = () => { const s = chosen(); return new Set([...full()].filter((k) => !s.has(k))); };
  const choose = (set) => {
    mine = [...set].sort((a, b) => a - b);
    model.set("selected", mine);
    model.send({ cmd: "select", classes: mine, serial: ++sent });
    selection();
  };
  function build() {
    for (const c of cards) { c.surface.close(); c.slices.close(); }
    grid.textContent = "";
    const k = get("n_classes"), shape = get("shape"), size = shape[0] * shape[1] * shape[2], data = octets(get("data"));
    cards = [];
    if (data.length < k * size) return;
    for (let i = 0; i < k; i++) {
      const map = new DrawnMap(data.slice(i * size, (i + 1) * size), shape, get("voxel"));
      const surface = createSurface(view, { name: `Class ${i + 1}`, camera: () => get("camera"), turn, reset: () => turn(get("start")) });
      const slices = createSlices(view, {
        state: () => ({ data: map.data, shape, voxel: map.voxel, range: range(), limits: get("limits"), cursor: get("cursor"), level: level(), colour: tone(i) }),
        move: (c) => { tell("cursor", c); cards.forEach((card) => card.slices.draw()); },
      });
      const head = make("button", "ck-head"), words = make("div", "ck-cap");
      head.type = "button";
      head.tabIndex = -1;
      const el = make("div", "ck-card", head, surface.el, slices.el, words);
      el.setAttribute("role", "option");
      el.id = `${id}-${i + 1}`;
      head.addEventListener("click", (e) => {
        const set = clicked(chosen(), cards.map((_, j) => j), i, anchor, e.shiftKey);
        if (!e.shiftKey) anchor = i;
        current = i;
        grid.focus({ preventScroll: true });
        choose(set);
      });
      cards.push({ el, head, words, map, surface, slices });
      grid.append(el);
    }
  }
  function show() {
    cards.forEach((c, i) => c.surface.show(c.map, { ...get("camera"), extent: get("extent"), level: Math.max(0.5, level()), clip: 0, colour: tone(i), background, ink, radius: get("radius"), axes: [] }));
  }
  function selection() {
    const set = chosen(), counts = get("counts");
    let some = 0, all = 0;
    cards.forEach((c, i) => {
      const on = set.has(i + 1), share = get("occupancy")[i];
      c.el.classList.toggle("sel", on);
      c.el.classList.toggle("cur", i === current);
      c.el.classList.toggle("empty", !(share > 0));
      c.el.setAttribute("aria-selected", on);
      c.head.textContent = `${on ? "✓ " : ""}class ${i + 1} · ${percent(share)}${known(get("resolution")[i]) ? ` · ${angstrom(get("resolution")[i])}` : ""}`;
      c.head.title = "click selects";
      c.el.setAttribute("aria-label", c.head.textContent);
      c.words.textContent = [`${grouped(counts[i] || 0)} particles`, get("details")[i]].filter(Boolean).join(" · ");
      c.words.title = c.words.textContent;
      if (on) some += counts[i] || 0;
      all += counts[i] || 0;
    });
    if (cards.length) grid.setAttribute("aria-activedescendant", cards[current]?.el.id ?? "");
    count.textContent = cards.length ? `${set.size} of ${cards.length} classes · ${grouped(some)} of ${grouped(all)} particles` : "";
    save.disabled = !set.size || !get("can_save");
  }
  function drawChart() {
    const h = get("history"), last = Math.max(1, h.length - 1), k = get("n_classes");
    const most = Math.min(1, 1.1 * Math.max(0.05, ...h.flatMap((r) => r.occupancy))), at = get("position");
    const every = Math.max(1, Math.ceil(h.length / 8));
    below.classList.toggle("one", h.length < 2);
    chart.draw({
      lines: Array.from({ length: k }, (_, i) => ({ x: h.map((_, j) => j), y: h.map((r) => r.occupancy[i]), colour: rgb(tone(i)), width: 2, label: `class ${i + 1}` })),
      marks: Array.from({ length: k }, (_, i) => ({ x: at, y: h[at]?.occupancy[i] ?? 0, colour: rgb(tone(i)), text: `${i + 1}` })),
      x: [0, last], y: [0, most], xTicks: h.map((r, j) => [j, r.iteration]).filter((_, j) => j % every === 0), yTicks: [0, 0.25, 0.5, 0.75, 1].filter((v) => v <= most).map((v) => [v, `${100 * v} %`]),
      xName: "iteration", read: (v) => { const r = h[Math.round(v)]; return r ? `iteration ${r.iteration}: ${r.occupancy.map((s, i) => `class ${i + 1} ${percent(s)}`).join(" · ")}` : ""; },
    });
  }
  function update() {
    view.theme();
    [background, ink] = [view.styled("--ck-bg"), view.styled("--ck-fg")];
    bar.update();
    const some = get("n_iterations") > 0;
    none.hidden = some;
    none.textContent = get("empty_text");
    grid.hidden = below.hidden = foot.hidden = !some;
    if (!some) return;
    root.style.setProperty("--ck-columns", Math.min(4, cards.length || 1));
    if (cards[0]) {
      const all = new Float64Array(256);
      for (const c of cards) c.map.counts.forEach((v, i) => { all[i] += v; });
      threshold.show(all, range(), get("threshold"), get("suggested"));
    }
    show();
    for (const c of cards) { c.surface.draw(false); c.slices.draw(); }
    selection();
    drawChart();
    notice.textContent = get("notice");
  }
  grid.addEventListener("keydown", (e) => {
    if (!cards.length || e.ctrlKey || e.metaKey || e.altKey || e.target !== grid) return;
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[e.key];
    if (by !== undefined) {
      current = Math.min(cards.length - 1, Math.max(0, current + by));
      if (e.shiftKey) choose(new Set([...chosen(), current + 1]));
      else { anchor = current; selection(); }
    } else if (e.key === " ") choose(clicked(chosen(), cards.map((_, j) => j), current, anchor, false));
    else if (e.key === "a") choose(full());
    else if (e.key === "n") choose(new Set());
    else if (e.key === "i") choose(inverse());
    else if (e.key === "Escape") grid.blur();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  const id = `ck-${Math.random().toString(36).slice(2, 8)}`;
  let waiting = 0;
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(update, 0); };
  build();
  update();
  view.on("change:data", () => { build(); soon(); });
  view.on("msg:custom", (m) => { if (m.selected !== undefined) { heard = Math.max(heard, m.selected); if (heard >= sent) { mine = null; selection(); } } });
  follow(["history", "position", "camera", "threshold", "cursor", "theme", "n_iterations", "limits", "occupancy", "counts", "selected", "notice", "can_save"], soon);
  return view.leave(() => { clearTimeout(waiting); threshold.close(); for (const c of cards) { c.surface.close(); c.slices.close(); } });
}

export default { render };
