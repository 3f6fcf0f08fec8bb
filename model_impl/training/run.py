"""`tokenformer train`: a run of transformers' Trainer, from texts to a checkpoint directory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import is_accelerate_available, logging

from model_impl.checkpoint.grow import side_files
from model_impl.checkpoint.reading import load_config, one_line
from model_impl.checkpoint.writing import as_json, check_destination, failures_named, write_checkpoint
from model_impl.config import TokenformerConfig
from model_impl.huggingface import TokenformerForCausalLM
from model_impl.texts import read_texts
from model_impl.training.data import TrainingData, prepare
from model_impl.training.optimizer import MuonWithAdamW
from model_impl.training.progress import Progress
from model_impl.training.recipe import Recipe, TrainingError
from model_impl.training.start import write_new_model
from model_impl.training.state import RunState
from model_impl.training.task import Task

RECORD = "training.json"
"""The file of a trained checkpoint that says how it was trained."""

NEW_RATE, CONTINUED_RATE = 5e-3, 1e-3
"""Peak learning rates where only new parameter tokens are trained, which is the demo's, and where trained ones are."""

LOGS, SAVES = 50, 10
"""The number of times that a run logs its loss, and that it saves its state and evaluates."""


class TokenformerTrainer(Trainer):
    """A Trainer whose optimizer is Muon for the parameter tokens."""

    model: TokenformerForCausalLM

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = MuonWithAdamW(self.model, self.args.learning_rate, self.args.weight_decay)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer


def train(task: Task, recipe: Recipe, resume: bool = False) -> TokenformerConfig:
    """Train and write the checkpoint directory `task.out`, complete or not at all; returns its configuration.

    Until then the run's state lies beside it: with `resume`, an interrupted run goes on from there. Raises
    OneLineError for what the user can mend.
    """
    if not is_accelerate_available():
        raise TrainingError("training needs accelerate: pip install 'tokenformer-server[train]'")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    check_destination(task.out)
    texts = read_texts(task.data)
    replay = read_texts(task.replay) if task.replay else None
    state = RunState(task, recipe, texts, replay)
    arguments = training_arguments(state.path, recipe)
    start = state.start if task.new else task.source
    with state.removed_if_useless():
        with arguments.main_process_first(local=False):
            if arguments.should_save:
                state.open(resume)
                if task.new and not start.exists():
                    write_new_model(start, task.source, texts[0], task.tokenizer, recipe)
        config = trained_config(load_config(start), task.stage)
        parts = arguments.world_size * recipe.accumulate
        data = prepare(task, recipe, parts, start, texts[0], replay[0] if replay else ())
        model = TokenformerForCausalLM.from_pretrained(start, dtype=torch.float32)
        if task.stage is not None:
            model.freeze_before(task.stage)
        trainer = make_trainer(model, arguments, data, task, recipe, parts)
        with failures_named(state.path):
            trainer.train(resume_from_checkpoint=get_last_checkpoint(str(state.path)) if resume else None)
    if trainer.is_world_process_zero():
        record = state.record | {"history": trainer.state.log_history}
        dtype = getattr(torch, config.dtype)
        tensors = ((name, tensor.to("cpu", dtype)) for name, tensor in model.state_dict().items())
        write_checkpoint(task.out, config, tensors, side_files(start) | {RECORD: as_json(record)})
        shutil.rmtree(state.path)
    return config


def training_arguments(state: Path, recipe: Recipe) -> TrainingArguments:
    """The arguments that do not depend on the data; they also start distributed processes."""
    on_gpu = torch.cuda.is_available()
    try:
        arguments = TrainingArguments(
            str(state),
            num_train_epochs=1,  # the rows of all epochs are one pass
            train_sampling_strategy="sequential",
            gradient_accumulation_steps=recipe.accumulate,
            gradient_checkpointing=recipe.gradient_checkpointing,
            lr_scheduler_type="cosine_warmup_with_min_lr",  # unlike cosine_with_min_lr, its first rate is not 0
            lr_scheduler_kwargs={"min_lr_rate": recipe.final_share},
            warmup_steps=recipe.warmup,  # below 1: a share
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.clip,
            bf16=recipe.dtype == "bfloat16" or (recipe.dtype == "auto" and bfloat16_is_fast()),
            use_cpu=not on_gpu,
            ddp_broadcast_buffers=False,  # training changes none
            dataloader_pin_memory=on_gpu,
            save_strategy="steps",
            save_total_limit=1,
            logging_nan_inf_filter=False,
            prediction_loss_only=True,
            report_to="none",
            disable_tqdm=True,
            seed=recipe.seed,
        )
    except ValueError as error:  # such as bfloat16 on a GPU without it
        raise TrainingError(f"--dtype {recipe.dtype}: {one_line(error)}") from error
    if arguments.n_gpu > 1:
        raise TrainingError("several GPUs: start one process for each, by `accelerate launch` (docs/training.md)")
    return arguments


def bfloat16_is_fast() -> bool:
    """Whether the device multiplies bfloat16 natively; elsewhere it is emulated."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


def make_trainer(
    model: TokenformerForCausalLM,
    arguments: TrainingArguments,
    data: TrainingData,
    task: Task,
    recipe: Recipe,
    parts: int,
) -> Trainer:
    row_tokens = data.rows.row_tokens
    batch = recipe.batch_tokens // row_tokens // parts
    steps = -(-len(data.rows) // (batch * parts))
    new = task.new or task.stage is not None
    arguments.learning_rate = recipe.learning_rate or (NEW_RATE if new else CONTINUED_RATE)
    arguments.per_device_train_batch_size = arguments.per_device_eval_batch_size = batch
    arguments.logging_steps, arguments.save_steps = max(1, steps // LOGS), max(1, steps // SAVES)
    if data.held_out:
        arguments.eval_strategy, arguments.eval_steps = "steps", arguments.save_steps
    callback = Progress(recipe.epochs, batch * parts * row_tokens)
    trainer = TokenformerTrainer(
        model, arguments, train_dataset=data.rows, eval_dataset=data.held_out or None, callbacks=[callback]
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trained_config(config: TokenformerConfig, stage: str | None) -> TokenformerConfig:
    """Training everything changes the tokens of earlier stages, which then cannot be served any more."""
    if stage is not None or len(config.stages) == 1:
        return config
    return config.with_stages([*config.stages[:-1], replace(config.stages[-1], retrained=True)])
