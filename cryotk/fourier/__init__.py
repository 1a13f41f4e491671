"""Shells, filters, resizing, Fourier shell correlation: functions of arrays."""

from cryotk.fourier.filters import lowpass, lowpass_gain
from cryotk.fourier.shells import fourier_shell_correlation, radial_average, shell_index

__all__ = ["fourier_shell_correlation", "lowpass", "lowpass_gain", "radial_average", "shell_index"]
