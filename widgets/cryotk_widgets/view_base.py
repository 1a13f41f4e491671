"""What all views of volumes and runs share: files of the page, words from the page, the picture where widgets do not run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

__all__ = ["View", "page_text"]

_STATIC = Path(__file__).parent / "static"


def page_text(*names: str) -> str:
    """Return files of ``static`` one after the other: a page's module has no imports of its own."""
    return "\n".join((_STATIC / name).read_text() for name in names)


class View(anywidget.AnyWidget):
    """Base of the views: traits named in ``_settable`` may be set by the page, all others by Python alone."""

    _settable: ClassVar[tuple[str, ...]] = ()

    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)
    notice = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._on_message)

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Commands from the page. They may come on any thread, so they only set values and start threads."""
        command = content.get("cmd") if isinstance(content, dict) else None
        if command == "set" and content.get("name") in self._settable:
            setattr(self, content["name"], content["value"])
        elif command is not None:
            self._command(command, content)

    def _command(self, command: str, content: dict[str, Any]) -> None:
        """Other commands of this view."""

    def to_png(self) -> bytes:
        """Return a picture of the view, empty when there is nothing to show."""
        return b""

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Widget for live pages, a picture for those that show none."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, meta = bundle if isinstance(bundle, tuple) else (bundle, {})
        if data is None:
            return data, meta
        data = dict(data) | {"text/plain": repr(self)}
        png = self.to_png()
        if png:
            data["image/png"] = base64.b64encode(png).decode()
        return data, meta
