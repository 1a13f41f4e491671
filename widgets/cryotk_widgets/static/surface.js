// A map as a surface: drag turns, shift-drag pans, wheel zooms, double click resets; half resolution while it moves.
const PASSES = 8;
function createSurface(view, { name, camera, turn, reset, extra }) {
  const { make, named, doc } = view;
  const canvas = named(make("canvas", "ck-surface"), name), context = canvas.getContext("2d");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.title = "drag turns · shift-drag pans · wheel zooms · double click resets · arrow keys turn";
  const layer = doc.createElement("canvas"), sum = doc.createElement("canvas");
  let map = null, what = null, waiting = 0, rest = 0, moving = false, cost = 40, pass = 0, sharp = true;
  const stats = { frames: 0, milliseconds: 0 };
  const edge = () => [canvas.clientWidth || 320, canvas.clientHeight || 320];

  function overlay(W, H, ratio, half) {
    // scale bar
    const perAngstrom = H / (2 * half), length = roundLength(2 * half * W / H), px = length * perAngstrom;
    const ink = rgb(what.ink);
    context.strokeStyle = context.fillStyle = ink;
    context.lineWidth = 2 * ratio;
    context.beginPath();
    context.moveTo(12 * ratio, H - 12 * ratio);
    context.lineTo(12 * ratio + px, H - 12 * ratio);
    context.stroke();
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillText(`${length} Å`, 12 * ratio + px / 2, H - 18 * ratio);
    // axes of symmetry: a line through the map, marked by its order where it comes out
    const m = matrixOf(what.rotation), cx = W / 2 + what.pan[0] * perAngstrom, cy = H / 2 - what.pan[1] * perAngstrom;
    for (const [ax, ay, az, order] of what.axes ?? []) {
      const v = apply(m, [ax, ay, az]), r = what.radius * 1.12 * perAngstrom, inner = what.radius * 0.1 * perAngstrom;
      const tone = { 2: "#009e73", 3: "#cc79a7", 4: "#0072b2", 5: "#d55e00" }[order] ?? ink;
      for (const sign of [-1, 1]) {
        const x = cx + sign * v[0] * r, y = cy - sign * v[1] * r, front = sign * v[2] > 0;
        context.globalAlpha = front ? 1 : 0.4;
        context.strokeStyle = context.fillStyle = tone;
        context.lineWidth = 1.5 * ratio;
        context.setLineDash(front ? [] : [4 * ratio, 4 * ratio]);
        context.beginPath();
        context.moveTo(cx + sign * v[0] * inner, cy - sign * v[1] * inner);
        context.lineTo(x, y);
        context.stroke();
        context.setLineDash([]);
        context.beginPath();
        if (order === 2) context.ellipse(x, y, 3 * ratio, 6 * ratio, Math.atan2(-v[1], v[0]), 0, 2 * Math.PI);
        else for (let k = 0; k < order; k++) context.lineTo(x + 6 * ratio * Math.sin(2 * Math.PI * k / order), y - 6 * ratio * Math.cos(2 * Math.PI * k / order));
        context.fill();
      }
    }
    context.globalAlpha = 1;
    extra?.(context, W, H, ratio);
  }
  // the map, and the glass around it, on a canvas
  function compose(to, W, H, half, scale, fine) {
    const context = to.getContext("2d"), all = [0, 0, W, H];
    if (to.width !== W || to.height !== H) { to.width = W; to.height = H; }
    context.clearRect(...all);
    if (!drawMap(context, all, map, { ...what, half, fine, pass }, scale)) return false;
    if (what.over) {
      // a second surface around the first, as if of glass
      context.globalAlpha = what.over.alpha;
      drawMap(context, all, what.over.map, { ...what, half, fine, pass, tinted: false, level: what.over.level, colour: what.over.colour }, scale);
      context.globalAlpha = 1;
    }
    return true;
  }
  // at rest the picture is the mean of passes that differ by parts of a pixel and by where they look for shadows
  function paint(scale, fine) {
    if (!map || !what) return;
    const [w, h] = edge(), ratio = Math.max(1, doc.defaultView.devicePixelRatio || 1), W = Math.round(w * ratio), H = Math.round(h * ratio);
    if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
    const start = performance.now(), half = 0.5 * what.extent / (what.zoom || 1);
    // at rest every point of the screen, unless that is dear
    if (fine && sharp) scale = ratio;
    let drawn;
    if (fine) {
      drawn = compose(pass ? layer : sum, W, H, half, scale / ratio, true);
      if (drawn && pass) {
        // mean of colours and of what is covered: the old ones' share, and the new one's added
        const c = sum.getContext("2d"), share = 1 / (pass + 1);
        c.globalCompositeOperation = "destination-in";
        c.fillStyle = `rgba(0,0,0,${1 - share})`;
        c.fillRect(0, 0, W, H);
        c.globalCompositeOperation = "lighter";
        c.globalAlpha = share;
        c.drawImage(layer, 0, 0);
        c.globalAlpha = 1;
        c.globalCompositeOperation = "source-over";
      }
      context.clearRect(0, 0, W, H);
      context.drawImage(sum, 0, 0);
    } else drawn = compose(canvas, W, H, half, scale / ratio, false);
    if (!drawn) {
      context.fillStyle = rgb(what.ink);
      context.font = `${13 * ratio}px system-ui, sans-serif`;
      context.fillText("This browser draws no WebGL 2: the slices show the map.", 16 * ratio, 28 * ratio);
    }
    overlay(W, H, ratio, half);
    stats.milliseconds = performance.now() - start;
    if (fine && ratio > 1 && stats.milliseconds > 400) sharp = false;
    if (!pass) canvas.dataset.frames = ++stats.frames;
    canvas.dataset.passes = fine ? pass + 1 : 0;
    if (moving) cost = 0.7 * cost + 0.3 * stats.milliseconds;
  }
  // moving: half the points of the screen each way, fewer when that is still slow; at rest: all, again and again until it is smooth
  function quick() { pass = 0; paint(Math.min(0.5, (cost > 80 ? 150 : cost > 45 ? 200 : 320) / edge()[0]), false); }
  function settle() { rest = setTimeout(() => { moving = false; draw(false); }, 220); }
  function again() {
    const most = stats.milliseconds > 250 ? 4 : PASSES;
    canvas.dataset.still = pass + 1 < most ? "no" : "yes";
    // half of the time is left for the hand that moves on
    if (pass + 1 < most) rest = setTimeout(() => { waiting = requestAnimationFrame(() => { pass++; paint(1, true); again(); }); }, Math.max(15, stats.milliseconds));
  }
  function draw(fast = moving) {
    canvas.dataset.still = "no";
    cancelAnimationFrame(waiting);
    clearTimeout(rest);
    waiting = requestAnimationFrame(() => {
      if (fast) return quick();
      pass = 0;
      paint(1, true);
      again();
    });
    if (fast) settle();
  }
  function move() { moving = true; draw(true); }
  // for callers that are inside a frame already
  function moveNow() {
    canvas.dataset.still = "no";
    cancelAnimationFrame(waiting);
    clearTimeout(rest);
    moving = true;
    quick();
    settle();
  }

  canvas.addEventListener("pointerdown", (e) => {
    if (e.button) return;
    canvas.setPointerCapture(e.pointerId);
    canvas.focus({ preventScroll: true });
    let [x, y] = [e.clientX, e.clientY];
    const drag = (m) => {
      const [w, h] = edge(), c = camera(), dx = m.clientX - x, dy = m.clientY - y;
      [x, y] = [m.clientX, m.clientY];
      if (!dx && !dy) return;
      moving = true;
      if (m.shiftKey) { const s = what.extent / c.zoom / h; turn({ ...c, pan: [c.pan[0] + dx * s, c.pan[1] - dy * s] }); }
      else turn({ ...c, rotation: turned(c.rotation, dx, dy, Math.min(w, h)) });
    };
    const end = () => { canvas.removeEventListener("pointermove", drag); canvas.removeEventListener("pointerup", end); canvas.removeEventListener("pointercancel", end); };
    canvas.addEventListener("pointermove", drag);
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    moving = true;
    const c = camera();
    turn({ ...c, zoom: Math.min(20, Math.max(0.3, c.zoom * Math.exp(-e.deltaY / 500))) });
  }, { passive: false });
  canvas.addEventListener("dblclick", () => reset());
  canvas.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const c = camera(), by = 10, s = what ? what.extent / c.zoom / 40 : 1;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    moving = true;
    if (arrow && e.shiftKey) turn({ ...c, pan: [c.pan[0] + arrow[0] * s, c.pan[1] - arrow[1] * s] });
    else if (arrow) turn({ ...c, rotation: turned(c.rotation, arrow[0] * by, arrow[1] * by, 180) });
    else if (e.key === "+" || e.key === "=") turn({ ...c, zoom: Math.min(20, c.zoom * 1.2) });
    else if (e.key === "-") turn({ ...c, zoom: Math.max(0.3, c.zoom / 1.2) });
    else if (e.key === "Home" || e.key === "0") reset();
    else if (e.key === "Escape") canvas.blur();
    else return;
    e.preventDefault();
    e.stopPropagation();
  });
  const watch = typeof ResizeObserver === "undefined" ? null : new ResizeObserver(() => draw(false));
  watch?.observe(canvas);
  return {
    el: canvas, stats, draw, move, moveNow,
    show(newMap, newWhat) { map = newMap; what = newWhat; },
    picture() {
      cancelAnimationFrame(waiting);
      clearTimeout(rest);
      for (pass = 0; pass < PASSES; pass++) paint(1, true);
      return canvas;
    },
    close() { watch?.disconnect(); cancelAnimationFrame(waiting); clearTimeout(rest); map?.drop(); },
  };
}

