"""`flashsloth data`: checks training data, shows one sample as the model gets it, and makes data of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError

if TYPE_CHECKING:
    from rich.table import Table

    from flashsloth.training.data.records import RecordData
    from flashsloth.training.dataloader import SampleEncoder
    from flashsloth.training.inspect_data import CheckReport

CHECK_EXAMPLES = (
    "flashsloth data check llava_v1_5_mix665k.json --images pictures --report findings.json",
    "flashsloth data check 'shards/cc-{00000..00055}.tar' --workers 8",
    "flashsloth data check captions.jsonl --stage alignment --no-pictures",
)
SHOW_EXAMPLES = (
    "flashsloth data show llava_v1_5_mix665k.json --images pictures --id 000000033471",
    "flashsloth data show captions.jsonl --number 0 --stage alignment --template",
)
TABLE_EXAMPLES = (
    "flashsloth data table answers.csv --images pictures --out training-data",
    "flashsloth data table answers.jsonl --images pictures --out training-data --held-out 0.2",
)
FINDINGS = 1
"""Exit code of `check` where it found something."""
DEFAULT_STAGE = "instruction"

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="JSON, JSONL, CSV, Parquet or tar shards: a file, a folder, or a pattern like 'cc-{00..55}.tar'.",
    ),
]
Images = Annotated[str | None, typer.Option("--images", metavar="DIR", help="Where picture paths start from.")]
StageName = Annotated[str, typer.Option("--stage", help="The stage it is for: alignment or instruction.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", metavar="N", help="Tokens a sample may have; the stage's own without it.")
]


def check(
    file: File,
    images: Images = None,
    model: arguments.Model = None,
    stage: StageName = DEFAULT_STAGE,
    max_length: MaxLength = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Open every picture, or only check that it exists.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Processes; one a core without it, 0 for this one.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="OUT.json", help="Write every finding, for programs.")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Check a whole file of samples before training on it.

    Finds missing and unreadable pictures, broken turns, placeholders that do not match, samples with nothing to learn
    from, too long ones, and duplicates. Ends with 0 if all is well and 1 if there are findings.
    """
    if workers is not None and workers < 0:
        raise CommandError(f"--workers is {workers}; expected 0 or more")
    if report is not None and not report.parent.is_dir():
        raise CommandError(f"--report: there is no folder {report.parent}; make it first")
    data, encoder = _open(file, images, model, stage, max_length)
    with terminal.waiting("preparing"):
        from flashsloth.training.inspect_data import Examiner
        from flashsloth.training.inspect_data import check as check_all

        examiner = Examiner(data, encoder, pictures)
    with terminal.progress("checking", len(data)) as advance:
        found = check_all(examiner, workers, advance)
    said = {"file": file, "stage": stage, "max_length": encoder.max_length, **found.to_dict()}
    if report is not None:
        import json

        from flashsloth.files import write_whole

        write_whole(report, json.dumps(said, ensure_ascii=False, indent=1) + "\n")
    if as_json:
        terminal.print_json(said)
    else:
        _print_report(file, found, encoder.max_length, report)
    if found.findings:
        raise typer.Exit(FINDINGS)


def show(
    file: File,
    identity: Annotated[str | None, typer.Option("--id", metavar="ID", help="The sample's own id.")] = None,
    number: Annotated[int | None, typer.Option("--number", metavar="N", help="Or its number, from 0.")] = None,
    images: Images = None,
    model: arguments.Model = None,
    stage: StageName = DEFAULT_STAGE,
    max_length: MaxLength = None,
    template: Annotated[
        bool, typer.Option("--template", help="The exact text of the prompt, what is learned between ⟦ and ⟧.")
    ] = False,
    as_json: arguments.Json = False,
) -> None:
    """Show one sample as the model gets it: what is learned, and where pictures, questions and queries stand."""
    if (identity is None) == (number is None):
        raise CommandError(
            "found "
            + ("neither --id nor --number" if number is None else "both --id and --number")
            + "; expected one of them"
        )
    data, encoder = _open(file, images, model, stage, max_length)
    if number is None:
        with terminal.waiting(f"searching for {identity}"):
            number = _number_of(data, str(identity), file)
    if not 0 <= number < len(data):
        raise CommandError(f"--number is {number}; {file} has samples 0 to {len(data) - 1}")
    _show(data, encoder, number, template, as_json)


def table(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, TSV or .jsonl with the columns image, question, answer.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where train.json and held_out.json go.")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Where picture paths start from; FILE's folder.")
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", metavar="SHARE", help="Share of the pictures kept for measuring.")
    ] = 0.1,
) -> None:
    """Make training data of a table of answers.

    Writes LLaVA's JSON: what is trained on, and what is held out; no picture is in both.
    """
    from flashsloth.training.data.answer_table import write_training_data

    split = write_training_data(file, file.parent if images is None else images, out, held_out)
    terminal.print_line(f"{split.train}: {_counts(split.train_rows, split.train_pictures)}")
    if split.held_out is not None:
        terminal.print_line(f"{split.held_out}: {_counts(split.held_out_rows, split.held_out_pictures)}")


def _counts(questions: int, pictures: int) -> str:
    return f"{questions:,} questions about {pictures:,} pictures"


