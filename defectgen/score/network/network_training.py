"""Training of ensembles: all hosts and densities together, each member on its own rows and order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from defectgen.score.network.network_cells import OUTPUTS, Rows, counts_of
from defectgen.score.network.network_model import Batch, Ensemble, Shape
from defectgen.score.network.pair_geometry import HostGeometry

RIDGE = 1e-2
SMALLEST_SPREAD = 0.02


class Geometries:
    """The features of several hosts on one device, behind running numbers."""

    def __init__(self, hosts: Sequence[HostGeometry], spin: Sequence[bool], device: torch.device | str = "cpu") -> None:
        self.hosts = tuple(hosts)
        self.device = torch.device(device)
        self.spin = torch.tensor([float(s) for s in spin], device=self.device)
        most_kinds = max(len(h.kinds) for h in hosts)
        nodes, classes, pairs = [], [np.zeros((1, hosts[0].classes.shape[1]), dtype=np.float32)], []
        node_start, pair_start, n_sites, cells = [], [], [], []
        node_at = pair_at = 0
        class_at = 1
        for host in hosts:
            basis, k, width = host.nodes.shape
            n = host.host.n_sites
            padded = np.zeros((basis, most_kinds, width), dtype=np.float32)
            padded[:, :k] = host.nodes
            nodes.append(padded.reshape(-1, width))
            pairs.append((host.pairs.astype(np.int64) + class_at).reshape(-1))
            classes.append(host.classes)
            node_start.append(node_at)
            pair_start.append(pair_at)
            n_sites.append(n)
            cells.append(n // basis)
            node_at, pair_at, class_at = node_at + basis * most_kinds, pair_at + n * n, class_at + len(host.classes)
        self.most_kinds = most_kinds
        self.nodes = torch.tensor(np.concatenate(nodes), device=self.device)
        self.pairs = torch.tensor(np.concatenate(pairs), device=self.device)
        self.classes = torch.tensor(np.concatenate(classes), device=self.device)
        self.starts = torch.tensor([node_start, pair_start, n_sites, cells], device=self.device)

    def batch(self, hosts: Tensor, sites: Tensor, kinds: Tensor) -> Batch:
        """A batch from host numbers (..., cells), sites and kinds (..., cells, n), -1 where there is none."""
        node_start, pair_start, n_sites, cells = (self.starts[k][hosts] for k in range(4))
        mask = sites >= 0
        at, kind = sites.clamp(min=0), kinds.clamp(min=0)
        nodes = self.nodes[node_start[..., None] + at // cells[..., None] * self.most_kinds + kind] * mask[..., None]
        both = mask[..., :, None] & mask[..., None, :]
        place = pair_start[..., None, None] + at[..., :, None] * n_sites[..., None, None] + at[..., None, :]
        classes = torch.where(both, self.pairs[place], 0)
        return Batch(nodes, classes, self.classes, mask.float(), self.spin[hosts], hosts)


@dataclass(frozen=True)
class TrainSettings:
    """How long and how fast.

    Attributes:
        passes: over the rows with many defects.
        crowded: rows with many defects in a batch.
        sparse: rows with few defects in a batch.
        few: most defects of a row with few.
        learning_rate: at the start; it falls along a cosine to 0.
        weight_decay: of AdamW.
        dropout: in messages and readout.
        model_cells: cells of a tight-binding model that are learnt before the labels, of all hosts; 0 for none.
        model_passes: over them.
        model_dropout: the same, while these are learnt.
        seed: of weights and order.
    """

    passes: float = 45
    crowded: int = 32
    sparse: int = 64
    few: int = 3
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    dropout: float = 0.2
    model_cells: int = 5000
    model_passes: float = 7
    model_dropout: float = 0.05
    seed: int = 42


DEFAULT_SETTINGS, DEFAULT_SHAPE = TrainSettings(), Shape()


def linear_energies(rows: Rows, geometries: Geometries, use: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Formation energy of each kind of defect in eV by ridge regression per defect, shape (hosts * most kinds,)."""
    counts = counts_of(rows, len(geometries.hosts), geometries.most_kinds)
    energy = rows.targets[:, OUTPUTS.index("energy")]
    use = use & ~np.isnan(energy)
    x, y = counts[use] / rows.sizes[use, None], energy[use] / rows.sizes[use]
    return np.asarray(np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y))


