"""Tables, pictures, pages and files of a design run."""

from defectgen.report.design_page import render_report
from defectgen.report.export import FORMATS, claimed_run, write_run
from defectgen.report.lattice import lattice_svg
from defectgen.report.table import candidate_table, render_table

__all__ = [
    "FORMATS",
    "candidate_table",
    "claimed_run",
    "lattice_svg",
    "render_report",
    "render_table",
    "write_run",
]
