"""Progress of functions on maps: it rises to the end, and whoever listens can end it soon."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume
from cryotk.execution import Steps, pulse


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def large():
    """Half-maps of 160^3, whose functions take long enough to be cancelled."""
    rng = np.random.default_rng(0)
    n = 160
    k = np.arange(n) - n // 2
    blob = np.exp(-((np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) / 30) ** 4)).astype(np.float32)
    signal = blob * ctk.lowpass(as_volume(rng.standard_normal((n,) * 3).astype(np.float32), 2.0), 8).values
    return [as_volume(signal + 0.02 * rng.standard_normal(signal.shape).astype(np.float32), 2.0, f"half {i}") for i in (1, 2)], as_volume(blob, 2.0)


CALLS = {
    "postprocess": lambda h, m, p: ctk.postprocess(*h, m, progress=p),
    "postprocess without a mask": lambda h, m, p: ctk.postprocess(*h, progress=p),
    "create_mask": lambda h, m, p: ctk.create_mask(m, 0.5, largest_only=True, fill_holes=True, extend_px=6, soft_edge_px=8, progress=p),
    "create_mask without a low-pass": lambda h, m, p: ctk.create_mask(m, 0.5, lowpass=None, progress=p),
    "local_resolution": lambda h, m, p: ctk.local_resolution(*h, m, sampling=60, progress=p),
    "symmetrise": lambda h, m, p: ctk.symmetrise(h[0], "D7", progress=p),
    "align_symmetry": lambda h, m, p: ctk.align_symmetry(h[0], "C2", working_box=32, progress=p),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
@pytest.mark.parametrize("name", CALLS)
def test_progress_rises_to_its_end(large, name):
    told = []
    CALLS[name](*large, lambda done, total: told.append((done, total)))
    done, total = np.array(told).T
    assert len(set(total)) == 1 and (np.diff(done) >= 0).all() and done[-1] == total[0]
    # nothing is counted twice, and no large part of the work is silent
    largest = np.diff(done, prepend=0).max() / total[0]
    assert len(told) >= 8 and largest < (0.5 if name == "align_symmetry" else 0.2), largest
    if "align" not in name:
        assert done[-2] >= 0.8 * total[0], done[-2] / total[0]


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
@pytest.mark.parametrize("name", CALLS)
def test_a_cancelled_call_ends_soon(large, name):
    asked: list[float] = []
    longest = [time.process_time()]
    gaps = []

    def listen(done, total):
        now = time.process_time()
        gaps.append(now - longest[0])
        longest[0] = now
        if done >= total // 3:
            asked.append(time.perf_counter())
            raise Cancelled

    with pytest.raises(Cancelled):
        CALLS[name](*large, listen)
    assert len(asked) == 1  # the exception ended it: nobody was asked again
    # what runs between two chances to cancel, all threads' seconds
    assert max(gaps[1:]) < 0.4, max(gaps)
    # and nothing of the cancelled call counts for the next one
    told = []
    with Steps(lambda *a: told.append(a), 2, "next"):
        pulse(1)
    assert told == [(100, 200), (200, 200)]


@pytest.mark.parametrize("threads", [1, 3])
def test_local_resolution_is_cancelled_inside_a_window(large, threads, monkeypatch):
    """Windows may take seconds: whoever listens is heard between their blocks, and windows under way end, too."""
    from cryotk.maps.local_windows import WindowSums

    asked, begun, after = threading.Event(), threading.Event(), []

    def listen(done, total):
        if begun.is_set():
            asked.set()
            raise Cancelled

    real = WindowSums.__call__

    def slow(self, point):
        begun.set()
        self.blocks = self.blocks[:1] * 5000  # a window that would take minutes
        try:
            return real(self, point)
        finally:
            after.append(point)

    monkeypatch.setattr(WindowSums, "__call__", slow)
    used = time.process_time()
    with pytest.raises(Cancelled):
        ctk.local_resolution(*large[0], sampling=40, threads=threads, progress=listen)
    assert asked.is_set() and 1 <= len(after) <= threads
    assert time.process_time() - used < 20


def test_no_thread_hears_of_the_others_work():
    told = []
    with Steps(lambda *a: told.append(a), 1, "mine"):
        t = threading.Thread(target=pulse, args=(1,))
        t.start(), t.join()
        assert told == []


def test_a_call_inside_another_shows_nothing_but_can_be_cancelled(capsys):
    def stop(done, total):
        raise Cancelled

    with pytest.raises(Cancelled), Steps(stop, 1, "outer"), Steps(True, 1, "inner"):
        pulse(0.5)
    assert "inner" not in capsys.readouterr().err


def test_a_bar_appears_after_a_second_only(capsys):
    with Steps(True, 2, "short"):
        pulse(1)
    assert "short" not in capsys.readouterr().err
    with Steps(True, 4, "long"):
        for _ in range(4):
            time.sleep(0.4)
            pulse(1)
    assert "long" in capsys.readouterr().err
    with Steps(False, 2, "silent"):
        time.sleep(1.1)
        pulse(1)
    assert capsys.readouterr().err == ""


def test_holes_are_filled_as_scipy_fills_them():
    from scipy import ndimage

    from cryotk.maps.mask import solid_pieces

    inside = np.random.default_rng(3).random((30, 31, 32)) < 0.6
    assert np.array_equal(solid_pieces(inside, False, True), ndimage.binary_fill_holes(inside))
    assert solid_pieces(np.ones((4, 4, 4), bool), False, True).all() and not solid_pieces(np.zeros((4, 4, 4), bool), False, True).any()
