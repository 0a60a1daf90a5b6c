"""Export: writes the model of a finished run as a Hugging Face folder that plain `transformers` loads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replay_sweeps.config import ModelConfig
from replay_sweeps.config_builder import build
from replay_sweeps.data.study_texts import text_folder
from replay_sweeps.errors import CannotGoOn, DamagedFile, UserError
from replay_sweeps.files import folder_made_atomically, inside, read_bounded
from replay_sweeps.models.pretrained import weights_fingerprint
from replay_sweeps.store.states import Store
from replay_sweeps.store.study_records import StudyRecord, study_files
from replay_sweeps.tree.state_name import StateName


def export_run(store: Store, run_id: str, folder: Path, adapter: bool = False, again: bool = False) -> str:
    """Write the model of a run and its tokenizer into `folder`, and return one line that says so.

    LoRA adapters are merged into the weights; with `adapter` they are written alone, as `peft` writes them. Where the
    run's weights were dropped, `again` removes its losses too, so that the study's next run trains it once more.
    Raises UserError, in one line, where the run cannot be exported or must be trained first.
    """
    study, state = _study_and_state(store, run_id)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: give a new folder")
    if not store.has_weights(state):
        raise UserError(_how_to_make_again(store, study, state, run_id, again))
    read_into = study.models[state.tree]
    model: ModelConfig = build(ModelConfig, read_into["model"], [])
    if adapter and model.lora_rank is None:
        raise UserError(f"run {run_id} trained all weights: it has no adapter; leave out --adapter")
    if "pretrained" in read_into and weights_fingerprint(model) != read_into["pretrained"]:
        raise UserError(
            f"{model.path} holds another model now than run {run_id} started from: put that one back to export the run"
        )
    try:
        weights = store.open_state(state)
    except DamagedFile as error:
        raise UserError(f"{error}; {_how_to_make_again(store, study, state, run_id, again)}") from error
    try:
        tokenizer = inside(text_folder(store.folder) / "tokenizers", read_into["tokenizer"])
    except DamagedFile as error:
        raise UserError(f"{error}: {_command(study)} writes the study's record anew") from error
    if not tokenizer.is_dir():
        raise UserError(f"the tokenizer of run {run_id} is not in {tokenizer}: {_command(study)} makes it again")
    from replay_sweeps.store.state_files import system_errors

    with system_errors(folder), folder_made_atomically(folder.resolve()) as made:  # a link to a folder is followed
        _write_model(made, model, read_into, weights, adapter)
        for file in tokenizer.iterdir():
            (made / file.name).write_bytes(_content(file, study))
    return f"wrote run {run_id} of study {study.study}, {state.step:,} steps, to {folder}"


def _study_and_state(store: Store, run_id: str) -> tuple[StudyRecord, StateName]:
    """The study that a run belongs to, and the run's last state. Raises UserError where no study has the run."""
    studies = [record for record in study_files(store.folder).values() if isinstance(record, StudyRecord)]
    for study in studies:
        if run_id in study.runs:
            state = StateName(*study.runs[run_id])
            if state.tree in study.models:
                return study, state
    names = ", ".join(sorted({str(Path(study.output) / "runs.csv") for study in studies})[:3])
    where = f"run ids are in {names}" if names else "no study has run in this store"
    raise UserError(f"there is no run {run_id} in {store.folder}; {where}")


def _content(file: Path, study: StudyRecord) -> bytes:
    try:
        return read_bounded(file)
    except DamagedFile as error:
        raise UserError(f"{error}: {_command(study)} makes it again") from error


def _command(study: StudyRecord) -> str:
    """The command that the study last ran with."""
    try:
        command = json.loads(read_bounded(Path(study.output) / "study.json"))["command"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, DamagedFile, CannotGoOn):
        command = None
    return command if isinstance(command, str) else f"the command of study {study.study}"


def _how_to_make_again(store: Store, study: StudyRecord, state: StateName, run_id: str, again: bool) -> str:
    """One line with the command that makes a dropped state again; with `again` its losses are removed for that."""
    command = f"{_command(study)} keep_states=leaves"
    if again:
        store.remove_observations(state)
        return f"the weights of run {run_id} are made again by: {command}"
    return (
        f"the weights of run {run_id} were dropped (keep_states): with --again, this command has them made again by: "
        f"{command}"
    )


def _write_model(folder: Path, model: ModelConfig, read_into: Mapping[str, Any], weights: Path, adapter: bool) -> None:
    """Build the model that the study recorded, read the state's weights into it, and save it."""
    import torch

    from replay_sweeps.models.build import build_model
    from replay_sweeps.models.lora import merge_adapters, save_adapters
    from replay_sweeps.store.state_files import read_weights

    dtype = torch.bfloat16 if read_into["weights"] == "bf16" else torch.float32
    network = build_model(model, read_into["vocab_size"], dtype)
    read_weights(weights, network)
    if adapter:
        save_adapters(network, model, folder)
        return
    if model.lora_rank is not None:
        merge_adapters(network)
    network.config.use_cache = True  # only training has no use for it
    if network.config.eos_token_id is None:
        network.config.eos_token_id = read_into["end_of_text"]
    network.save_pretrained(folder)
