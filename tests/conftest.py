"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


def _shared() -> Path | None:
    given = os.environ.get("CRYOTK_SHARED")
    for p in ([Path(given)] if given else []) + [ROOT.parent / "shared"]:
        if (p / "reference").is_dir():
            return p
    return None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with RELION's reference results and others' files; beside the checkout, or CRYOTK_SHARED."""
    found = _shared()
    if found is None:
        pytest.skip("needs the folder `shared` with reference results and real files beside the checkout (or CRYOTK_SHARED)")
    return found


@pytest.fixture(scope="session")
def golden() -> Path:
    """RELION's reference results that travel with the tests."""
    return Path(__file__).parent / "data"


@pytest.fixture
def no_compute():
    """Fail when anything computes a dask graph inside the test."""
    import dask

    def scheduler(dsk, keys, **kwargs):
        raise AssertionError("a dask graph was computed")

    with dask.config.set(scheduler=scheduler):
        yield


@pytest.fixture
def count_computes():
    """Context that counts how many chunks are computed: ``with count_computes as n: ...; n()``."""
    import contextlib

    import dask

    @contextlib.contextmanager
    def counting():
        calls = []

        def scheduler(dsk, keys, **kwargs):
            calls.append(len(dict(dsk)))
            return dask.get(dsk, keys, **kwargs)

        with dask.config.set(scheduler=scheduler):
            yield lambda: len(calls)

    return counting
