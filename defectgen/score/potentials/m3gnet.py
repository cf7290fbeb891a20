"""M3GNet through matgl: loaded from a folder or by name, and checked on known solids before use.

Source: Chen & Ong, Nat Comput Sci 2, 718 (2022), doi 10.1038/s43588-022-00349-3.
"""

from __future__ import annotations

import importlib
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectgen.errors import DefectgenError, UsageError
from defectgen.extras import import_extra
from defectgen.one_line import OneLine
from defectgen.score.potentials.potential import EV_PER_ANGSTROM3_IN_GPA, Evaluation

if TYPE_CHECKING:
    from pymatgen.core import Structure

DEFAULT_NAME = "M3GNet-MP-2021.2.8-PES"
"""The potential of the paper, trained on PBE calculations of the Materials Project."""

VARIABLE = "DEFECTGEN_M3GNET"
"""Environment variable with the folder or the name of the potential."""

FILES = ("model.json", "model.pt", "state.pt")

KNOWN_EV_PER_ATOM: Mapping[str, float] = types.MappingProxyType(
    {"NaCl": -3.3675, "MgO": -5.956, "MoS2": -7.226, "Si": -5.419}
)
"""Energy by atom of solids at their PBE geometry, as M3GNet-MP-2021.2.8 has them, within 0.06 eV of PBE."""

CHECK_TOLERANCE_EV = 0.1
"""Largest error by atom in that check; the wrong direction of messages costs 0.7 to 4 eV in a compound."""

ATOMS_A_BATCH = 400


@dataclass(frozen=True, repr=False)
class M3GNet(OneLine):
    """A loaded and checked M3GNet; a `defectgen.score.potentials.potential.Potential`.

    Attributes:
        name: of the potential.
        model: the `matgl.apps.pes.Potential`.
        sums_at: where messages are summed: ``source`` (matgl 3 and later) or ``destination`` (before).
    """

    name: str
    model: Any
    sums_at: str

    @property
    def elements(self) -> frozenset[str]:
        """See `defectgen.score.potentials.potential.Potential`."""
        return frozenset(self.model.model.element_types)

    @property
    def atom_shifts_ev(self) -> Mapping[str, float]:
        """None: trained on plain PBE energies."""
        return {}

    def evaluate(self, structures: Sequence[Structure]) -> list[Evaluation]:
        """See `defectgen.score.potentials.potential.Potential`; several structures in one pass of the network."""
        import torch
        from matgl.ext.pymatgen import Structure2Graph

        batches = importlib.import_module("torch_geometric.data").Batch

        convert = Structure2Graph(self.model.model.element_types, self.model.model.cutoff)
        results: list[Evaluation] = []
        for group in _groups([len(structure) for structure in structures]):
            graphs, lattices = [], []
            for index in group:
                graph, lattice, _ = convert.get_graph(structures[index])
                graphs.append(graph)
                lattices.append(lattice.reshape(1, 3, 3))
            energies, forces, stresses, *_ = self.model(batches.from_data_list(graphs), torch.cat(lattices))
            energies = np.atleast_1d(energies.detach().cpu().numpy())
            split = np.cumsum([len(structures[index]) for index in group])[:-1]
            parts = np.split(forces.detach().cpu().numpy().astype(np.float64), split)
            tensors = stresses.detach().cpu().numpy().astype(np.float64).reshape(-1, 3, 3) / EV_PER_ANGSTROM3_IN_GPA
            results += [Evaluation(float(e), f, s) for e, f, s in zip(energies, parts, tensors, strict=True)]
        return results

    def calculator(self) -> Any:
        """See `defectgen.score.potentials.potential.Potential`."""
        from matgl.ext.ase import PESCalculator

        return PESCalculator(self.model, stress_unit="eV/A3", use_voigt=True)


def load_m3gnet(model: str | Path | None, cache: Path) -> M3GNet:
    """Load a potential and check it on known solids.

    Weights from before matgl 3 were trained with messages summed at the destination of each edge, later
    ones at the source, and no file says which. So both are tried, and the one that gives the known energies
    is used.

    Args:
        model: a folder with `FILES`, or the name of a model of the matgl organisation on the Hugging Face hub.
        cache: folder that matgl may write to (by itself it makes one in the home folder), also for downloads.

    Raises:
        UsageError: no model is named, or it is no folder of a potential.
        DefectgenError: matgl is not installed, the files are damaged, the hub has no such model or cannot be
            reached, or the energies are wrong.
    """
    if not model or not str(model).strip():
        raise UsageError(
            "no M3GNet model is named.",
            f"Give its folder or the name of a model on the hub: --m3gnet {DEFAULT_NAME} (or set {VARIABLE}).",
        )
    source = Path(model).expanduser()
    is_path = source.exists() or len(source.parts) > 1 or str(model).startswith((".", "~"))
    if is_path:
        _require_files(source)
    with _home(cache):
        import_extra("matgl", "m3gnet", "M3GNet")
        import_extra("matgl.ext.ase", "m3gnet", "M3GNet")
    potential = _load(source if is_path else str(model), is_path, cache)
    name = source.name if is_path else str(model)
    if not hasattr(potential, "model") or not hasattr(potential.model, "element_types"):
        raise DefectgenError(f"{name} is no interatomic potential.", f"Expected one such as {DEFAULT_NAME}.")
    return _checked(name, potential)


