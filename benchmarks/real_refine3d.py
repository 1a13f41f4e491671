"""Refine3D of the posed real particles of beta-galactosidase without their angles: from their own map at 40 Å, and from an initial model.

The hand of an initial model is arbitrary, and so is which of D2's three axes is which: angles are compared after the one turn
of the 24 that carry the axes onto each other, and the one hand, that fit best.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

ANGLES = ("angle_rot", "angle_tilt", "angle_psi")


def forget(particles):
    """The same particles without angles and origins."""
    names = [n for n in (*ANGLES, "shift_x", "shift_y") if n in particles]
    return particles.assign({n: ("particle", np.zeros(particles.sizes["particle"])) for n in names})


def distances(found, deposited, free):
    """Angular distance modulo D2 in degrees of each particle; ``free``: after the best turn of the axes and hand."""
    from cryotk.geometry import euler_to_matrix, symmetry_operators

    a, b = (euler_to_matrix(*(np.asarray(t[n].values, float) for n in ANGLES)) for t in (found, deposited))
    turns = symmetry_operators("O") if free else np.eye(3)[None]
    hands = (np.eye(3), np.diag([-1.0, -1.0, 1.0])) if free else (np.eye(3),)
    best = None
    for hand in hands:
        for turn in turns:
            trace = np.max([np.einsum("nij,nij->n", hand @ a, b @ turn @ o) for o in symmetry_operators("D2")], 0)
            d = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
            if best is None or np.median(d) < np.median(best):
                best = d
    return best


def refine(particles, start, seed, threads):
    """A whole run; prints what it ends with."""
    import cryotk as ctk

    wall, cpu = time.perf_counter(), time.process_time()
    job = ctk.Refine3D(particles, start, "D2", mask_diameter=200, initial_lowpass=40, seed=seed)
    job.threads = threads
    job.run(progress=False)
    print(f"  {job.iteration} iterations, {time.perf_counter() - wall:.0f} s wall, {time.process_time() - cpu:.0f} CPU-s; resolution without mask {job.resolution:.2f} Å")
    return job


def half_map_resolution(job):
    """Where the FSC of the half-maps inside a suggested mask falls below 0.143, corrected for the mask."""
    import cryotk as ctk

    mask = ctk.create_mask(job.volume, lowpass=15, progress=False)
    return ctk.postprocess(*job.half_maps, mask=mask, auto_b_factor=False, progress=False).resolution


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("star", type=Path, help="particles_posed.star")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import cryotk as ctk
    from cryotk.fourier import lowpass

    warnings.simplefilter("ignore")
    posed = ctk.open_particles(args.star)
    pixel = float(posed.pixel_size.values[0]) if "pixel_size" in posed else 3.54
    blind = forget(posed)
    known = ctk.reconstruct(posed, "D2", progress=False)
    start = known.copy(data=lowpass(known.values.astype(float), pixel, 40).astype(np.float32))
    for seed in args.seeds:
        print(f"seed {seed}, from the posed map at 40 Å:", flush=True)
        job = refine(blind, start, seed, args.threads)
        d = distances(job.assignments, posed, False)
        print(f"  0.143 in a mask: {half_map_resolution(job):.2f} Å; from the deposited angles: median {np.median(d):.2f} degrees, beyond 10 degrees {(d > 10).mean():.1%}", flush=True)
        print(f"seed {seed}, from an initial model of its own:", flush=True)
        w, c = time.perf_counter(), time.process_time()
        model = ctk.InitialModel(blind, 1, symmetry="D2", mask_diameter=200, seed=seed)
        model.threads = args.threads
        model.run(progress=False)
        print(f"  initial model: {time.perf_counter() - w:.0f} s wall, {time.process_time() - c:.0f} CPU-s, {model.iteration} batches")
        job = refine(blind, model.volume, seed, args.threads)
        d = distances(job.assignments, posed, True)
        print(f"  0.143 in a mask: {half_map_resolution(job):.2f} Å; from the deposited angles: median {np.median(d):.2f} degrees, beyond 10 degrees {(d > 10).mean():.1%}", flush=True)


if __name__ == "__main__":
    main()
