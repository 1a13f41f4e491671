"""Everything of cryotk that draws on a screen: anywidgets for notebooks, HoloViews figures, the offline page.

A view takes results, whoever made them, and follows a job when given one. Nothing here computes an algorithm.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "class3d": ["ClassView3D"],
        "ctf": ["CtfExplorer"],
        "export": ["export_html"],
        "gallery": ["ClassGallery"],
        "map_plots": ["FSCPlot", "GuinierPlot"],
        "mask_designer": ["MaskDesigner"],
        "posterior": ["PosteriorView"],
        "refine": ["RefineView", "view_job"],
        "slices": ["SliceView"],
        "stack_view": ["StackView", "view_particles", "view_stack"],
        "volume": ["VolumeView", "view_volume"],
    },
    submodules=["plots"],
)
