"""Figures: what they show, that they are objects to restyle, and that they can be drawn."""

import numpy as np
import pytest

hv = pytest.importorskip("holoviews")

from cryotk_widgets import plots  # noqa: E402

import cryotk as ctk  # noqa: E402


@pytest.fixture(scope="module")
def job():
    particles = ctk.simulate.particles(100, 32, 6.0, seed=1)
    out = ctk.Class2D(particles, 3, mask_diameter=150, n_iterations=3, seed=1)
    out.run(progress=False)
    return out


def draws(figure):
    hv.render(figure, backend="bokeh")
    return figure


def test_history_has_a_panel_for_every_number(job):
    figure = draws(plots.history(job))
    assert isinstance(figure, hv.Layout) and len(figure) == 4
    curve = figure[0].Curve.I if hasattr(figure[0], "Curve") else figure[0]
    assert np.allclose(curve.dimension_values(1), job.history.resolution.values)
    shares = figure[3]
    assert len(shares) == 3 and np.allclose(sum(c.dimension_values(1) for c in shares), 100)
    assert len(plots.history(job.history)) == 4


def test_spectra_are_over_spatial_frequency_with_angstrom_to_hover(job):
    curve = next(iter(draws(plots.noise_power(job))))
    m = job.current.model
    assert np.allclose(curve.dimension_values(0), np.arange(1, 17) / (32 * 6.0))
    assert np.allclose(curve.dimension_values(1), m.noise_power[0, 1:])
    assert curve.dimension_values("resolution")[0] == "192.0 Å"
    overlay = draws(plots.data_vs_prior(job.current, classes=[2]))
    curve = next(iter(overlay.get(0)))
    s = m.data_vs_prior[1, 1:]
    assert np.allclose(curve.dimension_values(1), s[s > 1e-2])


def test_data_vs_prior_of_the_start_says_what_to_do(job):
    assert "job.iterate()" in plots.data_vs_prior(job.iterations[0]).data[2]


def test_posterior_panels_add_up_to_one(job):
    p = job.posterior(4)
    bars, angle, shift = draws(plots.posterior(p))
    for panel, axis in ((bars, 1), (angle, 1), (shift, 2)):
        assert panel.dimension_values(axis).sum() == pytest.approx(float(p.weight.sum()), rel=1e-5)
    assert len(bars) == 3


def test_ctf_along_its_axes(job):
    image, curves = draws(plots.ctf(job.particles, 5))
    assert image.dimension_values(2).min() < -0.9
    u, v = (c.dimension_values(1) for c in curves)
    assert u[0] == v[0] and np.abs(u).max() <= 1
    group = ctk.data.optics_groups(job.particles)[int(job.particles.optics_group[5])]
    at = 100
    f = curves.values()[0].dimension_values(0)[at]
    azimuth = np.deg2rad(float(job.particles.defocus_angle[5]))
    xy = f * np.array([[np.cos(azimuth), np.sin(azimuth)]])
    exact = ctk.optics.ctf(group, xy, *(job.particles[k].values[5:6] for k in ("defocus_u", "defocus_v", "defocus_angle")))
    assert u[at] == pytest.approx(float(exact[0, 0]), abs=0.02)


def test_drawing_computes_no_image(job, no_compute):
    plots.ctf(job.particles, 0)
    plots.history(job)
    repr(job)
    job._repr_html_()
