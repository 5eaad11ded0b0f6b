"""One self-contained HTML page about a study, for a reader without the code."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from deltauq import plots
from deltauq.errors import MissingDependencyError
from deltauq.findings import Study, alternative_text, by_score, page_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Study", "figures", "to_html"]

#: Inputs in a gallery.
_GALLERY = 6

_DPI = 144


def figures(study: Study) -> dict[str, Figure]:
    """The report's figures in its order; the names serve as file names."""
    comparison, reference = study.comparison, study.comparison.reference
    axes = {
        "probability_against_error": plots.probability_against_error(
            reference.prediction, comparison.y
        )
    }
    spectra = plots.spectrum(reference.eigenpairs, l2=study.l2, label=reference.curvature)
    for run in comparison.runs[1:]:
        name = f"{reference.curvature}_against_{run.curvature}"
        axes[name] = plots.comparison(comparison, run.curvature)
        plots.spectrum(run.eigenpairs, label=run.curvature, ax=spectra)
    axes["spectra"] = spectra
    drawn = {name: root for name, ax in axes.items() if (root := ax.get_figure(root=True))}
    if study.images is not None:
        order = by_score(study)
        for name, chosen in (
            ("most_uncertain", order[:_GALLERY]),
            ("least_uncertain", order[::-1][:_GALLERY]),
        ):
            drawn[name] = plots.gallery(
                reference.prediction,
                study.images,
                chosen,
                class_names=study.class_names,
                y=comparison.y,
            )
    return drawn


_draw = figures


def to_html(study: Study, figures: dict[str, Figure] | None = None) -> str:
    """The report as one HTML page that refers to nothing outside itself.

    Args:
        study: what to report.
        figures: by name, as from `figures`; None draws them.

    Raises:
        MissingDependencyError: without jinja2 or matplotlib.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError(
            "reports need jinja2", remedy='pip install "deltauq[report]"'
        ) from error
    drawn = _draw(study) if figures is None else figures
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deltauq"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    embedded = {name: _embed(name, figure, study) for name, figure in drawn.items()}
    return environment.get_template("report.html.j2").render(page_context(study), figures=embedded)


def _embed(name: str, figure: Figure, study: Study) -> dict[str, str]:
    """A figure as a data address, with the text that stands for it."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, facecolor="white")
    return {
        "source": "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
        "alt": alternative_text(name, study),
    }
