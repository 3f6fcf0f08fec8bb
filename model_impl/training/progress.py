"""The progress of a run on the terminal: a bar there, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """Shows loss, speed and time left whenever the Trainer logs, and every evaluation."""

    def __init__(self, epochs: int, batch_tokens: int) -> None:
        self.epochs, self.batch_tokens = epochs, batch_tokens
        self.bar: tqdm[Any] | None = None
        self.begun = 0.0
        self.first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.begun, self.first_step = time.perf_counter(), state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or not state.is_world_process_zero:
            return
        line = self.line(state, logs)
        if line is not None:
            tqdm.write(line, file=sys.stderr)

    def line(self, state: TrainerState, logs: dict[str, float]) -> str | None:
        """`step 120/3000  epoch 2.4/60  loss 1.0213  9,100 tok/s  17.6 min left`, or the losses of an evaluation."""
        place = f"step {state.global_step:,}/{state.max_steps:,}"
        if "loss" in logs:
            done = state.global_step - self.first_step
            seconds = (time.perf_counter() - self.begun) / max(done, 1)
            return (
                f"{place}  epoch {self.epochs * state.global_step / state.max_steps:.1f}/{self.epochs}  "
                f"loss {float(logs['loss']):.4f}  {self.batch_tokens / seconds:,.0f} tok/s  "
                f"{seconds * (state.max_steps - state.global_step) / 60:.1f} min left"
            )
        losses = [(name, value) for name, value in logs.items() if name.startswith("eval_") and name.endswith("_loss")]
        if losses:
            held_out = ", ".join(f"{name.split('_')[1]} {float(value):.4f}" for name, value in losses)
            return f"{place}  loss on texts held out: {held_out}"
        return None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
