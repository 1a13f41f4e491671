"""Shells, filters, resizing, Fourier shell correlation: functions of arrays.

Pixel sizes are in Å, boxes in pixels; nothing here knows files, particles or xarray.
"""

from cryotk.fourier.filters import b_factor_gain, filter_map, lowpass, lowpass_gain
from cryotk.fourier.resample import resize, resized_box, window
from cryotk.fourier.shells import fourier_shell_correlation, radial_average, shell_index

__all__ = [
    "b_factor_gain",
    "filter_map",
    "fourier_shell_correlation",
    "lowpass",
    "lowpass_gain",
    "radial_average",
    "resize",
    "resized_box",
    "shell_index",
    "window",
]
