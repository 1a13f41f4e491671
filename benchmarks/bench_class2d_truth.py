"""Class2D on particles of known poses, several seeds: resolution, how far the views of a class spread, occupancy."""

import argparse

import numpy as np
from bench_vdam import views_of


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("star")
    parser.add_argument("truth", help="STAR file with the true angles, in the order of the particles")
    parser.add_argument("-k", type=int, default=6)
    parser.add_argument("--symmetry", default="D2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    args = parser.parse_args()
    import cryotk as ctk
    from cryotk.geometry import symmetry_operators
    from cryotk.testing import view_spread

    views, g = views_of(args.truth), symmetry_operators(args.symmetry)
    particles = ctk.open_particles(args.star)
    found = []
    for seed in args.seeds:
        job = ctk.Class2D(particles, args.k, seed=seed)
        job.run(progress=False)
        model = job.current.model
        found.append(view_spread(job.assignments.class_number.values, views, np.concatenate([g, -g])))
        print(
            f"seed {seed}: {model.current_resolution:.1f} A, view spread {found[-1][0]:.1f} degrees, within 30: {found[-1][1]:.3f}, "
            f"occupancy {np.round(model.class_distribution, 2)}",
            flush=True,
        )
    print("means: view spread {:.1f} degrees, within 30: {:.3f}".format(*np.mean(found, 0)))


if __name__ == "__main__":
    main()
