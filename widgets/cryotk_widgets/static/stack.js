// Images of a stack or a particle set, page by page: the page asks Python for the images it shows and does the rest itself.
function render(context) {
  const view = viewOf(context, "ck-stack"), { root, make, named, get, model, tell, follow, button, slider, check, choice } = view;
  const done = make("div"), line = make("div", "ck-line", done);
  const text = make("span", "ck-text"), at = make("span", "ck-count"), notice = make("span", "ck-notice");
  notice.setAttribute("role", "status");
  const lowText = make("output");
  const previous = button("◀", "Previous page", "page up", () => go(get("first") - step()), "ck-icon");
  const next = button("▶", "Next page", "page down", () => go(get("first") + step()), "ck-icon");
  const pages = slider("First image", 0, 0, 1, (v) => go(v, true));
  const sort = choice("Sort by", [], (v) => { model.set("sort", v); model.send({ cmd: "set", name: "sort", value: v }); wait(); });
  const size = slider("Size", 48, 320, 4, (v) => { tell("tile_size", v); settings(); });
  const contrast = slider("Contrast", 0.3, 4, 0.05, (v) => { tell("contrast", v); redraw(); });
  const lowpass = slider("Low-pass", 0, 60, 1, (v) => { tell("lowpass", v); settings(); fresh(); });
  const [eachLabel, each] = check("grey levels per image", (v) => { tell("per_tile", v); redraw(); });
  const label = (...c) => make("label", "", ...c), sortLabel = label("sort ", sort);
  const top = make("div", "ck-bar ck-top", make("span", "ck-turn", previous, pages, next), at, text);
  const tools = make("div", "ck-bar", sortLabel, label("size", size), label("contrast", contrast), label("low-pass", lowpass, lowText), eachLabel);
  const grid = make("div", "ck-grid");
  grid.tabIndex = 0;
  grid.setAttribute("role", "listbox");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", "Images");
  const count = make("span", "ck-about");
  const foot = make("div", "ck-bar ck-foot", button("Select page", "Select the images of this page", "a", () => choose(new Set([...chosen(), ...here()]))),
    button("Clear", "Clear the selection", "n", () => choose(new Set())), button("Invert page", "Invert this page", "i", () => {
      const s = chosen();
      for (const i of here()) if (!s.delete(i)) s.add(i);
      choose(s);
    }), notice, count);
  root.append(line, top, tools, grid, foot);

  let tiles = [], n = 1, current = 0, anchor = 0, mine = null, sent = 0, heard = 0;
  const step = () => get("per_page"), here = () => get("rows");
  const chosen = () => new Set(mine ?? get("selected"));
  const choose = (set) => {
    mine = [...set].sort((a, b) => a - b);
    model.set("selected", mine);
    model.send({ cmd: "select", rows: mine, serial: ++sent });
    selection();
  };
  function wait() { done.style.width = "35%"; }
  let asked = null, timer = 0;
  function go(first, sliding = false) {
    const last = Math.max(0, get("n_images") - 1);
    asked = Math.min(last, Math.max(0, first));
    if (!sliding) asked -= asked % step();
    pages.value = asked;
    at.textContent = words(asked);
    wait();
    clearTimeout(timer);
    timer = setTimeout(() => { model.send({ cmd: "page", first: asked }); asked = null; }, sliding ? 120 : 0);
  }
  const words = (first) => {
    const all = get("n_images");
    return all ? `${grouped(first + 1)} to ${grouped(Math.min(all, first + step()))} of ${grouped(all)} images` : "no images";
  };
  function values(i) {
    const t = tiles[i];
    if (t.values) return t.values;
    const pixels = bytes(get("sprite")), [lo, hi] = get("tile_ranges")[i] ?? [0, 1], scale = (hi - lo) / 255, raw = new Float32Array(n * n), from = i * n * n;
    for (let p = 0; p < n * n; p++) raw[p] = lo + scale * pixels[from + p];
    return (t.values = smooth(raw, n, sigmaOf(get("lowpass"), get("pixel_size"))));
  }
  let turn = 0;
  function redraw() {
    const todo = [...tiles.keys()], mineTurn = ++turn;
    // what is low-passed has less contrast: limits follow the filter
    const limits = get("lowpass") > 0 ? pooled() : get("limits");
    const some = () => {
      if (mineTurn !== turn) return;
      for (const until = performance.now() + 12; todo.length && performance.now() < until;) {
        const i = todo.shift(), canvas = tiles[i].canvas, v = values(i), [lo, hi] = get("per_tile") ? tileLimits(v, n) : limits;
        if (canvas.width !== n) canvas.width = canvas.height = n;
        const c = canvas.getContext("2d"), image = c.createImageData(n, n);
        paint(new Uint32Array(image.data.buffer), v, lo, hi, get("contrast"));
        c.putImageData(image, 0, 0);
      }
      if (todo.length) requestAnimationFrame(some);
    };
    some();
  }
  function pooled() {
    const each = [];
    for (let i = 0; i < tiles.length; i += Math.max(1, Math.floor(tiles.length / 6))) each.push(tileLimits(values(i), n));
    const middle = (k) => each.map((l) => l[k]).sort((a, b) => a - b)[each.length >> 1];
    return each.length ? [middle(0), middle(1)] : get("limits");
  }
  function fresh() { for (const t of tiles) t.values = null; redraw(); }
  function build() {
    n = get("tile_pixels");
    grid.textContent = "";
    tiles = [];
    const rows = bytes(get("sprite")).length >= n * n * here().length ? here() : [];
    if (!rows.length) grid.append(make("div", "ck-none", get("notice") || "No images."));
    rows.forEach((row, i) => {
      const canvas = make("canvas"), caption = make("div", "ck-cap", get("captions")[i] ?? "");
      const t = make("div", "ck-tile", make("div", "ck-frame", canvas), caption);
      t.setAttribute("role", "option");
      t.setAttribute("aria-label", `image ${row}, ${get("captions")[i] ?? ""}`);
      t.title = get("details")[i] ?? "";
      t.addEventListener("click", (e) => {
        const set = clicked(chosen(), here().map((r) => r - 1), i, anchor, e.shiftKey);
        if (!e.shiftKey) anchor = i;
        current = i;
        grid.focus({ preventScroll: true });
        choose(set);
        about(i);
      });
      t.addEventListener("mouseenter", () => about(i));
      t.addEventListener("mouseleave", () => about(-1));
      tiles.push({ el: t, canvas, values: null });
      grid.append(t);
    });
    current = Math.min(current, Math.max(0, tiles.length - 1));
    done.style.width = "0";
    grid.scrollTop = 0;
    settings();
    selection();
    redraw();
  }
  function about(i) { text.textContent = i < 0 ? get("about") : (get("details")[i] ?? "").replaceAll("\n", " · "); text.title = text.textContent; }
  function selection() {
    const set = chosen();
    tiles.forEach((t, i) => {
      const on = set.has(here()[i]);
      t.el.classList.toggle("sel", on);
      t.el.setAttribute("aria-selected", on);
      t.el.classList.toggle("cur", i === current);
    });
    count.textContent = `${grouped(set.size)} selected`;
  }
  function settings() {
    view.theme();
    root.style.setProperty("--ck-tile", get("tile_size") + "px");
    size.value = get("tile_size");
    contrast.value = get("contrast");
    lowpass.value = get("lowpass");
    lowText.textContent = get("lowpass") > 0 ? `${get("lowpass").toFixed(0)} Å` : "off";
    each.checked = get("per_tile");
    pages.max = Math.max(0, get("n_images") - 1);
    pages.step = step();
    if (asked === null) { pages.value = get("first"); at.textContent = words(get("first")); }
    previous.disabled = get("first") <= 0;
    next.disabled = get("first") + step() >= get("n_images");
    if (sort.options.length !== get("columns").length) {
      sort.textContent = "";
      for (const c of get("columns")) sort.append(Object.assign(make("option", "", c), { value: c }));
    }
    sort.value = get("sort");
    sortLabel.hidden = get("columns").length < 2;
    notice.textContent = get("notice");
    about(-1);
  }
  grid.addEventListener("keydown", (e) => {
    if (!tiles.length || e.ctrlKey || e.metaKey || e.altKey) return;
    const row = Math.max(1, tiles.filter((t) => t.el.offsetTop === tiles[0].el.offsetTop).length);
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -1e9, End: 1e9 }[e.key];
    if (by !== undefined) {
      current = Math.min(tiles.length - 1, Math.max(0, current + by));
      if (e.shiftKey) choose(new Set([...chosen(), here()[current]]));
      else anchor = current;
      tiles[current].el.scrollIntoView({ block: "nearest" });
      selection();
      about(current);
    } else if (e.key === " ") choose(clicked(chosen(), here().map((r) => r - 1), current, anchor, false));
    else if (e.key === "PageDown") go(get("first") + step());
    else if (e.key === "PageUp") go(get("first") - step());
    else if (e.key === "a") choose(new Set([...chosen(), ...here()]));
    else if (e.key === "n") choose(new Set());
    else if (e.key === "i") foot.children[2].click();
    else if (e.key === "Escape") grid.blur();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  view.on("change:sprite", build);
  view.on("msg:custom", (m) => {
    if (m.selected !== undefined) { heard = Math.max(heard, m.selected); if (heard >= sent) { mine = null; selection(); } }
    if (m.failed) { done.style.width = "0"; notice.textContent = m.failed; }
  });
  follow(["selected"], selection);
  follow(["tile_size", "theme", "first", "n_images", "sort", "columns", "about", "notice"], settings);
  follow(["contrast", "per_tile", "limits"], () => { settings(); redraw(); });
  follow("lowpass", () => { settings(); fresh(); });
  build();
  return view.leave(() => { turn++; });
}

export default { render };
