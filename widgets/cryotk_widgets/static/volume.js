// A map, or two, as surfaces and slices. All of it answers in the page.
function render(context) {
  const view = viewOf(context, "ck-volume"), { root, make, named, get, tell, follow, button, slider, check } = view;
  const two = () => get("data_2") && octets(get("data_2")).length > 0;
  const maps = [null, null];
  // values of higher resolution, asked for and never saved
  let full = null;
  const toLevel = (value, range) => 255 * (value - range[0]) / (range[1] - range[0] || 1);

  const load = () => {
    maps.forEach((m) => m?.drop());
    const source = full ?? { data: octets(get("data")), shape: get("shape"), voxel: get("voxel"), tint: octets(get("colour_data")) };
    maps[0] = source.data.length ? new DrawnMap(source.data, source.shape, source.voxel) : null;
    maps[1] = two() ? new DrawnMap(octets(get("data_2")), get("shape_2"), get("voxel_2")) : null;
    if (maps[0]) { maps[0].setTint(source.tint); maps[0].setPalette(octets(get("palette"))); }
  };
  const turn = (camera) => { tell("camera", camera); surfaces.forEach((s) => s.move()); show(); };
  const reset = () => { tell("clip", 0); turn(get("start")); };
  const surfaces = [0, 1].map((i) => createSurface(view, { name: i ? "Second map" : "Map", camera: () => get("camera"), turn, reset }));
  const change = (i) => (value) => { tell(i ? "threshold_2" : "threshold", value); show(); surfaces[i].move(); slices.draw(); };
  const thresholds = [WARM, COOL].map((colour, i) => createThreshold(view, { name: i ? "Threshold of the second map" : "Threshold", colour, change: change(i) }));
  const slices = createSlices(view, {
    state: () => maps[0] && {
      data: maps[0].data, shape: maps[0].shape, voxel: maps[0].voxel, range: get("value_range"), limits: get("limits"), cursor: get("cursor"),
      level: toLevel(get("threshold"), get("value_range")), colour: WARM, tint: tinted() ? maps[0].tint : null, palette: octets(get("palette")), tintShown: tintShown(),
      mask: full ? null : octets(get("mask_data")),
    },
    move: (c) => { tell("cursor", c); slices.draw(); },
  });
  const tinted = () => get("coloured") && octets(get("colour_data")).length > 0;
  // values 1 to 255 of the colour map span colour_span; shown are colour_range
  const tintShown = () => { const [a, b] = get("colour_span"), s = 254 / (b - a || 1); return get("colour_range").map((v) => 1 + s * (v - a)); };

  const names = [make("div", "ck-name"), make("div", "ck-name")];
  const panes = surfaces.map((s, i) => make("div", "ck-pane", names[i], s.el, thresholds[i].el));
  const legend = make("div", "ck-legend"), bar = make("canvas"), legendText = make("div", "ck-legend-text"), legendName = make("div", "ck-legend-name");
  legend.append(legendName, make("div", "ck-legend-row", bar, legendText));
  panes[0].append(legend);
  const clip = slider("Clipping plane", 0, 0.98, 0.01, (v) => { tell("clip", v); show(); surfaces.forEach((s) => s.move()); });
  const [axesLabel, axes] = check("symmetry axes", (v) => { tell("show_axes", v); show(); surfaces.forEach((s) => s.draw()); });
  const [colourLabel, coloured] = check("colour", (v) => { tell("coloured", v); update(); });
  const more = button("Full size", "Full size", "", () => { more.disabled = true; more.textContent = "loading…"; view.model.send({ cmd: "full" }); });
  const notice = make("span", "ck-notice");
  notice.setAttribute("role", "status");
  const snapshot = button("Save picture", "Save picture", "", () => {
    const shown = surfaces.slice(0, maps[1] ? 2 : 1).map((s) => s.picture()), c = make("canvas");
    c.width = shown.reduce((sum, p) => sum + p.width, 0);
    c.height = Math.max(...shown.map((p) => p.height));
    const to = c.getContext("2d");
    to.fillStyle = rgb(view.styled("--ck-bg"));
    to.fillRect(0, 0, c.width, c.height);
    let x = 0;
    for (const p of shown) { to.drawImage(p, x, 0); x += p.width; }
    view.save(c, "map.png");
    surfaces.forEach((s) => s.draw(false));
  });
  const views = [["x", [0, -Math.SQRT1_2, 0, Math.SQRT1_2]], ["y", [Math.SQRT1_2, 0, 0, Math.SQRT1_2]], ["z", [0, 0, 0, 1]]].map(([axis, rotation]) =>
    button(axis, `Look along ${axis}`, "", () => { turn({ ...get("camera"), rotation }); }, "ck-icon"));
  const side = make("div", "ck-side", slices.el);
  const body = make("div", "ck-body", make("div", "ck-panes", ...panes), side);
  const foot = make("div", "ck-bar ck-foot", make("label", "", "look along ", ...views), button("Reset", "Reset the view", "double click", reset),
    make("label", "", "clip", clip), axesLabel, colourLabel, more, snapshot, notice, make("span", "ck-about"));
  root.append(body, foot);

  let background = [1, 1, 1], ink = [0, 0, 0];
  function show() {
    const camera = get("camera"), range = [get("value_range"), get("range_2")];
    const extent = Math.max(get("extent"), 1);
    surfaces.forEach((s, i) => {
      if (!maps[i]) return;
      s.show(maps[i], {
        ...camera, extent, level: Math.max(0.5, toLevel(i ? get("threshold_2") : get("threshold"), range[i])), clip: get("clip"), colour: i ? COOL : WARM,
        background, ink, tinted: tinted(), tintShown: tintShown(), axes: get("show_axes") ? get("axes") : [], radius: get("radius"),
      });
    });
  }
  function update() {
    view.theme();
    [background, ink] = [view.styled("--ck-bg"), view.styled("--ck-fg")];
    const layout = get("layout_mode");
    root.classList.toggle("two", maps[1] !== null);
    root.classList.toggle("no-slices", layout === "surface" || maps[1] !== null);
    root.classList.toggle("no-surface", layout === "slices");
    names.forEach((n, i) => { n.textContent = get("names")[i] ?? ""; n.hidden = !n.textContent; });
    panes[1].hidden = !maps[1];
    [get("value_range"), get("range_2")].forEach((r, i) => { if (maps[i]) thresholds[i].show(maps[i].counts, r, i ? get("threshold_2") : get("threshold"), get("suggested")[i]); });
    clip.value = get("clip");
    axes.checked = get("show_axes");
    axesLabel.hidden = !get("axes").length;
    coloured.checked = get("coloured");
    colourLabel.hidden = !octets(get("colour_data")).length;
    more.hidden = !get("can_enlarge") || full !== null;
    foot.querySelector(".ck-about").textContent = get("about");
    drawLegend();
    show();
    surfaces.forEach((s, i) => maps[i] && s.draw(false));
    slices.draw();
  }
  function drawLegend() {
    legend.hidden = !tinted();
    if (legend.hidden) return;
    const colours = octets(get("palette")), [lo, hi] = get("colour_range");
    bar.width = 1;
    bar.height = 256;
    const c = bar.getContext("2d"), image = c.createImageData(1, 256);
    for (let i = 0; i < 256; i++) for (let k = 0; k < 4; k++) image.data[4 * i + k] = k < 3 ? colours[3 * i + k] : 255;
    c.putImageData(image, 0, 0);
    legendName.textContent = get("colour_label");
    legendText.textContent = "";
    for (const q of [0, 0.25, 0.5, 0.75, 1]) legendText.append(make("span", "", (lo + q * (hi - lo)).toFixed(1)));
  }
  const onMessage = (m, buffers) => {
    if (m.full === undefined) return;
    full = { data: octets(buffers[0]), shape: m.shape, voxel: m.voxel, tint: buffers[1] ? octets(buffers[1]) : null };
    load();
    update();
  };
  load();
  update();
  view.on("msg:custom", onMessage);
  follow(["data", "data_2"], () => { full = null; more.disabled = false; more.textContent = "Full size"; load(); update(); });
  follow(["colour_data", "palette"], () => { load(); update(); });
  follow(["threshold", "threshold_2", "camera", "clip", "cursor", "theme", "show_axes", "coloured", "layout_mode", "colour_range", "axes", "about", "names", "can_enlarge", "mask_data"], update);
  follow("notice", () => { notice.textContent = get("notice"); });
  // a theme that changes around the view changes its background
  const dark = typeof MutationObserver === "undefined" ? null : new MutationObserver(() => update());
  dark?.observe(view.doc.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  return view.leave(() => { dark?.disconnect(); surfaces.forEach((s) => s.close()); thresholds.forEach((t) => t.close()); slices.close(); maps.forEach((m) => m?.drop()); });
}

export default { render };
