"""Reconstructions against relion_reconstruct's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import cryotk as ctk
from cryotk.errors import DataError, SettingsError
from cryotk.fourier import fourier_shell_correlation
from cryotk.projection import Accumulator, FourierReference, wiener_reconstruct

pytestmark = pytest.mark.golden

CASES = {
    "d2": {},
    "c1": {"symmetry": "C1"},
    "d2_pad1": {"padding": 1},
    "d2_noctf": {"do_ctf": False},
    "d2_flip": {"phase_flip_only": True},
    "d2_firstpeak": {"intact_first_peak": True},
    "d2_maxres15": {"max_resolution": 15},
}
# Pixels at exactly Nyquist's radius lie on the border of the sphere that is filled: rounding decides in RELION whether one
# is inserted; we always do. Which ones RELION inserted, (125 particles, [(24, 0), (0, 24)]), was found by fitting `d2` alone.
INSERTED = "7f71b58a2bfeb1bb4bf7f3cf2bc9cde3de6d2a0ae2507b813bf1b28ed12fffc0"


@pytest.fixture
def as_rounded(monkeypatch):
    """Insert the same pixels of the border as RELION's rounding did."""
    inserted = np.unpackbits(np.frombuffer(bytes.fromhex(INSERTED), np.uint8))[:250].reshape(125, 2).astype(bool)
    insert = Accumulator.insert

    def some(self, slices, weights, matrices, kx, ky):
        weights = np.array(weights, np.float32)
        for column, (x, y) in enumerate(((24, 0), (0, 24))):
            for p in np.nonzero((kx == x) & (ky == y))[0]:
                weights[~inserted[:, column], p] = 0
        insert(self, slices, weights, matrices, kx, ky)

    monkeypatch.setattr(Accumulator, "insert", some)


def _sections(m: np.ndarray) -> np.ndarray:
    c = len(m) // 2
    return np.stack([m[c], m[:, c], m[:, :, c]])


def _amplitudes(golden, name: str) -> np.ndarray:
    t = pd.read_csv(golden / "reconstruct/spectra.tsv", sep="\t")
    return t[t["map"] == name].rms_amplitude.to_numpy()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compat", [None, "relion"])
def test_every_shell(golden, helpers, name, compat):
    """Amplitudes within 1 % in every shell below Nyquist (the cut-off), sections equal but for the shells beside it.

    With RELION's rounding of pixels on the border the curves agree in every shell, without it but for those beside Nyquist.
    """
    options = {"symmetry": "D2", **CASES[name]}
    ours = ctk.reconstruct(golden / "two_states/tetramers125_true.star", compat=compat, **options).values
    ratio = helpers.amplitude_per_shell(ours) / _amplitudes(golden, name)
    last = 16 if name == "d2_maxres15" else 24
    assert np.abs(ratio[:last] - 1).max() < 4e-3
    if name == "d2":
        theirs = helpers.read(golden / "reconstruct/d2.mrc")
        curve = fourier_shell_correlation(ours, theirs)
        assert curve[:21].min() > 0.9999 and curve[:24].min() > (0.998 if compat is None else 0.9999)
    else:
        assert helpers.relative(_sections(ours), helpers.read(golden / f"reconstruct/{name}_slices.mrcs")) < 0.07


@pytest.mark.parametrize("name", ["d2", "c1", "d2_pad1", "d2_noctf", "d2_flip", "d2_firstpeak"])
def test_equal_when_rounding_is_equal(golden, helpers, as_rounded, name):
    options = {"symmetry": "D2", **CASES[name]}
    ours = ctk.reconstruct(golden / "two_states/tetramers125_true.star", **options).values
    ratio = helpers.amplitude_per_shell(ours) / _amplitudes(golden, name)
    assert np.abs(ratio - 1).max() < 3e-4
    if name == "d2":
        theirs = helpers.read(golden / "reconstruct/d2.mrc")
        assert helpers.relative(ours, theirs) < 1.5e-3
        assert fourier_shell_correlation(ours, theirs).min() > 0.99999
    else:
        assert helpers.relative(_sections(ours), helpers.read(golden / f"reconstruct/{name}_slices.mrcs")) < 4e-3


@pytest.mark.parametrize("name", ["premultiplied", "two_groups"])
def test_premultiplied_and_two_groups(golden, helpers, name):
    """Data multiplied by their CTF; two groups of other box and pixel with tilt, aberrations, magnification."""
    ours = ctk.reconstruct(golden / name / "particles_true.star", symmetry="D2").values
    ratio = helpers.amplitude_per_shell(ours) / _amplitudes(golden, name)
    assert np.abs(ratio[:32] - 1).max() < 3e-3
    assert helpers.relative(_sections(ours), helpers.read(golden / f"reconstruct/{name}_slices.mrcs")) < 0.02


