"""One job with several settings, side by side."""

import pytest

import cryotk as ctk
from cryotk.errors import SettingsError


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(90, 32, 6.0, seed=5, progress=False)


def test_variants_differ_in_their_settings_alone(particles, tmp_path):
    s = ctk.sweep(
        ctk.Class2D, particles, 2, tau2_fudge=[1.0, 4.0], psi_step=[12.0], subset=60, until=2, mask_diameter=170, progress=False
    )
    assert len(s) == 2 and [v["tau2_fudge"] for v in s.variants] == [1.0, 4.0]
    assert all(job.iteration == 2 and job.data.n == 60 for job in s)
    assert s[0].settings.seed == s[1].settings.seed
    assert (s[0].iterations[0].model.references == s[1].iterations[0].model.references).all()
    assert (s[0].classes.values != s[1].classes.values).any()
    assert list(s.table.tau2_fudge) == [1.0, 4.0] and (s.table.iteration == 2).all()
    assert "tau2_fudge" in repr(s) and "<table" in s._repr_html_()
    s.save(tmp_path)
    assert ctk.Class2D.resume(tmp_path / "tau2_fudge-4.0_psi_step-12.0", s[1].particles).settings.tau2_fudge == 4


def test_what_cannot_be_swept(particles):
    with pytest.raises(SettingsError, match="nothing to vary"):
        ctk.sweep(ctk.Class2D, particles, 2, tau2_fudge=1.0)
    with pytest.raises(SettingsError, match="empty list"):
        ctk.sweep(ctk.Class2D, particles, 2, tau2_fudge=[])
    later = ctk.sweep(ctk.Class2D, particles, 2, tau2_fudge=[1.0, 2.0], run=False, mask_diameter=170)
    assert [job.iteration for job in later] == [0, 0]
