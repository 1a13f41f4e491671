// A mask drawn while its numbers move. The page has a small copy of the low-passed map and makes the mask of it; Python makes the real one.
function render(context) {
  const view = viewOf(context, "ck-volume ck-mask"), { root, make, named, get, model, tell, follow, button, slider, check } = view;
  let map = null, glass = null, mask = null, fraction = 0, background = [1, 1, 1], ink = [0, 0, 0], milliseconds = 0, waiting = 0;
  const range = () => get("value_range"), level = () => 255 * (get("threshold") - range()[0]) / (range()[1] - range()[0] || 1);
  const turn = (camera) => { tell("camera", camera); show(); surface.move(); };
  const surface = createSurface(view, { name: "Map and mask", camera: () => get("camera"), turn, reset: () => turn(get("start")) });
  const threshold = createThreshold(view, { name: "Threshold", colour: WARM, change: (v) => { tell("threshold", v); preview(); } });
  const slices = createSlices(view, {
    state: () => map && { data: map.data, shape: map.shape, voxel: map.voxel, range: range(), limits: get("limits"), cursor: get("cursor"), level: level(), colour: WARM, mask },
    move: (c) => { tell("cursor", c); slices.draw(); },
  });
  const outputs = {}, row = (name, trait, min, max, step, unit) => {
    outputs[trait] = [slider(name, min, max, step, (v) => { tell(trait, v); label(); if (trait === "lowpass") busy(); else preview(); }), make("output"), unit];
    return make("label", "ck-row", make("span", "", name), outputs[trait][0], outputs[trait][1]);
  };
  const reason = make("div", "ck-reason"), numbers = make("div", "ck-numbers"), notice = make("div", "ck-notice");
  notice.setAttribute("role", "status");
  const [wholeLabel, whole] = check("largest piece only", (v) => tell("largest_only", v)), [holesLabel, holes] = check("fill cavities", (v) => tell("fill_holes", v));
  for (const l of [wholeLabel, holesLabel]) l.title = "Applied when the mask is made; the preview does not show it";
  const suggest = button("Suggested threshold", "Take the suggested threshold", "", () => { tell("threshold", get("suggested")); update(); });
  const run = button("Make mask", "Make the mask at full size", "", () => { run.disabled = true; model.send({ cmd: "make", ...numbersNow() }); }, "ck-run");
  const path = named(make("input", "ck-path"), "File for the mask"), save = button("Save", "Save the mask", "", () => model.send({ cmd: "save", path: path.value }));
  Object.assign(path, { type: "text", value: "mask.mrc" });
  path.addEventListener("keydown", (e) => e.stopPropagation());
  const numbersNow = () => Object.fromEntries(["threshold", "extend_px", "soft_edge_px", "lowpass", "largest_only", "fill_holes"].map((k) => [k, get(k)]));
  const controls = make("div", "ck-controls", row("Extend", "extend_px", -10, 30, 1, "px"), row("Soft edge", "soft_edge_px", 0, 30, 1, "px"),
    row("Low-pass", "lowpass", 0, 60, 1, "Å"), make("div", "ck-row2", wholeLabel, holesLabel), numbers);
  const about = make("span", "ck-about");
  const body = make("div", "ck-body", make("div", "ck-panes", make("div", "ck-pane", surface.el, threshold.el, reason)), make("div", "ck-side", slices.el, controls));
  root.append(body, make("div", "ck-bar ck-foot", run, suggest, make("span", "ck-saving", path, save), notice, about));

  function load() {
    map?.drop();
    const data = octets(get("data"));
    map = data.length ? new DrawnMap(data, get("shape"), get("voxel")) : null;
  }
  // at most one mask per frame
  function preview() {
    label();
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => { compute(); show(); surface.moveNow(); slices.draw(); });
  }
  function compute() {
    if (!map) return;
    const start = performance.now(), scale = get("pixel_size") / get("voxel");
    const made = softMask(map.data, map.shape, level(), get("extend_px"), get("soft_edge_px"), scale);
    mask = made.mask;
    fraction = made.fraction;
    glass?.drop();
    glass = new DrawnMap(mask, map.shape, map.voxel);
    milliseconds = performance.now() - start;
    root.dataset.milliseconds = milliseconds.toFixed(0);
    const volume = fraction * map.shape[0] * map.shape[1] * map.shape[2] * map.voxel ** 3;
    numbers.textContent = `inside: ${(100 * fraction).toFixed(1)} % of the box · ${(volume / 1000).toFixed(0)} nm³ · room for ${(volume * 0.81 / 1000).toFixed(0)} kDa of protein`;
  }
  function busy() { notice.textContent = "low-passing…"; }
  function label() {
    for (const [trait, [s, o, unit]] of Object.entries(outputs)) { s.value = get(trait); o.textContent = trait === "lowpass" && !get(trait) ? "off" : `${get(trait)} ${unit}`; }
    reason.textContent = Math.abs(get("threshold") - get("suggested")) < 1e-6 * Math.abs(range()[1] - range()[0]) ? `suggested: ${get("reason")}` : "";
  }
  function show() {
    if (!map) return;
    surface.show(map, {
      ...get("camera"), extent: get("extent"), level: Math.max(0.5, level()), clip: 0, colour: WARM, background, ink, radius: get("radius"), axes: [],
      over: glass && { map: glass, level: 127.5, colour: COOL, alpha: 0.26 },
    });
  }
  function update() {
    view.theme();
    [background, ink] = [view.styled("--ck-bg"), view.styled("--ck-fg")];
    if (map) threshold.show(map.counts, range(), get("threshold"), get("suggested"));
    about.textContent = get("about");
    notice.textContent = get("notice");
    run.disabled = get("making");
    run.textContent = get("making") ? "making…" : "Make mask";
    save.disabled = !get("made");
    whole.checked = get("largest_only");
    holes.checked = get("fill_holes");
    label();
    compute();
    show();
    surface.draw(false);
    slices.draw();
  }
  load();
  update();
  follow("data", () => { load(); update(); });
  follow(["threshold", "extend_px", "soft_edge_px", "lowpass", "camera", "cursor", "theme", "about", "notice", "making", "made", "reason", "largest_only", "fill_holes"], update);
  return view.leave(() => { surface.close(); threshold.close(); slices.close(); map?.drop(); glass?.drop(); });
}

export default { render };
