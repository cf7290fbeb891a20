"""A host: its unit cell, supercell and rules."""

import defectgen as dg

GRAPHENE = dg.Host(
    name="graphene",
    lattice=((2.46, 0.0, 0.0), (-1.23, 2.13042249, 0.0), (0.0, 0.0, 15.0)),
    species=("C", "C"),
    frac_coords=((1 / 3, 2 / 3, 0.5), (2 / 3, 1 / 3, 0.5)),
    supercell=(4, 4),
    rules=(dg.Rule("C", "B"), dg.Rule("C", "N"), dg.Rule("C", "VAC")),
)
