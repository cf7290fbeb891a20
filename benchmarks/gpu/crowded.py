"""The language model on crowded cells: records without end, then rounds of its own proposals, on one GPU.

    python benchmarks/gpu/crowded.py --kit runs/gpu --base FOLDER -o runs/crowded --networks FOLDER --seconds 230

Values of random structures come from the joint network of one half of the labelled rows (judge A); what is learned
in the rounds is rewarded by A. When to stop, and the figures at the end, are of the network of the other half (B).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from graphs import Losses, PlainLlama, Sampler
from kit import BaseOption, KitOption, OutputOption, SecondsOption, ToyOption, run_step
from rows import read

from defectgen.core.configuration import Edit
from defectgen.core.host import Host
from defectgen.core.symmetry import site_group
from defectgen.llm.decode.tensor_grammar import PAD, GrammarTables
from defectgen.llm.loading import load_base
from defectgen.llm.tokens import piece_ids
from defectgen.score.network.ensemble import Network
from defectgen.tasks.defect.encodings import write_prompt
from defectgen.tasks.defect.site_grammar import EditsGrammar

FEW = 3
"""Most defects of a dilute cell; prompts name the kind of cell."""
DILUTE, CROWDED = "dilute", "crowded"
LEVELS = ("homo_ev", "lumo_ev")
ASKED = ("homo_ev", "lumo_ev", "band_gap_ev", "formation_energy_ev", "fermi_level_ev")
PROMPT_TOKENS = 96
"""Room for the longest prompt."""
LEARNING_RATE, ROUND_RATE = 1.5e-3, 4e-4
PAIR_SHARE, KINDS_SHARE, CELL_SHARE, PLAIN_SHARE = 0.65, 0.15, 0.9, 0.03


@dataclass(frozen=True, eq=False)
class Cells:
    """Configurations of one host with values.

    Attributes:
        host: number of the host.
        edits: of each, in the order of the sites.
        values: `ASKED` in eV, NaN where unknown, shape (n, 5).
    """

    host: int
    edits: list[tuple[Edit, ...]]
    values: np.ndarray


def canonical(host: Host, sites: np.ndarray, codes: np.ndarray, names: Sequence[str]) -> list[tuple[Edit, ...]]:
    """Smallest images of configurations, padded with -1, as edits."""
    found: list[tuple[Edit, ...]] = [()] * len(sites)
    sizes = (sites >= 0).sum(axis=1)
    for size in np.unique(sizes[sizes > 0]):
        rows = np.flatnonzero(sizes == size)
        order = np.argsort(sites[rows, :size], axis=1)
        images = site_group(host).smallest_images(
            np.take_along_axis(sites[rows, :size], order, 1).astype(np.int64),
            np.take_along_axis(codes[rows, :size], order, 1).astype(np.int64),
        )
        for row, ours, kinds in zip(rows.tolist(), images.sites.tolist(), images.codes.tolist(), strict=True):
            found[row] = tuple((site, names[code]) for site, code in zip(ours, kinds, strict=True))
    return found


def draw(
    host: Host, counts: np.ndarray, rng: np.random.Generator, n: int, least: int, most: int
) -> list[tuple[Edit, ...]]:
    """Random crowded cells in canonical form: half with the numbers of a labelled cell's defects, half with any.

    Args:
        host: what is decorated.
        counts: of each rule of the host in labelled cells, shape (cells, rules).
        rng: of the draws.
        n: how many.
        least: smallest number of defects.
        most: largest number of defects.
    """
    rules = tuple(sorted(host.rules))
    names = sorted({rule.replacement for rule in rules})
    of_element = {e: [s for s, found in host.sites() if found == e] for e in host.elements}
    sites, codes = np.full((n, most), -1), np.zeros((n, most), dtype=int)
    for row in range(n):
        if row % 2:
            wanted = counts[rng.integers(len(counts))]
        else:
            shares = rng.dirichlet(np.ones(len(rules)))
            wanted = rng.multinomial(rng.integers(least, most + 1), shares)
        place = 0
        for element, its_sites in of_element.items():
            mine = [
                names.index(r.replacement)
                for r, w in zip(rules, wanted, strict=True)
                if r.element == element
                for _ in range(w)
            ]
            mine = mine[: len(its_sites)]
            sites[row, place : place + len(mine)] = rng.choice(its_sites, len(mine), replace=False)
            codes[row, place : place + len(mine)] = mine
            place += len(mine)
    return canonical(host, sites, codes, names)


class Records:
    """Prompts and completions as tokens, drawn anew for each batch."""

    def __init__(
        self,
        cells: list[tuple[Cells, np.ndarray]],
        hosts: Sequence[Host],
        tokenizer: Any,
        grammars: dict[tuple[int, str], int],
    ):
        self.hosts, self.tokenizer, self.grammars = hosts, tokenizer, grammars
        self.items = [(c.host, edits, row) for c, _ in cells for edits, row in zip(c.edits, c.values, strict=True)]
        weights = np.concatenate([w for _, w in cells])
        self.weights = weights / weights.sum()
        self._pieces: dict[tuple[int, Edit], list[int]] = {}
        self.eos = int(tokenizer.eos_token_id)

    def completion(self, host: int, edits: Sequence[Edit]) -> list[int]:
        ids: list[int] = []
        for site, species in edits:
            key = host, (site, species)
            if key not in self._pieces:
                self._pieces[key] = piece_ids(self.tokenizer, f" {species} {self.hosts[host].site_name(site)}")
            ids += self._pieces[key]
        return [*ids, self.eos]

    def prompt(self, host: int, edits: Sequence[Edit], row: np.ndarray, rng: np.random.Generator) -> str:
        """A random subset of what is known, as the task draws it, with the kind of cell."""
        known = [k for k in range(len(ASKED)) if not np.isnan(row[k])]
        chosen: list[int] = []
        if rng.random() >= PLAIN_SHARE and known:
            if rng.random() < PAIR_SHARE and known[:2] == [0, 1]:
                chosen = [0, 1]
            else:
                odds = 1.0 / np.arange(1, len(known) + 1)
                size = int(rng.choice(len(known), p=odds / odds.sum())) + 1
                chosen = sorted(rng.choice(known, size, replace=False).tolist())
        words: list[str] = []
        if rng.random() < KINDS_SHARE:
            made = {"vacancy" if species == "VAC" else "substitution" for _, species in edits}
            words += [kind for kind in ("vacancy", "substitution") if kind in made]
        if rng.random() < CELL_SHARE:
            words.append(DILUTE if len(edits) <= FEW else CROWDED)
        return write_prompt("edits", self.hosts[host], {ASKED[k]: float(row[k]) for k in chosen}, tuple(words))

    def batch(self, size: int, rng: np.random.Generator) -> tuple[list[list[int]], list[int], list[list[int]]]:
        """Token ids of prompts, grammars, and token ids of completions, the shorter first."""
        drawn = [self.items[k] for k in rng.choice(len(self.items), size, p=self.weights)]
        drawn.sort(key=lambda item: len(item[1]))
        prompts = self.tokenizer([self.prompt(*item, rng) for item in drawn]).input_ids
        kinds = [self.grammars[h, DILUTE if len(e) <= FEW else CROWDED] for h, e, _ in drawn]
        return prompts, kinds, [self.completion(h, e) for h, e, _ in drawn]


class Learner:
    """The language model in training: losses under the grammar, steps, and proposals."""

    def __init__(self, base: Path, rank: int, device: str, toy: bool, grammars: Sequence[EditsGrammar]) -> None:
        causal, self.tokenizer, _ = load_base(str(base), "bfloat16" if device == "cuda" else "float32")
        causal.requires_grad_(False)
        self.tables = GrammarTables.of(grammars, self.tokenizer, device)
        self.device = device
        self.model = PlainLlama(causal, self.tables.tokens, rank, 2.0 * rank)
        pool = torch.cuda.graph_pool_handle() if device == "cuda" else None
        self.losses = Losses(self.model, self.tables, PROMPT_TOKENS + self.tables.longest, 600 if toy else 16_384, pool)
        hosts = {grammar.host for grammar in grammars}
        asked = [write_prompt("edits", h, {"homo_ev": -0.888, "lumo_ev": -0.888}, (CROWDED,)) for h in hosts]
        width = max(len(self.tokenizer(text).input_ids) for text in asked)
        self.sampler = Sampler(self.model, self.tables, self.tokenizer, 16 if toy else 4096, width, pool)
        self.optimizer = torch.optim.AdamW(self.model.trained, lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.98))

    def update(self, rate: float) -> None:
        """An optimizer step on the gradients at hand, which are clipped before and zero after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self.model.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def state(self) -> list[torch.Tensor]:
        """A copy of the weights in training."""
        return [weight.detach().clone() for weight in self.model.trained]

    @torch.no_grad()
    def restore(self, state: Sequence[torch.Tensor]) -> None:
        """Put back what `state` gave."""
        for weight, value in zip(self.model.trained, state, strict=True):
            weight.copy_(value)


