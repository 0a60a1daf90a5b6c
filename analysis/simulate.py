"""Made-up studies with a known answer: for tests, calibration, and trying the analysis without training anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Truth:
    """The law that made-up losses follow.

    L = `floor` + `scale`·(N·m/10⁴)^(−`exponent`) + `tuning`·(ln E/E*)², nats, with E* = `best_epochs` and the
    multiplier m(ρ, α) = 1 + (`gain` − 1)·h(ρ)·(1 + 0.3·(1 − α)), where h rises from 0 at ρ = 0 to 1 at `best_replay`
    and falls beyond. `seed_effect` shifts all runs of a seed, `noise` each run, `evaluation_noise` each half of the
    validation set (standard deviations, nats).
    """

    floor: float = 3.0
    scale: float = 0.6
    exponent: float = 0.3
    tuning: float = 0.08
    best_epochs: float = 8.0
    gain: float = 2.0
    best_replay: float = 0.75
    seed_effect: float = 0.02
    noise: float = 0.005
    evaluation_noise: float = 0.002

    def multiplier(self, replay_fraction: float, stage2_allocation: float = 1.0) -> float:
        """The true effective data multiplier over ρ = 0, α = 1."""
        length, best = -np.log1p(-replay_fraction), -np.log1p(-self.best_replay)
        hump = 1 - (1 - length / best) ** 2
        early = 1 + 0.3 * (1 - stage2_allocation)
        return float(max(1 + (self.gain - 1) * hump * early, 0.2))

    def loss(self, tokens: float, epochs: float, replay_fraction: float, stage2_allocation: float = 1.0) -> float:
        """The expected target loss, nats."""
        effective = tokens * self.multiplier(replay_fraction, stage2_allocation)
        penalty = self.tuning * np.log(epochs / self.best_epochs) ** 2
        return float(self.floor + self.scale * (effective / 1e4) ** -self.exponent + penalty)


def simulate_runs(
    truth: Truth | None = None,
    *,
    target_tokens: Sequence[float] = (4096, 8192, 16384, 32768, 65536),
    replay_fractions: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.875),
    replay_tokens: Sequence[float] | None = None,
    epochs: Sequence[float] = (4, 8, 16),
    allocations: Sequence[float] = (1.0,),
    seeds: int = 2,
    seed: int = 0,
    **columns: Any,
) -> pd.DataFrame:
    """A run table of the grid; `replay_tokens`, the sizes at which ρ > 0 is run (default: all); `columns` are set as
    given (target="maths", parameters=1e6, …)."""
    truth = truth or Truth()
    rng = np.random.default_rng(seed)
    shift = truth.seed_effect * rng.standard_normal(seeds)
    replay_tokens = target_tokens if replay_tokens is None else replay_tokens
    rows = []
    for tokens in target_tokens:
        for rho in replay_fractions:
            for allocation in allocations:
                if rho > 0 and tokens not in replay_tokens:
                    continue
                for epoch in epochs:
                    for s in range(seeds):
                        mean = truth.loss(tokens, epoch, rho, allocation) + shift[s]
                        run = mean + truth.noise * rng.standard_normal()
                        halves = run + truth.evaluation_noise * rng.standard_normal(2)
                        rows.append((tokens, rho, allocation, epoch, s, *halves, run))
    names = ["target_tokens", "replay_fraction", "stage2_allocation", "target_epochs", "order_seed"]
    table = pd.DataFrame(rows, columns=[*names, "target_loss", "target_loss_selection", "run"])
    table = _with_rest(table.drop(columns="run"), seed)
    return table.assign(**columns)


def _with_rest(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 1])
    rho, epochs = table["replay_fraction"], table["target_epochs"]
    defaults: dict[str, Any] = {
        "study": "made_up", "status": "done", "reason": "", "mode": "mid_train", "model": "1m", "parameters": 1e6,
        "target": "maths", "generic": "prose", "total_tokens": 1_048_576.0, "lr_schedule": "wsd-0.1",
        "stage1_lr": 3e-3, "stage2_lr": 3e-3, "weight_decay": 0.1, "init_seed": 0, "steps": 1000,
    }  # fmt: skip
    table = table.assign(**defaults)
    table["subset_seed"] = table["order_seed"]
    table["run_id"] = [f"run-{i:04d}" for i in range(len(table))]
    share = np.minimum(0.9, table["target_tokens"] * epochs / 1_048_576 / (1 - rho))
    table["stage2_step"] = np.floor(1000 * (1 - share)).clip(100, 990)
    table["generic_loss"] = 3.5 + 0.25 * (1 - rho) ** 2 + 0.003 * rng.standard_normal(len(table))
    table["target_train_loss"] = table["target_loss"] - 0.05 * np.log2(1 + epochs) * (1 - 0.6 * rho)
    return table


def simulate_history(runs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """A history for made-up runs: train losses, gradient norm, and observations around the start of stage 2."""
    rng = np.random.default_rng([seed, 2])
    parts = []
    run: Any
    for run in runs.itertuples():
        start, end, rho = float(run.stage2_step), float(run.steps), float(run.replay_fraction)
        steps = np.arange(10, int(end) + 1, 10)
        late = np.clip((steps - start) / (end - start), 0, 1)
        train = 4.5 * np.exp(-steps / 400) + 3.6 - (3.6 - run.target_train_loss) * late
        jump = (steps > start) & (steps <= start + 30)
        series = {
            "train_target_loss": np.where(steps > start, train + 0.03 * rng.standard_normal(len(steps)), np.nan),
            "train_generic_loss": np.where(
                (steps <= start) | (rho > 0), 4.5 * np.exp(-steps / 400) + 3.5 + 0.25 * late * (1 - rho) ** 2, np.nan
            ),
            "gradient_norm": 0.5 + 0.02 * rng.standard_normal(len(steps)) + 1.5 * (1 - rho) * jump,
        }
        parts += [
            pd.DataFrame({"run_id": run.run_id, "step": steps, "metric": metric, "value": values})
            for metric, values in series.items()
        ]
        few = start + max(1.0, np.floor(0.05 * (end - start)))
        middle = np.floor((start + end) / 2)
        at_start, shock = 3.6 + 0.05 * np.log(4e4 / run.target_tokens), 0.15 * (1 - rho)
        observations = [
            (start, "target_loss", at_start), (few, "target_loss", at_start - 0.05 + shock),
            (middle, "target_loss", (at_start + run.target_loss) / 2), (end, "target_loss", run.target_loss),
            (start, "generic_loss", 3.5), (few, "generic_loss", 3.5 + shock), (end, "generic_loss", run.generic_loss),
        ]  # fmt: skip
        observed = pd.DataFrame(observations, columns=["step", "metric", "value"]).assign(run_id=run.run_id)
        parts.append(observed[["run_id", "step", "metric", "value"]])
    return pd.concat(parts, ignore_index=True)
