"""The pictures of a report, each drawn from findings alone; matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from compressor.attack_report.figures.canvas import require_matplotlib
from compressor.attack_report.figures.confusion import draw_confusion
from compressor.attack_report.figures.curves import draw_curves
from compressor.attack_report.figures.gallery import draw_gallery
from compressor.attack_report.figures.norms import draw_norms
from compressor.attack_report.findings import ReportFindings

__all__ = ["figures", "require_matplotlib"]


def figures(findings: ReportFindings) -> dict[str, bytes]:
    """File names with PNG files; what there is no data for is left out."""
    made = {
        "curve.png": draw_curves(findings.curves, findings.report.threat),
        "norms.png": draw_norms(findings.norms, findings.report.threat),
    }
    if findings.confusion is not None:
        made["confusion.png"] = draw_confusion(findings.confusion, findings.about.class_names, findings.report.threat)
    if findings.examples:
        made["gallery.png"] = draw_gallery(findings.examples, findings.about.class_names, findings.report.threat)
    return made
