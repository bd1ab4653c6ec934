"""transformers' Trainer, with what a run that can be trusted needs beside it.

In: a stage, its model and its data. Out: a model that learned; whole checkpoints; a log. The loop is Trainer's. What
differs: data comes from workers that may die and is drawn apart from what the model draws (`base_trainer.py`), a step
is looked at before it is taken and weights before they are kept (`guards.py`), a signal ends the run with a checkpoint
(`interruptions.py`), checkpoints are written aside (`checkpoints.py`), and where Trainer's resumption is not exact, it
is made so:

- what the log has summed up, and an evaluation that was put off, are kept in the checkpoint;
- a checkpoint of the last step is not trained one step further;
- weights that do not fit the model are an error.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from flashsloth.planning.machine import peak_bytes
from flashsloth.training import distributed
from flashsloth.training.base_trainer import Best, EvaluatingTrainer
from flashsloth.training.checkpoints import PREFIX, SaveError, new_checkpoint, read_manifest, shares_read, step_of
from flashsloth.training.data import GoodSamples
from flashsloth.training.guards import (
    TrainingStoppedError,
    agree_on_step,
    learned_tensors,
    stop_at_non_finite,
    to_floats,
)
from flashsloth.training.lora import check_packages
from flashsloth.training.metrics import StepSums, TrainingCost, measure_matrix_rate
from flashsloth.training.optimizer import make_optimizer
from flashsloth.training.parallelism import check_engine, make_arguments
from flashsloth.training.recipe import RecipeError, StageRun
from flashsloth.training.resume import Shares, check_fits, parameter_names, settings_of, take_recipes_settings
from flashsloth.training.run_log import Progress, Watcher
from flashsloth.training.stages import DECAY_SHARE
from flashsloth.training.trained_parts import HEADER, PartsReport

logger = logging.getLogger(__name__)

PROGRESS_FILE = "flashsloth_progress.json"
"""In a checkpoint: what the log has summed up, whether an evaluation is due, and the engine that divided it."""
STEPS_WORTH_MEASURING = 100
"""A shorter run does not stop to measure the machine."""
_FLASH = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
"""Implementations of attention -> whether they can be had."""
STEPS_FOLDER = "steps"
"""Where a stage's checkpoints stand while it runs."""