@dataclass(frozen=True)
class Wish:
    """HOMO and LUMO wanted in one host, in eV."""

    host: int
    cell: str
    homo: float
    lumo: float


class Bench:
    """Draws proposals for wishes and judges them."""

    def __init__(self, hosts: Sequence[Host], grammars: dict[tuple[int, str], int], learner: Learner) -> None:
        self.hosts, self.grammars, self.learner = hosts, grammars, learner

    def sample(self, wishes: Sequence[Wish], n: int, temperature: float, seed: int) -> tuple[list[Wish], Any]:
        """`n` proposals for each wish, one wish after the other."""
        asked = [wish for wish in wishes for _ in range(n)]
        prompts = self.learner.tokenizer([self.text(wish) for wish in asked]).input_ids
        kinds = [self.grammars[wish.host, wish.cell] for wish in asked]
        found = self.learner.sampler.sample(prompts, kinds, temperature, seed)
        return asked, found

    def text(self, wish: Wish) -> str:
        return write_prompt("edits", self.hosts[wish.host], {"homo_ev": wish.homo, "lumo_ev": wish.lumo}, (wish.cell,))

    def outputs(
        self, judge: Network, hosts: Sequence[int], edits: Sequence[Sequence[Edit]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """HOMO and LUMO by a judge and the spread of its members, each of shape (n, 2)."""
        values, spread = np.full((len(edits), 2), np.nan), np.zeros((len(edits), 2))
        numbers = np.asarray(hosts)
        for host in np.unique(numbers):
            rows = np.flatnonzero(numbers == host)
            outputs = judge.outputs(judge.rows(self.hosts[host], [edits[k] for k in rows]), 2048)
            mean = outputs.mean(axis=0)
            homo, lumo = outputs[..., 0:2].max(-1), (outputs[..., 0:2] + outputs[..., 2:4]).min(-1)
            values[rows, 0] = mean[:, 0:2].max(-1)
            values[rows, 1] = (mean[:, 0:2] + mean[:, 2:4]).min(-1)
            spread[rows] = np.stack([homo.std(axis=0), lumo.std(axis=0)], axis=1)
        return values, spread


def distances(wishes: Sequence[Wish], values: np.ndarray) -> np.ndarray:
    """|HOMO - wanted| + |LUMO - wanted| in eV, shape (n,)."""
    wanted = np.array([(w.homo, w.lumo) for w in wishes])
    return np.asarray(np.abs(values - wanted).sum(axis=1))


def rewards(wishes: Sequence[Wish], found: Any, values: np.ndarray, spread: np.ndarray, n: int) -> np.ndarray:
    """Advantage of each proposal within its wish: nearer is better, on a logarithmic scale, and repeats count less."""
    score = -np.log(distances(wishes, values) + 0.5 * spread.sum(axis=1) + 0.01)
    for first in range(0, len(wishes), n):
        seen: set[Any] = set()
        for k in range(first, first + n):
            score[k] -= 0.7 * (found.edits[k] in seen)
            seen.add(found.edits[k])
    groups = score.reshape(-1, n)
    return np.asarray(((groups - groups.mean(1, keepdims=True)) / (groups.std(1, keepdims=True) + 0.1)).reshape(-1))


def main(
    kit: KitOption,
    base: BaseOption,
    output: OutputOption,
    seconds: SecondsOption = 230.0,
    toy: ToyOption = False,
    networks: Annotated[
        Path | None, typer.Option(help="Folder with both judges; by default beside the output.")
    ] = None,
    rank: Annotated[int, typer.Option(help="Of the updates.")] = 16,
) -> None:
    """Train, and measure on the test part."""
    start = time.monotonic()
    networks = networks or output.parent / "networks"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    output.mkdir(parents=True, exist_ok=True)
    log: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU", "rank": rank}

    def left() -> float:
        return seconds - (time.monotonic() - start)

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", flush=True)

    rows, geometries, arrays, sets = read(kit / "networks", device)
    hosts = [g.host for g in geometries.hosts]
    judge_a, judge_b = (Network.load(networks / f"judge-{name}.safetensors", device) for name in "ab")
    split, extra = arrays["split"], arrays["extra"]
    labelled = np.column_stack([extra, rows.targets[:, 4:6]])
    sizes = rows.sizes
    limits = {
        h: (int(sizes[(rows.hosts == h) & (sizes > FEW)].min()), int(sizes[rows.hosts == h].max()))
        for h in range(len(hosts))
    }
    limits = {h: (min(low, 4), high) for h, (low, high) in limits.items()}
    names = [tuple(sorted(h.rules)) for h in hosts]

    def edits_of(row: int) -> tuple[Edit, ...]:
        rules = names[rows.hosts[row]]
        pairs = zip(rows.sites[row, : sizes[row]].tolist(), rows.kinds[row, : sizes[row]].tolist(), strict=True)
        return tuple(sorted((site, rules[kind].replacement) for site, kind in pairs))

    grammars: dict[tuple[int, str], int] = {}
    compiled: list[EditsGrammar] = []
    for h, host in enumerate(hosts):
        low = 3 if h >= 2 else 4
        for cell, (least, most) in ((CROWDED, (low, limits[h][1])), (DILUTE, (1, FEW))):
            grammars[h, cell] = len(compiled)
            compiled.append(EditsGrammar(host, most, least, host.allowed))
    learner = Learner(base, rank, device, toy, compiled)
    say(f"models in memory, {sum(p.numel() for p in learner.model.trained):,} trained weights")

    # Records: random cells valued by judge A, and labelled ones of the training part.
    parts: list[tuple[Cells, np.ndarray]] = []
    n_random = 40 if toy else 40_000
    train = split == 0
    for h, host in enumerate(hosts):
        mine = np.flatnonzero(train & (rows.hosts == h) & (sizes > FEW if h < 2 else sizes > 0))
        counts = np.zeros((len(mine), len(names[h])), dtype=int)
        for place, row in enumerate(mine):
            np.add.at(counts[place], rows.kinds[row, : sizes[row]], 1)
        edits = draw(host, counts, rng, n_random, 3 if h >= 2 else 4, limits[h][1])
        found = judge_a.score(host, edits, 2048)
        values = np.column_stack([found[name] for name in ASKED])
        cells = np.histogram2d(values[:, 0], values[:, 1], bins=24)
        at = [
            np.clip(np.searchsorted(edge, v, "right") - 1, 0, 23)
            for edge, v in zip(cells[1:], values.T[:2], strict=True)
        ]
        rare = 1 / np.sqrt(cells[0][at[0], at[1]])
        parts.append((Cells(h, edits, values), 0.62 / len(hosts) * rare / rare.sum()))
        parts.append(
            (Cells(h, [edits_of(r) for r in mine], labelled[mine]), np.full(len(mine), 0.08 / len(hosts) / len(mine)))
        )
        if h < 2:
            low_rows = np.flatnonzero(train & (rows.hosts == h) & (sizes <= FEW))
            parts.append(
                (
                    Cells(h, [edits_of(r) for r in low_rows], labelled[low_rows]),
                    np.full(len(low_rows), 0.15 / len(low_rows)),
                )
            )
    records = Records(parts, hosts, learner.tokenizer, grammars)
    say(f"{len(records.items):,} cells")

    bench = Bench(hosts, grammars, learner)

    def wishes_of(part: int, per_set: int, seed: int) -> list[Wish]:
        """Levels of labelled cells, `per_set` of each set."""
        chooser, found = np.random.default_rng(seed), []
        for group in range(len(sets)):
            mine = np.flatnonzero((split == part) & (rows.groups == group) & ~np.isnan(extra[:, :2]).any(axis=1))
            for row in chooser.choice(mine, min(per_set, len(mine)), replace=False):
                cell = DILUTE if rows.groups[row] < 2 else CROWDED
                found.append(Wish(int(rows.hosts[row]), cell, *(float(v) for v in np.round(extra[row, :2], 3))))
        return found

    def measure(wishes: Sequence[Wish], n: int, seed: int, temperature: float = 0.7) -> dict[str, dict[str, float]]:
        asked, found = bench.sample(wishes, n, temperature, seed)
        by = {
            name: bench.outputs(judge, [w.host for w in asked], found.edits)[0]
            for name, judge in (("a", judge_a), ("b", judge_b))
        }
        off = {name: 1e3 * distances(asked, values) for name, values in by.items()}
        result = {}
        for key in dict.fromkeys((w.host, w.cell) for w in asked):
            rows_ = np.array([(w.host, w.cell) == key for w in asked])
            first = off["a"][rows_].reshape(-1, n).argmin(axis=1)
            result[f"{hosts[key[0]].name} {key[1]}"] = {
                "single_a": float(np.median(off["a"][rows_])),
                "single_b": float(np.median(off["b"][rows_])),
                "first_a": float(np.median(off["a"][rows_].reshape(-1, n).min(axis=1))),
                "first_b": float(np.median(off["b"][rows_].reshape(-1, n)[np.arange(len(first)), first])),
                "distinct": len({(k // n, e) for k, e in enumerate(found.edits) if rows_[k]}) / int(rows_.sum()),
            }
        return result

    def line(figures: dict[str, dict[str, float]]) -> str:
        return "; ".join(f"{k} {v['single_b']:.0f}/{v['first_b']:.0f}" for k, v in figures.items())

    validation = wishes_of(1, 2 if toy else 12, 1)
    test = wishes_of(2, 2 if toy else 20, 2)

    # Random structures for the same wishes: single, and the best of 1,000 by A.
    random_figures: dict[str, dict[str, float]] = {}
    for h in range(len(hosts)):
        wanted = [w for w in test if w.host == h and w.cell == CROWDED]
        pool = next(c for c, _ in parts if c.host == h)
        chosen = rng.choice(len(pool.edits), min(1000, len(pool.edits)), replace=False)
        edits = [pool.edits[k] for k in chosen]
        a, b = (bench.outputs(judge, [h] * len(edits), edits)[0] for judge in (judge_a, judge_b))
        off_a, off_b = (1e3 * np.stack([distances([w] * len(edits), v) for w in wanted]) for v in (a, b))
        best = off_a.argmin(axis=1)
        random_figures[f"{hosts[h].name} {CROWDED}"] = {
            "single_a": float(np.median(off_a)), "single_b": float(np.median(off_b)),
            "best1000_a": float(np.median(off_a.min(axis=1))),
            "best1000_b": float(np.median(off_b[np.arange(len(best)), best])),
        }  # fmt: skip
    log["random"] = random_figures
    say(
        "random, single and best of 1,000 by B: "
        + "; ".join(f"{k} {v['single_b']:.0f}/{v['best1000_b']:.0f}" for k, v in random_figures.items())
    )

    # Part one: records.
    size, reserve = (8, 0.0) if toy else (512, min(24.0, 0.12 * seconds))
    until = time.monotonic() + (0.35 * left() if toy else 0.55 * (left() - reserve))
    began, step, seen, losses = time.monotonic(), 0, 0, []
    while time.monotonic() < until and not (toy and step >= 2):
        share = (time.monotonic() - began) / (until - began)
        prompts, kinds, completions = records.batch(size, rng)
        tokens = sum(map(len, completions))
        loss = -learner.losses.backward(prompts, kinds, completions, np.full(size, 1 / tokens)).sum() / tokens
        learner.update(
            LEARNING_RATE * min(1.0, (step + 1) / 30) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
        )
        step, seen = step + 1, seen + size
        losses.append(loss)
        if step % 50 == 0:
            say(f"records: step {step}, {seen:,} seen, {float(torch.stack(losses[-50:]).mean()):.4f} nats a token")
    log["records"] = {
        "steps": step,
        "seen": seen,
        "seconds": round(time.monotonic() - began, 1),
        "loss": float(torch.stack(losses[-50:]).mean()),
    }
    figures = measure(validation, 2 if toy else 8, 11)
    log["after_records"] = {"validation": figures}
    say("after the records, validation, single/first by B: " + line(figures))

    def worth(found: dict[str, dict[str, float]]) -> float:
        return float(np.mean([math.log(v["single_b"]) for v in found.values()]))

    best_worth, best_state = worth(figures), learner.state()
    learner.model.save(
        output / "adapter", {"learning_rate": LEARNING_RATE, "batch_size": size, "steps": step, "records_seen": seen}
    )
    (output / "crowded.json").write_text(json.dumps(log, indent=1) + "\n")

    # Part two: own proposals, judged by A.
    per_host, n, anchors = (1, 2, 4) if toy else (32, 16, 160)
    keys = [(h, CROWDED) for h in range(len(hosts))] + [(h, DILUTE) for h in range(2)]
    pools = {}
    for key in keys:
        mine = np.flatnonzero(
            train
            & (rows.hosts == key[0])
            & ((sizes <= FEW) == (key[1] == DILUTE) if key[0] < 2 else True)
            & ~np.isnan(extra[:, :2]).any(axis=1)
        )
        random_values = next(c for c, _ in parts if c.host == key[0]).values[:, :2]
        pools[key] = (extra[mine, :2], random_values if key[1] == CROWDED else extra[mine, :2])
    learner.optimizer.state.clear()
    began, rounds, history = time.monotonic(), 0, []
    length = left() - reserve
    while left() > reserve and not (toy and rounds >= 2):
        share = (time.monotonic() - began) / max(length, 1e-6)
        wishes = []
        for key in keys:
            for k in range(per_host):
                pool = pools[key][k % 2]
                homo, lumo = pool[rng.integers(len(pool))] + rng.normal(0, 0.02, 2)
                wishes.append(Wish(*key, round(float(homo), 3), round(float(lumo), 3)))
        asked, found = bench.sample(wishes, n, 1.0, 1000 + rounds)
        values, spread = bench.outputs(judge_a, [w.host for w in asked], found.edits)
        advantage = rewards(asked, found, values, spread, n)
        texts = learner.tokenizer([bench.text(w) for w in asked]).input_ids
        completions = [[t for t in row if t != PAD] for row in found.tokens.tolist()]
        order = rng.permutation(len(asked))
        for half in np.array_split(order, 4):
            half = half[np.argsort([len(completions[k]) for k in half])]
            learner.losses.backward(
                [texts[k] for k in half], [grammars[asked[k].host, asked[k].cell] for k in half],
                [completions[k] for k in half], advantage[half] / len(half) / 40,
            )  # fmt: skip
            anchor = records.batch(anchors, rng)
            learner.losses.backward(*anchor, np.full(len(anchor[0]), 0.3 / sum(map(len, anchor[2]))))
            learner.update(ROUND_RATE * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))))
        off = 1e3 * distances(asked, values)
        rounds += 1
        by_key = [float(np.median(off[np.array([(w.host, w.cell) == key for w in asked])])) for key in keys]
        history.append(by_key)
        if rounds % 5 == 0:
            say(f"round {rounds}: median by A " + " ".join(f"{v:.0f}" for v in np.mean(history[-5:], axis=0)))
        if rounds % 10 == 0 or (toy and rounds == 2):
            figures = measure(validation, 2 if toy else 8, 11)
            say(f"round {rounds}, validation, single/first by B: " + line(figures))
            if worth(figures) < best_worth:
                best_worth, best_state = worth(figures), learner.state()
    figures = measure(validation, 2 if toy else 8, 11)
    if worth(figures) < best_worth:
        best_state = learner.state()
    log["rounds"] = {
        "rounds": rounds,
        "proposals": rounds * len(keys) * per_host * n,
        "seconds": round(time.monotonic() - began, 1),
        "history": history,
    }
    learner.restore(best_state)
    about = {
        "learning_rate": LEARNING_RATE, "batch_size": size, "seed": 0, "command": "python benchmarks/gpu/crowded.py",
        "device": log["device"], "steps": step + 4 * rounds, "best_step": step + 4 * rounds,
        "records_seen": seen + 4 * rounds * anchors,
    }  # fmt: skip
    learner.model.save(output / "adapter", about)
    log["validation"] = measure(validation, 2 if toy else 8, 11)
    log["test"] = measure(test, 2 if toy else 16, 12)
    say("test, single/first of 16 by B: " + line(log["test"]))
    (output / "crowded.json").write_text(json.dumps(log, indent=1) + "\n")


if __name__ == "__main__":
    run_step(main)
