"""Comparing results with those of another program or another run; for tests, tutorials and doubters.

Knows ``data``, ``geometry``, ``fourier`` and ``projection`` only; nothing in cryotk imports it.
"""

from cryotk.testing.compare import RELION_DEMANDS, compare_iterations, figures_table, unmet_demands
from cryotk.testing.truth import MapFit, fit_map, view_spread

__all__ = ["RELION_DEMANDS", "MapFit", "compare_iterations", "figures_table", "fit_map", "unmet_demands", "view_spread"]
