"""Run tables from CSV and parquet: what is accepted, and what is refused with every problem in one message."""

import numpy as np
import pandas as pd
import pytest

from analysis import load_history, load_runs
from analysis.errors import UserError
from analysis.simulate import simulate_runs

MINIMAL = "target_tokens,replay_fraction,target_loss\n4096,0,3.7\n4096,0.5,3.6\n8192,0,3.5\n"


def problems(path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_runs(path)
    return list(caught.value.problems)


def written(tmp_path, text: str, name: str = "runs.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_three_columns_are_enough(tmp_path):
    runs = load_runs(written(tmp_path, MINIMAL))
    assert list(runs["status"]) == ["done"] * 3
    assert runs["target_tokens"].dtype == float


def test_a_folder_prefers_parquet_and_falls_back_to_csv(tmp_path):
    written(tmp_path, MINIMAL)
    assert len(load_runs(tmp_path)) == 3
    simulate_runs(seeds=1).to_parquet(tmp_path / "runs.parquet")
    assert len(load_runs(tmp_path)) == 75


def test_csv_and_parquet_say_the_same(tmp_path):
    table = simulate_runs(seeds=1)
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_parquet(tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(load_runs(tmp_path / "a.csv"), load_runs(tmp_path / "b.parquet"), check_dtype=False)


def test_everything_wrong_is_said_at_once(tmp_path):
    text = (
        "run_id,target_tokens,replay_fraction,target_loss,target_epochs\n"
        "a,4096,0,3.7,4\na,-5,1.5,3.6,x\nb,many,0.5,-3,4\nc,4096,,3,4\n"
    )
    found = "\n".join(problems(written(tmp_path, text)))
    for words in (
        "target_tokens must be a number: row 3 (many)",
        "target_tokens must be above zero: row 2",
        "replay_fraction must be in [0, 1): row 2 (1.5)",
        "replay_fraction is missing in row 4",
        "target_loss must be at least zero",
        "target_epochs must be a number: row 2 (x)",
        "run_id is not unique: a",
    ):
        assert words in found


def test_missing_columns_are_all_named(tmp_path):
    found = problems(written(tmp_path, "tokens,loss\n1,2\n"))
    assert [f"lacks the column {c}" in line for c, line in zip(("target_tokens", "replay_fraction", "target_loss"),
                                                               found, strict=True)] == [True] * 3  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    (
        ("", "is empty"),
        ("target_tokens,replay_fraction,target_loss\n", "has no rows"),
        ("target_tokens,replay_fraction,target_loss\n0,0,3\n", "above zero"),
        ("target_tokens,replay_fraction,target_loss\n4096,0,\n", "target_loss is missing in row 1"),
        ("target_tokens,replay_fraction,target_loss\n4096,0,3,9,9\n4096,0\n", "no CSV table"),
        ("status,target_tokens,replay_fraction,target_loss\nok,4096,0,3\n", "status must be done, failed, pending"),
        ("target_loss,target_loss\n1,2\n", "lacks the column target_tokens"),
    ),
)
def test_bad_tables_are_one_line_errors(tmp_path, text, words):
    found = problems(written(tmp_path, text))
    assert any(words in line for line in found)
    assert not any("\n" in line for line in found)


def test_a_missing_path_and_a_foreign_file_are_errors(tmp_path):
    assert "there is no run table" in problems(tmp_path / "nothing")[0]
    assert "neither runs.parquet nor runs.csv" in problems(tmp_path)[0]
    assert "is no run table" in problems(written(tmp_path, "x", "notes.txt"))[0]
    binary = tmp_path / "runs.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01" * 100)
    assert "no CSV table" in problems(binary)[0]


def test_a_flipped_bit_in_parquet_is_noticed(tmp_path):
    path = tmp_path / "runs.parquet"
    simulate_runs(seeds=1).to_parquet(path, write_page_checksum=True, compression=None)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert "is damaged" in problems(path)[0]


@pytest.mark.parametrize("keep", (0, 100, 2000))
def test_a_truncated_parquet_is_noticed(tmp_path, keep):
    path = tmp_path / "runs.parquet"
    simulate_runs(seeds=1).to_parquet(path)
    path.write_bytes(path.read_bytes()[:keep])
    assert "is damaged" in problems(path)[0]


def test_failed_runs_may_lack_losses(tmp_path):
    text = MINIMAL.replace("target_loss\n", "target_loss,status\n").replace(".7\n", ".7,done\n").replace(
        ".6\n", ".6,failed\n").replace(".5\n", ".5,pending\n") + "4096,0.5,,failed\n"  # fmt: skip
    assert list(load_runs(written(tmp_path, text))["status"]) == ["done", "failed", "pending", "failed"]


@pytest.mark.parametrize(
    ("losses", "words"),
    (([40.4, 36.6, 33.1], "perplexities"), ([14.5, 13.6, 13.1], "bits")),
)
def test_losses_that_are_no_nats_are_suspected(tmp_path, losses, words):
    text = "target_tokens,replay_fraction,target_loss\n" + "".join(f"4096,0,{loss}\n" for loss in losses)
    warnings = load_runs(written(tmp_path, text)).attrs["warnings"]
    assert words in warnings[0] and warnings[0].startswith("units")


def test_a_perplexity_column_tells_bits_from_nats(tmp_path):
    nats = np.array([3.7, 3.6, 3.5])
    table = pd.DataFrame({"target_tokens": 4096, "replay_fraction": 0.0, "perplexity": np.exp(nats)})
    for losses, words in ((nats / np.log(2), "bits"), (nats, "")):
        path = tmp_path / "runs.csv"
        table.assign(target_loss=losses).to_csv(path, index=False)
        warnings = load_runs(path).attrs["warnings"]
        assert words in warnings[0] if words else not warnings


def test_a_million_rows_are_read_and_checked(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "runs.parquet"
    pd.DataFrame(
        {
            "target_tokens": rng.choice([4096, 8192, 16384], 1_000_000),
            "replay_fraction": rng.choice([0, 0.5], 1_000_000),
            "target_loss": 3 + rng.random(1_000_000),
        }
    ).to_parquet(path)
    assert len(load_runs(path)) == 1_000_000


def test_a_history_beside_the_runs_is_read_and_checked(tmp_path, small_folder):
    assert set(load_history(small_folder).columns) == {"run_id", "step", "metric", "value"}
    assert load_history(written(tmp_path, MINIMAL)) is None
    written(tmp_path, "run_id,step\n", "history.csv")
    with pytest.raises(UserError, match="metric, value"):
        load_history(tmp_path)


def test_names_made_of_digits_stay_names(tmp_path):
    text = "run_id,target,target_tokens,replay_fraction,target_loss\n10e271,007,4096,0,3.7\n0123,007,4096,0.5,3.6\n"
    runs = load_runs(written(tmp_path, text))
    assert runs["run_id"].tolist() == ["10e271", "0123"] and set(runs["target"]) == {"007"}
