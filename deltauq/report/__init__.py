"""A study as a self-contained HTML page, for a reader without the code."""

from deltauq.report.page import figures, to_html
from deltauq.report.study import Study

__all__ = ["Study", "figures", "to_html"]
