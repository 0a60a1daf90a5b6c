"""Run tables from W&B, with a stub in place of the server."""

import pytest

from analysis import load_runs
from analysis.errors import UserError
from analysis.main import main
from analysis.simulate import simulate_runs
from analysis.wandb_table import read_wandb_history
from tests.analysis.wandb_stub import WandbStub, run_node

SUMMARY = ("target_loss", "target_loss_selection", "generic_loss", "target_train_loss")


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("wandb")
    table = simulate_runs(replay_tokens=(8192,), seeds=1, epochs=(4, 8))
    nodes = []
    for record in table.drop(columns=["status", "reason"]).to_dict("records"):
        summary = {name: record.pop(name) for name in SUMMARY}
        nodes.append(run_node(f"w{len(nodes)}", "finished", record, summary | {"_runtime": 3}, rows=2))
    nodes.append(run_node("broken", "crashed", {"target_tokens": 4096, "replay_fraction": 0.5, "run_id": "x"}, {}))
    history = [{"_step": step, "target_loss": 4.0 - step, "gradient_norm": 0.5, "other": 1} for step in range(2)]
    stub = WandbStub(nodes, {"w0": history})
    monkeypatch.setenv("WANDB_BASE_URL", stub.url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield stub
    stub.close()


def test_a_project_is_read_as_a_run_table(server):
    runs = load_runs("wandb:me/project", filters={"group": "quickstart"})
    assert server.filters == {"group": "quickstart"}
    assert len(runs) == 19 and runs["status"].value_counts().to_dict() == {"done": 18, "failed": 1}
    assert runs["run_id"][0] == "run-0000" and runs["target_loss"][:18].notna().all()
    assert "_runtime" not in runs


def test_histories_come_in_long_form(server):
    history = read_wandb_history("me/project")
    assert set(history["metric"]) == {"target_loss", "gradient_norm"}
    assert history[history["metric"] == "target_loss"]["value"].tolist() == [4.0, 3.0]
    assert set(history["run_id"]) == {"run-0000"}


def test_the_command_analyses_a_project(server, tmp_path, capsys, no_figures):
    assert main(["wandb:me/project", "--out", str(tmp_path), "--replicates", "200"]) == 0
    assert "target tokens" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()


def test_an_empty_project_is_an_error(server):
    server.runs.clear()
    with pytest.raises(UserError, match="no runs of me/project"):
        load_runs("wandb:me/project")


@pytest.mark.parametrize("path", ("wandb:", "wandb:me", "wandb:a/b/c"))
def test_a_project_must_be_named_with_its_entity(path):
    with pytest.raises(UserError, match="ENTITY/PROJECT"):
        load_runs(path)


def test_a_server_that_does_not_answer_is_a_one_line_error(server, monkeypatch):
    monkeypatch.setattr("analysis.wandb_table.TIMEOUT_SECONDS", 1)
    server.close()
    with pytest.raises(UserError) as caught:
        load_runs("wandb:me/project")
    assert len(caught.value.problems) == 1 and "\n" not in caught.value.problems[0]
