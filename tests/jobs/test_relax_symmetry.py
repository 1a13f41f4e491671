"""Local searches under a symmetry that the particle only nearly has: which of its copies is which."""

from dataclasses import replace

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import SettingsError
from cryotk.geometry import angular_distance, directions, euler_to_matrix, matrix_to_euler, relaxation_operators, symmetry_operators
from cryotk.likelihood.priors import local_orientations

BOX, PIXEL = 32, 7.0
SETTINGS = {
    "mask_diameter": 190.0, "initial_lowpass": 20.0, "initial_sampling": 3.75, "offset_range_px": 2.0, "seed": 1,
    "absolute_greyscale": True,
}  # fmt: skip
ANGLES = [f"angle_{x}" for x in ("rot", "tilt", "psi")]


def _molecule(symmetry):
    """All copies of one subunit under a point group but one."""
    whole = ctk.simulate.molecule()
    if symmetry == "D2":
        return whole.without_subunit(0)
    one = whole.without_subunit(0).without_subunit(1).without_subunit(2)
    ops = symmetry_operators(symmetry)[1:]
    positions = one.positions + np.array([25.0, 0, 25.0])
    return replace(
        one, positions=np.concatenate([positions @ g.T for g in ops]), weights=np.tile(one.weights, len(ops)), subunit=None,
        domain=None, name=f"{symmetry} but for one subunit",
    )  # fmt: skip


def _set(symmetry, n=60):
    """Particles, their poses known but for the symmetry that they nearly have; the map; the true rotations."""
    molecule = _molecule(symmetry)
    made = ctk.simulate.particles(n, BOX, PIXEL, molecule, snr=0.6, seed=5, poses=True, progress=False)
    right = euler_to_matrix(*(made[a].values for a in ANGLES))
    ops = symmetry_operators(symmetry)
    moved = matrix_to_euler(right @ ops[np.random.default_rng(3).integers(0, len(ops), n)])
    given = made.assign({a: ("particle", moved[:, i], made[a].attrs) for i, a in enumerate(ANGLES)})
    return given, ctk.simulate.volume(molecule, BOX, PIXEL), right


def _share_right(job, right):
    found = euler_to_matrix(*(job.assignments[a].values for a in ANGLES))
    return float((angular_distance(found, right) < 15).mean())


@pytest.mark.parametrize("symmetry", ["D2", "C4", pytest.param("C2", marks=pytest.mark.slow)])
def test_the_right_copy_is_found_with_relaxation_and_not_without(symmetry):
    particles, reference, right = _set(symmetry)
    shares = {}
    for relaxed in (None, symmetry):
        job = ctk.Refine3D(particles, reference, relax_symmetry=relaxed, local_search_from=3.75, **SETTINGS)
        job.iterate()
        shares[relaxed] = _share_right(job, right)
    by_chance = 1 / len(symmetry_operators(symmetry))
    assert shares[symmetry] > 0.9
    assert shares[None] < by_chance + 0.2


def test_classification_with_relaxation_and_a_first_iteration_by_correlation():
    particles, reference, right = _set("D2")
    settings = SETTINGS | {"absolute_greyscale": False}
    job = ctk.Class3D(particles, reference, local_search_range=12.0, relax_symmetry="D2", **settings)
    job.iterate()
    assert _share_right(job, right) > 0.8
    job.iterate()
    assert _share_right(job, right) > 0.9


def test_copies_in_the_posterior_are_those_of_the_relaxed_symmetry():
    particles, reference, right = _set("D2", 20)
    job = ctk.Refine3D(particles, reference, relax_symmetry="D2", local_search_from=3.75, **SETTINGS)
    start = euler_to_matrix(*(particles[a].values for a in ANGLES))
    p = job.posterior(2)
    seen = euler_to_matrix(*(p[a].values for a in ANGLES))
    # nowhere else than around the four mates
    assert angular_distance(np.repeat(start[2:3], len(seen), 0), seen, symmetry_operators("D2")).max() < 45
    best = seen[int(p.weight.values.argmax())]
    assert float(angular_distance(best[None], right[2:3])[0]) < 15


@pytest.mark.parametrize("tilt", [70.0, 1.0])
def test_the_prior_is_an_even_mixture_over_the_copies(tilt):
    """Also near the axis, where all copies share directions and differ by their in-plane angle."""
    rot, t = directions(3, "C1")
    psi = np.arange(48) * 7.5
    relaxed = relaxation_operators("C1", "C4")
    pose = np.array([[20.0, tilt, 33.0]])
    arguments = np.stack([rot, t], -1), psi, (7.5, 7.5, 7.5), np.eye(3)[None], None
    start, orientation, prior = local_orientations(pose, *arguments, relaxed=relaxed)
    assert start.tolist() == [0, len(orientation)] and len(np.unique(orientation)) == len(orientation)
    assert np.exp(prior.astype(float)).sum() == pytest.approx(1, abs=1e-5)
    expected = np.zeros(len(rot) * 48)
    for g in relaxed:
        mate = matrix_to_euler(euler_to_matrix(*pose.T) @ g)
        _, o, p = local_orientations(mate, *arguments)
        expected[o] += np.exp(p.astype(float)) / 4
    got = np.zeros_like(expected)
    got[orientation] = np.exp(prior.astype(float))
    assert np.abs(got - expected).max() < 1e-6


