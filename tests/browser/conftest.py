"""One JupyterLab and one Chromium for all browser tests; every request that would leave the machine is refused and listed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CRYOTK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "cryotk-test"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """(url, folder) of a running JupyterLab with the course in its folder."""
    if CHROMIUM is None:
        pytest.skip("needs a Chromium (Debian: apt-get install chromium), or CRYOTK_CHROMIUM")
    from cryotk.cli import copy_course

    folder = tmp_path_factory.mktemp("lab")
    copy_course(folder)
    port = _free_port()
    private = tmp_path_factory.mktemp("jupyter")
    env = os.environ | {
        "JUPYTER_CONFIG_DIR": str(private / "config"), "JUPYTER_DATA_DIR": str(private / "data"), "IPYTHONDIR": str(private / "ipython"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = open(private / "lab.log", "w")
    server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=2).close()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((private / "lab.log").read_text()[-3000:]) from None
            time.sleep(0.3)
    yield url, folder
    server.terminate()
    server.wait(20)
    log.close()


class Page:
    """A page and what it asked for elsewhere."""

    def __init__(self, page) -> None:
        self.page = page
        self.left_the_machine: list[str] = []
        page.route("**/*", self._route)

    def _route(self, route) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1", "data:", "blob:", "file:", "ws://127.0.0.1")):
            route.continue_()
        else:
            self.left_the_machine.append(url)
            route.abort()

    def open_notebook(self, url: str, name: str) -> None:
        self.page.goto(f"{url}/lab/workspaces/auto-{name[:2]}/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.page.evaluate(
            """async () => { const c = jupyterapp.shell.currentWidget.sessionContext; await c.ready; await c.session.kernel.info;
            while (c.session.kernel.connectionStatus != 'connected') await new Promise(r => setTimeout(r, 50)); }"""
        )

    def run_all(self) -> None:
        self.page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")

    def run_cell(self, index: int) -> None:
        self.page.evaluate(f"jupyterapp.shell.currentWidget.content.activeCellIndex = {index}")
        self.page.evaluate("void jupyterapp.commands.execute('notebook:run-cell')")

    def ask(self, code: str) -> str:
        """Run code in the kernel, away from the notebook's cells, and return what it prints."""
        return self.page.evaluate(
            """async (code) => { const k = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const f = k.requestExecute({ code, store_history: false }); let out = '';
            f.onIOPub = m => { if (m.header.msg_type === 'stream') out += m.content.text;
              if (m.header.msg_type === 'error') out += 'ERROR ' + m.content.evalue; };
            await f.done; return out; }""",
            code,
        ).strip()


@pytest.fixture(scope="session")
def page_of():
    """Function that makes a page of a widget, see ``page_of.py``."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("cryotk_test_page_of", Path(__file__).with_name("page_of.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page_of


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, device_scale_factor=1)
    p = Page(context.new_page())
    yield p
    context.close()


@pytest.fixture
def show(page, page_of, tmp_path):
    """Function that opens a widget alone on a page, and waits until its pictures stand still; no error, no request elsewhere."""

    def open_page(widget, width=980, rest=600):
        (tmp_path / "w.html").write_text(page_of(widget, width))
        page.errors = []
        page.page.on("pageerror", lambda e: page.errors.append(str(e)))
        page.page.goto((tmp_path / "w.html").as_uri())
        page.page.wait_for_function("window.ready === true")
        page.page.wait_for_timeout(rest)
        # a surface is smoothed in passes
        page.page.wait_for_function(
            "[...document.querySelectorAll('canvas.ck-surface')].every((c) => c.dataset.still !== 'no')", timeout=60_000
        )
        return page.page

    yield open_page
    assert page.errors == [] and page.left_the_machine == []


@pytest.fixture
def figures(tmp_path) -> Path:
    """Where pictures go: a folder to look at (CRYOTK_FIGURES), or away."""
    where = Path(os.environ["CRYOTK_FIGURES"]) if os.environ.get("CRYOTK_FIGURES") else tmp_path
    where.mkdir(parents=True, exist_ok=True)
    return where
