"""What every benchmark takes."""

import before_tensorflow  # noqa: F401
