// A refinement: its map, and what tells whether to believe it.
function render(context) {
  const view = viewOf(context, "ck-refine"), { root, make, get, tell, follow } = view;
  const bar = createRunBar(view);
  let map = null, background = [1, 1, 1], ink = [0, 0, 0];
  const range = () => get("value_range"), level = () => 255 * (get("threshold") - range()[0]) / (range()[1] - range()[0] || 1);
  const turn = (camera) => { tell("camera", camera); show(); surface.move(); };
  const surface = createSurface(view, { name: "Map", camera: () => get("camera"), turn, reset: () => turn(get("start")) });
  const threshold = createThreshold(view, { name: "Threshold", colour: WARM, change: (v) => { tell("threshold", v); show(); surface.move(); slices.draw(); } });
  const slices = createSlices(view, {
    state: () => map && { data: map.data, shape: map.shape, voxel: map.voxel, range: range(), limits: get("limits"), cursor: get("cursor"), level: level(), colour: WARM },
    move: (c) => { tell("cursor", c); slices.draw(); },
  });
  const curves = createChart(view, { name: "FSC of every iteration", width: 520, height: 250 });
  const sphere = make("canvas", "ck-sphere"), sphereTitle = make("div", "ck-title"), table = make("div", "ck-table"), none = make("div", "ck-none");
  sphere.setAttribute("role", "img");
  const body = make("div", "ck-body", make("div", "ck-pane", surface.el, threshold.el, slices.el), make("div", "ck-right", curves.el,
    make("div", "ck-pair", make("div", "", sphereTitle, sphere), table)));
  root.append(bar.line, bar.el, none, body);

  function load() {
    map?.drop();
    const data = octets(get("data"));
    map = data.length > 1 ? new DrawnMap(data, get("shape"), get("voxel")) : null;
  }
  function show() {
    if (map) surface.show(map, { ...get("camera"), extent: get("extent"), level: Math.max(0.5, level()), clip: 0, colour: WARM, background, ink, radius: get("radius"), axes: [] });
  }
  function drawCurves() {
    const frequency = get("frequency"), history = get("history"), at = get("position"), log = get("curve_kind") !== "FSC";
    if (!frequency.length) return;
    const last = frequency.at(-1), lines = history.map((h, i) => ({ ...h, i })).filter((h) => h.curve.length && h.kind === get("curve_kind"));
    const now = lines.find((h) => h.i === at);
    lines.sort((a, b) => (a.i === at) - (b.i === at) || a.i - b.i);
    const marks = [];
    if (now?.resolution && now.curve.length) {
      const f = 1 / now.resolution, k = Math.min(now.curve.length - 1, Math.round(f / frequency[1]));
      if (f <= last * 1.01) marks.push({ x: f, y: log ? 1 : Math.max(now.curve[k], 0.143), text: `${now.resolution.toFixed(1)} Å` });
    }
    curves.draw({
      lines: lines.map((h) => ({
        x: frequency, y: h.curve, colour: h.i === at ? "var(--ck-fg)" : "var(--ck-accent)", width: h.i === at ? 2.6 : 1.2,
        opacity: h.i === at ? 1 : h.i > at ? 0.12 : 0.15 + 0.5 * (h.i + 1) / (at + 1), label: h.name,
      })),
      marks, levels: log ? [1] : [0.143], x: [0, last], y: log ? [0.05, 1000] : [-0.08, 1.03], xTicks: angstromTicks(last),
      yTicks: log ? [[0.1, "0.1"], [1, "1"], [10, "10"], [100, "100"], [1000, "1000"]] : [[0, "0"], [0.143, "0.143"], [0.5, "0.5"], [1, "1"]],
      xName: "resolution", yName: log ? "data vs prior" : "FSC between half-maps", log,
      read: (f) => { const k = Math.round(f / frequency[1]); return f > 0 && now?.curve[k] !== undefined ? `${(1 / Math.max(frequency[k], 1e-9)).toFixed(1)} Å: ${now.curve[k].toFixed(3)}` : ""; },
    });
  }
  function drawTable() {
    const columns = [["iteration", "it"], ["resolution", "Å"], ["step", "step"], ["size", "size"], ["accuracy", "accuracy"], ["offset", "offset"], ["p_max", "P_max"], ["changes", "moved"]];
    const t = make("table"), head = make("tr");
    for (const [, name] of columns) head.append(make("th", "", name));
    t.append(head);
    [...get("history").entries()].reverse().forEach(([i, h]) => {
      const row = make("tr", i === get("position") ? "now" : "");
      for (const [key] of columns) row.append(make("td", "", h.words[key] ?? ""));
      t.append(row);
    });
    table.replaceChildren(t);
  }
  function update() {
    view.theme();
    [background, ink] = [view.styled("--ck-bg"), view.styled("--ck-fg")];
    bar.update();
    const some = get("n_iterations") > 0;
    body.hidden = !some;
    none.hidden = some;
    none.textContent = get("empty_text");
    if (!some) return;
    if (map) threshold.show(map.counts, range(), get("threshold"), get("suggested"));
    show();
    surface.draw(false);
    slices.draw();
    drawCurves();
    drawTable();
    sphereTitle.textContent = get("directions_text");
    const image = octets(get("directions"));
    sphere.hidden = !image.length;
    if (image.length) drawSphere(sphere, image, get("directions_width"), octets(get("direction_colours")));
    sphere.setAttribute("aria-label", get("directions_text"));
  }
  load();
  update();
  let waiting = 0;
  // an iteration changes many traits at once: draw once
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(update, 0); };
  view.on("change:data", () => { load(); soon(); });
  follow(["history", "position", "directions", "camera", "threshold", "cursor", "theme", "n_iterations", "limits"], soon);
  return view.leave(() => { clearTimeout(waiting); surface.close(); threshold.close(); slices.close(); map?.drop(); });
}

export default { render };
