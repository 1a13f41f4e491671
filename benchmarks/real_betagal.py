"""Class2D of real beta-galactosidase particles, with the right CTFs and with those of a failed fit.

    python benchmarks/real_betagal.py PROJECT [--seeds 1] [--picture docs/figures/gallery_betagal.png]

PROJECT is the RELION 5 project with 735 picks of EMPIAR-10204: ``derived/particles_ctf_fixed.star`` has the right CTFs,
``derived/particles_posed.star`` the 481 picks that a later refinement kept, ``Extract/job009/particles.star`` the wrong CTFs. Prints
how kept and thrown-away picks divide among the classes (a pick counts in its best class), and what the three largest classes hold.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import cryotk as ctk

CTF = ("defocus_u", "defocus_v", "defocus_angle")


def with_ctf_of(particles: Any, table: Any) -> Any:
    """Particles with the CTFs that another table has for the same images."""
    row = {name: i for i, name in enumerate(table.image_name.values)}
    same = [row[name] for name in particles.image_name.values]
    return particles.assign({name: ("particle", table[name].values[same], particles[name].attrs) for name in CTF})


def classify(particles: Any, seed: int, iterations: int) -> Any:
    """Run as a user does."""
    job = ctk.Class2D(particles, n_classes=10, mask_diameter=200, n_iterations=iterations, seed=seed)
    job.run(progress=False)
    return job


def report(word: str, job: Any, kept: np.ndarray, seconds: float) -> None:
    """Print the classes, the largest first."""
    number = job.assignments.class_number.values
    m, numbers = job.current.model, job.current.numbers
    print(f"\n{word}: {seconds:.0f} s, resolution {numbers['resolution']:.1f} Å, mean P_max {numbers['average_p_max']:.2f}")
    print(f"{'class':>6}{'share':>8}{'Å':>7}{'kept later':>12}{'thrown away':>13}")
    order = np.argsort(-m.class_distribution)
    for k in order:
        mine = number == k + 1
        print(
            f"{k + 1:6d}{100 * m.class_distribution[k]:7.1f}%{m.class_resolution[k]:7.1f}{(mine & kept).sum():12d}{(mine & ~kept).sum():13d}"
        )
    best = np.isin(number, order[:3] + 1)
    print(f"three largest: {(best & kept).sum()} of {kept.sum()} kept ones, {(best & ~kept).sum()} of {(~kept).sum()} thrown-away ones; "
          f"{kept[best].mean():.0%} of their members were kept ({kept.mean():.0%} of all)")  # fmt: skip


def main() -> None:
    """Classify and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--picture", type=Path, help="write the averages of the first seed: right CTFs above, wrong ones below")
    args = parser.parse_args()
    right = ctk.open_particles(args.project / "derived/particles_ctf_fixed.star")
    wrong = with_ctf_of(right, ctk.open_particles(args.project / "Extract/job009/particles.star", images=False))
    later = set(ctk.open_particles(args.project / "derived/particles_posed.star", images=False).image_name.values)
    kept = np.array([name in later for name in right.image_name.values])
    print(f"{len(kept)} picks, {kept.sum()} kept by a later refinement, {(~kept).sum()} thrown away")
    sheets = []
    for seed in args.seeds:
        for word, particles in (("right CTFs", right), ("wrong CTFs", wrong)):
            start = time.perf_counter()
            job = classify(particles, seed, args.iterations)
            report(f"{word}, seed {seed}", job, kept, time.perf_counter() - start)
            if args.picture and seed == args.seeds[0]:
                from cryotk_widgets.pictures import contact_sheet

                m = job.current.model
                sheets.append(contact_sheet(m.references, m.class_distribution, m.class_resolution, 112, columns=5))
    if args.picture:
        from PIL import Image

        both = Image.new("RGB", (sheets[0].width, 2 * sheets[0].height + 12), (250, 250, 250))
        for i, sheet in enumerate(sheets):
            both.paste(sheet, (0, i * (sheet.height + 12)))
        both.save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
