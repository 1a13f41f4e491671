"""Projections against relion_project's and against an analytic point."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk
from cryotk.errors import DataError
from cryotk.geometry import euler_to_matrix


@pytest.fixture(scope="module")
def projections(golden):
    return ctk.project(golden / "betagal_noisy/truth_map.mrc", golden / "project/poses.star")


@pytest.mark.golden
def test_relion_project_with_ctf(golden, projections, helpers):
    """24 images, half of them with even aberrations: equal but for the pixels at exactly Nyquist's radius.

    Those lie on the surface of the sphere that is looked up: rounding decides, in RELION, whether one is read or is zero; ours
    are half of what is read. All other coefficients agree to single precision.
    """
    theirs = helpers.read(golden / "project/proj_ctf.mrcs").astype(float)
    ours = projections.values.astype(float)
    assert helpers.relative(ours, theirs) < 1e-3
    a, b = np.fft.fft2(ours), np.fft.fft2(theirs)
    scale = np.abs(b).max()
    limit = np.zeros(a.shape[1:], bool)
    limit[0, 32] = limit[32, 0] = True
    assert np.abs(a - b)[:, ~limit].max() < 2e-6 * scale
    on = a[:, limit], b[:, limit]
    read, dropped = np.abs(2 * on[0] - on[1]) < 2e-6 * scale, np.abs(on[1]) < 1e-6 * scale
    assert np.all(read | dropped)


@pytest.mark.golden
def test_relion_project_without_ctf(golden, helpers):
    ours = ctk.project(golden / "betagal_noisy/truth_map.mrc", golden / "project/poses.star", apply_ctf=False).values[:4]
    assert helpers.relative(ours, helpers.read(golden / "project/proj_noctf_first4.mrcs")) < 1e-3


def _single(rot: float, tilt: float, psi: float, x: float, y: float, pixel_size: float = 3.54, box: int = 64) -> xr.Dataset:
    per = {"angle_rot": rot, "angle_tilt": tilt, "angle_psi": psi, "shift_x": x, "shift_y": y}
    return xr.Dataset(
        {k: ("particle", [float(v)]) for k, v in per.items()}
        | {"optics_group": ("particle", [1]), "pixel_size": ("optics", [pixel_size]), "box_size": ("optics", [box])}
        | {"voltage": ("optics", [300.0]), "spherical_aberration": ("optics", [2.7]), "amplitude_contrast": ("optics", [0.1])},
        coords={"optics": [1]},
    )


@pytest.mark.golden
@pytest.mark.parametrize("padding", [1, 2])
def test_padding(golden, helpers, padding):
    pose = _single(33, 71, -122, 2.5 * 3.54, -1.25 * 3.54)
    ours = ctk.project(golden / "betagal_noisy/truth_map.mrc", pose, apply_ctf=False, padding=padding).values[0]
    assert helpers.relative(ours, np.squeeze(helpers.read(golden / f"project/single_pad{padding}.mrc"))) < 1e-3


@pytest.mark.golden
@pytest.mark.parametrize(("name", "padding", "least"), [("", 1, 0.985), ("_pfac2", 2, 0.9975)])
def test_point_mass_projected_by_relion(shared, helpers, name, padding, least):
    """Others' projections of one point, and the formula: wrong signs of offset or no CTF correlate at most 0.2."""
    folder = shared / "data/relion_project_output/pointmass"
    p = ctk.open_particles(folder / "pyem.star", images=False)
    theirs = helpers.read(folder / f"relion_proj_batch{name}.mrcs").astype(float)
    volume = np.zeros((64, 64, 64), np.float32)
    volume[32, 32, 49] = 1
    volume = _volume(volume)

    def correlation(q: xr.Dataset, **options: bool) -> np.ndarray:
        ours = ctk.project(volume, q, padding=padding, **options).values.reshape(len(theirs), -1)
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs.reshape(len(theirs), -1), strict=True)])

    assert correlation(p).min() > 0.9997
    assert np.abs(correlation(p.assign(shift_x=-p.shift_x, shift_y=-p.shift_y))).max() < 0.25
    assert np.abs(correlation(p, apply_ctf=False)).max() < 0.25

    # the formula, independent of any slicer
    a = euler_to_matrix(p.angle_rot, p.angle_tilt, p.angle_psi)
    k = np.fft.fftfreq(64)
    ky, kx = np.meshgrid(k, k, indexing="ij")
    lam = 12.2643247 / np.sqrt(200e3 * (1 + 0.978466e-6 * 200e3))
    s2 = (kx**2 + ky**2) / 3.54**2
    at = (a @ [17.0, 0, 0])[:, :2] - np.stack([p.shift_x, p.shift_y], -1) / 3.54
    for i in range(len(theirs)):
        c, s = np.cos(np.radians(p.defocus_angle.values[i])), np.sin(np.radians(p.defocus_angle.values[i]))
        u, v = p.defocus_u.values[i], p.defocus_v.values[i]
        xx = u * (c * kx + s * ky) ** 2 + v * (-s * kx + c * ky) ** 2
        chi = np.pi * lam * xx / 3.54**2 - np.pi / 2 * 1.4e7 * lam**3 * s2**2 + np.arcsin(0.1)
        f = np.sin(chi) * (np.hypot(kx, ky) <= 0.5) * np.exp(-2j * np.pi * (kx * (at[i, 0] + 32) + ky * (at[i, 1] + 32)))
        image = np.fft.ifft2(f).real
        assert np.corrcoef(image.ravel(), theirs[i].ravel())[0, 1] > least


