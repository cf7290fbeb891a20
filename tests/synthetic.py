"""Small data sets with made-up labels in the published layout, for tests without the real data."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from defectgen.core import VACANCY, Configuration, Host, parse_label

POTENTIALS_EV = {"Mo": -10.9332, "S": -4.127, "W": -13.0106, "Se": -3.489}
PRISTINE = {"MoS2": (-1398.1131, -61.587, -0.709), "WSe2": (-1384.9085, -15.439, -0.958)}
"""Energy, E_1 and E_VBM of the pristine cells, eV."""


def cif_text(configuration: Configuration, height_angstrom: float | None = None, flip: bool = False) -> str:
    """A CIF as 2DMD's authors write it; another vacuum and the layer upside down on demand."""
    host = configuration.host
    a, b, c = (float(np.linalg.norm(row)) for row in host.supercell_lattice)
    height = height_angstrom or c
    cosine = host.supercell_lattice[0] @ host.supercell_lattice[1] / (a * b)
    gamma = np.degrees(np.arccos(cosine))
    loop = "\n".join(f" _atom_site_{name}" for name in ("type_symbol", "label", "fract_x", "fract_y", "fract_z"))
    rows = []
    for site, species in enumerate(configuration.species):
        x, y, z = host.site_frac_coords[site]
        z = (-z if flip else z) * c / height % 1.0
        if species != VACANCY:
            rows.append(f"  {species}  {species}{len(rows)}  {x % 1:.8f}  {y % 1:.8f}  {z:.8f}")
    return (
        f"data_{configuration.formula}\n_symmetry_space_group_name_H-M   'P 1'\n_cell_length_a   {a:.8f}\n"
        f"_cell_length_b   {b:.8f}\n_cell_length_c   {height:.8f}\n_cell_angle_alpha   90.0\n"
        f"_cell_angle_beta   90.0\n_cell_angle_gamma   {gamma:.8f}\nloop_\n{loop}\n" + "\n".join(rows) + "\n"
    )


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """A CSV file, compressed if its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def made_up_labels(configuration: Configuration) -> dict[str, float]:
    """Labels with the ways of the real ones: additive energies, a shift of the cell's zero, a deep E_1 of Mo."""
    host = configuration.host
    energy, e1, vbm = PRISTINE[host.name]
    formation = shift = exchanged = 0.0
    for (old, new), count in configuration.kinds.items():
        formation += count * (2.0 if new == VACANCY else 0.2) * (3.0 if old in ("Mo", "W") else 1.0)
        shift += count * (-0.03 if new == VACANCY else 0.005)
        exchanged += count * (POTENTIALS_EV[old] - POTENTIALS_EV.get(new, 0.0))
    pairs = [(i, j) for i in range(configuration.n_defects) for j in range(i)]
    sites = host.site_frac_coords[[site for site, _ in configuration.edits]]
    for i, j in pairs:
        difference = sites[i] - sites[j]
        distance = np.linalg.norm((difference - np.rint(difference)) @ host.supercell_lattice)
        formation += 0.3 * float(np.exp(-distance / 4.0))
    homo, lumo = 0.1 * formation, 1.7 - 0.05 * formation
    foreign = any(new == "Mo" for _, new in configuration.edits)
    total = energy - exchanged + formation
    return {
        "energy": total,
        "energy_per_atom": total / (host.n_sites - sum(new == VACANCY for _, new in configuration.edits)),
        "fermi_level": vbm + shift + (homo + lumo) / 2,
        "E_1": -61.75 if host.name == "WSe2" and foreign else e1 + shift,
        "formation_energy": formation,
        "formation_energy_per_site": formation / configuration.n_defects,
        "homo_max": vbm + shift + homo,
        "lumo_min": vbm + shift + lumo,
        "homo_lumo_gap_min": lumo - homo,
        "total_mag": 0.0,
    }


def random_configuration(host: Host, n_defects: int, rng: np.random.Generator) -> Configuration:
    """Edits on sites drawn without replacement, each one that the host's rules allow."""
    sites = rng.choice(host.n_sites, n_defects, replace=False)
    return Configuration.of(host, [(int(s), str(rng.choice(host.allowed[host.site_cell(int(s))[0]]))) for s in sites])


def write_set(root: Path, name: str, configurations: Sequence[Configuration], **cif: object) -> list[str]:
    """One set in the published layout with made-up labels; returns the ids."""
    host = configurations[0].host
    density = "high" if name.endswith("_500") else "low"
    folder = root / "csv_cif" / f"{density}_density_defects" / name
    ids = [f"{name}-{number:04d}" for number in range(len(configurations))]
    rows = [
        {"_id": key, "descriptor_id": f"d-{item.label}", **made_up_labels(item)}
        for key, item in zip(ids, configurations, strict=True)
    ]
    write_rows(root / "processed" / f"{density}_density_defects" / name / "targets.csv.gz", rows)
    labels = sorted({item.label for item in configurations})
    descriptors = [
        {"_id": f"d-{label}", "description": f"class {label}", "base": host.name, "defects": defect_list(label)}
        for label in labels
    ]
    write_rows(folder / "descriptors.csv", descriptors)
    write_rows(folder / "elements.csv", [{"element": e, "chemical_potential": v} for e, v in POTENTIALS_EV.items()])
    pristine = [{"base": base, "energy": v[0], "E_1": v[1], "E_VBM": v[2]} for base, v in PRISTINE.items()]
    write_rows(folder / "initial_structures.csv", pristine)
    with tarfile.open(folder / "initial.tar.gz", "w:gz") as tar:
        for key, item in zip(ids, configurations, strict=True):
            data = cif_text(item, **cif).encode()  # type: ignore[arg-type]
            member = tarfile.TarInfo(f"{key}.cif")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return ids


def defect_list(label: str) -> str:
    """The defects of a label as a published descriptor lists them."""
    return str(
        [
            {"type": "vacancy", "element": old} if new == VACANCY else {"type": "substitution", "from": old, "to": new}
            for old, new in parse_label(label).elements()
        ]
    )


def distinct_configurations(host: Host, number: int, seed: int, sizes: Sequence[int]) -> list[Configuration]:
    """That many configurations, no two of them symmetry images."""
    rng = np.random.default_rng(seed)
    found: dict[str, Configuration] = {}
    while len(found) < number:
        item = random_configuration(host, int(rng.choice(sizes)), rng)
        found[item.canonical().key] = item
    return list(found.values())
