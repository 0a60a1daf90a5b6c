"""The packed and masked loss is that of each example alone, computed by plain `transformers`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from replay_sweeps.data.study_texts import StudyTexts
from replay_sweeps.data.token_rows import TokenRows
from replay_sweeps.evaluation.loss import validation_loss
from replay_sweeps.models.row_loss import RowLoss
from replay_sweeps.study.command import read_command
from replay_sweeps.study.study import hydra_loader, resolve_study
from replay_sweeps.training.batches import ROW_INPUTS, Batch, Batches
from replay_sweeps.tree.enough_text import prepare_texts
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.study_plan import plan_runs
from tests.fixtures.conversations import Conversation, made_up_conversation

LENGTH = 128
CLOSE = 2e-6  # nats, relative: fp32 sums of a row's tokens in another order (a machine epsilon is 1.2e-7)
Nats = tuple[torch.Tensor, int]  # the summed loss of an example's learned tokens, and how many there are

SHAPE: dict[str, Any] = {"vocab_size": 448, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, intermediate_size=48)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, intermediate_size=48, num_key_value_heads=1, head_dim=16)),
    "sliding window": lambda: MistralForCausalLM(
        MistralConfig(**SHAPE, intermediate_size=48, num_key_value_heads=1, sliding_window=20)
    ),
    "absolute positions": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=448,
            n_positions=LENGTH,
            n_embd=32,
            n_layer=2,
            n_head=2,
            attn_pdrop=0,
            embd_pdrop=0,
            resid_pdrop=0,
        )
    ),
}


@pytest.fixture
def planned(chat_command: Callable[..., list[str]], conversations: Path) -> Callable[..., tuple[Any, StudyTexts]]:
    """The only run of a command, with its texts."""

    def make(*extra: str) -> tuple[Any, StudyTexts]:
        target = ["target=chat", f"target.path={conversations}", "schedule.replay_fraction=1/2"]
        with hydra_loader() as loader:
            study = resolve_study(read_command(chat_command(*target, *extra), loader), loader)
        texts = prepare_texts(study.runs, study.store)
        return plan_runs(study.runs, texts, None)[0], texts

    return make


def batches_of(run: Any, texts: StudyTexts, micro_rows: int) -> list[Batch]:
    return list(Batches(Segment(run, 0, run.steps, {}, {}), texts.stores(), micro_rows))


def alone(model: PreTrainedModel, tokens: list[int], learned: list[bool]) -> Nats:
    """The loss of one example, by `transformers`' own model, labels and positions."""
    ids = torch.tensor([tokens])
    labels = torch.tensor([[token if mask else -100 for token, mask in zip(tokens, learned, strict=True)]])
    count = sum(learned[1:])
    return model(input_ids=ids, labels=labels, use_cache=False).loss * count, count


def templated(tokenizer: Any, conversation: Conversation) -> tuple[list[int], list[bool]]:
    """A conversation's tokens by `transformers`, and which are learned: what each response adds to its prompt."""
    tokens = tokenizer.apply_chat_template(conversation)["input_ids"]
    learned = [False] * len(tokens)
    for number, message in enumerate(conversation):
        if message["role"] == "assistant":
            prompt = tokenizer.apply_chat_template(conversation[:number], add_generation_prompt=True)["input_ids"]
            until = tokenizer.apply_chat_template(conversation[: number + 1])["input_ids"]
            assert tokens[: len(until)] == until and until[: len(prompt)] == prompt
            end = until.index(tokenizer.convert_tokens_to_ids("<|im_end|>"), len(prompt)) + 1
            learned[len(prompt) : end] = [True] * (end - len(prompt))
    return tokens[:LENGTH], learned[:LENGTH]


def examples_of(row: dict[str, torch.Tensor]) -> Iterator[tuple[list[int], list[bool]]]:
    """The examples of a row, by its segments."""
    for segment in row["segments"].unique_consecutive().tolist():
        inside = row["segments"] == segment
        yield row["tokens"][inside].tolist(), row["loss_mask"][inside].tolist()


