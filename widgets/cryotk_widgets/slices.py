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
        """Return the planes side by side as a PIL image."""
        from PIL import Image

        from cryotk_widgets.pictures import to_bytes

        planes = [Image.fromarray(to_bytes(p, *self.limits)) for p in self.slices()]
        sheet = Image.new("L", (len(planes) * (edge + 4) - 4, edge), 255)
        for i, plane in enumerate(planes):
            sheet.paste(plane.resize((edge, edge), Image.Resampling.BICUBIC), (i * (edge + 4), 0))
        return sheet
