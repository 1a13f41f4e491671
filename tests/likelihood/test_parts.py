"""A block whose orientations do not fit into memory together is cut across them: the same posterior and sums."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.jobs.blocks import cut_blocks
from cryotk.jobs.step import StepContext
from cryotk.likelihood.references import SliceMaker


@pytest.fixture(scope="module")
def job():
    particles = ctk.simulate.particles(24, 32, 6.0, seed=5, poses=True, progress=False)
    map_ = ctk.simulate.volume(ctk.simulate.molecule(), 32, 6.0, amplitude=particles.attrs["amplitude"])
    job = ctk.Class3D(particles, [map_, map_], 2, mask_diameter=170, absolute_greyscale=True, initial_lowpass=20, seed=1)
    # classes that differ, so that both count
    job.current.model.references[1] *= 0.9
    return job


def _run(context: StepContext):
    """Posterior weights, sums and the largest number of slices made at once, for one block."""
    block = context.prepare(cut_blocks(context)[0])
    step, poses = context.step, context.state.poses[block.particles]
    made = []
    slices = SliceMaker.slices_at

    def count(self, classes, *rest, **more):
        made.append(len(classes))
        return slices(self, classes, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SliceMaker, "slices_at", count)
        post = context.posterior(block)
        result = step.result(block, post, poses)
        sums = step.empty_sums(len(context.data.group_names))
        step.accumulate(sums, block, post, result, np.ones(len(block.images)), 1.0, context.data.columns.scale_group[block.images])
    return post, result, sums, max(made, default=0)


@pytest.mark.parametrize("tables", [True, False], ids=["fine slices ahead", "slices per block"])
def test_parts_give_the_whole(job, monkeypatch, tables):
    from cryotk.kernels.backends import CPU

    if not tables:
        monkeypatch.setattr(CPU, "slice_bytes", 0)
    monkeypatch.setattr(CPU, "slot_bytes", 1 << 60)
    post, result, sums, n_whole = _run(job._context())
    n_pixels = len(job._context().step.tables[0].prepare.lattice)
    for n_slots in (7, 1):
        monkeypatch.setattr(CPU, "slot_bytes", n_slots * 20 * post.n_children * n_pixels + 1)
        p, r, s, n = _run(job._context())
        assert len(np.unique(post.parent_slot)) > 20
        # slices half a turn apart are made or taken from each other: last digits of scores of some hundred
        np.testing.assert_allclose(p.weights, post.weights, rtol=1e-3, atol=1e-6)
        assert np.array_equal(r.angles, result.angles)
        if not tables:
            assert n <= n_slots * post.n_children < n_whole
        assert s.weight == pytest.approx(sums.weight, rel=1e-12)
        _same_sums(s, sums)
        np.testing.assert_allclose(r.norm_correction, result.norm_correction, rtol=1e-5)


def _same_sums(s, sums):
    for name in ("noise", "class_weight", "direction_weight", "scale_cross", "scale_self"):
        np.testing.assert_allclose(getattr(s, name), getattr(sums, name), rtol=1e-5, atol=1e-6 * np.abs(getattr(sums, name)).max())
    for a, b in zip(s.accumulators, sums.accumulators, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=1e-6 * np.abs(b.data).max())
        np.testing.assert_allclose(a.weight, b.weight, rtol=0, atol=1e-6 * b.weight.max())


def test_portions_give_the_whole(job, monkeypatch):
    """Local searches, whose particles share few orientations: slices particle by particle, and all at once."""
    from cryotk.kernels.backends import CPU
    from cryotk.likelihood import parts, portions

    def local():
        context = job._context()
        m = context.model
        m.orientational_prior_mode, m.sigma_rot, m.sigma_tilt, m.sigma_psi = 1, 9.0, 9.0, 9.0
        assert context.step.local
        return context

    monkeypatch.setattr(CPU, "slot_bytes", 1 << 60)
    monkeypatch.setattr(portions, "PORTION_BYTES", 1 << 60)
    post, result, sums, _ = _run(local())
    cut = []
    monkeypatch.setattr(parts, "cut_portions", lambda *a: (cut.append(p) or p for p in portions.cut_portions(*a)))
    for most in (1, 600_000):
        cut.clear()
        monkeypatch.setattr(portions, "PORTION_BYTES", most)
        p, r, s, _ = _run(local())
        if most == 1:
            # each particle on its own, in the fine pass and in the sums
            assert len(cut) == 2 * len(post.particles)
        assert np.array_equal(p.weights, post.weights)
        assert np.array_equal(r.angles, result.angles)
        assert s.weight == pytest.approx(sums.weight, rel=1e-6)
        _same_sums(s, sums)


def test_local_searches_that_share_slices_make_few_at_once(monkeypatch):
    """A block's coarse slices around its poses are made in tiles when they are too many; the posterior is the same."""
    from cryotk.likelihood import coarse, portions

    particles = ctk.simulate.particles(24, 32, 6.0, seed=5, poses=True, progress=False)
    map_ = ctk.simulate.volume(ctk.simulate.molecule(), 32, 6.0, amplitude=particles.attrs["amplitude"])
    job = ctk.Class3D(
        particles, map_, 1, mask_diameter=170, absolute_greyscale=True, initial_lowpass=20, seed=1, local_search_range=60
    )
    monkeypatch.setattr(portions, "PORTION_BYTES", 1 << 60)
    results = []
    for tile_bytes in (1 << 60, 400_000):
        monkeypatch.setattr(coarse, "TILE_BYTES", tile_bytes)
        seen, at = [], SliceMaker.slices_at

        def count(self, classes, inverse, out, pixels=None, places=None, at=at, seen=seen):
            if pixels is not None:
                seen.append(len(classes))
            return at(self, classes, inverse, out, pixels, places)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SliceMaker, "slices_at", count)
            context = job._context()
            block = context.prepare(cut_blocks(context)[0])
            post = context.posterior(block)
            n_pixels = len(context.step.tables[0].coarse_pixels)
        results.append((post.weights, post.offsets, seen))
    (weights, offsets, whole), (w, o, cut) = results
    assert np.array_equal(weights, w) and np.array_equal(offsets, o)
    assert len(whole) == 1 and 8 * n_pixels * whole[0] > 2 * 400_000 and len(cut) > 1
    assert max(cut) < whole[0] / 2 and sum(cut) == whole[0]
