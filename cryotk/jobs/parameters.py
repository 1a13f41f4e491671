"""What parameters that several jobs have mean, written once and put into their docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any, TypeVar

__all__ = ["EXPERT", "TEXTS", "describe"]

TEXTS = {
    "particles": """
        particles : Dataset or path
            What :func:`cryotk.open_particles` gives, or its path.""",
    "symmetry": """
        symmetry : str
            Point group: C1, C2, ..., D2, ..., T, O, I1 to I4.""",
    "mask_diameter": """
        mask_diameter : float
            Å; the particle is inside, the rest of each image is set to its mean.""",
    "initial_lowpass": """
        initial_lowpass : float or None
            Å; references are filtered to it before the first iteration. None takes them as they are.""",
    "mask": """
        mask : DataArray, array or path, optional
            Soft mask of the solvent, 0 to 1, which references are multiplied by; the sphere of ``mask_diameter`` by default.""",
    "initial_sampling": """
        initial_sampling : float
            Angular step in degrees, after oversampling.""",
    "offset_range_px, offset_step_px": """
        offset_range_px, offset_step_px : float
            Search range and step of offsets in pixels, step after oversampling.""",
    "absolute_greyscale": """
        absolute_greyscale : bool
            References are on the images' scale: no first iteration by cross-correlation.""",
    "resolution_limit": """
        resolution_limit : float, optional
            Å; the expectation compares nothing finer.""",
    "tau2_fudge": """
        tau2_fudge : float
            Weight of the data against the prior (T). Higher shows more detail, and more noise.""",
    "zero_mask": """
        zero_mask : bool
            Fill images outside the mask with their mean there, else with noise.""",
    "do_ctf": """
        do_ctf : bool
            Compare images with references times their CTF.""",
    "ctf_intact_first_peak": """
        ctf_intact_first_peak : bool
            Take the CTF for 1 up to its first peak: for data whose low frequencies it does not describe.""",
    "padding": """
        padding : float
            Oversampling of the transforms.""",
    "relax_symmetry": """
        relax_symmetry : str, optional
            Point group that the particle nearly has, e.g. ``"D2"`` with ``symmetry="C1"`` where one subunit differs: local
            searches then look around all poses that it takes for the same, each as likely, so that a particle can move to its
            right copy. Searches over all orientations see every copy anyway.""",
    "seed": """
        seed : int, optional
            Of all random choices; drawn (and kept in ``settings.seed``) when not given.""",
    "compat": """
        compat : {None, "relion"}
            Reproduce RELION 5.0.1's numbers, defects included (see ``docs/relion_differences.md``).""",
    "device": """
        device : {"auto", "cpu", "cuda", "cuda:0,1"}
            ``"auto"`` takes the first CUDA card where there is one; several cards share an iteration (see ``docs/gpu.md``).""",
}
"""Entries of numpydoc's section Parameters."""

EXPERT = {
    "perturbation_factor": "Random shift of the sampling grids in each iteration, as a share of the coarse steps; 0 for none.",
    "join_below": "Å; coarser than this the half-sets share their data.",
    "max_iterations": "Where a run ends even without convergence.",
    "inactivity_threshold": "VDAM: a class with less than this share of its part is replaced by a copy of a strong one.",
    "initial_sigma_offset": "Å; expected width of offsets at the start.",
}
"""Settings that are in no signature."""

_MARKER = re.compile(r"^    \{(\w+(?:, \w+)*)\}$", re.MULTILINE)
C = TypeVar("C")


def describe(job: type[C]) -> type[C]:
    """Replace lines ``{name}`` of a class's docstring by the parameter's entry.

    ``{expert}`` becomes the list of settings that are not in the signature and are given by name.
    """
    doc = job.__doc__
    if not doc:
        # python -OO
        return job

    def entry(match: re.Match[str]) -> str:
        text = _expert(job) if match[1] == "expert" else textwrap.dedent(TEXTS[match[1]]).strip()
        return textwrap.indent(text, "    ")

    job.__doc__ = _MARKER.sub(entry, doc)
    return job


def _expert(job: type) -> str:
    """Entry of the settings that are given by name alone."""
    kind: Any = getattr(job, "settings_type")  # noqa: B009
    signature = inspect.signature(job).parameters
    lines = [f"**expert\n    Further fields of ``{kind.__name__}``, by name:"]
    for name, field in kind.model_fields.items():
        if name in signature:
            continue
        text = EXPERT.get(name) or textwrap.dedent(TEXTS[name]).strip().partition("\n")[2].strip()
        filled = textwrap.fill(f"``{name}={field.default!r}``: {text}", 120, subsequent_indent="  ")
        lines.append(textwrap.indent("- " + filled, "    "))
    return "\n".join(lines)
