"""What a view can be given: jobs, iterations, files and folders of RELION."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryotk.errors import MissingFileError, SettingsError

__all__ = ["RelionRun", "iterations_of"]


class RelionRun(Sequence):
    """Iterations of a RELION job folder, each read when it is looked at.

    Parameters
    ----------
    folder : path
        With ``run_itNNN_model.star`` files, for instance ``Class2D/job008``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        models = sorted(self.folder.glob("*_it[0-9][0-9][0-9]_model.star"))
        optimisers = [m.with_name(m.name.replace("_model.star", "_optimiser.star")) for m in models]
        self.paths = [o if o.exists() else m for m, o in zip(models, optimisers, strict=True)]
        if not self.paths:
            raise MissingFileError(f"{self.folder} holds no iteration of RELION (run_itNNN_model.star)")
        self._open = lru_cache(maxsize=4)(self._read)

    def _read(self, path: Path) -> Any:
        import cryotk

        return cryotk.open_iteration(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._open(p) for p in self.paths[index]]
        return self._open(self.paths[index])


def iterations_of(source: Any) -> Sequence[Any]:
    """Iterations of whatever a view was given, except a job.

    Raises
    ------
    SettingsError
        For things that hold no iteration.
    """
    if isinstance(source, (str, Path)):
        import cryotk

        path = Path(source).expanduser()
        return RelionRun(path) if path.is_dir() else [cryotk.open_iteration(path)]
    items = list(source) if isinstance(source, (list, tuple)) else [source]
    for item in items:
        if not (hasattr(item, "model") and hasattr(item, "assignments")):
            raise SettingsError(
                f"a gallery shows a job, an Iteration, a list of them, or RELION's files, not {type(item).__name__}; "
                "for instance ClassGallery(job) or ClassGallery('Class2D/job008')"
            )
    return items
