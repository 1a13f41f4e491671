"""The course runs from top to bottom; its assertions hold its key numbers."""


import pytest

nbclient = pytest.importorskip("nbclient")

from cryotk.cli import copy_course  # noqa: E402

NOTEBOOKS = [
    "00_quickstart.ipynb", "01_images_and_ctf.ipynb", "02_class2d.ipynb", "03_initial_model.ipynb",
    "04_class3d.ipynb", "05_refine3d.ipynb",
    "06_masks_and_postprocessing.ipynb", "07_local_resolution.ipynb", "08_napari.ipynb",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, tmp_path, monkeypatch, request):
    import nbformat

    try:
        monkeypatch.setenv("CRYOTK_SHARED", str(request.getfixturevalue("shared").resolve()))
    except pytest.skip.Exception:
        # the course runs without real particles, too
        pass
    copy_course(tmp_path)
    nb = nbformat.read(tmp_path / name, as_version=4)
    nbclient.NotebookClient(nb, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    streams = [o.text for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not [s for s in streams if "Warning" in s or "Error" in s], streams
    if name == "00_quickstart.ipynb":
        views = [
            o for c in nb.cells if c.cell_type == "code" for o in c.outputs
            if {"image/png", "application/vnd.jupyter.widget-view+json"} <= set(o.get("data", {}))
        ]  # fmt: skip
        assert views, "the gallery leaves a picture for pages that run no widgets"