def test_aberrations_matter(golden, helpers):
    """Each aberration left out is what RELION gets when it is left out, and is not the same map."""
    p = ctk.open_particles(golden / "two_groups/particles_true.star")
    left_out = {
        "noaberr": ["magnification_matrix", "beam_tilt_x", "beam_tilt_y", "even_zernike"],
        "nomag": ["magnification_matrix"],
        "notilt": ["beam_tilt_x", "beam_tilt_y"],
        "noeven": ["even_zernike"],
    }
    full = _amplitudes(golden, "two_groups")
    for name, columns in left_out.items():
        ours = ctk.reconstruct(p.drop_vars(columns), symmetry="D2").values
        theirs = _amplitudes(golden, f"two_groups_{name}")
        assert np.abs(helpers.amplitude_per_shell(ours) / theirs - 1)[:32].max() < 2e-3, name
        assert np.abs(theirs / full - 1)[:32].max() > 0.004, name


def test_halves(golden):
    p = ctk.open_particles(golden / "two_states/tetramers125_true.star")
    with pytest.raises(DataError, match="rlnRandomSubset"):
        ctk.reconstruct(p, half=1)
    p = p.assign(random_subset=("particle", 1 + np.arange(125) % 2))
    one, odd = ctk.reconstruct(p, half=1), ctk.reconstruct(p.isel(particle=slice(0, None, 2)))
    assert np.array_equal(one.values, odd.values)
    with pytest.raises(DataError, match="empty"):
        ctk.reconstruct(p, half=3)
    with pytest.raises(SettingsError, match="compat must be None or 'relion', not 'cryosparc'"):
        ctk.reconstruct(p, compat="cryosparc")


def test_what_is_projected_comes_back(golden):
    """Slices of a map in many directions, inserted again, give the map."""
    m = ctk.open_volume(golden / "betagal_noisy/truth_map.mrc").values.astype(float)[8:56, 8:56, 8:56]
    reference = FourierReference.from_map(m, 3.54)
    from cryotk.geometry import directions, euler_to_matrix
    from cryotk.projection.api import _half_plane

    rot, tilt = directions(3)
    a = euler_to_matrix(rot, tilt, 0)
    kx, ky = _half_plane(48)
    values = reference.slices(a, kx, ky)
    accumulator = Accumulator(48, 48)
    accumulator.insert(values, np.ones(values.shape, np.float32), a, kx, ky)
    accumulator.symmetrise()
    back = wiener_reconstruct(accumulator)
    assert fourier_shell_correlation(back, m)[:20].min() > 0.99
    assert np.corrcoef(back.ravel(), m.ravel())[0, 1] > 0.97


def _broken(golden, row: int):
    p = ctk.open_particles(golden / "two_states/tetramers125_true.star").isel(particle=slice(0, 20)).load()
    p.images[row, 3, 4] = np.nan
    return p


def test_pixels_that_are_not_finite(golden):
    with pytest.raises(DataError, match=r"particle 8 .*tetramers125.mrcs"):
        ctk.reconstruct(_broken(golden, 7))


def test_without_ctf_columns(golden):
    p = ctk.open_particles(golden / "two_states/tetramers125_true.star").drop_vars(["defocus_u", "defocus_v", "defocus_angle"])
    with pytest.raises(DataError, match="rlnDefocusU"):
        ctk.reconstruct(p)
    assert np.isfinite(ctk.reconstruct(p, do_ctf=False).values).all()


def test_order_of_particles_does_not_matter(golden):
    p = ctk.open_particles(golden / "two_states/tetramers125_true.star")
    a, b = ctk.reconstruct(p, symmetry="D2").values, ctk.reconstruct(p.isel(particle=slice(None, None, -1)), symmetry="D2").values
    assert np.abs(a - b).max() < 1e-5 * np.abs(a).max()


def test_halves_add_up():
    """Accumulators of parts, added, are the accumulator of the whole."""
    rng = np.random.default_rng(0)
    from scipy.spatial.transform import Rotation

    from cryotk.projection.api import _half_plane

    kx, ky = _half_plane(16)
    s = (rng.standard_normal((6, len(kx))) + 1j * rng.standard_normal((6, len(kx)))).astype(np.complex64)
    w = rng.uniform(0.1, 1, s.shape).astype(np.float32)
    m = Rotation.random(6, random_state=0).as_matrix()
    whole, one, two = (Accumulator(16, 16) for _ in range(3))
    whole.insert(s, w, m, kx, ky)
    one.insert(s[:3], w[:3], m[:3], kx, ky)
    two.insert(s[3:], w[3:], m[3:], kx, ky)
    both = one + two
    assert np.allclose(both.data, whole.data) and np.allclose(both.weight, whole.weight)
    one += two
    assert np.array_equal(one.data, both.data)
