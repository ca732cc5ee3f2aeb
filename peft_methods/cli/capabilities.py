"""`peft-methods capabilities`: show the measured matrix of what trains what, or measure it."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_methods.cli.parsing import names_of, path_of
from peft_methods.utils.errors import OptionError

if TYPE_CHECKING:
    from peft_methods.capabilities.matrix import Matrix
    from peft_methods.capabilities.selection import Selection

FOLDER = Path(".peft/capabilities")  # where a matrix that is measured here is kept
INTERRUPTED = 2  # the exit code, as pytest's
NAMES: dict[str, Any] = {"action": "append", "default": [], "metavar": "A,B"}
MORE = "`peft-methods capabilities --method NAME` shows why a combination is not supported."


def add_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the command `capabilities`."""
    command = commands.add_parser(
        "capabilities",
        help="which method works on which model, task and precision, as measured",
        description="Show which method trains which family of models, on which task and in which "
        "precision. Each combination was trained for a few steps on a tiny model, and passed or "
        "failed its checks. `capabilities run` measures it here; interrupted, it goes on where it "
        "was. Exit code: 0, 1 if a check of `run` fails, 2 for a damaged or missing file and "
        "after Ctrl-C, or 4 for an unknown name.",
    )
    command.add_argument(
        "action",
        nargs="?",
        default="show",
        choices=["show", "run"],
        help="show (the default) or run",
    )
    command.add_argument("--method", help="only these methods, by name, family or pattern", **NAMES)
    command.add_argument("--family", help="only these families of models, e.g. bert,llama", **NAMES)
    command.add_argument("--task", help="only these tasks", **NAMES)
    command.add_argument(
        "--file",
        metavar="FILE",
        help=f"the matrix to show, or to measure and write (default: the device's in {FOLDER}, "
        "and to show, else the one that is part of the package)",
    )
    run = command.add_argument_group("options of `capabilities run`")
    run.add_argument("--workers", metavar="N", default="2", help="processes (default: %(default)s)")
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    run.add_argument(
        "--only-engine",
        action="store_true",
        help="make only the check that the engines give the same losses",
    )
    run.add_argument("--fresh", action="store_true", help="measure everything again")
    run.add_argument("--limit", metavar="TIME", help="begin no cell after this time, e.g. 5min")
    command.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Show or measure the matrix. Raises `OptionError` or `MatrixError`."""
    from peft_methods.capabilities.selection import Selection

    selection = Selection(
        names_of(arguments.method, "method"),
        names_of(arguments.family, "family"),
        names_of(arguments.task, "task"),
    )
    file = None if arguments.file is None else path_of(arguments.file, "file")
    if arguments.action == "run":
        return _run(arguments, selection, file)
    return _show(selection, file)


def _show(selection: Selection, file: Path | None) -> int:
    from peft_methods.capabilities.matrix import COMMAND, Matrix, MatrixError, shipped

    own = FOLDER / "cpu.json"
    paths = [file] if file else [own] if own.exists() else shipped()[:1]
    if not paths:
        raise MatrixError(f"no matrix has been measured yet. `{COMMAND}` does it.")
    engines = [
        path for path in (*FOLDER.glob("*.json"), *shipped()) if not path.stem.startswith("cpu")
    ]
    gpu = Matrix.read(engines[0]) if engines and file is None else None
    matrix = Matrix.read(paths[0])
    _print(matrix, selection, gpu)
    if stale := [cell for cell in matrix.stale() if selection.has(cell)]:
        print(
            f"{len(stale):,} of these combinations were measured with other code or other versions "
            f"than are installed: `{COMMAND}` measures them again."
        )
    return 0


def _print(matrix: Matrix, selection: Selection, engines: Matrix | None = None) -> bool:
    """Print the selected part. Return whether a check failed that is not known upstream."""
    from peft_methods.capabilities.upstream import shown_status
    from peft_methods.report.text.capabilities import View, capability_text
    from peft_methods.report.text.layout import WIDTH_OF_A_LOG
    from peft_methods.utils.sanitize import visible

    view = View(matrix, selection, engines)
    width = shutil.get_terminal_size((WIDTH_OF_A_LOG, 24)).columns
    detailed = bool(selection.methods or selection.families or selection.tasks)
    text = capability_text(view, width, "" if detailed else MORE, detailed=detailed)
    print("\n".join(map(visible, text.rstrip().splitlines())))
    return any(shown_status(*item) == "failed" for item in view.results.items())


def _run(arguments: argparse.Namespace, selection: Selection, file: Path | None) -> int:
    from peft_methods.capabilities.session import Options, Session
    from peft_methods.runs.limits import parse_timeout

    if not (arguments.workers.isdecimal() and int(arguments.workers) >= 1):
        raise OptionError(f"--workers {arguments.workers!r} should be a whole number of 1 or more.")
    options = Options(
        arguments.device,
        int(arguments.workers),
        arguments.only_engine,
        arguments.fresh,
        parse_timeout(arguments.limit, "--limit"),
    )
    alone = "-engines" if arguments.only_engine and arguments.device == "cpu" else ""
    path = file or FOLDER / f"{arguments.device}{alone}.json"
    session = Session(
        selection, options, path, lambda line: print(line, file=sys.stderr, flush=True)
    )
    try:
        matrix = session.run()
    except KeyboardInterrupt:
        print(f"interrupted: the same command goes on from what is in {path}", file=sys.stderr)
        return INTERRUPTED
    return int(_print(matrix, selection))
