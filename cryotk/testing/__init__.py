"""Comparing results with those of another program or another run; for tests, tutorials and doubters.

Knows ``data`` and ``geometry`` only; nothing in cryotk imports it.
"""

from cryotk.testing.compare import RELION_DEMANDS, compare_iterations, figures_table, unmet_demands

__all__ = ["RELION_DEMANDS", "compare_iterations", "figures_table", "unmet_demands"]
