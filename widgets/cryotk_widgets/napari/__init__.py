"""cryotk in napari: readers, a writer, sample data and four dock widgets, as an npe2 plugin (see ``napari.yaml``).

What turns maps, stacks and STAR files into layers (``arrays``, ``layers``, ``star_layers``) needs no Qt and no napari; only the
dock widgets do. World coordinates of volumes are Å from the box's centre, as in cryotk's arrays; those of images Å from the first
pixel.
"""
