"""Settings that several jobs have, checked at once and in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cryotk.errors import SettingsError
from cryotk.geometry import parse_symmetry

__all__ = ["PointGroup", "RefinementSettings", "checked", "draw_seed"]

S = TypeVar("S", bound="RefinementSettings")


def _point_group(value: str) -> str:
    parse_symmetry(value)
    return value.strip().upper()


PointGroup = Annotated[str, AfterValidator(_point_group)]
"""Name of a point group, upper case."""


class RefinementSettings(BaseModel):
    """What all jobs have: frozen, checked at once, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask_diameter: float = Field(200.0, gt=0)
    offset_range_px: float = Field(5.0, ge=0)
    offset_step_px: float = Field(1.0, gt=0)
    zero_mask: bool = True
    do_ctf: bool = True
    ctf_intact_first_peak: bool = False
    seed: int = Field(ge=0)
    compat: Literal["relion"] | None = None
    device: str = "auto"
    perturbation_factor: float = Field(0.5, ge=0, le=1)
    padding: float = Field(2.0, ge=1, le=4)


def checked(kind: type[S], values: dict[str, Any], job: str) -> S:
    """Settings of a job.

    Raises
    ------
    SettingsError
        That names every setting that is wrong, its value and what is allowed.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        parts = [f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{job}: " + "; ".join(parts)) from None


def draw_seed(seed: int | None) -> int:
    """Return the given seed, or a new one."""
    return int(np.random.SeedSequence().generate_state(1)[0] % 2**31) if seed is None else seed
