"""Hand-over to the tools that people have: doped, pymatgen-analysis-defects, jobflow, OPTIMADE, ASE's database."""

from defectgen.exports.exporters import EXPORTERS, Exporter, ExportOptions, export
from defectgen.exports.items import ExportItem, export_items

__all__ = ["EXPORTERS", "ExportItem", "ExportOptions", "Exporter", "export", "export_items"]