def _open(
    file: str, images: str | None, model: str | None, stage: str, max_length: int | None
) -> tuple[RecordData, SampleEncoder]:
    """The samples, and what writes them down."""

    from flashsloth.training.data.records import source_of
    from flashsloth.training.stages import PATCH_STAGE, STAGES

    named = [name for name in STAGES if name != PATCH_STAGE]
    if stage not in named:
        raise CommandError(f"--stage is {stage!r}; expected one of {', '.join(named)}")
    if max_length is not None and max_length < 1:
        raise CommandError(f"--max-length is {max_length}; expected at least 1")
    source = source_of(file, images)
    with terminal.waiting(f"opening {file}"):
        from flashsloth.model.loading import load_processor
        from flashsloth.model.loading.folders import find_folder, shipped_folder
        from flashsloth.training.data import open_source
        from flashsloth.training.dataloader import SampleEncoder

        row = STAGES[stage]
        if max_length is not None:
            row = row.model_copy(update={"max_length": max_length})
        encoder = SampleEncoder(load_processor(shipped_folder() if model is None else find_folder(model)), row)
        return open_source(source), encoder


def _number_of(data: RecordData, identity: str, file: str) -> int:
    """The first sample of this id."""
    from flashsloth.media.limits import shown
    from flashsloth.training.data import BadSampleError
    from flashsloth.training.data.layouts import MOST_OF_AN_ID

    for number in range(len(data)):
        try:
            record = data.record(number)
        except BadSampleError:
            record = None
        if data.where(number, record).id == identity[:MOST_OF_AN_ID]:
            return number
    raise CommandError(f"{file} has no sample with the id {shown(identity)}; see `flashsloth data show --number`")


def _print_report(file: str, found: CheckReport, max_length: int, report: Path | None) -> None:
    """The summary for a person."""
    from rich.markup import escape

    console = terminal.stdout()
    opened = "" if found.pictures_opened else " (found, not opened)"
    console.print(
        f"[bold]{escape(file)}[/bold]: {found.samples:,} samples, {found.with_pictures:,} with pictures "
        f"({found.pictures:,}{opened}), {found.answers:,} answers; max_length {max_length:,}",
        soft_wrap=True,
    )
    if found.layouts:
        kinds = ", ".join(f"{count:,} {escape(name)}" for name, count in found.layouts.items())
        console.print(f"read as: {kinds}", soft_wrap=True)
    if not found.findings:
        console.print("[bold green]clean[/bold green]: training would take every sample")
        return
    console.print(_table(found))
    console.print(_verdict(found), soft_wrap=True)
    if report is not None:
        console.print(f"every finding is in {escape(str(report))}", soft_wrap=True)


def _table(found: CheckReport) -> Table:
    """A row a kind of finding: how many, and the first of them."""
    from rich.markup import escape
    from rich.table import Table

    from flashsloth.training.data.sample import KINDS
    from flashsloth.training.inspect_data import REMARKS

    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("finding", style="cyan")
    table.add_column("samples", justify="right")
    table.add_column("the first of them", overflow="fold")
    for title, names in (("left out by training", KINDS), ("taken, but look", REMARKS)):
        present = [kind for kind in names if kind in found.counts]
        if not present:
            continue
        table.add_row(f"[bold]{title}[/bold]")
        for kind in present:
            first = next(finding for finding in found.findings if finding.kind == kind)
            example = f"{first.index} (id {first.id}): {first.reason}"
            table.add_row(f"  {names[kind]}", f"{found.counts[kind]:,}", escape(terminal.harmless(example)))
    return table


def _verdict(found: CheckReport) -> str:
    """What training would do."""
    from flashsloth.training.recipe import StageRun

    most = float(StageRun.model_fields["max_bad_fraction"].default)
    if not found.bad:
        return "[yellow]training would take every sample[/yellow]"
    share = f"{found.bad:,} of {found.samples:,} samples ({found.bad_fraction:.2%})"
    if found.bad_fraction > most:
        return f"[bold red]training would stop[/bold red]: {share} are bad, more than max_bad_fraction, {most:.1%}"
    return f"[yellow]training would leave out {share}[/yellow], fewer than max_bad_fraction, {most:.1%}"


def _show(data: RecordData, encoder: SampleEncoder, number: int, template: bool, as_json: bool) -> None:
    """Print one sample, or why it is bad."""
    from flashsloth.cli import print_sample
    from flashsloth.media import PictureError
    from flashsloth.model.conversation import pictures_of
    from flashsloth.training.data import BadSampleError
    from flashsloth.training.inspect_data import runs_of, written

    try:
        sample = data[number]
        layout = data.layout_at(number)
        row = encoder.text(sample)
        sizes = [picture.size for picture in pictures_of(sample.messages)]
    except (BadSampleError, PictureError) as error:
        terminal.stdout().print(f"bad sample: {error}", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(FINDINGS) from None
    assert sample.where is not None
    runs = runs_of(row, encoder.processor)
    if as_json:
        said = {**sample.where.__dict__, "layout": layout, "pictures": sizes, "template": written(runs)}
        terminal.print_json({**said, "runs": [run.to_dict() for run in runs]})
    elif template:
        terminal.print_line(terminal.harmless(written(runs)))
    else:
        print_sample.print_sample(str(sample.where), layout, sizes, runs)
