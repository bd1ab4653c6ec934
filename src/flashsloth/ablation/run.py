"""Every variant of an experiment with every seed, each run once; what is done already is not done again.

In: an experiment. Out: in its folder:

    encoder/                     the shared encoder's run, as any training leaves it
    costs.json                   a :class:`VariantCost` of each: what an answer takes until it begins
    sap-embq-1/result.json       what the run of a variant with a seed found; log.json and loss.png of its stages

A run that was interrupted begins again; its weights are not kept once its answers are counted.

FLOPs are counted by torch as the operators run; time is the median over pictures, each seen for the first time. Nothing
else may run meanwhile, so this is done before the training, by one process.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flashsloth.ablation.report import ALL, COSTS_FILE, RESULT_FILE, write_json
from flashsloth.ablation.variants import Experiment, Variant, make_variant
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.planning.flops import counting
from flashsloth.training.recipe import ModelSource
from flashsloth.training.run_log import RIGHT
from flashsloth.world import World

logger = logging.getLogger(__name__)

Done = Callable[[str], None]
"""Called with what was finished."""
GIGABYTE = 1e9
WARM_UPS, TIMED = 5, 40
"""Pictures."""
QUESTION = "What color is the circle to the left of the square?"
SEED = 1
MILLISECONDS = 1e3


@dataclass(frozen=True)
class VariantCost:
    """Of one answer's beginning.

    Attributes:
        visual_tokens: of a picture.
        parameters: of the model.
        flops: picture, prompt, and the answer's first token.
        milliseconds: the same, in time.
        device: where that was.
    """

    visual_tokens: int
    parameters: int
    flops: int
    milliseconds: float
    device: str


def cost_of(source: ModelSource, variant: Variant, device: torch.device) -> VariantCost:
    """Measure a variant."""
    model, processor = make_variant(source, variant, SEED)
    sloth = FlashSloth(model.requires_grad_(False).to(device), processor, variant.name, PictureCache(0))
    pictures = [World(split="test").sample(index).image for index in range(WARM_UPS + TIMED)]
    engine = sloth.engine
    engine.add_request(sloth.request(pictures[0], QUESTION, max_tokens=1))
    with counting() as counter:  # it sees its own thread only, so the engine is stepped in it
        while engine.has_work:
            for output in engine.step():
                if output.error is not None:
                    raise output.error
    seconds = []
    for picture in pictures:
        started = time.perf_counter()
        sloth.answer(picture, QUESTION, max_tokens=1)
        seconds.append(time.perf_counter() - started)
    median = MILLISECONDS * statistics.median(seconds[WARM_UPS:])
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return VariantCost(model.config.num_image_tokens, model.num_parameters(), counter.get_total_flops(), median, where)


def run_experiment(experiment: Experiment, done: Done = lambda line: None) -> None:
    """Do all that is not done.

    Raises:
        Whatever training raises: a run that cannot be done ends the experiment, and what was done stays.
    """
    encoder = _taught_encoder(experiment)
    _measure_costs(experiment)
    tasks = [(variant, seed) for seed in experiment.seeds for variant in experiment.variants]
    left = [(v, seed) for v, seed in tasks if not (experiment.run_folder(v, seed) / RESULT_FILE).is_file()]
    logger.info("%d of %d runs are to be done", len(left), len(tasks))
    if experiment.processes == 1:
        for variant, seed in left:
            done(run_one(experiment, variant, seed, encoder))
        return
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(experiment.processes, mp_context=spawn, initializer=_log_warnings_only) as pool:
        futures = [pool.submit(run_one, experiment, variant, seed, encoder) for variant, seed in left]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_one(experiment: Experiment, variant: Variant, seed: int, encoder: Path) -> str:
    """Train a variant with a seed, ask it at the end, and write down what was found; returns a line about it."""
    from flashsloth.training.run_folder import LOG_NAME, stage_folder
    from flashsloth.training.stage_training import run_stage

    recipe = experiment.recipe(variant, seed)
    shutil.rmtree(recipe.output, ignore_errors=True)
    on_device = torch.cuda.is_available()
    if on_device:
        torch.cuda.reset_peak_memory_stats()
    model, processor = make_variant(recipe.model, variant, seed, encoder, recipe.stages[0].attention)
    for number in range(len(recipe.stages)):
        run_stage(model, processor, recipe, number)
    memory = torch.cuda.max_memory_allocated() / GIGABYTE if on_device else None
    log = json.loads((stage_folder(recipe, len(recipe.stages) - 1) / LOG_NAME).read_text(encoding="utf-8"))
    shares = _shares(log)
    for weights in recipe.output.rglob("*.safetensors"):
        weights.unlink()
    result = {"variant": variant.name, "seed": seed, "shares": shares, "memory_gb": memory}
    write_json(recipe.output / RESULT_FILE, result)
    return f"{variant.name}, seed {seed}: {shares[ALL]:.1%} right"


def _taught_encoder(experiment: Experiment) -> Path:
    """The folder of the shared encoder; made once."""
    from flashsloth.training.run import train
    from flashsloth.training.run_folder import is_done, stage_folder

    recipe = experiment.encoder_recipe()
    last = stage_folder(recipe, len(recipe.stages) - 1)
    return last if is_done(last) else train(recipe, resume=True)


def _measure_costs(experiment: Experiment) -> None:
    """Of every variant, once, before anything else shares the device."""
    file = experiment.output / COSTS_FILE
    if file.is_file():
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = experiment.encoder_recipe().model
    write_json(
        file, {variant.name: dataclasses.asdict(cost_of(source, variant, device)) for variant in experiment.variants}
    )


def _shares(log: list[dict[str, Any]]) -> dict[str, float]:
    """Right answers of each kind in the last evaluation of a stage's log, and of all."""
    last = [line for line in log if RIGHT in line][-1]
    kinds = {name.removeprefix(f"{RIGHT}_"): share for name, share in last.items() if name.startswith(f"{RIGHT}_")}
    return {**kinds, ALL: last[RIGHT]}


def _log_warnings_only() -> None:
    logging.getLogger("flashsloth").setLevel(logging.WARNING)
