"""What docs/decisions.md measured: parts of this package beside well-kept libraries that could take their place.

python benchmarks/libraries.py gp           # scikit-learn; GPyTorch after pip install gpytorch
python benchmarks/libraries.py downloads    # pip install pooch
python benchmarks/libraries.py plots        # pip install plotly altair vl-convert-python
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

MB = 1_000_000


def gp(n: int = 360, m: int = 24, seed: int = 0) -> None:
    """Weights of a sum of kernels by marginal likelihood, this package against others on the same kernels."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

    from defectgen.score.surrogate.gaussian_process import find_weights

    rng = np.random.default_rng(seed)
    points = rng.normal(size=(m, n, 4))
    distances = ((points[:, :, None] - points[:, None]) ** 2).sum(-1)
    kernels = np.exp(-0.2 * distances)
    target = sum(
        w * rng.multivariate_normal(np.zeros(n), k + 1e-9 * np.eye(n)) for w, k in zip((1, 0.5), kernels, strict=False)
    )
    target = (target - target.mean()) / target.std() + 0.05 * rng.normal(size=n)

    class Given(Kernel):  # type: ignore[misc]
        """The weighted sum of the kernels; X holds row numbers."""

        def __init__(self, log_weights: Any, noise: float = -4.0) -> None:
            self.log_weights, self.noise = log_weights, noise

        @property
        def hyperparameter_log_weights(self) -> Any:
            return Hyperparameter("log_weights", "numeric", (1e-6, 1e3), len(self.log_weights))

        @property
        def hyperparameter_noise(self) -> Any:
            return Hyperparameter("noise", "numeric", (1e-6, 1e3))

        def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:  # noqa: N803
            rows, columns = X[:, 0].astype(int), (X if Y is None else Y)[:, 0].astype(int)
            part = kernels[:, rows][:, :, columns] * np.reshape(self.log_weights, (-1, 1, 1))
            noise = self.noise * np.eye(len(rows)) if Y is None else 0.0
            total = part.sum(0) + noise
            return (total, np.moveaxis(np.concatenate([part, noise[None]]), 0, -1)) if eval_gradient else total

        def diag(self, X: Any) -> Any:  # noqa: N803
            return kernels[:, X[:, 0].astype(int), X[:, 0].astype(int)].T @ self.log_weights + self.noise

        def is_stationary(self) -> bool:
            return False

    started = time.process_time()
    ours = find_weights(kernels, np.ones((1, n)), np.zeros((n, n)), target)
    middle = time.process_time()
    start = Given(np.full(m, np.exp(-1 - np.log(m))), 0.01)
    theirs = GaussianProcessRegressor(start, alpha=1e-10).fit(np.arange(n)[:, None], target)
    ended = time.process_time()

    def evidence(weights: Any, noise: float) -> float:
        covariance = np.tensordot(weights, kernels, 1) + noise * np.eye(n)
        return float(
            -0.5 * target @ np.linalg.solve(covariance, target)
            - 0.5 * np.linalg.slogdet(covariance)[1]
            - 0.5 * n * np.log(2 * np.pi)
        )

    print(f"here: {middle - started:.2f} s of CPU time, log likelihood {evidence(ours.kernels, ours.noise[0]):.1f}")
    found = theirs.kernel_
    print(f"scikit-learn: {ended - middle:.2f} s of CPU time, {evidence(found.log_weights, found.noise):.1f}")
    if importlib.util.find_spec("gpytorch"):
        started = time.process_time()
        weights, noise, steps = by_gpytorch(kernels, target)
        seconds = time.process_time() - started
        print(f"GPyTorch: {seconds:.2f} s of CPU time, {steps} evaluations, {evidence(weights, noise):.1f}")


def by_gpytorch(kernels: Any, target: Any) -> tuple[Any, float, int]:
    """Weights and noise by the exact marginal likelihood of GPyTorch and the L-BFGS of torch, from the same start."""
    import gpytorch
    import torch

    torch.set_num_threads(1)
    given, y = torch.from_numpy(kernels), torch.from_numpy(target)
    m, n, _ = kernels.shape
    flat, rows = given.reshape(m, -1), torch.arange(n, dtype=torch.float64)[:, None]

    class Sum(gpytorch.kernels.Kernel):  # type: ignore[misc]
        """The weighted sum of the kernels over all rows, which are asked for at once."""

        def __init__(self) -> None:
            super().__init__()
            self.log_weights = torch.nn.Parameter(torch.full((m,), -1 - float(np.log(m)), dtype=torch.float64))

        def forward(self, _x1: Any, _x2: Any, diag: bool = False, **_: Any) -> Any:
            total = (self.log_weights.exp() @ flat).reshape(n, n)
            return total.diagonal() if diag else total

    class Process(gpytorch.models.ExactGP):  # type: ignore[misc]
        """Mean zero."""

        def __init__(self, likelihood: Any) -> None:
            super().__init__(rows, y, likelihood)
            self.kernel = Sum()

        def forward(self, x: Any) -> Any:
            return gpytorch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), self.kernel(x))

    bounds = gpytorch.constraints.GreaterThan(1e-6, transform=torch.exp, inv_transform=torch.log)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=bounds).double()
    likelihood.noise = 0.01
    model = Process(likelihood)
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    model.train()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )
    steps = 0

    def loss() -> Any:
        nonlocal steps
        steps += 1
        optimizer.zero_grad()
        value = -objective(model(rows), y)
        value.backward()
        return value

    optimizer.step(loss)
    return model.kernel.log_weights.exp().detach().numpy(), float(likelihood.noise.detach()), steps


def downloads(size: int = 64 * MB, broken_at: int = 48 * MB) -> None:
    """Bytes that are sent for a file whose first transfer breaks off."""
    import httpx

    from defectgen.data.asset_cards import StoredObject
    from defectgen.data.object_store import Store

    content = np.random.default_rng(0).bytes(size)
    digest = hashlib.md5(content).hexdigest()
    sent, broken = 0, False

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent, broken
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            part = content[start:] if broken else content[start:broken_at]
            broken = True
            self.wfile.write(part)
            sent += len(part)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        with httpx.Client() as client:
            Store(client, url, "").get(StoredObject(path="file", md5=digest, size_bytes=size), Path(folder) / "ours")
        print(f"here: {sent / MB:.0f} MB sent for {size / MB:.0f} MB")
        sent, broken = 0, False
        import pooch

        pooch.create(path=folder, base_url=url, registry={"file": f"md5:{digest}"}, retry_if_failed=3).fetch("file")
        print(f"pooch {pooch.__version__}: {sent / MB:.0f} MB sent")
    server.shutdown()


def plots() -> None:
    """Size of a page with one plot that needs no network."""
    import plotly.graph_objects as go

    page = go.Figure(go.Scatter(x=[0, 1], y=[0, 1])).to_html(include_plotlyjs=True)
    print(json.dumps({"plotly_page_mb": round(len(page.encode()) / MB, 2)}))
    import altair as alt
    import polars as pl

    chart = alt.Chart(pl.DataFrame({"x": [0, 1], "y": [0, 1]})).mark_point().encode(x="x", y="y")
    page = chart.to_html(inline=True)
    print(json.dumps({"altair_page_mb": round(len(page.encode()) / MB, 2)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("gp", "downloads", "plots"))
    {"gp": gp, "downloads": downloads, "plots": plots}[parser.parse_args().what]()
