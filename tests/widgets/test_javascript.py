"""The widgets' own JavaScript tests, by node's test runner."""

import os
import shutil
import subprocess
from pathlib import Path

import cryotk_widgets
import pytest


@pytest.mark.parametrize("file", sorted(Path(__file__).parent.glob("*.test.mjs")), ids=lambda p: p.name)
def test_javascript(file):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node 20 or newer")
    static = (Path(cryotk_widgets.__file__).parent / "static").as_uri() + "/"
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, timeout=120, env=os.environ | {"CRYOTK_STATIC": static})
    assert done.returncode == 0, done.stdout + done.stderr
