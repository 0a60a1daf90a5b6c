"""What one optimizer step does: its rates, its resets, its metrics, and where training has diverged."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from replay_sweeps.schedule.behaviour import Behaviour
from replay_sweeps.training.lit_module import NonFiniteLoss, ReplayModule
from tests.fixtures.tiny_training import STAGE2, STEPS, tiny_run


class GivenLosses(nn.Module):
    """A row loss that returns given values."""

    def __init__(self, losses: Sequence[float]) -> None:
        super().__init__()
        self.losses = torch.tensor(losses, requires_grad=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.losses


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))


def module_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, losses: Sequence[float] = (1.0,)
) -> tuple[ReplayModule, torch.optim.Optimizer]:
    """A module outside of a trainer, and its optimizer."""
    run = tiny_run(folder).run
    module = ReplayModule(network(), GivenLosses(losses), run.behaviour, run.config.optimizer, log_every=2)
    optimizer = module.configure_optimizers()
    monkeypatch.setattr(module, "adamw", lambda: optimizer)
    return module, optimizer


def take_step(module: ReplayModule, optimizer: torch.optim.Optimizer) -> None:
    """One optimizer step, so that the optimizer has a state."""
    module.network(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("step", range(STEPS))
def test_a_step_has_the_rate_and_the_decay_of_the_behaviour(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = module_of(tmp_path, monkeypatch)
    module.begin_step(step)
    piece = module.behaviour.piece_at(step)
    matrices, vectors = optimizer.param_groups
    assert matrices["lr"] == vectors["lr"] == piece.rate.at(step)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (piece.weight_decay, 0.0)
    assert piece.weight_decay > 0 and {parameter.dim() for parameter in matrices["params"]} == {2}


def test_the_optimizer_starts_afresh_where_a_piece_says_so_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = module_of(tmp_path, monkeypatch)
    cleared = []
    for step in range(STEPS):
        take_step(module, optimizer)
        module.begin_step(step)
        cleared += [] if optimizer.state else [step]
    assert cleared == [STAGE2]


def test_the_optimizer_goes_on_from_the_state_of_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = module_of(tmp_path, monkeypatch)
    take_step(module, optimizer)
    named = dict(module.network.named_parameters())
    module.optimizer_state = {name: dict(optimizer.state[parameter]) for name, parameter in named.items()}
    resumed = module.configure_optimizers()
    assert module.optimizer_state == {}
    for parameter in named.values():
        for part in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(resumed.state[parameter][part], optimizer.state[parameter][part])


def end_of_step(module: ReplayModule, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A step of one micro-batch of four rows, the first two of them target rows."""
    module.begin_step(step)
    weight, is_target = torch.tensor([0.1, 0.3, 0.4, 0.2]), torch.tensor([True, True, False, False])
    module.training_step({"tokens": torch.zeros(4, 2), "weight": weight, "is_target": is_target}, 0)
    module.configure_gradient_clipping(optimizer)
    module.end_step(step)


def test_metrics_are_means_over_the_learned_tokens_of_each_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = module_of(tmp_path, monkeypatch, [1.0, 2.0, 3.0, 6.0])
    end_of_step(module, optimizer, STAGE2)
    assert module.logged is not None
    assert module.logged["train_target_loss"] == pytest.approx((0.1 * 1 + 0.3 * 2) / 0.4)
    assert module.logged["train_generic_loss"] == pytest.approx((0.4 * 3 + 0.2 * 6) / 0.6)
    assert module.logged["learning_rate"] == module.behaviour.piece_at(STAGE2).rate.at(STAGE2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = module_of(tmp_path, monkeypatch, [1.0, value, 3.0, 6.0])
    with pytest.raises(NonFiniteLoss, match=r"training loss is (nan|inf) at step 2"):
        end_of_step(module, optimizer, 2)


def test_every_nth_step_is_logged_and_the_first_n_of_a_piece(tmp_path: Path) -> None:
    run = tiny_run(tmp_path).run
    first = run.behaviour.pieces[0]
    pieces = (first._replace(stop=10), first._replace(start=10, stop=20, weight_decay=0.5))
    module = ReplayModule(network(), nn.Identity(), Behaviour(pieces), run.config.optimizer, log_every=4)
    assert [step for step in range(20) if module.is_logged(step)] == [0, 1, 2, 3, 4, 8, 10, 11, 12, 13, 16]