def test_lists_of_several_particles_keep_apart():
    rot, tilt = directions(2, "C2")
    grid, psi = np.stack([rot, tilt], -1), np.arange(24) * 15.0
    poses = np.random.default_rng(1).uniform(-180, 180, (5, 3))
    arguments = grid, psi, (15.0, 15.0, 15.0), symmetry_operators("C2"), None, relaxation_operators("C2", "D2")
    start, orientation, prior = local_orientations(poses, *arguments)
    for i in range(5):
        _, o, p = local_orientations(poses[i : i + 1], *arguments)
        some = slice(start[i], start[i + 1])
        assert np.array_equal(orientation[some], o) and np.array_equal(prior[some], p)


@pytest.mark.parametrize(("lower", "upper", "n"), [("C1", "C4", 4), ("C2", "C4", 2), ("C2", "D2", 2), ("D2", "O", 6), ("C1", "I2", 60)])
def test_one_rotation_of_each_coset(lower, upper, n):
    g, s = relaxation_operators(lower, upper), symmetry_operators(lower)
    assert len(g) == n and np.array_equal(g[0], np.eye(3))
    everything = (g[:, None] @ s[None]).reshape(-1, 3, 3)
    whole = symmetry_operators(upper)
    assert len(everything) == len(whole)
    assert (np.abs(everything[:, None] - whole[None]).max((2, 3)) < 1e-4).any(1).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"relax_symmetry": "Q3"}, "relax_symmetry"),
        ({"relax_symmetry": "C1"}, "nothing is relaxed"),
        ({"relax_symmetry": "D2", "symmetry": "D2"}, "nothing is relaxed"),
        ({"relax_symmetry": "C4", "symmetry": "C3"}, "does not hold symmetry = 'C3'"),
        ({"relax_symmetry": "C2", "symmetry": "D2"}, "does not hold"),
        ({"relax_symmetry": "C4", "compat": "relion"}, "compat='relion'"),
    ],
)
def test_wrong_combinations_say_what_to_do(bad, words):
    particles, reference, _ = _set("D2", 20)
    with pytest.raises(SettingsError, match=words):
        ctk.Refine3D(particles, reference, **(SETTINGS | bad))
    with pytest.raises(SettingsError, match=words):
        ctk.Class3D(particles, reference, local_search_range=10.0, **(SETTINGS | bad))
    for more in ({}, {"align": False}):
        with pytest.raises(SettingsError, match="about local searches"):
            ctk.Class3D(particles, reference, relax_symmetry="D2", **(SETTINGS | more))


def test_relaxation_is_kept_when_a_run_goes_on(tmp_path):
    particles, reference, _ = _set("D2", 20)
    job = ctk.Refine3D(particles, reference, relax_symmetry="d2", local_search_from=3.75, **SETTINGS)
    job.run(1, progress=False)
    job.save(tmp_path / "run")
    again = ctk.Refine3D.resume(tmp_path / "run", particles)
    assert again.settings.relax_symmetry == "D2"
    a, b = job.iterate(), again.iterate()
    assert np.array_equal(a.model.references, b.model.references)
    # RELION's files do not hold it: it is given again
    onward = ctk.Refine3D.resume(tmp_path / "run" / "run_it001_optimiser.star", particles, relax_symmetry="D2")
    assert onward._context().settings.relax_symmetry == "D2"


@pytest.mark.parametrize("how", ["branch", "resume"])
def test_from_a_symmetric_run_to_the_lower_symmetry(how, tmp_path):
    """As it is done: refine with the symmetry, then without it around all the copies."""
    particles, reference, _ = _set("D2", 40)
    job = ctk.Refine3D(particles, reference, symmetry="D2", local_search_from=3.75, **SETTINGS)
    job.run(1, progress=False)
    before = job.current
    changes = {"symmetry": "C1", "relax_symmetry": "D2"}
    if how == "branch":
        lower = job.branch(**changes)
    else:
        job.save(tmp_path / "run")
        lower = ctk.Refine3D.resume(tmp_path / "run", particles, **changes)
    assert len(lower.current.sampling.directions) > 3 * len(before.sampling.directions)
    assert lower.current.model.direction_distribution.sum() == pytest.approx(1)
    it = lower.iterate()
    assert it.sampling.symmetry == "C1" and job.current is before and before.sampling.symmetry == "D2"
    # the map is free to differ from its mates
    halves = [it.model.references[0], it.half2.references[0]]
    for m in halves:
        turned = np.roll(m[:, ::-1, ::-1], (1, 1), (1, 2))
        assert np.abs(m - turned).max() > 1e-3 * np.abs(m).max()
    higher = lower.branch(symmetry="D2", relax_symmetry=None)
    assert higher.iterate().sampling.symmetry == "D2"
    with pytest.raises(SettingsError, match="nothing is relaxed"):
        job.branch(relax_symmetry="D2")
