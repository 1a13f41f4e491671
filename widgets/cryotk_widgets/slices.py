"""Three central planes of a map, with a mask or colours over them."""

from __future__ import annotations

from typing import Any

from cryotk_widgets.volume import VolumeView

__all__ = ["SliceView"]


class SliceView(VolumeView):
    """Planes xy, xz, yz of a map with one cross-hair: the wheel goes through them, a click moves the cross-hair, arrows too.

    Parameters and attributes are those of :class:`VolumeView`; a ``mask`` and ``colour_by`` are drawn over the planes.

    Examples
    --------
    >>> SliceView("run_class001.mrc", mask="mask.mrc")  # doctest: +SKIP
    """

    def __init__(self, volume: Any, **options: Any) -> None:
        options.setdefault("layout_mode", "slices")
        super().__init__(volume, **options)

    def __repr__(self) -> str:
        return super().__repr__().replace("VolumeView", "SliceView")

    def to_image(self, edge: int = 240) -> Any:
        """Return the planes side by side as a PIL image, with colours and mask over them and a legend of the colours."""
        import numpy as np
        from PIL import Image

        dark = self.theme == "dark"
        gap = np.full((edge, 4, 3), (22, 22, 26) if dark else (255, 255, 255), np.uint8)
        parts = [*self._planes(edge), *self._legend(edge)]
        return Image.fromarray(np.concatenate([p for part in parts for p in (part, gap)][:-1], axis=1))
