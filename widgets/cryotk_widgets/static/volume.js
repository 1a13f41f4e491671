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

  const names = [make("div", "ck-name"), make("div", "ck-name")], sources = [make("div", "ck-source"), make("div", "ck-source")];
  const panes = surfaces.map((s, i) => make("div", "ck-pane", names[i], sources[i], make("div", "ck-picture", s.el), thresholds[i].el));
  const legend = make("div", "ck-legend"), bar = make("canvas"), legendText = make("div", "ck-legend-text"), legendName = make("div", "ck-legend-name");
  legend.append(legendName, make("div", "ck-legend-row", bar, legendText));
  const clip = slider("Clipping plane", 0, 0.98, 0.01, (v) => { tell("clip", v); show(); surfaces.forEach((s) => s.move()); });
  const [axesLabel, axes] = check("symmetry axes", (v) => { tell("show_axes", v); show(); surfaces.forEach((s) => s.draw()); });
  const [colourLabel, coloured] = check("colour", (v) => { tell("coloured", v); update(); });
  const more = button("Full size", "Full size", "", () => { more.disabled = true; more.textContent = "loading…"; view.model.send({ cmd: "full" }); });
  const notice = make("span", "ck-notice");
  notice.setAttribute("role", "status");
  const hasSurface = () => get("layout_mode") !== "slices" || maps[1] !== null;
  const hasSlices = () => get("layout_mode") !== "surface" && maps[1] === null;
  // what is seen, from left to right: surfaces, slices below or beside each other, legend
  const snapshot = button("Save picture", "Save picture", "", () => {
    const pictures = hasSurface() ? surfaces.slice(0, maps[1] ? 2 : 1).map((s) => s.picture()) : [], planes = hasSlices() ? slices.canvases : [];
    const ratio = (pictures[0] ?? planes[0]).width / ((pictures[0] ?? planes[0]).clientWidth || 320), gap = Math.round(8 * ratio), column = pictures.length > 0;
    const parts = [...pictures], c = make("canvas"), ink = rgb(view.styled("--ck-fg"));
    if (column && planes.length) parts.push(columnOf(planes, pictures[0].height, gap));
    else parts.push(...planes);
    if (!legend.hidden) parts.push(legendPicture(Math.min(Math.max(...parts.map((p) => p.height)), Math.round(200 * ratio)), ratio, ink));
    c.width = parts.reduce((sum, p) => sum + p.width + gap, -gap);
    c.height = Math.max(...parts.map((p) => p.height));
    const to = c.getContext("2d");
    to.fillStyle = rgb(view.styled("--ck-bg"));
    to.fillRect(0, 0, c.width, c.height);
    let x = 0;
    for (const p of parts) { to.drawImage(p, x, 0); x += p.width + gap; }
    view.save(c, "map.png");
    surfaces.forEach((s) => s.draw(false));
  });
  // pictures below each other, no taller than the surface beside them
  function columnOf(pictures, height, gap) {
    const c = make("canvas"), high = Math.floor((height - gap * (pictures.length - 1)) / pictures.length);
    const sizes = pictures.map((p) => { const s = high / p.height; return [Math.round(p.width * s), high]; });
    c.width = Math.max(...sizes.map(([w]) => w));
    c.height = height;
    pictures.forEach((p, i) => c.getContext("2d").drawImage(p, 0, i * (high + gap), ...sizes[i]));
    return c;
  }
  function legendPicture(height, ratio, ink) {
    const c = make("canvas"), to = c.getContext("2d"), font = `${11 * ratio}px system-ui, sans-serif`, top = 24 * ratio, thick = 12 * ratio, at = ticks();
    to.font = font;
    const widest = Math.max(to.measureText(get("colour_label")).width, thick + 6 * ratio + Math.max(...at.map(([, text]) => to.measureText(text).width)));
    c.width = Math.ceil(widest + 8 * ratio);
    c.height = height;
    to.font = font;
    to.fillStyle = ink;
    to.textBaseline = "middle";
    to.fillText(get("colour_label"), 0, 10 * ratio);
    const length = height - top - 8 * ratio;
    to.drawImage(bar, 0, top, thick, length);
    at.forEach(([q, text]) => to.fillText(text, thick + 6 * ratio, top + q * length));
    return c;
  }
  const views = [["x", [0, -Math.SQRT1_2, 0, Math.SQRT1_2]], ["y", [Math.SQRT1_2, 0, 0, Math.SQRT1_2]], ["z", [0, 0, 0, 1]]].map(([axis, rotation]) =>
    button(axis, `Look along ${axis}`, "", () => { turn({ ...get("camera"), rotation }); }, "ck-icon"));
  const side = make("div", "ck-side", slices.el);
  const body = make("div", "ck-body", make("div", "ck-panes", ...panes), side);
  // what turns or cuts the surface is offered where there is one
  const ofSurface = [make("label", "", "look along ", ...views), button("Reset", "Reset the view", "double click", reset), make("label", "", "clip", clip)];
  const foot = make("div", "ck-bar ck-foot", ...ofSurface, axesLabel, colourLabel, more, snapshot, notice, make("span", "ck-about"));
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
    root.classList.toggle("no-slices", !hasSlices());
    root.classList.toggle("no-surface", !hasSurface());
    (hasSurface() ? panes[0].querySelector(".ck-picture") : side).append(legend);
    ofSurface.forEach((e) => { e.hidden = !hasSurface(); });
    // a line that one of two maps has is kept free over the other: their pictures stay level
    const lines = [[names, get("names")], [sources, get("sources")]];
    for (const [elements, texts] of lines) elements.forEach((e, i) => { e.textContent = texts[i] || "\u00a0"; e.hidden = !texts.some(Boolean); });
    names.forEach((n, i) => { n.title = [get("names")[i], get("sources")[i]].filter(Boolean).join("\n"); });
    panes[1].hidden = !maps[1];
    [get("value_range"), get("range_2")].forEach((r, i) => { if (maps[i]) thresholds[i].show(maps[i].counts, r, i ? get("threshold_2") : get("threshold"), get("suggested")[i]); });
    clip.value = get("clip");
    axes.checked = get("show_axes");
    axesLabel.hidden = !get("axes").length || !hasSurface();
    coloured.checked = get("coloured");
    colourLabel.hidden = !octets(get("colour_data")).length;
    more.hidden = !get("can_enlarge") || full !== null;
    foot.querySelector(".ck-about").textContent = hasSurface() ? get("about") : [get("names")[0], get("about")].filter(Boolean).join(" · ");
    drawLegend();
    show();
    surfaces.forEach((s, i) => maps[i] && s.draw(false));
    slices.draw();
  }
  // five values from top to bottom, with as many figures as part them
  function ticks() {
    const [lo, hi] = get("colour_range"), step = Math.abs(hi - lo) / 4, most = Math.max(Math.abs(lo), Math.abs(hi));
    const digits = Math.min(6, Math.max(most < 100 ? 1 : 0, step > 0 ? Math.ceil(-Math.log10(step) - 1e-9) : 1));
    return [0, 0.25, 0.5, 0.75, 1].map((q) => [q, (lo + q * (hi - lo)).toFixed(digits)]);
  }
  function drawLegend() {
    legend.hidden = !tinted();
    if (legend.hidden) return;
    const colours = octets(get("palette"));
    bar.width = 1;
    bar.height = 256;
    const c = bar.getContext("2d"), image = c.createImageData(1, 256);
    for (let i = 0; i < 256; i++) for (let k = 0; k < 4; k++) image.data[4 * i + k] = k < 3 ? colours[3 * i + k] : 255;
    c.putImageData(image, 0, 0);
    legendName.textContent = get("colour_label");
    legendText.textContent = "";
    for (const [, text] of ticks()) legendText.append(make("span", "", text));
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
  follow(["threshold", "threshold_2", "camera", "clip", "cursor", "theme", "show_axes", "coloured", "layout_mode", "colour_range", "axes", "about", "names", "sources", "colour_label", "can_enlarge", "mask_data"], update);
  follow("notice", () => { notice.textContent = get("notice"); });
  // a theme that changes around the view changes its background
  const dark = typeof MutationObserver === "undefined" ? null : new MutationObserver(() => update());
  dark?.observe(view.doc.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  return view.leave(() => { dark?.disconnect(); surfaces.forEach((s) => s.close()); thresholds.forEach((t) => t.close()); slices.close(); maps.forEach((m) => m?.drop()); });
}

export default { render };
