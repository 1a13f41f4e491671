"""Files in and out: STAR, MRC, RELION's results. No mathematics."""

from cryotk.io.mrc import MrcHeader, read_header, read_images, read_mrc, write_mrc
from cryotk.io.star import StarBlock, read_star, write_star

__all__ = ["MrcHeader", "StarBlock", "read_header", "read_images", "read_mrc", "read_star", "write_mrc", "write_star"]