def _require_files(folder: Path) -> None:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", f"Expected one with {', '.join(FILES)}.")
    if missing:
        inside = sorted(path.parent.name for path in folder.glob(f"*/{FILES[0]}"))
        advice = f"It has the models {', '.join(inside)}: name one." if inside else f"Expected {', '.join(FILES)}."
        raise UsageError(f"{folder} holds no M3GNet ({', '.join(missing)} missing).", advice)


def _load(source: Path | str, is_path: bool, cache: Path) -> Any:
    import matgl

    try:
        options = {} if is_path else {"cache_dir": str(cache)}
        potential = matgl.load_model(source, **options)
    except Exception as error:
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split()).partition('. ')[0]:.120}"
        if is_path:
            raise DefectgenError(f"{source}: the model files are damaged or of another kind ({reason}).") from error
        raise DefectgenError(
            f"the hub gave no model {source} ({reason}).", "Check name and connection, or give a folder."
        ) from error
    return potential.eval()


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """While this lasts, the home folder of the environment is `folder`: matgl makes a cache folder in it at import."""
    folder.mkdir(parents=True, exist_ok=True)
    variable = "USERPROFILE" if os.name == "nt" else "HOME"
    before = os.environ.get(variable)
    os.environ[variable] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _checked(name: str, potential: Any) -> M3GNet:
    """The potential with messages summed where the known solids come out right."""
    tried = []
    for sums_at in ("destination", "source"):
        _sum_at(potential, sums_at)
        found = M3GNet(name, potential, sums_at)
        errors = known_errors_ev(found)
        if max(map(abs, errors.values())) <= CHECK_TOLERANCE_EV:
            return found
        tried.append(", ".join(f"{formula} {KNOWN_EV_PER_ATOM[formula] + errors[formula]:.3f}" for formula in errors))
    expected = ", ".join(f"{formula} {energy:.3f}" for formula, energy in KNOWN_EV_PER_ATOM.items())
    raise DefectgenError(
        f"{name} gives wrong energies for known solids: {tried[0]} eV/atom (or {tried[1]}), expected {expected}.",
        "Use a model trained on PBE total energies that fits the installed matgl.",
    )


def known_errors_ev(potential: M3GNet) -> dict[str, float]:
    """Energy by atom of each of `KNOWN_EV_PER_ATOM` minus what is expected, in eV."""
    from pymatgen.core import Structure

    from defectgen.core import Configuration
    from defectgen.core.hosts import BUILT_IN

    def rocksalt(cation: str, anion: str, a: float) -> Structure:
        return Structure(_face_centred(a), [cation, anion], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])

    solids = {
        "NaCl": rocksalt("Na", "Cl", 5.6916),
        "MgO": rocksalt("Mg", "O", 4.2558),
        "MoS2": Configuration.of(replace(BUILT_IN["MoS2"], supercell=(1, 1)), {}).to_structure(),
        "Si": Structure(_face_centred(5.469), ["Si", "Si"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]),
    }
    found = potential.evaluate(list(solids.values()))
    return {
        formula: result.energy_ev / len(cell) - KNOWN_EV_PER_ATOM[formula]
        for (formula, cell), result in zip(solids.items(), found, strict=True)
    }


def _face_centred(a: float) -> list[list[float]]:
    """Rows of the primitive cell of a face-centred cubic lattice."""
    return [[0.0, a / 2, a / 2], [a / 2, 0.0, a / 2], [a / 2, a / 2, 0.0]]


def _sum_at(potential: Any, sums_at: str) -> None:
    """Sum the messages of each convolution of one loaded potential at one end of the edges."""
    from matgl.layers._graph_convolution import M3GNetGraphConv

    for module in potential.modules():
        if isinstance(module, M3GNetGraphConv):
            module.__dict__.pop("node_update_", None)
            if sums_at == "destination":
                module.__dict__["node_update_"] = types.MethodType(_node_update_at_destination, module)


def _node_update_at_destination(
    layer: Any, edge_index: Any, edge_feat: Any, node_feat: Any, rbf: Any, u_per_edge: Any, num_nodes: int
) -> Any:
    """`M3GNetGraphConv.node_update_` (Eq. 5 of the paper) as it was before matgl 3."""
    import torch

    source, destination = edge_index[0], edge_index[1]
    parts = [node_feat[source], node_feat[destination], edge_feat]
    inputs = torch.hstack(parts if u_per_edge is None else [*parts, u_per_edge])
    messages = layer.node_update_func(inputs) * layer.node_weight_func(rbf)
    return torch.zeros(num_nodes, messages.shape[1], dtype=messages.dtype, device=messages.device).index_add(
        0, destination, messages
    )


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Indices in order, in groups of at most `ATOMS_A_BATCH` atoms (at least one structure each)."""
    groups: list[list[int]] = []
    total = 0
    for index, size in enumerate(sizes):
        if not groups or total + size > ATOMS_A_BATCH:
            groups.append([])
            total = 0
        groups[-1].append(index)
        total += size
    return groups
