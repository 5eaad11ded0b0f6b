"""What must be loaded before TensorFlow where it is there: triton, which torch's packages load.

Loaded after TensorFlow it ends the process. Import this module first.
"""

from __future__ import annotations

import contextlib
import sys

if "tensorflow" not in sys.modules:
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
