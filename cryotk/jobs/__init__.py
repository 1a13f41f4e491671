"""What a user runs step by step. Each job reads like the method section of its paper.

Settings, schedule and bookkeeping live here; formulas are pure functions, loops are kernels.
"""

from cryotk.jobs.class2d import Class2D, Class2DSettings
from cryotk.jobs.class3d import Class3D, Class3DSettings
from cryotk.jobs.initial_model import InitialModel, InitialModelSettings
from cryotk.jobs.iterative import IterativeJob
from cryotk.jobs.refine3d import Refine3D, Refine3DSettings
from cryotk.jobs.sweep import Sweep, sweep

__all__ = [
    "Class2D",
    "Class2DSettings",
    "Class3D",
    "Class3DSettings",
    "InitialModel",
    "InitialModelSettings",
    "IterativeJob",
    "Refine3D",
    "Refine3DSettings",
    "Sweep",
    "sweep",
]
