"""A screen in memory where there is none, before Qt asks for one."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    """A display for Qt: the one there is, or Xvfb's."""
    if find_spec("napari") is None or find_spec("pytestqt") is None:
        pytest.skip("needs napari and pytest-qt (extra: napari-test)")
    if "XDG_RUNTIME_DIR" not in os.environ:
        folder = tmp_path_factory.mktemp("runtime")
        folder.chmod(0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
    if os.environ.get("DISPLAY"):
        return os.environ["DISPLAY"]
    if shutil.which("Xvfb") is None:
        pytest.skip("needs a screen, or Xvfb (Debian: apt-get install xvfb)")
    out, into = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(into), "-screen", "0", "1400x900x24", "+extension", "GLX", "-nolisten", "tcp"],
        pass_fds=[into], stderr=subprocess.DEVNULL,
    )
    # not at the fixture's end: Qt ends the process when its screen goes while it lives
    atexit.register(server.terminate)
    os.close(into)
    with os.fdopen(out) as number:
        os.environ["DISPLAY"] = ":" + number.readline().strip()
    return os.environ["DISPLAY"]


@pytest.fixture
def viewer(screen, request):
    """An empty viewer that nobody sees."""
    return request.getfixturevalue("make_napari_viewer")()
