"""`flashsloth eval TASK`: a command for each of the paper's benchmarks, made from the table, and one for all."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.evaluate_score import INCOMPLETE, JudgeModel, JudgeTimes, JudgeUrl, end_with, judge, show_reports
from flashsloth.cli.progress import told_progress
from flashsloth.cli.terminal import CommandError
from flashsloth.evaluation.settings import PAPER, PRESETS, TASKS, TaskSettings

if TYPE_CHECKING:
    from flashsloth.evaluation.answerer import Answerer
    from flashsloth.evaluation.item import Item
    from flashsloth.evaluation.report import Report
    from flashsloth.evaluation.run_folder import Part
    from flashsloth.evaluation.runner import Outcome
    from flashsloth.evaluation.task import Task

EXAMPLES = (
    "flashsloth eval {task} --data data/{task} --model FOLDER",
    "flashsloth eval {task} --data data/{task} --limit 200",
    "flashsloth eval {task} --data data/{task} --part 3/8 --out runs/{task}",
    "flashsloth eval {task} --data data/{task} --model http://127.0.0.1:8000/v1 --name NAME",
)
ALL_EXAMPLES = (
    "flashsloth eval all --data data --model FOLDER",
    "flashsloth eval all --data data --limit 100 --json",
)
FLASHSLOTH, SERVER, TRANSFORMERS = KINDS = ("flashsloth", "server", "transformers")
ADDRESSES = ("http://", "https://")
RUNS = Path("eval")
"""Where runs are kept, unless something else is said."""
FAILURES_SHOWN = 3

Data = Annotated[Path, typer.Option("--data", metavar="FOLDER", help="The benchmark's files.")]
Preset = Annotated[str, typer.Option("--preset", help=f"Whose settings: {', '.join(PRESETS)}.")]
Limit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="So many questions, in whole groups, drawn by the seed.")
]
ModelToo = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="A folder, a name on the hub, or a server's address."),
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Of the model: at a server there, else in reports.")
]
Kind = Annotated[
    str | None, typer.Option("--kind", help=f"{', '.join(KINDS)}; without it, what the model's files say.")
]
AtOnce = Annotated[int | None, typer.Option("--at-once", metavar="N", help="Of a server: questions in flight.")]
Adapter = Annotated[
    str | None, typer.Option("--adapter", metavar="FOLDER", help="Of a FlashSloth: merged into what it was made for.")
]
AnswerSeed = Annotated[int, typer.Option("--seed", help="Draws the questions of --limit, and answers that are drawn.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help=f"For the answers and scores; without it, {RUNS}/TASK-MODEL."),
]
PartOption = Annotated[
    str | None, typer.Option("--part", metavar="K/N", help="The K-th of N parts, for several processes or machines.")
]


def evaluate(
    tasks: Sequence[str],
    *,
    data: Data,
    model: ModelToo = None,
    name: Name = None,
    kind: Kind = None,
    preset: Preset = PAPER,
    limit: Limit = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_times: JudgeTimes = 1,
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    device: arguments.Device = "auto",
    resolution: arguments.Resolution = None,
    adapter: Adapter = None,
    at_once: AtOnce = None,
    seed: AnswerSeed = 0,
    out: Out = None,
    part: PartOption = None,
    as_json: arguments.Json = False,
) -> None:
    """What all these commands do: ask what is not answered yet, then score.

    Args:
        tasks: names; of one, `data` and `out` are its own folders; of several, what is not there is left out.
    """
    from flashsloth.evaluation.run_folder import part_of
    from flashsloth.evaluation.runner import read_items

    arguments.check_seed(seed)
    if judge_url is not None and judge_model is None:
        raise CommandError("--judge-url needs --judge-model: the judge's name at that address")
    if not data.is_dir():
        raise CommandError(f"--data {data}: there is no such folder; expected the one that holds the benchmark's files")
    mine = part_of(part)
    found = _found(tasks, data, preset)
    read = [(task, read_items(task, folder, limit, seed)) for task, folder in found]
    given = {"device": device, "dtype": dtype, "quantize": quantize, "resolution": resolution, "adapter": adapter}
    answerer = _answerer(model, name, kind, at_once, given)
    reports: list[Report] = []
    found_out: list[dict[str, Any]] = []
    is_whole = True
    for task, items in read:
        folder = out or RUNS / f"{task.settings.task}-{answerer.name}"
        if out is not None and len(tasks) > 1:
            folder = out / task.settings.task
        outcome = _run(task, items, answerer, folder, mine, limit, seed)
        is_whole &= not outcome.failures
        report = None
        if outcome.is_whole and (outcome.merged or mine.number == 1):
            judging = None if judge_url is None else (judge_url, judge_model, judge_times)
            report = _whole_report(task, folder, outcome, judging)
        elif outcome.failures and mine.total == 1:
            report = _report_of_the_rest(task, items, answerer, outcome, limit, seed)
        elif not as_json:
            _say_part(task, folder, outcome, mine)
        if report is not None:
            reports.append(report)
        about_part = {"title": task.settings.title, "part": str(mine), "is_whole": outcome.is_whole}
        found_out.append(about_part if report is None else report.to_dict())
    if as_json:
        terminal.print_json(found_out if len(tasks) > 1 else found_out[0])
        end_with(reports)
    else:
        show_reports(reports)
    if not is_whole:
        raise typer.Exit(INCOMPLETE)


def _found(tasks: Sequence[str], data: Path, preset: str) -> list[tuple[Task, Path]]:
    """The tasks whose data are there, each with its folder."""
    from flashsloth.evaluation.settings import SettingsError
    from flashsloth.evaluation.tasks import make_task

    if len(tasks) == 1:
        return [(make_task(tasks[0], preset), data)]
    if preset not in PRESETS:
        raise SettingsError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    folders = {one: data / one for one in tasks if (data / one).is_dir()}
    found: list[tuple[Task, Path]] = []
    for one in folders or tasks:
        try:
            task = make_task(one, preset)
        except SettingsError as error:
            if one in folders:
                terminal.print_warning(f"{one} is left out: {error}")
            continue
        if one in folders or _has_data(task, data):
            found.append((task, folders.get(one, data)))
    if not found:
        raise CommandError(
            f"--data {data} holds no benchmark: expected folders such as {data / tasks[0]}, one for each"
        )
    if not folders and len(found) > 1:
        titles = ", ".join(task.settings.task for task, _ in found)
        raise CommandError(f"--data {data} may be of {titles}: put each one's files into a folder of its name there")
    return found


def _has_data(task: Task, folder: Path) -> bool:
    from flashsloth.evaluation.task import NoDataError

    try:
        return next(iter(task.read(folder)), None) is not None
    except NoDataError:
        return False


def _answerer(model: str | None, name: str | None, kind: str | None, at_once: int | None, given: Any) -> Answerer:
    """Who answers.

    Raises:
        CommandError: for options that it does not have.
    """
    chosen = kind or _kind_of(model)
    if chosen not in KINDS:
        raise CommandError(f"--kind is {kind!r}; expected one of {', '.join(KINDS)}")
    has = {FLASHSLOTH: {*given}, TRANSFORMERS: {"device", "dtype"}, SERVER: {"at_once"}}[chosen]
    for option, value in {**given, "at_once": at_once}.items():
        if value not in (None, "auto") and option not in has:
            raise CommandError(f"--{option.replace('_', '-')} is not for a {chosen} model: leave it out")
    if chosen == SERVER:
        if model is None or name is None:
            raise CommandError("a server needs --model URL and --name NAME: the model's name there")
        if at_once is not None and at_once < 1:
            raise CommandError(f"--at-once is {at_once}; expected at least 1")
        from flashsloth.evaluation.server_answerer import AT_ONCE, ServerAnswerer

        return ServerAnswerer(model, name, at_once or AT_ONCE)
    with terminal.waiting(f"loading {model or 'the small model'}"):
        from flashsloth.evaluation.answerer import device_here, load_flashsloth

        device = device_here(given["device"])
        if chosen == FLASHSLOTH:
            return load_flashsloth(model, name, **{**given, "device": device})
        if model is None:
            raise CommandError("--kind transformers needs --model: a folder, or a name on the hub")
        from flashsloth.evaluation.transformers_answerer import TransformersAnswerer

        return TransformersAnswerer(model, name, device=device, dtype=given["dtype"])


def _kind_of(model: str | None) -> str:
    """What a model is, by its name or its files."""
    if model is None:
        return FLASHSLOTH
    if model.startswith(ADDRESSES):
        return SERVER
    from flashsloth.model.configuration_flashsloth import FlashSlothConfig
    from flashsloth.model.loading import is_published
    from flashsloth.model.loading.folders import CONFIG, find_folder, is_adapter
    from flashsloth.model.loading.safetensors_files import read_json

    folder = find_folder(model)
    if is_adapter(folder) or is_published(folder) or not (folder / CONFIG).is_file():
        return FLASHSLOTH
    is_ours = read_json(folder / CONFIG).get("model_type") == FlashSlothConfig.model_type
    return FLASHSLOTH if is_ours else TRANSFORMERS


def _run(
    task: Task, items: list[Item], answerer: Answerer, folder: Path, part: Part, limit: int | None, seed: int
) -> Outcome:
    """Ask, and say what became of it."""
    from flashsloth.evaluation.runner import run

    terminal.print_note(f"{task.settings.title}: {len(items):,} questions; answers are kept in {folder}")
    with told_progress(task.settings.title, "questions") as progress:
        outcome = run(task.settings, items, answerer, folder, part=part, limit=limit, seed=seed, progress=progress)
    title = task.settings.title
    for name, error in list(outcome.failures.items())[:FAILURES_SHOWN]:
        terminal.print_error(f"{title}, {name!r}: {terminal.one_line(error)}")
    if outcome.failures:
        gave_up = ", and the rest was not asked, since all failed alike" if outcome.gave_up else ""
        terminal.print_error(
            f"{title}: {len(outcome.failures):,} of {outcome.part:,} questions could not be answered{gave_up}; the "
            "same command asks them again"
        )
    return outcome


def _say_part(task: Task, folder: Path, outcome: Outcome, part: Part) -> None:
    """What becomes of a part whose answers are there, or would be but for failures that were told."""
    title, counts = task.settings.title, f"{outcome.part:,} of {outcome.asked:,} questions"
    if outcome.is_whole:
        terminal.print_line(f"{title}: every question is answered, in {folder}")
    elif not outcome.failures:
        terminal.print_line(
            f"{title}: part {part} is answered, {counts}, in {folder}; where parts share no folder, "
            "`flashsloth eval score` takes the files of all"
        )


def _whole_report(task: Task, folder: Path, outcome: Outcome, judging: Any) -> Report:
    """The report of a whole run, which the folder keeps."""
    from flashsloth.evaluation.predictions import PREDICTIONS, read_files
    from flashsloth.evaluation.report import make_report
    from flashsloth.evaluation.scoring import score

    file = folder / PREDICTIONS
    if judging is not None:
        url, model, times = judging
        judge(file, task, url, model, times)
    header, predictions, _ = read_files([file])
    summary, _ = score(task, predictions)
    report = make_report(header, task.settings, summary, predictions, seconds=outcome.seconds)
    report.save(folder)
    return report


def _report_of_the_rest(
    task: Task, items: list[Item], answerer: Answerer, outcome: Outcome, limit: int | None, seed: int
) -> Report | None:
    """The report of what could be answered; None where nothing could."""
    from flashsloth.evaluation.report import make_report
    from flashsloth.evaluation.runner import header_of, whole_groups
    from flashsloth.evaluation.scoring import score

    predictions = whole_groups(items, outcome.answered)
    if not predictions:
        return None
    header = header_of(task.settings, answerer, items, limit, seed)
    summary, _ = score(task, predictions)
    return make_report(header, task.settings, summary, predictions, asked=len(items), seconds=outcome.seconds)


def _command(name: str, about: str, tasks: Sequence[str]) -> Callable[..., None]:
    """A command that evaluates some tasks, with all the options of :func:`evaluate`."""

    def run(**given: Any) -> None:
        evaluate(tasks, **given)

    whole = inspect.signature(evaluate, eval_str=True)
    options = [one for one in whole.parameters.values() if one.name != "tasks"]
    run.__name__, run.__doc__ = name, about
    run.__annotations__ = {one.name: one.annotation for one in options}
    vars(run)["__signature__"] = whole.replace(parameters=options)
    return run


GOES_ON = (
    "Answers are written down one by one, and the same command goes on after any end, also as another number of parts. "
    "Exits with 1 where something is not answered, or not judged."
)


def _about(row: TaskSettings) -> str:
    return (
        f"{row.title}: {row.size:,} questions; the paper has {row.paper:g}, and {row.paper_hd:g} for HD.\n\n{GOES_ON}"
    )


BENCHMARKS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    *(
        (_command(task, _about(row), (task,)), tuple(one.format(task=task) for one in EXAMPLES))
        for task, row in TASKS.items()
    ),
    (
        _command(
            "all",
            f"All of these whose data are there: --data has a folder of each one's name.\n\n{GOES_ON}",
            tuple(TASKS),
        ),
        ALL_EXAMPLES,
    ),
)
"""A command for each row of the table, and one for all; with its examples."""