def _volume(array: np.ndarray) -> xr.DataArray:
    from cryotk.data import as_volume

    return as_volume(array, 3.54)


def test_lazy(golden, no_compute):
    p = ctk.project(golden / "betagal_noisy/truth_map.mrc", golden / "project/poses.star")
    assert p.dims == ("particle", "y", "x") and p.shape == (24, 64, 64) and p.dtype == np.float32
    assert p.attrs["pixel_size"] == pytest.approx(3.54)


def test_one_image_is_one_image(golden, projections):
    p = ctk.open_particles(golden / "project/poses.star", images=False).isel(particle=[7])
    assert np.allclose(ctk.project(golden / "betagal_noisy/truth_map.mrc", p).values[0], projections.values[7], atol=1e-6)


def test_projection_down_z_is_the_sum(golden, helpers):
    v = helpers.read(golden / "betagal_noisy/truth_map.mrc").astype(float)
    ours = ctk.project(golden / "betagal_noisy/truth_map.mrc", _single(0, 0, 0, 0, 0), apply_ctf=False).values[0]
    inner = (slice(16, 48),) * 2
    assert np.corrcoef(ours[inner].ravel(), v.sum(0)[inner].ravel())[0, 1] > 0.99


def test_offset_of_whole_pixels_moves_the_image(golden):
    still = ctk.project(golden / "betagal_noisy/truth_map.mrc", _single(10, 50, 80, 0, 0), apply_ctf=False).values[0]
    moved = ctk.project(golden / "betagal_noisy/truth_map.mrc", _single(10, 50, 80, 3 * 3.54, -2 * 3.54), apply_ctf=False).values[0]
    # the particle lies at minus the offset that would centre it
    assert np.allclose(moved, np.roll(still, (2, -3), (0, 1)), atol=2e-3 * still.max())


def test_box_and_pixel_of_the_images_may_differ(golden):
    big = ctk.project(golden / "betagal_noisy/truth_map.mrc", _single(10, 50, 80, 0, 0), apply_ctf=False).values[0]
    small = ctk.project(
        golden / "betagal_noisy/truth_map.mrc", _single(10, 50, 80, 0, 0, 2 * 3.54, 32), apply_ctf=False
    ).values[0]
    # half as many pixels over the same field: the same transform cut at half the frequency
    f = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(big)))[16:48, 16:48] / 4
    g = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(small)))
    inside = np.hypot(*np.meshgrid(np.arange(-16, 16), np.arange(-16, 16))) < 15
    assert np.abs(f - g)[inside].max() < 1e-4 * np.abs(f).max() * 4


def test_no_angles(golden):
    p = _single(0, 0, 0, 0, 0).drop_vars(["angle_rot", "angle_tilt", "angle_psi"])
    with pytest.raises(DataError, match="rlnAngleRot"):
        ctk.project(golden / "betagal_noisy/truth_map.mrc", p).compute()
