"""Fixtures that all tests share."""

from __future__ import annotations

import lzma
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
def golden(tmp_path_factory) -> Path:
    """RELION's reference results that travel with the tests: a copy with the packed maps and stacks unpacked."""
    source, target = Path(__file__).parent / "data", tmp_path_factory.mktemp("golden")
    for file in source.rglob("*"):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".xz":
                copy.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
            else:
                copy.write_bytes(file.read_bytes())
    return target


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
            calls.append(1)
            return dask.get(dsk, keys, **kwargs)

        with dask.config.set(scheduler=scheduler):
            yield lambda: len(calls)

    return counting


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests of a process: playwright's loop cannot be started twice in one."""
    import shutil

    sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
    chromium = os.environ.get("CRYOTK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs a Chromium (Debian: apt-get install chromium), or CRYOTK_CHROMIUM")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        )
        yield b
        b.close()


@pytest.fixture(scope="module")
def cupy():
    """cupy where it finds a card; else its stand-in, which runs the CUDA sources on the host (see tests/stand_in).

    For the tests of one module: elsewhere ``device="auto"`` must not find the stand-in.
    """
    import importlib.util
    import shutil
    import sys

    from cryotk.kernels import backends

    try:
        import cupy as real

        if real.cuda.is_available():
            yield real
            return
    except ImportError:
        pass
    if shutil.which("g++") is None:
        pytest.skip("needs a CUDA device, or g++ to run the CUDA sources on the host")
    spec = importlib.util.spec_from_file_location("cupy", Path(__file__).parent / "stand_in" / "cupy_on_host.py")
    module = importlib.util.module_from_spec(spec)

    def forget():
        # and what array_api_compat and xarray remember of it
        gone = [n for n in sys.modules if n.partition(".")[0] == "cupy" or n.startswith("array_api_compat.cupy")]
        vars(sys.modules.get("array_api_compat", module)).pop("cupy", None)
        xarrays = sys.modules.get("xarray.namedarray.pycompat")
        getattr(xarrays, "_cached_duck_array_modules", {}).pop("cupy", None)
        return {n: sys.modules.pop(n) for n in gone}

    before = forget()
    sys.modules["cupy"] = module
    spec.loader.exec_module(module)
    sys.modules.update(module.submodules)
    backends.cuda_backend.cache_clear()
    yield module
    backends.cuda_backend.cache_clear()
    forget()
    sys.modules.update(before)
