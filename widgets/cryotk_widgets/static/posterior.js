// The posterior of one particle: over classes, viewing directions, in-plane angles and offsets. Arrow keys walk through particles.
function render(context) {
  const view = viewOf(context, "ck-posterior"), { root, make, named, get, model, follow, button } = view;
  const done = make("div"), line = make("div", "ck-line", done), text = make("span", "ck-text"), number = named(make("input", "ck-number"), "Particle");
  number.type = "text";
  const walk = (to) => { if (!get("can_walk")) return; done.style.width = "35%"; model.send({ cmd: "particle", index: Math.min(get("n_particles") - 1, Math.max(0, to)) }); };
  const previous = button("◀", "Previous particle", "←", () => walk(get("particle") - 1), "ck-icon"), next = button("▶", "Next particle", "→", () => walk(get("particle") + 1), "ck-icon");
  number.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "Enter") walk(Math.round(Number(number.value))); });
  const top = make("div", "ck-bar ck-top", make("span", "ck-iter", "particle, row ", previous, number, next), text);
  const size = { width: 260, height: 210 };
  const classes = createChart(view, { name: "Probability of each class", ...size }), psi = createChart(view, { name: "Probability of in-plane angles", ...size });
  const shifts = createChart(view, { name: "Probability of offsets", width: 260, height: 240 }), sphere = make("canvas", "ck-sphere");
  const panel = (title, el) => make("div", "ck-panel", make("div", "ck-title", title), el);
  const spherePanel = panel("viewing direction", sphere), classPanel = panel("class", classes.el);
  const body = make("div", "ck-body", classPanel, spherePanel, panel("in-plane angle", psi.el), panel("offset", shifts.el)), none = make("div", "ck-none");
  root.tabIndex = 0;
  root.append(line, top, none, body);
  const percentTicks = (most) => { const step = most > 0.55 ? 0.25 : most > 0.25 ? 0.1 : most > 0.1 ? 0.05 : 0.02, out = []; for (let v = 0; v <= most; v += step) out.push([v, `${Math.round(100 * v)} %`]); return out; };
  const viridis = (share) => { const c = octets(get("colours")), k = 3 * Math.round(255 * Math.min(1, Math.max(0, share))); return `rgb(${c[k]}, ${c[k + 1]}, ${c[k + 2]})`; };
  function update() {
    view.theme();
    done.style.width = "0";
    const some = get("shifts").length > 0;
    body.hidden = !some;
    none.hidden = some;
    none.textContent = get("notice") || get("empty_text");
    number.value = get("particle");
    previous.disabled = !get("can_walk") || get("particle") <= 0;
    next.disabled = !get("can_walk") || get("particle") >= get("n_particles") - 1;
    number.disabled = !get("can_walk");
    text.textContent = text.title = get("summary");
    if (!some) return;
    const share = get("classes"), most = Math.max(...share), every = Math.max(1, Math.ceil(share.length / 12));
    classPanel.hidden = share.length < 2;
    classes.draw({
      bars: share.map((y, i) => ({ x: i + 1, y, colour: "var(--ck-accent)", label: `class ${i + 1}: ${percent(y)}` })), x: [0.4, share.length + 0.6], y: [0, Math.max(1.05 * most, 0.01)],
      xTicks: share.map((_, i) => [i + 1, i + 1]).filter((_, i) => i % every === 0), yTicks: percentTicks(most), xName: "class",
    });
    const angles = get("angles"), tall = Math.max(...angles.map((a) => a[1]));
    psi.draw({
      bars: angles.map(([a, w]) => ({ x: a, y: w, w: Math.max(2, get("angle_step") * 0.8), colour: "#e69f00", label: `${a.toFixed(1)}°: ${percent(w)}` })), x: [-180, 180], y: [0, 1.05 * tall],
      xTicks: [-180, -90, 0, 90, 180].map((v) => [v, `${v}°`]), yTicks: percentTicks(tall), xName: "in-plane angle ψ",
    });
    const points = get("shifts"), reach = get("reach"), top = Math.max(...points.map((p) => p[2]));
    shifts.draw({
      dots: [...points].sort((a, b) => a[2] - b[2]).map(([x, y, w]) => ({ x, y, r: (2.5 + 5 * Math.sqrt(w / top)).toFixed(1), colour: viridis(w / top), label: `x ${x.toFixed(1)} Å, y ${y.toFixed(1)} Å: ${percent(w)}` })),
      x: [-reach, reach], y: [-reach, reach], xTicks: [-1, -0.5, 0, 0.5, 1].map((q) => [q * reach, figures(q * reach)]), yTicks: [-1, -0.5, 0, 0.5, 1].map((q) => [q * reach, figures(q * reach)]), xName: "x (Å)", yName: "y (Å)",
    });
    const directions = get("directions");
    spherePanel.hidden = !directions.length;
    if (directions.length) drawSphere(sphere, emptySphere(240), 240, octets(get("colours")), directions);
    sphere.setAttribute("aria-label", `${directions.length} viewing directions`);
  }
  root.addEventListener("keydown", (e) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 }[e.key];
    if (by === undefined || !get("can_walk")) return;
    walk(get("particle") + by);
    e.preventDefault();
    e.stopPropagation();
  });
  let waiting = 0;
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(update, 0); };
  update();
  follow(["classes", "angles", "shifts", "directions", "particle", "summary", "theme", "notice", "can_walk", "n_particles"], soon);
  return view.leave(() => clearTimeout(waiting));
}

export default { render };
