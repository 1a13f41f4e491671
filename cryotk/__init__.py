"""cryotk: cryo-EM single-particle analysis in a notebook, one step at a time.

Importing this package loads the standard library only; names resolve on first use. What there is stands in
``__init__.pyi`` beside this file, which editors read too.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
