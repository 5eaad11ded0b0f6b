"""Experiments on whether the error bars tell the truth, and which settings a user should take.

Each experiment is a module whose docstring says the question, the set-up and the rule, as they were
written down before the run, with `parts(size)`, which give rows, `tables(rows)` and `plot(rows)`.
"""

import before_tensorflow  # noqa: F401
