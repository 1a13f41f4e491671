"""Where and how blocks run: lanes, threads, dask workers, progress, checkpoints. Knows nothing of cryo-EM.

The result has the same bits for any number of threads or workers.
"""

from cryotk.execution.lanes import Stopped, default_threads, each_lane, in_turns, run_lanes, tree_sum, use
from cryotk.execution.memory import available_memory, give_back
from cryotk.execution.progress import Progress, Steps, pulse

__all__ = ["Progress", "Steps", "Stopped", "available_memory", "default_threads", "each_lane", "give_back", "in_turns", "pulse", "run_lanes", "tree_sum", "use"]
