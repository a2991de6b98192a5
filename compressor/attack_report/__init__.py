"""An attack's findings as a folder that a reviewer can read without us: a page, figures, and the data of both."""

from compressor.attack_report.examination import examine, forwards_for
from compressor.attack_report.figures import require_matplotlib
from compressor.attack_report.findings import About, Findings
from compressor.attack_report.folder import refuse_unless_ours, write_folder
from compressor.attack_report.radii import NORMS, default_radii, parse_radii
from compressor.attack_report.subject import LARGEST_SAMPLE, Subject, take_subject

__all__ = [
    "LARGEST_SAMPLE",
    "NORMS",
    "About",
    "Findings",
    "Subject",
    "default_radii",
    "examine",
    "forwards_for",
    "parse_radii",
    "refuse_unless_ours",
    "require_matplotlib",
    "take_subject",
    "write_folder",
]
