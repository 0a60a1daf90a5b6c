"""Each setting tells in the schema whether it renames trained states; here that is compared with the keys.

A setting is changed alone, in several runs that differ in what they are made of: the text of a hub or conversations,
a new model or a given one. Its keys change in one of them at least, or in none.
"""

import itertools
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest

from replay_sweeps.config import RunConfig, SourceConfig
from replay_sweeps.config_builder import known_settings, renames_states
from replay_sweeps.data.cleaning import text_key
from replay_sweeps.data.encoder import Encoder
from replay_sweeps.data.pipeline import tokenizer_key
from replay_sweeps.data.prepared_text import PreparedTokenizer, TextNames
from replay_sweeps.data.sources import self_generated
from replay_sweeps.files import fingerprint
from replay_sweeps.models import hub, numerics, pretrained
from replay_sweeps.models.pretrained import with_pretrained_shape
from replay_sweeps.study.command import read_command
from replay_sweeps.study.composer import Composer
from replay_sweeps.study.study import hydra_loader
from replay_sweeps.tree.planned_run import initial_weights, plan_run, root_settings
from tests.study.helpers import type_of, value_of, with_value
from tests.tree.test_golden_keys import GIVEN, SHARE, SMALL, write_model

MODEL = ["model.path=model", "model.lora_rank=null"]
CHAT = ["target=chat", "target.path=chat", "generic=chat", "generic.path=chat"]
SIZE = ["schedule.target_fraction=null", "schedule.target_epochs=6", "schedule.replay_fraction=1/3"]
RUNS = {
    "mid_train": [*SMALL, *SHARE, "schedule.stage2_allocation=0.5"],
    "fine_tune": [*SMALL, *SHARE, "schedule=fine_tune"],
    "N in tokens": [*SMALL, *SIZE, "schedule.target_tokens=512"],
    "N as a share": [*SMALL, *SIZE, "schedule.target_share=1/8"],
    "from_pretrained": [*SMALL, *GIVEN, *MODEL],
    "a model of the hub": [*SMALL, *GIVEN, "model.path=org/name", "model.tokenizer.path=org/name"],
    "lora": [*SMALL, *GIVEN, *MODEL, "model.lora_rank=2", "model.lora_alpha=3", "model.lora_targets=q_proj"],
    "text of the hub": [*SMALL, *SHARE, "target=hub", "target.path=org/text", "generic=hub", "generic.path=org/more"],
    "conversations": [*SMALL, *GIVEN, *MODEL, *CHAT],
    "prompts": [
        *(*SMALL, *GIVEN, *MODEL, *CHAT, "target.prompt_column=a", "target.response_column=b"),
        *("generic.prompt_column=a", "generic.response_column=b"),
    ],
    "sampled text": [
        *(*SMALL, *GIVEN, *MODEL, "generic=self_generated", "generic.path=org/name"),
        *("target.kind=self_generated", "target.path=model"),
    ],
}
OTHER_VALUES: dict[str, list[Any]] = {
    "model.lora_targets": ["v_proj"],
    "model.tokenizer.chat_template": ["template.jinja"],
    "model.tokenizer.path": ["org/tokenizer"],
    "evaluation.at_steps": [[3]],
}
# what a GPU measures: the kind of loss enters a key there
RATES = {"device": "cuda", "fp32_flops": 1.0, "bf16_flops": 9.0}
TEXT_ROWS = 64  # of the target's text, of which a share is taken


def other_values(name: str, value: Any) -> list[Any]:
    """Values that a setting might have instead, by its type."""
    hint = type_of(name)
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if typing.get_origin(hint) is Literal:
        return [option for option in typing.get_args(hint) if option != value]
    if hint is bool:
        return [not value]
    if hint is int:
        return [1, 8] if value is None else [value + 1, value * 2]
    if hint in (float, Fraction):
        return ["1/4", "1/8"] if value is None else [value / 2, value + hint("0.125")]
    assert hint is str, f"give another value of {name} in OTHER_VALUES"
    return ["2"] if value is None else [f"{value}2"]


