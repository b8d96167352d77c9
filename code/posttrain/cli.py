"""The command line: ``posttrain --help``. Each command imports what it needs when it runs.

Chapter: start/setup.
"""

import contextlib
import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from posttrain import __version__
from posttrain.core.errors import PosttrainError
from posttrain.core.threads import calm_threads

if TYPE_CHECKING:
    from posttrain.core.goals_table import GoalRow


class OneLineErrors(TyperGroup):
    """Prints errors that were raised on purpose as one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Args:
            ctx: Click's context.

        Returns:
            What the command returns.

        Raises:
            typer.Exit: With code 2, for a `PosttrainError` or `ValueError`.
        """
        try:
            return super().invoke(ctx)
        except (PosttrainError, ValueError) as error:
            typer.echo(f"posttrain: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error


class PresetHelp(TyperCommand):
    """Lists a stage's presets in the help of ``--preset``, when the help is asked for.

    Attributes:
        presets: Module that holds them, which imports PyTorch.
    """

    presets: str

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help.

        Args:
            ctx: Click's context.
            formatter: What writes it.
        """
        *others, last = importlib.import_module(self.presets).PRESETS
        for parameter in self.params:
            if parameter.name == "preset" and isinstance(parameter, TyperOption):
                parameter.help = f"{', '.join(others)} or {last}."
        super().format_help(ctx, formatter)


class PretrainHelp(PresetHelp):
    """Lists the presets of Stage 0."""

    presets = "posttrain.pretraining.presets"


class SFTHelp(PresetHelp):
    """Lists the presets of Stage 1."""

    presets = "posttrain.sft.presets"


class DPOHelp(PresetHelp):
    """Lists the presets of Stage 2."""

    presets = "posttrain.dpo.presets"


app = typer.Typer(
    cls=OneLineErrors,
    help="Post-Training, Hands On: run the book's stages and look at what they made.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
artifacts_app = typer.Typer(
    help="The store of results: what was trained, when, from what.", no_args_is_help=True
)
app.add_typer(artifacts_app, name="artifacts")
data_app = typer.Typer(help="Your own training data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"posttrain {__version__}")
        raise typer.Exit


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


def _print_values(values: dict[str, Any]) -> None:
    for name, value in values.items():
        typer.echo(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    pass


@app.command(cls=PretrainHelp)
def pretrain(
    preset: Annotated[str, typer.Option(help="Name of a preset.")] = "cpu",
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and batches.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the model.")] = None,
) -> None:
    """Train the character-level GPT on Shakespeare and print what was measured."""
    from posttrain.pretraining.training.run import pretrain_command

    _print_values(pretrain_command(preset, steps, seed, out))


@app.command(cls=SFTHelp)
def sft(
    preset: Annotated[str, typer.Option(help="Name of a preset.")] = "cpu",
    data: Annotated[
        str | None, typer.Option(help="A file of examples (JSONL), or a data set on the hub.")
    ] = None,
    val: Annotated[
        str | None, typer.Option(help="Held-out examples; else a tenth of --data is held out.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder or a repository, instead of the preset's.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field, such as training.learning_rate=1e-4."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the adapter and the order.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run and its adapter.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out's run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: rows, steps, memory, minutes.")
    ] = False,
    on_bad_row: Annotated[str, typer.Option(help="error or drop.")] = "error",
    report_to: Annotated[
        list[str] | None, typer.Option(help="tensorboard, trackio or wandb.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Answered on the way, in place of held-out rows.")
    ] = None,
) -> None:
    """Fine-tune a model with LoRA: your examples in, an adapter out."""
    from posttrain.sft.command import sft_command
    from posttrain.sft.presets import get_preset
    from posttrain.sft.runs.own_run import RunRequest

    request = RunRequest(
        get_preset(preset),
        data=data,
        validation=val,
        model=model,
        settings=tuple(set_ or ()),
        steps=steps,
        seed=seed,
        on_bad_row=_one_of("--on-bad-row", on_bad_row, ("error", "drop")),  # type: ignore[arg-type]
        report_to=tuple(report_to or ()),
        prompts=tuple(prompt or ()),
    )
    sft_command(request, out, resume=resume, dry_run=dry_run, arguments=sys.argv[1:], say=_say)


@app.command(cls=DPOHelp)
def dpo(
    data: Annotated[
        str, typer.Option(help="A file of pairs (JSONL), or a data set on the hub.")
    ],
    preset: Annotated[str, typer.Option(help="Name of a preset.")] = "cpu",
    adapter: Annotated[
        Path | None, typer.Option(help="The fine-tuned adapter; frozen, it is the reference.")
    ] = None,
    val: Annotated[
        str | None, typer.Option(help="Held-out pairs; else a tenth of --data is held out.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder or a repository, if not the adapter's.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field, such as loss.beta=0.3.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a new adapter and the order.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run and its adapter.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --out's run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: pairs, steps, memory, minutes.")
    ] = False,
    on_bad_row: Annotated[str, typer.Option(help="error or drop.")] = "error",
    report_to: Annotated[
        list[str] | None, typer.Option(help="tensorboard, trackio or wandb.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Answered on the way, in place of held-out ones.")
    ] = None,
    print_every: Annotated[
        int, typer.Option(min=1, help="Steps between the answers that are shown.")
    ] = 20,
) -> None:
    """Align a model with preference pairs: a chosen and a rejected answer to each prompt."""
    from posttrain.dpo.command import dpo_command
    from posttrain.dpo.presets import get_preset
    from posttrain.dpo.runs.own_run import PairsRequest

    request = PairsRequest(
        get_preset(preset),
        data,
        validation=val,
        model=model,
        adapter=adapter,
        settings=tuple(set_ or ()),
        steps=steps,
        seed=seed,
        on_bad_row=_one_of("--on-bad-row", on_bad_row, ("error", "drop")),  # type: ignore[arg-type]
        report_to=tuple(report_to or ()),
        prompts=tuple(prompt or ()),
        print_every=print_every,
    )
    dpo_command(request, out, resume=resume, dry_run=dry_run, arguments=sys.argv[1:], say=_say)


@app.command()
def chat(
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; else the adapter's own, or SmolLM2.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")
    ] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Talk to a model, with an adapter or without; text from a pipe is one message."""
    from posttrain.sft.runs.chat import HELP, open_session, talk

    session = open_session(
        adapter, model, system=system, temperature=temperature, max_new_tokens=max_new_tokens,
        seed=seed, device=_one_of("--device", device, ("cpu", "cuda")),
    )  # fmt: skip
    if not sys.stdin.isatty():
        once = iter([sys.stdin.read(), None])
        talk(session, lambda: next(once), _write)
        return
    typer.echo(f"({HELP})")

    def read() -> str | None:
        try:
            return input("> ")
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return None

    talk(session, read, _write)


@app.command()
def merge(
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter.")],
    out: Annotated[Path, typer.Option(help="A new folder for the merged model.")],
    model: Annotated[str | None, typer.Option(help="The base model, if moved.")] = None,
    base: Annotated[
        str, typer.Option(help="as-trained, or original: the weights before any rounding.")
    ] = "as-trained",
) -> None:
    """Write one model in 16 bits out of a base model and its adapter."""
    from posttrain.sft.runs.merge import merge_adapter

    chosen = _one_of("--base", base, ("as-trained", "original")).replace("-", "_")
    for line in merge_adapter(adapter, out, model=model, base=chosen):  # type: ignore[arg-type]
        typer.echo(line)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="An adapter or a merged model.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
) -> None:
    """Upload a folder to the hub; the token comes from HF_TOKEN."""
    from posttrain.sft.runs.push import push_folder

    for line in push_folder(folder, repo, private=not public, dry_run=dry_run):
        typer.echo(line)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{option} is {value!r}: choose {' or '.join(known)}")
    return value