class StageTrainer(EvaluatingTrainer):
    """The trainer of a stage.

    Args:
        run: the stage, as the recipe says it.
        whole_model: the FlashSloth that `model` is, or is a part of: what the report of parts looks at.
        cost: the FLOPs of its batches, or None where they cannot be told.
        matrix_rate: operations a second of one device; None to measure them.
        watch: called at every log line; without it, log lines are logged.
        options: Trainer's own.
    """

    def __init__(
        self,
        run: StageRun,
        *,
        whole_model: Any,
        cost: TrainingCost | None = None,
        matrix_rate: float | None = None,
        watch: Watcher | None = None,
        **options: Any,
    ) -> None:
        super().__init__(run, whole_model=whole_model, **options)
        self.cost, self.matrix_rate, self.watch = cost, matrix_rate, watch
        self.report = PartsReport(whole_model)
        self._checkpoint: Path | None = None
        self._kept: dict[str, Any] = {}
        self._aside: Path | None = None
        self._gradient_norm: Any = 0.0
        self._sums = StepSums()
        self._stop_after_step = False
        self.pop_callback(PrinterCallback)
        self.add_callback(_Watch(self))

    # A step

    def create_optimizer(self, *args: Any, **options: Any) -> Any:
        rate = None if self.run.adapter is None else self.run.adapter.learning_rate
        self.optimizer: Any = make_optimizer(self.model, self.run, rate)
        self._settings = settings_of(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.run.schedule == "warmup_stable_decay":
            falling = max(1, round(DECAY_SHARE * num_training_steps))
            self.args.lr_scheduler_kwargs = {"num_decay_steps": falling}
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        loss = super().compute_loss(*args, **options)
        if self.is_deepspeed_enabled:  # its optimizer's step is a part of backward
            self._check_loss(loss[0] if isinstance(loss, tuple) else loss)
        return loss

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        loss = super().training_step(*args, **options)
        self._losses.append(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **options: Any) -> Any:
        self._gradient_norm = super()._get_grad_norm(*args, **options)
        return self._gradient_norm

    def check_step(self) -> None:
        """Before the optimizer's step: hear from all processes whether it may be taken, and what is in it.

        Raises:
            TrainingStoppedError: on all processes, if any has a loss or a gradient that is not a number, or a
                micro-batch that nothing is learned from.
            WeightsError: on all, where that is because the weights are not numbers already.
        """
        gradient, *losses = to_floats([self._gradient_norm, *self._losses], self.args.device)
        try:
            self._sums, self._stop_after_step = agree_on_step(
                self._batches,
                losses,
                gradient,
                flops=sum(self.cost.flops(facts) for facts in self._batches) if self.cost is not None else 0.0,
                asked_to_stop=self.stop_request.is_asked,
                step=self.state.global_step + 1,
                device=self.args.device,
            )
        except TrainingStoppedError:
            self.check_finite(learned_tensors(self.model, self.optimizer))  # if it is they, samples are not to blame
            raise
        limit = self.args.max_grad_norm
        if not self.is_deepspeed_enabled:  # it has taken the step, and holds gradients elsewhere
            self.report.look(self.optimizer, min(1.0, limit / gradient) if limit and gradient else 1.0)

    def _check_loss(self, loss: torch.Tensor) -> None:
        """One micro-batch's, heard from all processes."""
        (value,) = to_floats([loss], self.args.device)
        if self.model.training and distributed.all_reduce_sum([float(not math.isfinite(value))], self.args.device)[0]:
            batch = self._batches[len(self._losses)]
            stop_at_non_finite([batch], [value], 0.0, self.state.global_step + 1)

    def report_parts(self) -> None:
        """After the optimizer moved the weights, once: what moved, and what did not."""
        if self.report.compare(self.optimizer) and distributed.is_first():
            for line in (HEADER, *(row.line() for row in self.report.rows)):
                logger.info("%s", line)
            if self.report.unmoved:
                logger.warning("the first step has not moved %s, which this stage trains", self.report.unmoved)

    def finish_step(self, control: Any) -> None:
        """After it: count it, and stop if any process was asked to."""
        self.meter.end_step(self._sums)
        if not self._stop_after_step:
            return
        self.stopped_by = max(distributed.all_gather(self.stop_request.signal_number))
        # who asked may not wait for an evaluation: it is put off until the run goes on
        self._evaluation_due, control.should_evaluate = control.should_evaluate, False
        control.should_save = control.should_training_stop = True

    # Going on

    def train(self, resume_from_checkpoint: Any = None, **options: Any) -> Any:
        """As Trainer's, from a checkpoint's folder or from the beginning."""
        if resume_from_checkpoint is not None:
            self._checkpoint = Path(resume_from_checkpoint)
            self._kept = json.loads((self._checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))
            shares = Shares(self._kept["engine"], read_manifest(self._checkpoint)["processes"])
            shares.check(Shares.of_this_run(self.run.engine), self._checkpoint)
            self.saved_step = step_of(self._checkpoint)
            resume_from_checkpoint = str(resume_from_checkpoint)
            logger.info("going on from %s", self._checkpoint)
        with shares_read(self._checkpoint):
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def begin(self) -> None:
        """The first step is about to come: take up what the checkpoint kept, and hear signals from now on."""
        self.args.eval_on_start = False
        if self._checkpoint is not None:
            self.meter.since_log = StepSums(**self._kept["since_log"])
            self.args.eval_on_start = self._kept["evaluation_due"]
            self.state.compute_steps(self.args, self.state.max_steps)  # the checkpoint brings its own
            take_recipes_settings(self.optimizer, self.lr_scheduler, self._settings)
            self.best = Best(**self._kept.get("best", {}))
        rate = self.matrix_rate
        if rate is None and self.cost is not None and self.state.max_steps >= STEPS_WORTH_MEASURING:
            rate = measure_matrix_rate(self.args.device, torch.bfloat16 if self.args.bf16 else torch.float32)
        # of all devices together
        self.meter.matrix_rate = None if rate is None else distributed.all_reduce_sum([rate], self.args.device)[0]
        self.stop_request.listen()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (ValueError, KeyError) as error:  # torch's, of other groups of parameters
            raise SaveError(
                f"{checkpoint} holds the state of another optimizer than this version makes of the recipe "
                f"({' '.join(str(error).split())}): resume with the version it was made with, or train into another "
                f"folder from its weights (model.path)"
            ) from error

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        check_fits(self.model, load_result, self._checkpoint)

    # Leaving things behind

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.meter.take(max(distributed.all_gather(peak_bytes(self.args.device)))))
            if isinstance(self.train_dataset, GoodSamples):
                logs["bad_samples"] = self.train_dataset.bad_samples.count()
        super().log(logs, start_time)
        if not distributed.is_first():
            return
        stage = Path(self.args.output_dir).parent.name
        progress = Progress(stage, self.state.global_step, self.state.max_steps, logs)
        if "eval_loss" in logs:
            logger.info("%s", progress.held_out())
        elif "loss" in logs and self.watch is not None:
            self.watch(progress)
        elif "loss" in logs:
            logger.info("%s", progress.line())

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._aside is None else str(self._aside)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.check_finite(learned_tensors(self.model, self.optimizer))
        folder, step, keep = Path(self.args.output_dir), self.state.global_step, self.run.save_total_limit
        together = not self.is_deepspeed_enabled
        with new_checkpoint(folder, step, keep, spared=self.best.step, together=together) as aside:
            self._aside = aside
            try:
                with parameter_names(self.model):
                    super()._save_checkpoint(model, trial)
            finally:
                self._aside = None
            if distributed.is_first():
                kept = {
                    "since_log": asdict(self.meter.since_log),
                    "evaluation_due": self._evaluation_due,
                    "best": asdict(self.best),
                    "engine": Shares.of_this_run(self.run.engine).engine,
                }
                path = aside / f"{PREFIX}{step}" / PROGRESS_FILE
                path.write_text(json.dumps(kept), encoding="utf-8")
        self.saved_step = step


