"""A notebook as one HTML page that shows its pictures and widgets without a kernel and without the internet."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["export_html", "formulas_as_pictures"]

_SHIM = """<div id="{id}"></div><style>{css}</style><script type="module">
const S = {state}; for (const [k, b] of Object.entries({buffers})) {{
  const r = atob(b), u = new Uint8Array(r.length); for (let i = 0; i < r.length; i++) u[i] = r.charCodeAt(i); S[k] = new DataView(u.buffer); }}
const H = {{}}, model = {{ get: k => S[k], set: (k, v) => {{ S[k] = v; (H["change:" + k] || []).forEach(f => f()); }},
  on: (e, f) => (H[e] ??= []).push(f), off() {{}}, save_changes() {{}}, send() {{}} }};
const m = (await import(URL.createObjectURL(new Blob([{esm}], {{ type: "text/javascript" }})))).default, d = typeof m == "function" ? await m() : m;
await d.initialize?.({{ model }}); await d.render({{ model, el: document.getElementById("{id}") }});
</script>"""


def _safe(value: Any) -> str:
    return json.dumps(value).replace("</", "<\\/")


def _standalone(model_id: str, states: dict[str, Any]) -> str | None:
    entry = states.get(model_id)
    if entry is None:
        return None
    state = dict(entry["state"])
    if state.get("_model_module") != "anywidget":
        return None
    buffers = {b["path"][0]: b["data"] for b in entry.get("buffers", []) if len(b["path"]) == 1}
    esm, css = state.pop("_esm", ""), state.pop("_css", "")
    if state.get("progress"):
        # no kernel: nothing to run or stop
        state["progress"] = {"running": False, "can_run": False}
    for name in ("can_enlarge", "can_walk", "can_save", "made"):
        # what needs a kernel is not offered
        if name in state:
            state[name] = False
    return _SHIM.format(
        id=f"ck-{model_id}", css=css.replace("</", "<\\/"), state=_safe(state), buffers=_safe(buffers), esm=_safe(esm)
    )


# code first, so that what stands in it is left alone; then $$ ... $$ and $ ... $
_FORMULA = re.compile(r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|(?<![\\$])\$(?![\s$])([^$\n`]+?)(?<!\s)\$(?!\d)", re.DOTALL)


def _picture_of(formula: str, display: bool) -> str:
    """A formula as an SVG picture; as it stands where matplotlib's TeX does not know it."""
    from html import escape

    from matplotlib import mathtext
    from matplotlib.font_manager import FontProperties

    known = " ".join(formula.split()).replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac")
    svg = io.BytesIO()
    try:
        depth = mathtext.math_to_image(f"${known}$", svg, prop=FontProperties(size=13 if display else 10.5), format="svg")
    except ValueError:
        return f"<code>{escape(formula)}</code>"
    size = "width:auto;max-width:100%" if display else f"vertical-align:-{depth:.1f}pt"
    source = base64.b64encode(svg.getvalue()).decode()
    picture = f'<img alt="{escape(formula, quote=True)}" style="display:inline;{size}" src="data:image/svg+xml;base64,{source}">'
    return f'<p style="text-align:center">{picture}</p>' if display else picture


def formulas_as_pictures(markdown: str) -> str:
    """Replace TeX formulas by pictures: a page without the internet has no program that would set them.

    Parameters
    ----------
    markdown : str
        Source of a cell.
    """

    def replace(match: re.Match[str]) -> str:
        code, display, inline = match.groups()
        if code is not None:
            return code
        return _picture_of(display or inline, display is not None)

    return _FORMULA.sub(replace, markdown)


# what tqdm writes, as text and in place of its widget
_BAR = re.compile(r"\d+ ?%\|")


def _without_bars(outputs: list[Any]) -> list[Any]:
    """Outputs of a cell without progress bars: they were there for the wait, and are torn where no widget runs."""
    kept = []
    for out in outputs:
        data = out.get("data", {})
        if set(data) == {"text/plain"} and out.output_type == "display_data" and _BAR.search(data["text/plain"]):
            continue
        if out.get("name") == "stderr" and ("\r" in out.text or _BAR.search(out.text)):
            lines = [line for line in re.split(r"[\r\n]", out.text) if line.strip() and not _BAR.search(line)]
            if not lines:
                continue
            out.text = "\n".join(lines) + "\n"
        kept.append(out)
    return kept


def export_html(notebook: str | Path | Any, output: str | Path | None = None, *, title: str = "cryotk") -> str:
    """Turn an executed notebook into one self-contained page.

    Parameters
    ----------
    notebook : path or NotebookNode
        Executed, with widget state stored.
    output : path, optional
        Written when given.

    Returns
    -------
    str
        The page.
    """
    import nbformat
    from nbconvert import HTMLExporter

    nb = nbformat.read(str(notebook), as_version=4) if isinstance(notebook, (str, Path)) else notebook
    widgets = nb.metadata.pop("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    for cell in nb.cells:
        if cell.cell_type == "markdown" and "$" in cell.source:
            cell.source = formulas_as_pictures(cell.source)
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            view = data.get("application/vnd.jupyter.widget-view+json")
            if view is None:
                continue
            html = _standalone(view["model_id"], widgets)
            if html is not None:
                out["data"] = {"text/html": html}
            else:
                data.pop("application/vnd.jupyter.widget-view+json")
        if cell.cell_type == "code":
            cell.outputs = _without_bars([out for out in cell.get("outputs", []) if out.get("data", True)])
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jupyter_widgets_base_url="", html_manager_semver_range="")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    page, _ = exporter.from_notebook_node(nb, {"metadata": {"name": title}})
    if output is not None:
        from cryotk.io.star import atomic_write

        atomic_write(output, page.encode())
    return page


