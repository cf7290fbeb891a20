"""Hosts, configurations, their symmetry and names."""

from defectgen.core.configuration import Configuration, Edit, canonicalize
from defectgen.core.host import VACANCY, Host, Rule
from defectgen.core.hosts import as_host, get_host, host_names, register_host
from defectgen.core.matching import configuration_from_atoms, configuration_from_structure
from defectgen.core.names import defect_label, defect_name, kroger_vink, parse_label
from defectgen.core.slab import NotADecorationError
from defectgen.core.symmetry import site_permutations

__all__ = [
    "VACANCY",
    "Configuration",
    "Edit",
    "Host",
    "NotADecorationError",
    "Rule",
    "as_host",
    "canonicalize",
    "configuration_from_atoms",
    "configuration_from_structure",
    "defect_label",
    "defect_name",
    "get_host",
    "host_names",
    "kroger_vink",
    "parse_label",
    "register_host",
    "site_permutations",
]
