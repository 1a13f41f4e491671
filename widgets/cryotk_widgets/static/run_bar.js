// The line above a refinement: which iteration, what it found, progress, run and stop.
function createRunBar(view) {
  const { make, named, get, model, button, slider } = view;
  const done = make("div"), line = make("div", "ck-line", done);
  line.setAttribute("role", "progressbar");
  line.setAttribute("aria-label", "Particles of this iteration");
  let asked = null;
  const go = (p) => {
    const first = asked === null;
    asked = Math.min(get("n_iterations") - 1, Math.max(0, p));
    steps.value = asked;
    // at most 12 requests a second, the last one wins
    if (first) setTimeout(() => { model.set("position", asked); model.send({ cmd: "set", name: "position", value: asked }); asked = null; }, 80);
  };
  const previous = button("◀", "Previous iteration", "", () => go((asked ?? get("position")) - 1), "ck-icon");
  const next = button("▶", "Next iteration", "", () => go((asked ?? get("position")) + 1), "ck-icon");
  const steps = slider("Iteration", 0, 0, 1, go), number = make("b");
  const iter = make("span", "ck-iter", make("span", "", "iteration"), previous, steps, next, number);
  const text = make("span", "ck-text");
  const run = button("▶ Run", "Run", "", () => model.send({ cmd: "run" }), "ck-run");
  const stop = button("■ Stop", "Stop", "", () => { text.textContent = "stopping after this block…"; stop.disabled = true; model.send({ cmd: "stop" }); }, "ck-stop");
  const el = make("div", "ck-bar ck-top", iter, text, run, stop);
  function update() {
    const p = get("progress"), many = get("n_iterations");
    steps.hidden = previous.hidden = next.hidden = many < 2;
    iter.hidden = many < 1;
    steps.max = Math.max(many - 1, 0);
    if (asked === null) steps.value = get("position");
    previous.disabled = get("position") <= 0;
    next.disabled = get("position") >= many - 1;
    number.textContent = get("iteration") < 0 ? "last" : get("iteration");
    done.style.width = (p.running ? 100 * (p.fraction || 0) : 0) + "%";
    line.setAttribute("aria-valuenow", Math.round(100 * (p.fraction || 0)));
    stop.hidden = !p.running;
    stop.disabled = false;
    run.hidden = !p.can_run || p.running;
    const words = progressText(p, get("summary")).replace("new averages", "new maps");
    text.textContent = text.title = p.running && get("summary") ? `${get("summary")}  —  ${words}` : p.message || get("summary") || get("empty_text");
  }
  view.follow(["progress", "summary", "n_iterations", "position", "iteration", "empty_text"], update);
  return { line, el, update };
}