def text_names(run: RunConfig, source: SourceConfig) -> TextNames:
    """Names for what a text's stores are made of, found without reading the text."""
    tokenizer = tokenizer_key(run.model.tokenizer, text_key(run.generic))
    stored = PreparedTokenizer(Path(), 0, 0, tokenizer)
    shape = Encoder(Path(), stored, None, None, run.trainer.row_length, 1).shape(source)  # type: ignore[arg-type]
    return TextNames(fingerprint([text_key(source), shape]), "selection", "report")


def keys(run: RunConfig) -> list[str]:
    """The names of a run's states, from the first to the last."""
    if run.model.path is not None:
        run = replace(run, model=with_pretrained_shape(run.model))
    if run.schedule.target_share is not None:
        tokens = int(run.schedule.target_share * TEXT_ROWS) * run.trainer.row_length
        run = replace(run, schedule=replace(run.schedule, target_tokens=tokens))
    generic = text_names(run, run.generic)
    vocab_size = run.model.tokenizer.vocab_size or 512
    resolved = numerics.resolve(run.trainer, run.model, RATES)
    root = root_settings(run, generic, resolved, initial_weights(run, vocab_size))
    planned = plan_run(run, text_names(run, run.target), generic, fingerprint(root), resolved, vocab_size)
    return [planned.key(step) for step in (1, planned.steps // 2, planned.schedule.stage2_step, planned.steps)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with texts, conversations and models, and a hub of one model with two revisions."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("target", "target2", "generic", "generic2"):
        (folder / name).mkdir()
        (folder / name / f"{name}.txt").write_text("text\n")
    for name in ("chat", "chat2"):
        (folder / name).mkdir()
        (folder / name / f"{name}.jsonl").write_text("{}\n")
    (folder / "template.jinja").write_text("{{ messages }}")
    write_model(folder / "model")
    config = write_model(folder / "model2") / "config.json"
    config.write_text(config.read_text().replace("{", '{"rope_theta": 5000.0, ', 1))

    def local_folder(path: str, revision: str | None, allow_pickle: bool) -> Path | None:
        return (
            hub.local_folder("model2" if revision else "model", None, allow_pickle)
            if "/" in path
            else (hub.local_folder(path, revision, allow_pickle))
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(pretrained, "local_folder", local_folder)
        patch.setattr(self_generated, "local_folder", local_folder)
        patch.setattr(numerics, "why_not_fused", lambda: None)
        patch.setattr(numerics, "compiler", lambda: "g++")
        pretrained.describe.cache_clear()
        yield folder
        pretrained.describe.cache_clear()


@pytest.fixture(scope="module")
def changed(place: Path) -> Callable[[str], Iterator[bool]]:
    """Whether a setting changes keys, for each of the runs that it can be changed in and each of its other values."""
    with hydra_loader() as loader:
        plain = []
        for name, settings in RUNS.items():
            run, problems = Composer(read_command(settings, loader), loader).run({})
            assert run is not None and not problems, (name, problems)
            plain.append((run, keys(run)))

    def of(name: str) -> Iterator[bool]:
        for run, before in plain:
            for other in other_values(name, value_of(run, name)):
                different = with_value(run, name, other)
                if different is None or different == run:
                    continue
                try:
                    yield keys(different) != before
                except Exception:  # such a run cannot be: `checks` would have refused it
                    continue

    return of


@pytest.mark.parametrize("name", known_settings())
def test_keys_change_with_a_setting_if_the_schema_says_so_and_only_then(
    name: str, changed: Callable[[str], Iterator[bool]]
) -> None:
    first = next(found := changed(name), None)
    assert first is not None, f"no run could be planned with another {name}: give a value in OTHER_VALUES"
    assert any(itertools.chain([first], found)) == renames_states(name)
