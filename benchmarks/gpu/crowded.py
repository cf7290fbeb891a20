"""The language model on crowded cells: records without end, then rounds of its own proposals, on one GPU.

    python benchmarks/gpu/crowded.py --kit runs/gpu --base FOLDER -o runs/crowded --networks FOLDER --seconds 230

Values of random structures come from the joint network of one half of the labelled rows (judge A); what is learned
in the rounds is rewarded by A. When to stop, and the figures at the end, are of the network of the other half (B).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from cells import ASKED, Cells, Records, canonical, edits_of, species_of
from kit import BaseOption, Clock, KitOption, OutputOption, SecondsOption, ToyOption, run_step, say, write_json
from learner import ENCODING, Bench, Learner, Wish, distances, rewards
from rows import N_DILUTE_SETS, read

from defectgen.llm.decode.tensor_grammar import PAD
from defectgen.llm.tokens import piece_ids
from defectgen.score.network.ensemble import Network
from defectgen.tasks.defect.composition_grammar import count_piece
from defectgen.tasks.defect.encodings import get_encoding

SHIPPED = Path(__file__).parents[2] / "defectgen" / "models" / "crowded-smollm2"
LEARNING_RATE, ROUND_RATE = 1.5e-3, 4e-4
SITES_WEIGHT = 0.25
"""Of a token of a site in the loss of records: sites are many and nearly free once the composition is chosen."""
LOOKS = (0.2, 0.5)
"""Shares of the time for the records after which the model is measured."""
LABELLED_SHARE = 0.1
"""Of the records: labelled cells; the others are random ones."""
RECORDS_SHARE = 0.55
"""Of the time, for the records; the rest is for the rounds."""

Figures = dict[str, dict[str, float]]


class Crowded:
    """One run."""

    def __init__(self, kit: Path, base: Path, networks: Path, rank: int, toy: bool, clock: Clock) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.clock, self.toy, self.rng = clock, toy, np.random.default_rng(0)
        self.rows, geometries, arrays, self.sets = read(kit / "networks", device)
        self.hosts = [geometry.host for geometry in geometries.hosts]
        self.rules = [tuple(sorted(host.rules)) for host in self.hosts]
        self.judges = {name: Network.load(networks / f"judge-{name}.safetensors", device) for name in "ab"}
        self.random_cells = dict(np.load(kit / "networks" / "random.npz"))
        self.split, self.levels = arrays["split"], arrays["extra"]
        self.sizes = self.rows.sizes
        self.limits = [self._limits(h) for h in range(len(self.hosts))]
        encoding = get_encoding(ENCODING)
        compiled = [
            encoding.grammar(host, most, min_defects=least)
            for host, (least, most) in zip(self.hosts, self.limits, strict=True)
        ]
        self.learner = Learner(base, rank, device, toy, compiled)
        self.bench = Bench(self.hosts, self.learner)
        self.reserve = 0.0 if toy else min(15.0, 0.12 * clock.seconds)
        self.pools: dict[int, Cells] = {}
        self.log: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else "CPU", "rank": rank}

    def _rows_of(self, host: int, part: int) -> np.ndarray:
        """Labelled crowded rows of one host and part of the split."""
        return np.flatnonzero((self.rows.hosts == host) & (self.split == part) & (self.rows.groups >= N_DILUTE_SETS))

    def _limits(self, host: int) -> tuple[int, int]:
        """Fewest and most defects of the host's crowded training cells."""
        sizes = self.sizes[self._rows_of(host, 0)]
        return int(sizes.min()), int(sizes.max())

    def _labelled(self, host: int, rows: np.ndarray) -> Cells:
        names = species_of(self.hosts[host])
        code_of = np.array([names.index(rule.replacement) for rule in self.rules[host]])
        kinds = self.rows.kinds[rows]
        found = canonical(self.hosts[host], self.rows.sites[rows], np.where(kinds >= 0, code_of[kinds], -1))
        values = np.column_stack([self.levels, self.rows.targets[:, 4:6]])[rows]
        return Cells(host, edits_of(self.hosts[host], *found), values)

    def records(self) -> Records:
        """Random cells valued by judge A, rare levels more often, and labelled cells of the training part."""
        parts: list[tuple[Cells, np.ndarray]] = []
        for h, host in enumerate(self.hosts):
            mine = self._rows_of(h, 0)
            arrays = (self.random_cells[f"host{h}_{name}"][: 40 if self.toy else None] for name in ("sites", "codes"))
            edits = edits_of(host, *arrays)
            found = self.judges["a"].score(host, edits, 2048)
            self.pools[h] = Cells(h, edits, np.column_stack([found[name] for name in ASKED]))
            rare = _rarity(self.pools[h].values[:, :2])
            parts.append((self.pools[h], (1 - LABELLED_SHARE) * rare))
            parts.append((self._labelled(h, mine), np.full(len(mine), LABELLED_SHARE / len(mine))))
        return Records(parts, self.hosts, self.learner.tokenizer)

    def wishes(self, part: int, per_set: int, seed: int) -> list[Wish]:
        """Levels of labelled cells of a part of the split, `per_set` of each set."""
        chooser, found = np.random.default_rng(seed), []
        known = ~np.isnan(self.levels[:, :2]).any(axis=1)
        for h in range(len(self.hosts)):
            mine = self._rows_of(h, part)
            mine = mine[known[mine]]
            chosen = chooser.choice(mine, min(per_set, len(mine)), replace=False)
            found += [Wish(h, *np.round(self.levels[row, :2], 3).tolist()) for row in chosen]
        return found

    def measure(self, wishes: Sequence[Wish], n: int, seed: int, temperature: float = 0.7) -> Figures:
        """Median distances in meV by both judges: of single proposals, and of the first of `n` by A."""
        asked, found = self.bench.sample(wishes, n, temperature, seed)
        numbers = [w.host for w in asked]
        off = {
            name: 1e3 * distances(asked, self.bench.outputs(judge, numbers, found.edits)[0])
            for name, judge in self.judges.items()
        }
        result = {}
        for host in dict.fromkeys(numbers):
            mine = np.array(numbers) == host
            by = {name: values[mine].reshape(-1, n) for name, values in off.items()}
            first = by["a"].argmin(axis=1)
            edits = {(k // n, e) for k, e in enumerate(found.edits) if mine[k]}
            result[self.hosts[host].name] = {
                **{f"single_{name}": float(np.median(values)) for name, values in by.items()},
                **{f"first_{name}": float(np.median(v[np.arange(len(first)), first])) for name, v in by.items()},
                "distinct": len(edits) / int(mine.sum()),
            }
        return result

    def random(self, wishes: Sequence[Wish]) -> Figures:
        """The same of random cells: single, and the best of 1,000 by A."""
        result = {}
        for h, pool in self.pools.items():
            wanted = [w for w in wishes if w.host == h]
            chosen = self.rng.choice(len(pool.edits), min(1000, len(pool.edits)), replace=False)
            edits = [pool.edits[k] for k in chosen]
            by = {n: self.bench.outputs(judge, [h] * len(edits), edits)[0] for n, judge in self.judges.items()}
            off = {n: 1e3 * np.stack([distances([w] * len(edits), v) for w in wanted]) for n, v in by.items()}
            best = off["a"].argmin(axis=1)
            result[self.hosts[h].name] = {
                **{f"single_{name}": float(np.median(values)) for name, values in off.items()},
                **{f"first_{name}": float(np.median(v[np.arange(len(best)), best])) for name, v in off.items()},
            }
        return result

    def token_weights(self, kinds: Sequence[int]) -> np.ndarray:
        """Of the tokens of a composition 1, of those behind it `SITES_WEIGHT`, shape (rows, longest)."""
        tables = self.learner.tables
        count_tokens = len(piece_ids(self.learner.tokenizer, count_piece(0)))
        counts = np.array([count_tokens * len(tables.grammars[kind].rules) for kind in kinds])
        return np.where(np.arange(tables.longest) < counts[:, None], 1.0, SITES_WEIGHT)

    def learn_records(self, records: Records, size: int, wishes: Sequence[Wish], n: int) -> int:
        """Steps on records until their share of the time is up, measured on wishes on the way; the number of steps."""
        began = self.clock.used
        until = began + RECORDS_SHARE * (self.clock.left - self.reserve)
        step, losses, looks, rng = 0, [], {}, np.random.default_rng(3)
        maker = ThreadPoolExecutor(1)
        following = maker.submit(records.batch, size, rng)
        while self.clock.used < until and not (self.toy and step >= 2):
            prompts, kinds, completions = following.result()
            following = maker.submit(records.batch, size, rng)
            tokens = sum(map(len, completions))
            weight = self.token_weights(kinds) / tokens
            nats = self.learner.losses.backward(prompts, kinds, completions, weight)
            warm = min(1.0, (step + 1) / 30)
            self.learner.update(LEARNING_RATE * warm * _falling((self.clock.used - began) / (until - began)))
            losses.append(-nats.sum() / tokens)
            step += 1
            if step % 100 == 0:
                mean = float(torch.stack(losses[-100:]).mean())
                say(self.clock, f"records: step {step}, {step * size:,} seen, {mean:.4f} nats a token")
            if len(looks) < len(LOOKS) and self.clock.used - began > LOOKS[len(looks)] * (until - began):
                looks[step * size] = self.measure(wishes, n, 11)
                say(self.clock, f"{step * size:,} records, validation, single/first by B: {_line(looks[step * size])}")
        maker.shutdown()
        mean = float(torch.stack(losses[-50:]).mean())
        self.log["records"] = {"steps": step, "seen": step * size, "seconds": self.clock.used - began, "loss": mean}
        self.log["looks"] = looks
        return step

    def draw_wishes(self, per_host: int) -> list[Wish]:
        """Levels near those of labelled cells of the training part and of random ones."""
        found = []
        for h in range(len(self.hosts)):
            labelled = self.levels[self._rows_of(h, 0), :2]
            labelled = labelled[~np.isnan(labelled).any(axis=1)]
            pools = (labelled, self.pools[h].values[:, :2])
            for k in range(per_host):
                pool = pools[k % 2]
                homo, lumo = pool[self.rng.integers(len(pool))] + self.rng.normal(0, 0.02, 2)
                found.append(Wish(h, round(float(homo), 3), round(float(lumo), 3)))
        return found

    def round(self, records: Records, number: int, rate: float) -> list[float]:
        """Own proposals, judged by A, learned from in four steps; median distance by A in meV for each host."""
        per_host, n, anchors = (1, 2, 4) if self.toy else (40, 16, 64)
        asked, found = self.bench.sample(self.draw_wishes(per_host), n, 1.0, 1000 + number)
        values, spread = self.bench.outputs(self.judges["a"], [w.host for w in asked], found.edits)
        advantage = rewards(asked, found, values, spread, n)
        prompts = self.learner.tokenizer([self.bench.text(w) for w in asked]).input_ids
        kinds = [w.host for w in asked]
        completions = [[t for t in row if t != PAD] for row in found.tokens.tolist()]
        for part in np.array_split(self.rng.permutation(len(asked)), 4):
            chosen = [[values[k] for k in part] for values in (prompts, kinds, completions)]
            self.learner.losses.backward(*chosen, advantage[part] / len(part) / 40)
            anchor = records.batch(anchors, self.rng)
            weight = 0.3 * self.token_weights(anchor[1]) / sum(map(len, anchor[2]))
            self.learner.losses.backward(*anchor, weight)
            self.learner.update(rate)
        off = 1e3 * distances(asked, values)
        return [float(np.median(off[np.array(kinds) == h])) for h in range(len(self.hosts))]


def _rarity(values: np.ndarray) -> np.ndarray:
    """Weights that fall with the square root of how often levels like these occur, shape (n,), sum 1."""
    counts, *edges = np.histogram2d(values[:, 0], values[:, 1], bins=24)
    at = [np.clip(np.searchsorted(e, v, "right") - 1, 0, 23) for e, v in zip(edges, values.T, strict=True)]
    rare = 1 / np.sqrt(counts[at[0], at[1]])
    return np.asarray(rare / rare.sum())


def _falling(share: float) -> float:
    """A cosine from 1 to 0.1."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(share, 1.0)))


def _worth(found: Figures) -> float:
    """What is kept: the least mean logarithm of single distances by B."""
    return float(np.mean([math.log(v["single_b"]) for v in found.values()]))


def _line(figures: Figures) -> str:
    return "; ".join(f"{key} {v['single_b']:.0f}/{v['first_b']:.0f}" for key, v in figures.items())


def main(
    kit: KitOption,
    base: BaseOption,
    output: OutputOption,
    seconds: SecondsOption = 230.0,
    toy: ToyOption = False,
    networks: Annotated[
        Path | None, typer.Option(help="Folder of both judges [beside the output, or in the kit].")
    ] = None,
    rank: Annotated[int, typer.Option(help="Of the updates.")] = 16,
    initial: Annotated[Path | None, typer.Option(help="Adapter to go on from.")] = SHIPPED,
) -> None:
    """Train, and measure on the test part."""
    clock = Clock(seconds)
    torch.manual_seed(0)
    made, given = output.parent / "networks", kit / "networks"
    run = Crowded(kit, base, networks or (made if made.is_dir() else given), rank, toy, clock)
    learner, log, size, n = run.learner, run.log, 8 if toy else 256, 2 if toy else 8
    if initial is not None and not toy:
        learner.model.load(initial)
    say(clock, f"models in memory, {sum(p.numel() for p in learner.model.trained):,} trained weights")
    records = run.records()
    validation, test = run.wishes(1, 2 if toy else 12, 1), run.wishes(2, 2 if toy else 20, 2)
    log["random"] = run.random(test)
    say(clock, f"{len(records.items):,} cells; random, single and best of 1,000 by B: {_line(log['random'])}")
    steps = run.learn_records(records, size, validation, n)
    figures = log["after_records"] = run.measure(validation, n, 11)
    say(clock, "after the records, validation, single/first by B: " + _line(figures))
    best, state = _worth(figures), learner.state()
    about = {"learning_rate": LEARNING_RATE, "batch_size": size, "seed": 0, "device": log["device"],
             "command": "python benchmarks/gpu/crowded.py", "initial": initial.name if initial and not toy else None,
             }  # fmt: skip
    learner.model.save(output / "adapter", about | {"steps": steps, "records_seen": steps * size})
    write_json(output / "crowded.json", log)
    learner.optimizer.state.clear()
    began, history = clock.used, []
    while clock.left > run.reserve and not (toy and len(history) >= 2):
        rate = ROUND_RATE * _falling((clock.used - began) / (seconds - run.reserve - began))
        history.append(run.round(records, len(history), rate))
        if len(history) % 8 == 0 or toy:
            figures = run.measure(validation, n, 11)
            say(clock, f"round {len(history)}, median by A {[round(v) for v in history[-1]]}, B: {_line(figures)}")
            if _worth(figures) < best:
                best, state = _worth(figures), learner.state()
    log["last"] = run.measure(validation, n, 11)
    if _worth(log["last"]) >= best:
        learner.restore(state)
    log["rounds"] = {"rounds": len(history), "seconds": clock.used - began, "history": history}
    learner.model.save(output / "adapter", about | {"steps": steps + 4 * len(history), "records_seen": steps * size})
    log["test"] = run.measure(test, 2 if toy else 16, 12)
    say(clock, "test, single/first of 16 by B: " + _line(log["test"]))
    write_json(output / "crowded.json", log)


if __name__ == "__main__":
    run_step(main)