class _Watch(TrainerCallback):
    """Trainer's events, handed to a stage's trainer."""

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.trainer.begin()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.trainer.check_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.trainer.report_parts()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.trainer.finish_step(control)


def device_count() -> int:
    """Devices that share a step."""
    return max(distributed.count(), torch.cuda.device_count() if distributed.count() == 1 else 1)


def check_machine(stage: StageRun) -> None:
    """Find out before the first stage whether this machine can do a later one.

    Raises:
        RecipeError: if its batch does not fall into whole micro-batches here, or its attention needs what is not there.
        ParallelismError, AdapterError: for a package that is not there.
    """
    stage.rows(device_count())
    if not _FLASH.get(stage.attention, lambda: True)():
        raise RecipeError(
            f"stage {stage.stage}: attention is {stage.attention}, whose package is not installed or finds no "
            f"device for it: choose sdpa"
        )
    check_engine(stage.engine)
    if stage.adapter is not None:
        check_packages(stage.adapter)


def training_arguments(stage: StageRun, model: nn.Module, folder: Path, seed: int) -> TrainingArguments:
    """What Trainer is told; `model` is the one that it will train.

    Raises:
        RecipeError: if the batch does not fall into whole micro-batches.
        ParallelismError: if the stage's engine cannot be had.
    """
    on_accelerator = torch.cuda.is_available()
    devices = device_count()
    micro = stage.rows(devices)
    fields: dict[str, Any] = {
        "output_dir": str(folder / STEPS_FOLDER),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": stage.batch_size // (micro * devices),
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": stage.warmup,  # below one, a share of all steps
        "max_grad_norm": stage.max_grad_norm,
        "num_train_epochs": stage.epochs,
        "max_steps": stage.steps or -1,
        "bf16": stage.precision == "bf16" or (stage.precision == "auto" and on_accelerator),
        "use_cpu": not on_accelerator,
        "eval_strategy": "steps" if stage.eval_data else "no",
        "eval_steps": stage.eval_every,
        "save_strategy": "steps",
        "save_steps": stage.save_every,
        "logging_steps": stage.log_every,
        "logging_nan_inf_filter": False,  # it would hide what the guard stops at
        "disable_tqdm": True,
        "dataloader_num_workers": 0,  # see `data/workers.py`
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "report_to": "none",  # see `run_log.py`
        "run_name": f"{folder.parent.name}/{folder.name}",
        "seed": seed,
        "data_seed": seed,
    }
    arguments = make_arguments(stage.engine, model, fields, whole_encoder=stage.feature_cache is not None)
    if arguments.device.type == "cpu":
        # several processes have cpu:0, to which torch restores no tensors; transformers minds it only since 5.23
        vars(arguments)["_setup_devices"] = torch.device("cpu")
    return arguments
