"""Static pictures of jobs and iterations for notebooks: text only, nothing is computed."""

from __future__ import annotations

from html import escape
from typing import Any

__all__ = ["job_html"]


def job_html(job: Any) -> str:
    """Table of a job's settings and last iterations."""
    rows = "".join(
        f"<tr><td style='text-align:left'>{escape(k)}</td><td style='text-align:left'>{escape(str(v))}</td></tr>"
        for k, v in job.settings.model_dump().items()
    )
    head = "".join(f"<th>{h}</th>" for h in ("iteration", "resolution Å", "P_max", "changed class %", "seconds"))
    body = "".join(
        "<tr>"
        + f"<td>{it.number}</td>"
        + "".join(
            f"<td>{it.numbers[name] * scale:.{digits}f}</td>" if name in it.numbers else "<td>-</td>"
            for name, scale, digits in (
                ("resolution", 1, 1), ("average_p_max", 1, 3), ("changes_class", 100, 1), ("seconds", 1, 2),
            )
        )
        + "</tr>"
        for it in job.iterations[-5:]
    )
    hint = "" if job.iterations else "<p>No iteration yet: call <code>job.iterate()</code> or <code>job.start()</code>.</p>"
    return (
        f"<div><b>{escape(repr(job).strip('<>'))}</b>{hint}<table><tr>{head}</tr>{body}</table>"
        f"<details><summary>settings</summary><table>{rows}</table></details></div>"
    )
