"""A widget alone on a page, with a stand-in for the kernel that keeps what the page says."""

import base64
import json

_PAGE = """<!doctype html><meta charset="utf-8"><title>widget</title><style>body {{ margin: 16px; background: {background}; }} {css}</style>
<div id="w" style="width: {width}px"></div><script type="module">
const S = {state};
for (const [k, b] of Object.entries({buffers})) S[k] = new DataView(Uint8Array.from(atob(b), (c) => c.charCodeAt(0)).buffer);
const H = {{}}, fire = (e, ...a) => (H[e] ?? []).forEach((f) => f(...a));
window.sent = [];
window.model = {{ get: (k) => S[k], set: (k, v) => {{ S[k] = v; fire("change:" + k); }}, on: (e, f) => (H[e] ??= []).push(f),
  off: (e, f) => {{ H[e] = (H[e] ?? []).filter((g) => g !== f); }}, save_changes() {{ throw new Error("trait write-back"); }},
  send: (m) => window.sent.push(m),
  receive: (m, b) => fire("msg:custom", m, b ?? []),
  update: (values) => {{ Object.assign(S, values); for (const k of Object.keys(values)) fire("change:" + k); }} }};
const widget = (await import(URL.createObjectURL(new Blob([{esm}], {{ type: "text/javascript" }})))).default;
const start = performance.now();
window.leave = await widget.render({{ model: window.model, el: document.getElementById("w") }});
window.renderTime = performance.now() - start;
window.ready = true;
</script>"""


def page_of(widget, width=980):
    """Self-contained page of an anywidget in its present state."""
    state, buffers = {}, {}
    for name in widget.traits(sync=True):
        value = getattr(widget, name)
        if name.startswith("_") or name in ("layout", "comm", "tabbable", "tooltip"):
            continue
        if isinstance(value, bytes):
            buffers[name] = base64.b64encode(value).decode()
        else:
            state[name] = value

    def safe(x):
        return json.dumps(x).replace("</", "<\\/")

    dark = getattr(widget, "theme", "light") == "dark"
    return _PAGE.format(
        background="#111318" if dark else "#ffffff", css=widget._css.replace("</", "<\\/"), width=width, state=safe(state),
        buffers=safe(buffers), esm=safe(widget._esm),
    )  # fmt: skip