// Histogram of a map's values on a log scale, with the threshold on it; drag it, or use the arrow keys.
function createThreshold(view, { name, colour, change }) {
  const { make, named } = view;
  const canvas = named(make("canvas", "ck-histogram"), name), number = make("input", "ck-number"), line = make("div", "ck-threshold", canvas, number);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "slider");
  number.type = "text";
  named(number, `${name}, value`);
  const context = canvas.getContext("2d");
  let counts = null, range = [0, 1], value = 0, suggestion = null;
  const W = () => canvas.clientWidth || 260, span = () => range[1] - range[0] || 1;
  function draw() {
    if (!counts) return;
    const ratio = Math.max(1, globalThis.devicePixelRatio || 1), w = W(), h = canvas.clientHeight || 44;
    if (canvas.width !== Math.round(w * ratio)) { canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    const top = Math.log1p(Math.max(...counts)), level = 255 * (value - range[0]) / span(), floor = h - 2;
    const soft = rgb(view.styled("--ck-fg"), 0.28);
    for (let x = 0; x < w; x++) {
      const i = Math.min(255, Math.floor(x / w * 256)), tall = Math.log1p(counts[i]) / top * (h - 8);
      context.fillStyle = i >= level ? rgb(colour) : soft;
      context.fillRect(x, floor - tall, 1, tall);
    }
    const at = Math.min(w - 1, Math.max(1, level / 255 * w));
    context.fillStyle = rgb(view.styled("--ck-fg"));
    context.fillRect(at - 1, 0, 2, h);
    context.beginPath();
    context.arc(at, 5, 5, 0, 7);
    context.fill();
    if (document.activeElement !== number) number.value = figures(value);
    canvas.setAttribute("aria-valuemin", range[0]);
    canvas.setAttribute("aria-valuemax", range[1]);
    canvas.setAttribute("aria-valuenow", value);
    canvas.setAttribute("aria-valuetext", figures(value));
  }
  const set = (v) => { value = Math.min(range[1], Math.max(range[0], v)); draw(); change(value); };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    const go = (m) => set(range[0] + span() * (m.clientX - canvas.getBoundingClientRect().left) / W());
    go(e);
    canvas.addEventListener("pointermove", go);
    canvas.addEventListener("pointerup", () => canvas.removeEventListener("pointermove", go), { once: true });
  });
  canvas.addEventListener("dblclick", () => { if (suggestion !== null) set(suggestion); });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[e.key];
    if (step === undefined) return;
    set(value + step * span() / 255);
    e.preventDefault();
    e.stopPropagation();
  });
  number.addEventListener("keydown", (e) => { e.stopPropagation(); if (e.key === "Enter") number.blur(); });
  number.addEventListener("change", () => { const v = Number(number.value.replace(",", ".")); if (Number.isFinite(v)) set(v); draw(); });
  const watch = typeof ResizeObserver === "undefined" ? null : new ResizeObserver(draw);
  watch?.observe(canvas);
  return {
    el: line, draw,
    show(newCounts, newRange, newValue, best = suggestion) { counts = newCounts; range = newRange; value = newValue; suggestion = best; draw(); },
    close() { watch?.disconnect(); },
  };
}
