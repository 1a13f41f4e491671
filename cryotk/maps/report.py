"""How results show themselves: text and a table that compute nothing, and figures from ``cryotk_widgets`` when asked."""

from __future__ import annotations

from html import escape
from importlib import import_module
from inspect import signature
from typing import Any

from cryotk.errors import SettingsError

__all__ = ["plot_with", "table_html", "table_text"]


def table_text(title: str, rows: dict[str, str]) -> str:
    """Lines ``name: value``."""
    return "\n".join([f"<{title}>", *(f"  {k}: {v}" for k, v in rows.items())])


def table_html(title: str, rows: dict[str, str]) -> str:
    """Two-column table."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(k)}</th><td style='text-align:left'>{escape(v)}</td></tr>"
        for k, v in rows.items()
    )
    return f"<div><b>{escape(title)}</b><table>{body}</table></div>"


def plot_with(name: str, result: Any, **kwargs: Any) -> Any:
    """Call a figure function of ``cryotk_widgets.plots``.

    Raises
    ------
    SettingsError
        When the notebook packages are not installed, or for an option that the figure does not have.
    """
    try:
        plots = import_module("cryotk_widgets.plots")
    except ImportError as error:
        raise SettingsError(f".plot() needs the notebook packages ({error}): pip install 'cryotk[lab]'") from None
    function = getattr(plots, name, None)
    if function is None:
        raise SettingsError(f"this version of cryotk_widgets has no figure {name}")
    try:
        signature(function).bind(result, **kwargs)
    except TypeError as error:
        known = ", ".join(p for p in list(signature(function).parameters)[1:]) or "none"
        raise SettingsError(f".plot(): {error}; its options are: {known}") from None
    return function(result, **kwargs)