def _say(line: str) -> None:
    typer.echo(line)


def _write(text: str) -> None:
    typer.echo(text, nl=False)
    sys.stdout.flush()


@app.command()
def record(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Such as sft/rank_and_rate; none lists all."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Make every record.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The file to write, instead of the record's own.")
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=0, help="Only run so many parts again, and compare.")
    ] = 0,
) -> None:
    """Run an experiment that takes long, and write its record; it may be interrupted."""
    from posttrain.core.recording import record_command, table_rows

    if not names and not all_:
        _print_table(("record", "minutes", "what it runs", "recorded"), list(table_rows()))
        return
    for line in record_command(names or [], all_, out, repeat):
        typer.echo(line)


@app.command()
def goals(
    path: Annotated[
        Path | None,
        typer.Option(help="A goals.json, or a folder of them; by default POSTTRAIN_GOALS."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed.")] = False,
) -> None:
    """Print the goals and claims that the chapters checked; exit with 1 if one fails."""
    from posttrain.core.goals import collect_goals
    from posttrain.core.goals_table import GoalsTable, failure_text, is_accepted
    from posttrain.core.storage.paths import goals_folder

    if path is not None and not path.exists():
        raise ValueError(f"{path} does not exist: give a goals.json or a folder of them")
    rows = _read_goals(path) if path and path.is_file() else collect_goals(path)
    if not rows:
        typer.echo(f"No goals in {path or goals_folder()} yet: build the book (make book).")
        return
    for chapter in dict.fromkeys(row["chapter"] for row in rows if not failed):
        typer.echo(f"{chapter}")
        typer.echo(f"{GoalsTable([row for row in rows if row['chapter'] == chapter])}\n")
    for kind, verb in (("goal", "met"), ("claim", "hold")):
        those = [row for row in rows if row["kind"] == kind]
        good = sum(row["passed"] for row in those)
        if those:
            typer.echo(f"{good} of {len(those)} {kind}s {verb}")
    for row in (row for row in rows if not row["passed"] and is_accepted(row)):
        typer.echo(f"missed aim, known: {failure_text(row)}")
    broken = [row for row in rows if not is_accepted(row)]
    for row in broken:
        typer.echo(f"failed: {failure_text(row)}", err=True)
    if broken:
        raise typer.Exit(1)


def _read_goals(file: Path) -> "list[GoalRow]":
    from posttrain.core.goals_table import GoalRow

    rows: Any = None
    with contextlib.suppress(ValueError):
        rows = json.loads(file.read_text(encoding="utf-8"))
    keys = GoalRow.__annotations__.keys()
    if isinstance(rows, list) and all(isinstance(r, dict) and r.keys() == keys for r in rows):
        return rows
    raise ValueError(f"{file} holds no goals: give the goals.json that make book wrote")


@app.command()
def doctor() -> None:
    """Say what this machine can run: presets, memory, disk, missing packages."""
    from posttrain.core.doctor import examine

    for line in examine():
        typer.echo(line)


@data_app.command("check")
def check_command(
    file: Annotated[
        str, typer.Argument(help="JSON Lines, JSON, either gzipped, or owner/name on the hub.")
    ],
    val: Annotated[str | None, typer.Option(help="The rows held out.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Name or folder; its tokenizer counts tokens.")
    ] = None,
    chat_format: Annotated[
        str | None, typer.Option(help="Such as chatml; by default that of the model.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="The longest row of the run, in tokens.")
    ] = None,
    on_bad_row: Annotated[
        Literal["drop", "error"], typer.Option(help="Drop and count it, or stop.")
    ] = "drop",
) -> None:
    """Say what is in a file of rows or pairs; exit with 1 if something must be mended."""
    from posttrain.dpo.data.pairs import holds_pairs
    from posttrain.dpo.data.report import PairsReport, check_pairs_command
    from posttrain.sft.data.report import DataReport, check_command

    report: DataReport | PairsReport
    if holds_pairs(file):
        report = check_pairs_command(file, val, model, chat_format, max_length, on_bad_row)
    else:
        report = check_command(file, val, model, chat_format, max_length, on_bad_row)
    for line in report.lines():
        typer.echo(line)
    if report.must_mend:
        raise typer.Exit(1)


@app.command()
def label(
    pairs: Annotated[str, typer.Argument(help="A file of pairs (JSONL), or a set on the hub.")],
    out: Annotated[Path, typer.Option(help="File for your own pairs (JSONL).")],
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the answers.")] = 0,
    on_bad_row: Annotated[str, typer.Option(help="error or drop.")] = "error",
) -> None:
    """Show two answers blind, write your verdicts, and go on where you stopped."""
    from posttrain.dpo.data.labelling import label_pairs
    from posttrain.dpo.data.pairs import load_pairs

    chosen = _one_of("--on-bad-row", on_bad_row, ("error", "drop"))
    given = load_pairs(pairs, on_bad_row=chosen)  # type: ignore[arg-type]
    summary = label_pairs(given, out, seed=seed, read=_read_line, say=_say)
    for line in summary.lines():
        typer.echo(line)


def _read_line() -> str | None:
    """Read what is typed or piped; None at the end, and where Ctrl-C is pressed."""
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        typer.echo()
        return None
    return line.rstrip("\n") if line else None


@artifacts_app.command("list")
def list_command() -> None:
    """List the stored artifacts."""
    from posttrain.core.artifacts import list_artifacts
    from posttrain.core.storage.store import store_folder

    rows = []
    for artifact in list_artifacts():
        record = artifact.record
        mib = sum(file["size"] for file in record.get("files", {}).values()) / 2**20
        facts = (
            ("damaged", "", "")
            if "damage" in record
            else (record["created"][:16], f"{record['seconds']:.1f}", f"{mib:.1f}")
        )
        rows.append((artifact.folder.parent.name, artifact.folder.name, *facts))
    if not rows:
        typer.echo(f"The store {store_folder()} holds no artifacts.")
        return
    _print_table(("name", "key", "created (UTC)", "seconds", "MiB"), rows)


@artifacts_app.command("show")
def show_command(
    name_or_key: Annotated[str, typer.Argument(help="A name, a key, or name/key.")],
) -> None:
    """Print the records of artifacts: config, data, code, metrics, machine."""
    from posttrain.core.artifacts import show

    for artifact in show(name_or_key):
        typer.echo(f"# {artifact.folder}")
        typer.echo(json.dumps(artifact.record, indent=2, ensure_ascii=False))


@artifacts_app.command("remove")
def remove_command(
    name_or_key: Annotated[
        str, typer.Argument(help="A name (all of them), a key, or name/key.")
    ],
) -> None:
    """Remove artifacts: they are built again when next needed."""
    from posttrain.core.artifacts import remove

    for label in remove(name_or_key):
        typer.echo(f"removed {label}")


def command(line: str) -> None:
    """Run a command line in this process, as a cell of a notebook does.

    Args:
        line: What stands behind ``posttrain``, quoted as in a shell.

    Chapter: sft/your_model.
    """
    words, before = shlex.split(line), sys.argv
    sys.argv = ["posttrain", *words]
    try:
        app(words, standalone_mode=False)
    finally:
        sys.argv = before


def main() -> None:
    """Run the command line, with threads that wait calmly: PyTorch is not imported yet."""
    calm_threads()
    app()


if __name__ == "__main__":
    main()