def residuals(rows: Rows, geometries: Geometries, use: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Targets with, for the energy, what is not linear in the counts, per defect."""
    linear = counts_of(rows, len(geometries.hosts), geometries.most_kinds) @ linear_energies(rows, geometries, use)
    values = rows.targets.copy()
    at = OUTPUTS.index("energy")
    values[:, at] = (values[:, at] - linear) / rows.sizes
    return values


def spreads(values: NDArray[np.float64], groups: NDArray[np.int64], n: int) -> tuple[NDArray[np.float64], ...]:
    """Mean and standard deviation of the known values of each group, shapes (n, 7).

    Groups without values get the averages of the others.
    """
    mean, spread = (np.full((n, values.shape[1]), np.nan) for _ in range(2))
    for group in range(n):
        part = values[groups == group]
        for k in range(values.shape[1]):
            known = part[~np.isnan(part[:, k]), k]
            if len(known) > 1:
                mean[group, k], spread[group, k] = known.mean(), max(float(known.std()), SMALLEST_SPREAD)
    for found in (mean, spread):
        missing = np.isnan(found)
        there = (~missing).sum(axis=0)
        average = np.where(there > 0, np.nansum(found, axis=0) / np.maximum(there, 1), 1.0)
        found[missing] = average[np.nonzero(missing)[1]]
    return mean, spread


def train_ensemble(
    rows: Rows,
    geometries: Geometries,
    use: NDArray[np.bool_],
    settings: TrainSettings = DEFAULT_SETTINGS,
    shape: Shape = DEFAULT_SHAPE,
    weights: Mapping[str, float] | None = None,
    deadline: float = math.inf,
    report: Callable[[int, int, float], None] = lambda *_: None,
    start: Mapping[str, Tensor] | None = None,
) -> tuple[Ensemble, NDArray[np.float64]]:
    """Train one member for each row of `use`.

    Args:
        rows: all labelled cells.
        geometries: of their hosts, on the device to train on.
        use: which rows each member sees, shape (members, n).
        settings: see `TrainSettings`.
        shape: of the networks.
        weights: of the targets in the loss.
        deadline: of `time.monotonic`; the learning rate falls to 0 by then.
        report: called with step, number of steps and loss.
        start: weights to begin with, by name, of at least as many members; random ones by default.

    Returns:
        The members, and the linear energies of each, shape (members, hosts * most kinds).
    """
    torch.manual_seed(settings.seed)
    device, members = geometries.device, len(use)
    rng = np.random.default_rng(settings.seed)
    linear = np.stack([linear_energies(rows, geometries, mine) for mine in use])
    energy_at = OUTPUTS.index("energy")
    base = torch.tensor(
        counts_of(rows, len(geometries.hosts), geometries.most_kinds) @ linear.T, dtype=torch.float32, device=device
    )
    targets = torch.tensor(rows.targets, dtype=torch.float32, device=device)
    values = [residuals(rows, geometries, mine)[mine] for mine in use]
    n_groups = int(rows.groups.max()) + 1
    units = [spreads(v, rows.groups[mine], n_groups)[1] for v, mine in zip(values, use, strict=True)]
    unit = torch.tensor(np.stack(units), dtype=torch.float32, device=device)
    groups = torch.tensor(rows.groups, device=device)
    factor = torch.tensor([(weights or {}).get(name, 1.0) for name in OUTPUTS], device=device)
    hosts, sites, kinds = (torch.tensor(x, device=device) for x in (rows.hosts, rows.sites, rows.kinds))
    sizes = torch.tensor(rows.sizes, dtype=torch.float32, device=device)
    few = rows.sizes <= settings.few
    model = Ensemble(members, len(geometries.hosts), shape, settings.dropout).to(device)
    for number, (found, mine) in enumerate(zip(values, use, strict=True)):
        for buffer, numbers in zip(
            (model.offset, model.scale), spreads(found, rows.hosts[mine], len(geometries.hosts)), strict=True
        ):
            buffer[number] = torch.tensor(numbers, dtype=torch.float32)
    if start is not None:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(start[name][:members])
    crowded_rows = max(int((mine & ~few).sum()) for mine in use)
    steps = max(1, round(settings.passes * crowded_rows / settings.crowded))
    cuda = device.type == "cuda"
    rate, follow = torch.zeros((), device=device), torch.ones((), device=device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate if cuda else 0.0, weight_decay=settings.weight_decay, capturable=cuda
    )
    parts = [
        (_orders(use & wanted, steps, size, rng, device), width)
        for wanted, size, width in (
            (~few, settings.crowded, rows.sites.shape[1]),
            (few, settings.sparse, settings.few),
        )
        if (use & wanted).any(axis=1).all()
    ]
    at = [order[:, 0].clone() for order, _ in parts]
    weights_now = list(model.parameters())
    averaged = [weight.detach().clone() for weight in weights_now]
    member = torch.arange(members, device=device)[:, None]
    loss = torch.zeros((), device=device)
    for weight in weights_now:
        weight.grad = torch.zeros_like(weight)

    def body() -> None:
        """One step on the rows in `at`."""
        total = torch.zeros((), device=device)
        for chosen, (_, width) in zip(at, parts, strict=True):
            predicted = model(geometries.batch(hosts[chosen], sites[chosen][..., :width], kinds[chosen][..., :width]))
            energies = (targets[chosen][..., energy_at] - base[chosen, member]) / sizes[chosen]
            wanted = torch.cat(
                [targets[chosen][..., :energy_at], energies[..., None], targets[chosen][..., energy_at + 1 :]], dim=-1
            )
            error = torch.where(
                torch.isnan(wanted), 0.0, (predicted - torch.nan_to_num(wanted)) / unit[member, groups[chosen]]
            )
            cost = torch.nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1, reduction="none")
            total = total + (cost * factor).sum() / cost.shape[1] / len(parts)
        for weight in weights_now:
            weight.grad.zero_()  # type: ignore[union-attr]
        total.backward()  # type: ignore[no-untyped-call]
        _clip(model, 5.0)
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(averaged, weights_now, strict=True):
                mean.add_((weight - mean) * follow)
            loss.copy_(total)

    began = time.monotonic()
    model.train()
    run = _captured(body) if cuda else body
    for step in range(steps):
        share = step / steps
        if math.isfinite(deadline):
            share = max(share, (time.monotonic() - began) / (deadline - began))
        if share >= 1:
            break
        now = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share)) * min(1.0, (step + 1) / 50)
        follow.fill_(max(0.01, 1 / (step + 1)))
        if cuda:
            rate.fill_(now)
        else:
            for group in optimizer.param_groups:
                group["lr"] = now
        for chosen, (order, _) in zip(at, parts, strict=True):
            chosen.copy_(order[:, step])
        run()
        if step % 20 == 19 or step == steps - 1:
            found = float(loss)  # waits for the device, so that the clock is right
            if step % 100 == 99 or step == steps - 1:
                report(step + 1, steps, found / members)
    with torch.no_grad():
        for mean, weight in zip(averaged, weights_now, strict=True):
            weight.copy_(mean)
            weight.grad = None
    return model.eval(), linear


def _captured(body: Callable[[], None]) -> Callable[[], None]:
    """A step as a CUDA graph: at these sizes a GPU waits for launches."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


def _clip(model: Ensemble, most: float) -> None:
    """Bound the gradient of each member by itself."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([(g.flatten(1) ** 2).sum(dim=1) for g in gradients]).sum(dim=0).sqrt()
    scale = (most / norm.clamp(min=1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.reshape(-1, *[1] * (g.dim() - 1)))


def _orders(use: NDArray[np.bool_], steps: int, size: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Rows of each step of each member, shape (members, steps, size): one shuffled pass after the other."""
    found = []
    for mine in use:
        members = np.flatnonzero(mine)
        needed = steps * size
        passes = [rng.permutation(members) for _ in range(-(-needed // len(members)))]
        found.append(np.concatenate(passes)[:needed].reshape(steps, size))
    return torch.tensor(np.stack(found), device=device)


@torch.inference_mode()
def predict(
    model: Ensemble, geometries: Geometries, rows: Rows, linear: NDArray[np.float64], step: int = 256
) -> NDArray[np.float64]:
    """`OUTPUTS` of every member for every row, the energy being the formation energy, shape (members, n, 7)."""
    device = geometries.device
    sizes = rows.sizes
    order = np.argsort(sizes, kind="stable")
    found = np.zeros((model.members, len(rows), len(OUTPUTS)))
    for start in range(0, len(rows), step):
        chosen = order[start : start + step]
        width = int(sizes[chosen].max())
        arrays = (rows.hosts[chosen], rows.sites[chosen, :width], rows.kinds[chosen, :width])
        batch = geometries.batch(*(torch.tensor(x, device=device)[None] for x in arrays))
        found[:, chosen] = model(batch).float().cpu().numpy()
    at = OUTPUTS.index("energy")
    found[..., at] = found[..., at] * sizes + linear @ counts_of(rows, len(geometries.hosts), geometries.most_kinds).T
    return found
