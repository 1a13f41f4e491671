"""Particles of cryoSPARC (``.cs``) in RELION's labels and conventions. Reading only."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import DataError, FileFormatError, FormatWarning, MissingFileError
from cryotk.io.star import StarBlock

__all__ = ["read_cs"]

_PLAIN = {
    "ctf/df1_A": ("rlnDefocusU", 1.0), "ctf/df2_A": ("rlnDefocusV", 1.0), "ctf/df_angle_rad": ("rlnDefocusAngle", 180 / np.pi),
    "ctf/phase_shift_rad": ("rlnPhaseShift", 180 / np.pi), "ctf/bfactor": ("rlnCtfBfactor", 1.0),
    "ctf/scale": ("rlnCtfScalefactor", 1.0),
}  # fmt: skip
_GROUP = (
    "ctf/exp_group_id",
    "ctf/accel_kv",
    "ctf/cs_mm",
    "ctf/amp_contrast",
    "blob/psize_A",
    "blob/shape",
    "ctf/tilt_A",
    "ctf/anisomag",
)


def read_cs(path: str | os.PathLike[str]) -> dict[str, StarBlock]:
    """Read a particle ``.cs`` file as ``optics`` and ``particles`` tables.

    Fields that the job did not change are looked for in the job's ``..._passthrough_particles.cs`` beside it. Angles,
    offsets and CTFs are
    RELION's for the same images; for images made anew by another program the y axis may be turned round. Trefoil and tetrafoil are
    not converted, with a warning when they are not zero.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to StarBlock
        ``ucsfUid`` keeps cryoSPARC's number of each particle.

    Raises
    ------
    MissingFileError, FileFormatError, DataError
    """
    fields = _fields(Path(path))
    passthrough = _passthrough(Path(path))
    if passthrough is not None:
        fields = _join(fields, _fields(passthrough), passthrough)
    for needed in ("blob/path", "blob/idx", "blob/psize_A"):
        if needed not in fields:
            raise DataError(f"{path} has no {needed}: it is no file of extracted particles, or its passthrough file is missing")
    n = len(fields["uid"])
    if n == 0:
        raise DataError(f"{path} holds no particles")
    optics, group = _optics(fields, n)
    columns: dict[str, Any] = {"rlnImageName": _image_names(fields), "rlnOpticsGroup": group}
    if "location/micrograph_path" in fields:
        columns["rlnMicrographName"] = np.array([_text(v) for v in fields["location/micrograph_path"]], object)
        if "location/micrograph_shape" in fields and "location/center_x_frac" in fields:
            shape = fields["location/micrograph_shape"]  # rows, columns
            columns["rlnCoordinateX"] = fields["location/center_x_frac"] * shape[:, 1]
            columns["rlnCoordinateY"] = fields["location/center_y_frac"] * shape[:, 0]
    for name, (label, factor) in _PLAIN.items():
        if name in fields:
            columns[label] = np.asarray(fields[name], float) * factor
    columns |= _poses(fields)
    columns["ucsfUid"] = fields["uid"]
    for name in ("ctf/trefoil_A", "ctf/tetra_A"):
        if name in fields and np.any(fields[name]):
            warnings.warn(
                f"{path}: {name} is not zero and is not converted; refine the aberrations again", FormatWarning, stacklevel=3
            )
    return {"optics": StarBlock("optics", optics), "particles": StarBlock("particles", columns)}


def _fields(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as f:
            magic = f.read(6)
        if magic == b"\x94CSDAT":
            raise FileFormatError(
                f"{path} is a compressed stream of a newer cryoSPARC; export the job's particles as a plain .cs file"
            )
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except (ValueError, OSError, EOFError) as error:
        raise FileFormatError(f"{path} is not a .cs file of particles: {error}") from None
    if table.dtype.names is None or "uid" not in table.dtype.names:
        raise FileFormatError(f"{path} is not a .cs file of particles: it has no uid")
    return {name: table[name] for name in table.dtype.names}


def _passthrough(path: Path) -> Path | None:
    m = re.match(r"(.*J\d+)_", path.name)
    if m is None or "passthrough" in path.name:
        return None
    found = sorted(path.parent.glob(f"{m[1]}_passthrough_particles*.cs"))
    return found[0] if found else None


def _join(fields: dict[str, np.ndarray], more: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    order = np.argsort(more["uid"], kind="stable")
    at = np.searchsorted(more["uid"][order], fields["uid"]).clip(max=max(0, len(order) - 1))
    if len(order) == 0 or not np.array_equal(more["uid"][order][at], fields["uid"]):
        raise DataError(f"{path} lacks particles of the file it belongs to; take both from one job")
    return {name: values[order][at] for name, values in more.items()} | fields


def _text(value: Any) -> str:
    return (value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)).lstrip(">")


def _image_names(fields: dict[str, np.ndarray]) -> np.ndarray:
    numbers = np.asarray(fields["blob/idx"], np.int64) + 1
    return np.array([f"{k:06d}@{_text(p)}" for k, p in zip(numbers.tolist(), fields["blob/path"].tolist(), strict=True)], object)


def _optics(fields: dict[str, np.ndarray], n: int) -> tuple[dict[str, Any], np.ndarray]:
    """Optics groups: particles equal in all that RELION keeps per group."""
    keys = [np.asarray(fields[k], float).reshape(n, -1) for k in _GROUP if k in fields]
    _, first, group = np.unique(np.concatenate(keys, axis=1), axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    table: dict[str, Any] = {
        "rlnOpticsGroup": np.arange(1, len(first) + 1),
        "rlnOpticsGroupName": np.array([f"opticsGroup{i + 1}" for i in range(len(first))], object),
        "rlnImagePixelSize": _rounded(fields["blob/psize_A"][first]),
    }
    for name, label in (
        ("ctf/accel_kv", "rlnVoltage"),
        ("ctf/cs_mm", "rlnSphericalAberration"),
        ("ctf/amp_contrast", "rlnAmplitudeContrast"),
    ):
        if name in fields:
            table[label] = _rounded(fields[name][first])
    if "blob/shape" in fields:
        table["rlnImageSize"] = fields["blob/shape"][first][:, 0].astype(np.int64)
        table["rlnImageDimensionality"] = np.full(len(first), 2)
    if "ctf/tilt_A" in fields and np.any(fields["ctf/tilt_A"]):
        tilt = 1e3 * np.arcsin(1e-7 * fields["ctf/tilt_A"][first].astype(float) / table["rlnSphericalAberration"][:, None])
        table["rlnBeamTiltX"], table["rlnBeamTiltY"] = tilt.T
    if "ctf/anisomag" in fields and np.any(fields["ctf/anisomag"]):
        matrix = fields["ctf/anisomag"][first].astype(float) + np.array([1.0, 0.0, 0.0, 1.0])
        for i, label in enumerate(("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")):
            table[label] = matrix[:, i]
    return table, group.astype(np.int64) + 1


def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 numbers as the decimal numbers that were meant."""
    return np.array([float(str(np.float32(v))) for v in values])


