"""Where and how blocks run: lanes, threads, dask workers, progress, checkpoints. Knows nothing of cryo-EM.

The result has the same bits for any number of threads or workers.
"""

from cryotk.execution.lanes import Stopped, default_threads, run_lanes, tree_sum, use
from cryotk.execution.progress import Progress, Steps, pulse

__all__ = ["Progress", "Steps", "Stopped", "default_threads", "pulse", "run_lanes", "tree_sum", "use"]
