"""Gradient-boosted trees: training, and files that hold nothing but the trees."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from defectgen.errors import DefectgenError

if TYPE_CHECKING:
    from catboost import CatBoostRegressor


@dataclass(frozen=True)
class TreeSettings:
    """How many trees of which depth, how fast they learn, and the share of columns that a split sees."""

    iterations: int
    depth: int
    learning_rate: float
    column_share: float = 1.0


def fit_trees(
    columns: NDArray[np.float64], target: NDArray[np.float64], settings: TreeSettings, seed: int, threads: int
) -> CatBoostRegressor:
    """Trees fitted to a target.

    The result depends on the seed and, in the last digits, on the number of threads.
    """
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(
        iterations=settings.iterations,
        depth=settings.depth,
        learning_rate=settings.learning_rate,
        rsm=settings.column_share,
        l2_leaf_reg=1.0,
        random_strength=0.1,  # labels are nearly free of noise
        loss_function="RMSE",
        random_seed=seed,
        thread_count=threads,
        allow_writing_files=False,
        verbose=False,
    )
    return model.fit(columns, target)


def save_trees(model: CatBoostRegressor, path: Path) -> None:
    """Write a .cbm file without the weights of the leaves, history and dates, which predictions do not need.

    It is half as large as CatBoost's own, and the same model gives the same bytes.

    Raises:
        DefectgenError: it cannot be written.
    """
    from catboost import CatBoostError

    try:
        _save_bare(model, path)
    except CatBoostError as error:
        reason = str(error).splitlines()[0]
        raise DefectgenError(f"{path.name} cannot be written ({reason:.200}).", "Free some space.") from error


def _save_bare(model: CatBoostRegressor, path: Path) -> None:
    from catboost import CatBoostRegressor

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "model.json"
        model.save_model(str(text), format="json")
        content = json.loads(text.read_text(encoding="utf-8"))
        content["model_info"] = {"params": content["model_info"]["params"]}
        for tree in content["oblivious_trees"]:
            tree.pop("leaf_weights", None)
        text.write_text(json.dumps(content), encoding="utf-8")
        bare = CatBoostRegressor()
        bare.load_model(str(text), format="json")
        bare.save_model(str(path), format="cbm")


def load_trees(path: Path) -> CatBoostRegressor:
    """Read a .cbm file.

    Raises:
        DefectgenError: missing or damaged file.
    """
    from catboost import CatBoostError, CatBoostRegressor

    model = CatBoostRegressor()
    try:
        model.load_model(str(path), format="cbm")
    except CatBoostError as error:
        reason = str(error).splitlines()[0]
        raise DefectgenError(f"{path} is missing or is no CatBoost model ({reason}).") from error
    return model


def predict_trees(model: CatBoostRegressor, columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of n rows, shape (n,)."""
    if not len(columns):
        return np.zeros(0)
    return np.asarray(model.predict(columns, thread_count=1), dtype=np.float64)