def _poses(fields: dict[str, np.ndarray]) -> dict[str, Any]:
    from scipy.spatial.transform import Rotation

    from cryotk.geometry import matrix_to_euler

    several = sorted(k.rsplit("/", 1)[0] for k in fields if re.match(r"alignments(3D|_class).*/class_posterior$", k))
    prefix = next((p for p in ("alignments3D", *several, "alignments2D") if f"{p}/pose" in fields), None)
    out: dict[str, Any] = {}
    if prefix is None:
        return out
    pose, shift = np.asarray(fields[f"{prefix}/pose"], float), np.asarray(fields[f"{prefix}/shift"], float)
    a = np.asarray(fields.get(f"{prefix}/psize_A", fields["blob/psize_A"]), float)
    classes = fields.get(f"{prefix}/class")
    if prefix != "alignments2D" and len(several) > 1:  # several classes: the likeliest of each particle
        best = np.stack([fields[f"{p}/class_posterior"] for p in several]).argmax(0)
        rows = np.arange(len(best))
        pose = np.stack([fields[f"{p}/pose"] for p in several]).astype(float)[best, rows]
        shift = np.stack([fields[f"{p}/shift"] for p in several]).astype(float)[best, rows]
        classes = best
    if pose.ndim == 2:
        matrices = Rotation.from_rotvec(pose).as_matrix().transpose(0, 2, 1)
        out["rlnAngleRot"], out["rlnAngleTilt"], out["rlnAnglePsi"] = matrix_to_euler(matrices).T
    else:
        out["rlnAnglePsi"] = np.degrees(pose)
    out["rlnOriginXAngst"], out["rlnOriginYAngst"] = (shift * a[:, None]).T
    if classes is not None:
        out["rlnClassNumber"] = np.asarray(classes, np.int64) + 1
    if f"{prefix}/split" in fields:
        out["rlnRandomSubset"] = np.asarray(fields[f"{prefix}/split"], np.int64) + 1
    return out