@pytest.mark.parametrize("architecture", MODELS)
def test_the_loss_of_a_packed_row_is_that_of_its_examples_alone(
    architecture: str, planned: Callable[..., tuple[Any, StudyTexts]], chat_model: Path
) -> None:
    torch.manual_seed(0)
    model = MODELS[architecture]().eval()
    for parameter in model.parameters():  # far from uniform: whatever a token sees shows in its loss
        torch.nn.init.normal_(parameter, std=0.5)
    run, texts = planned()
    batch = batches_of(run, texts, run.config.trainer.batch_rows)[0]
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    known = [templated(tokenizer, made_up_conversation(seed)) for seed in range(500)]
    packed, mixed = 0, set()
    with torch.no_grad():
        losses = RowLoss(model)(*(batch[name] for name in ROW_INPUTS))
        for number, loss in enumerate(losses):
            row = {name: batch[name][number] for name in ROW_INPUTS}
            found = list(examples_of(row))
            if batch["is_target"][number]:
                said = [example for example in found if any(example[1])]
                rest = [token for tokens, mask in found if not any(mask) for token in tokens]
                assert all(example in known for example in said)
                assert len(found) - len(said) <= 1 and set(rest) <= {tokenizer.eos_token_id}
                packed += len(said) > 1
            else:
                assert len(found) == 1 and all(row["loss_mask"])
            parts = [alone(model, *example) for example in found if any(example[1][1:])]
            expected = sum(nats for nats, _ in parts) / sum(count for _, count in parts)
            assert float(loss) == pytest.approx(float(expected), rel=CLOSE)
            mixed.add(bool(batch["is_target"][number]))
    assert packed >= 2 and mixed == {True, False}


def test_a_steps_loss_and_gradient_are_the_mean_over_its_learned_tokens_however_it_is_cut(
    planned: Callable[..., tuple[Any, StudyTexts]], chat_model: Path
) -> None:
    run, texts = planned()
    model = AutoModelForCausalLM.from_pretrained(chat_model, dtype=torch.float32, attn_implementation="sdpa")

    def gradient() -> dict[str, torch.Tensor]:
        found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        model.zero_grad()
        return found

    whole = batches_of(run, texts, run.config.trainer.batch_rows)[0]
    rows = [{name: whole[name][number] for name in ROW_INPUTS} for number in range(len(whole["tokens"]))]
    examples = [example for row in rows for example in examples_of(row) if any(example[1][1:])]
    parts = [alone(model, *example) for example in examples]
    expected = sum(nats for nats, _ in parts) / sum(count for _, count in parts)
    expected.backward()
    reference = gradient()
    row_loss = RowLoss(model)
    for micro_rows in (8, 4, 1):
        cut = batches_of(run, texts, micro_rows)[: 8 // micro_rows]
        assert torch.equal(torch.cat([batch["tokens"] for batch in cut]), whole["tokens"])
        total = 0.0
        for batch in cut:
            loss = (row_loss(*(batch[name] for name in ROW_INPUTS)) * batch["weight"]).sum() / len(cut)
            loss.backward()
            total += float(loss.detach())
        assert total == pytest.approx(float(expected.detach()), rel=CLOSE)
        for name, value in gradient().items():
            scale = float(reference[name].abs().max())
            torch.testing.assert_close(value, reference[name], rtol=0, atol=1e-5 * scale, msg=f"{name}, {micro_rows}")


def test_the_validation_loss_is_the_mean_over_all_responses(
    planned: Callable[..., tuple[Any, StudyTexts]], chat_model: Path
) -> None:
    run, texts = planned()
    model = AutoModelForCausalLM.from_pretrained(chat_model, dtype=torch.float32, attn_implementation="sdpa")
    target, generic, _ = texts.of(run.config)
    for store in (target.report, generic.report):
        rows = TokenRows.open(store, LENGTH)
        masks, segments = rows.parts(slice(None))
        parts = []
        with torch.no_grad():
            for tokens, mask, segment in zip(rows.read(slice(None)), masks, segments, strict=True):
                for number in np.unique(segment):
                    inside = segment == number
                    if mask[inside][1:].any():
                        parts.append(alone(model, tokens[inside].tolist(), mask[inside].tolist()))
        count = sum(count for _, count in parts)
        for batch_rows in (2, 3, 8):
            loss = validation_loss(
                RowLoss(model), store, LENGTH, batch_rows, torch.device("cpu"), torch.no_grad(), packed=True
            )
            assert loss["tokens"] == count
            assert loss["loss"] == pytest.approx(float(sum(nats for nats, _ in parts)) / count, rel=CLOSE)
