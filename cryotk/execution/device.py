"""Which device a job runs on: the CPU, or CUDA cards through cupy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cryotk.errors import SettingsError
from cryotk.kernels.backends import CPU, Backend, cuda_backend

__all__ = ["Lane", "device_backend", "devices_of", "on_devices", "resolve_device"]

_REMEDY = "use device='cpu' (or 'auto', which takes a card where there is one)"


def resolve_device(device: str) -> str:
    """``"cpu"``, ``"cuda:<number>"`` or ``"cuda:<number>,<number>"`` of a device setting.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:<number>", "cuda:<number>,<number>,..."}
        ``"auto"`` takes the first CUDA device, and the CPU where cupy or a device is missing.

    Raises
    ------
    SettingsError
        For another word, and where a CUDA device is asked for that is not there, with the remedy.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+(?:,\d+)*))?", device)
    if match is None:
        raise SettingsError(f"device = {device!r}: use 'auto', 'cpu', 'cuda', 'cuda:0' (one card) or 'cuda:0,1' (several)")
    if device == "cpu":
        return "cpu"
    problem, n = _devices()
    if device == "auto":
        return "cpu" if problem else "cuda:0"
    if problem:
        raise SettingsError(f"device = {device!r}: {problem}; {_REMEDY}")
    numbers = [int(v) for v in (match[1] or "0").split(",")]
    if max(numbers) >= n:
        raise SettingsError(f"device = {device!r}: there {'is' if n == 1 else 'are'} {n} CUDA device{'s'[: n != 1]}, from cuda:0; {_REMEDY}")
    if len(set(numbers)) < len(numbers):
        raise SettingsError(f"device = {device!r} names a card twice: name each once")
    return "cuda:" + ",".join(map(str, numbers))


def _devices() -> tuple[str, int]:
    """What is in the way of using a card ("" for nothing), and how many there are."""
    try:
        cupy: Any = import_module("cupy")
    except ImportError:
        return "cupy is not installed: pip install 'cryotk[cuda12]' (or cuda13, after the driver's CUDA)", 0
    try:
        n = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        # cupy's own error class, which cannot be named before it is imported
        return f"cupy finds no CUDA device or driver ({error})", 0
    return ("" if n else "cupy finds no CUDA device"), n


def device_backend(device: str) -> Backend:
    """Arrays and kernels of a device that :func:`resolve_device` named."""
    return CPU if device == "cpu" else cuda_backend(int(device.partition(":")[2]))


def devices_of(device: str) -> tuple[str, ...]:
    """The single devices of what :func:`resolve_device` named: ``"cuda:0,1"`` is ``("cuda:0", "cuda:1")``."""
    kind, _, numbers = device.partition(":")
    return tuple(f"{kind}:{n}" for n in numbers.split(",")) if numbers else (device,)


class Lane(list[Any]):
    """The blocks of a lane, and the device that does them."""

    device = ""


def on_devices(lanes: Sequence[Sequence[Any]], devices: Sequence[str]) -> list[Lane]:
    """Deal lanes out to devices in turn. Who does a lane does not change its result."""
    out = []
    for i, blocks in enumerate(lanes):
        lane = Lane(blocks)
        lane.device = devices[i % len(devices)]
        out.append(lane)
    return out
