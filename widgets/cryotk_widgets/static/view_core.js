// What every view's page needs: elements, named buttons, words to Python. Python hears by messages, which arrive also while a cell
// waits, and answers with traits; what the hand is moving is not moved back by an echo.
function viewOf({ model, el }, cls) {
  const doc = el.ownerDocument;
  const make = (tag, name, ...children) => {
    const e = doc.createElement(tag);
    if (name) e.className = name;
    e.append(...children.filter((c) => c !== undefined && c !== null));
    return e;
  };
  const named = (e, name, key) => {
    e.setAttribute("aria-label", name);
    e.title = key ? `${name} (${key})` : name;
    return e;
  };
  const root = make("div", `cryotk ck-view ${cls}`);
  el.append(root);
  const get = (name) => model.get(name);
  const held = {}, waiting = {}, handlers = [];
  const on = (event, f) => { model.on(event, f); handlers.push([event, f]); };
  // f after the trait changed in Python; while the hand moves it, after the hand has rested
  const missed = {};
  const follow = (names, f) => {
    for (const name of [names].flat()) on(`change:${name}`, () => { if (held[name]) missed[name] = f; else f(name); });
  };
  // one message per 100 ms and name, the last one wins
  const tell = (name, value) => {
    clearTimeout(held[name]);
    held[name] = setTimeout(() => { const f = missed[name]; delete held[name]; delete missed[name]; f?.(name); }, 400);
    model.set(name, value);
    delete missed[name];
    if (waiting[name] === undefined) setTimeout(() => { const v = waiting[name]; delete waiting[name]; model.send({ cmd: "set", name, value: v }); }, 100);
    waiting[name] = value;
  };
  const button = (text, name, key, f, style = "") => {
    const b = named(make("button", style, text), name, key);
    b.type = "button";
    b.addEventListener("click", f);
    return b;
  };
  const slider = (name, min, max, step, f) => {
    const s = named(make("input"), name);
    Object.assign(s, { type: "range", min, max, step });
    s.addEventListener("input", () => f(Number(s.value)));
    return s;
  };
  const check = (text, f) => {
    const box = Object.assign(make("input"), { type: "checkbox" });
    box.addEventListener("change", () => f(box.checked));
    return [make("label", "", box, text), box];
  };
  const choice = (name, values, f) => {
    const s = named(make("select"), name);
    for (const [value, text] of values) s.append(Object.assign(make("option", "", text), { value }));
    s.addEventListener("change", () => f(s.value));
    return s;
  };
  const theme = () => {
    root.classList.remove("dark", "light");
    if (get("theme") !== "auto") root.classList.add(get("theme"));
  };
  // colours of the page's style, as drawn; [r, g, b] from 0 to 1
  const probe = doc.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const styled = (name) => {
    const swatch = make("span");
    swatch.style.cssText = `display:none;color:var(${name})`;
    root.append(swatch);
    const said = getComputedStyle(swatch).color;
    swatch.remove();
    probe.fillStyle = said;
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
  };
  const save = (canvas, name) => Object.assign(make("a"), { href: canvas.toDataURL("image/png"), download: name }).click();
  const leave = (more) => () => { for (const [event, f] of handlers) model.off(event, f); more?.(); };
  return { doc, root, make, named, get, model, on, follow, tell, button, slider, check, choice, theme, styled, save, leave };
}
const rgb = ([r, g, b], alpha = 1) => `rgba(${Math.round(255 * r)}, ${Math.round(255 * g)}, ${Math.round(255 * b)}, ${alpha})`;
const WARM = [0xe8 / 255, 0xb4 / 255, 0x63 / 255], COOL = [0x6a / 255, 0xa5 / 255, 0xd9 / 255];
