"""SLICES: a crystal as its space group, its atoms, and the labelled edges of its quotient graph.

An edge ``i j label`` is a bond from atom i to the image of atom j in the cell that the label names: one
sign for each lattice vector, ``o`` for none, ``+`` and ``-`` for the neighbouring cells. `encode_structure`
takes any crystal; `encode_configuration` takes the neighbours of a decorated host from its pristine cell, which
is searched once. Both write what the package ``slices`` 2.0.12 writes with strategy 4, character by character.

Source: Xiao et al., Nature Communications 14, 7027 (2023), doi 10.1038/s41467-023-42870-7.
"""

from defectgen.slices.econnn import encode_structure, graph_of_structure
from defectgen.slices.host_graph import encode_configuration, graph_of_configuration
from defectgen.slices.quotient_graph import Edge, QuotientGraph, parse_slices, space_group_block
from defectgen.slices.reference_package import ReferencePackage

__all__ = [
    "Edge",
    "QuotientGraph",
    "ReferencePackage",
    "encode_configuration",
    "encode_structure",
    "graph_of_configuration",
    "graph_of_structure",
    "parse_slices",
    "space_group_block",
]
