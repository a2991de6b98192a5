"""An attack's findings as a folder that a reviewer can read without us: a page, figures, and the data of both."""

from compressor.attack_report.examination import forwards_for, measure_findings
from compressor.attack_report.figures import require_matplotlib
from compressor.attack_report.findings import AttackedModel, ReportFindings
from compressor.attack_report.folder import refuse_foreign_report, write_folder
from compressor.attack_report.radii import NORMS, default_radii, parse_radii
from compressor.attack_report.subject import LARGEST_SAMPLE, AttackedSample, draw_sample

__all__ = [
    "LARGEST_SAMPLE",
    "NORMS",
    "AttackedModel",
    "AttackedSample",
    "ReportFindings",
    "default_radii",
    "draw_sample",
    "forwards_for",
    "measure_findings",
    "parse_radii",
    "refuse_foreign_report",
    "require_matplotlib",
    "write_folder",
]
