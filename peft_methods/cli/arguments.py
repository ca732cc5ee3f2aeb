"""The `--peft-` options: names, defaults and help, for pytest and for `peft-methods run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from peft_methods.cli.cluster_arguments import add_clusters
from peft_methods.cli.option_group import OptionGroup

if TYPE_CHECKING:
    import pytest

PREFIX = "--peft-"
LIST: dict[str, Any] = {"action": "append", "default": [], "metavar": "A,B"}


def add_options(parser: pytest.Parser) -> None:
    """Register every option with pytest."""
    group = parser.getgroup("peft-methods", "comparison of fine-tuning methods")
    for add in OPTION_GROUPS.values():
        add(group)


def _add_seeds(group: OptionGroup) -> None:
    """Register the options for how often each method is trained."""
    group.addoption(
        "--peft-seeds", metavar="N|A,B", help="3 means seeds 0, 1, 2; 4,7 means those two"
    )
    group.addoption(
        "--peft-decide",
        metavar="POINTS",
        help="add seeds until each method is worse than the best one, or equal to it within this "
        "many points, e.g. 1pp",
    )
    group.addoption(
        "--peft-seeds-max",
        metavar="N",
        help="where seeds are added: at most this many a method (default: 10)",
    )
    group.addoption(
        "--peft-decide-time",
        metavar="TIME",
        help="where seeds are added: add none after this time, e.g. 30min (default: no limit)",
    )


def _add_choices(group: OptionGroup) -> None:
    """Register the options for what is compared."""
    group.addoption(
        "--peft-recipe",
        help="recipes by name or TOML path; all: every shipped one "
        "(default: embedded; with -m gpu imdb_roberta too)",
        **LIST,
    )
    group.addoption(
        "--peft-method",
        help="only these methods, by name, family (low_rank) or pattern ('lora*'); "
        "all: every one there is",
        **LIST,
    )
    group.addoption(
        "--peft-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a recipe field, e.g. budget.epochs=2",
    )
    group.addoption(
        "--peft-model",
        metavar="SOURCE",
        help="another model: a hub id, a local folder, or bundled:NAME; several (a,b) are trained "
        "on the same rows and compared",
    )
    group.addoption(
        "--peft-weights",
        metavar="KIND",
        help="pretrained, or random: build the model from its config alone, to measure its cost",
    )
    group.addoption(
        "--peft-data",
        metavar="SOURCE",
        help="other data: a hub id, a Parquet/CSV/JSON file, a folder of such files, or a saved "
        "data set; the recipe's sizes are upper limits then",
    )
    group.addoption(
        "--peft-curve", metavar="A,B", help="train on each of these numbers of rows: 100,300,1000"
    )
    group.addoption(
        "--peft-trust-remote-code",
        action="store_true",
        help="run Python code that comes with a model, if the recipe allows it too",
    )


def _add_execution(group: OptionGroup) -> None:
    """Register the options for how runs are executed."""
    group.addoption(
        "--peft-dry-run",
        action="store_true",
        help="print the runs, how long they may take and their memory on a GPU; train nothing",
    )
    group.addoption(
        "--peft-results",
        metavar="DIR",
        default=".peft/results",
        help="folder for records (default: %(default)s)",
    )
    group.addoption(
        "--peft-resume",
        action="store_true",
        help="train only runs without a record from an earlier session (the default)",
    )
    group.addoption(
        "--peft-fresh",
        action="store_true",
        help="train everything again; earlier records stay until new ones replace them",
    )
    group.addoption(
        "--peft-workers",
        metavar="N",
        help="runs at a time (default: 2 on a CPU, each with half the cores; 1 on each GPU)",
    )
    group.addoption(
        "--peft-devices",
        metavar="A,B",
        help="the GPUs to use, by index among the visible ones or by UUID (default: all of one "
        "kind)",
    )
    group.addoption(
        "--peft-executor",
        metavar="NAME",
        default="local",
        help="where runs happen: local (this machine), ray (a Ray cluster), slurm (jobs of a Slurm "
        "cluster) or an executor of an installed package",
    )
    group.addoption(
        "--peft-timeout",
        metavar="TIME",
        help="end a run that takes longer, e.g. 90s, 10min, 2h (default: no limit)",
    )
    group.addoption(
        "--peft-retries",
        metavar="N",
        default="1",
        help="retry a run whose process was killed or whose GPU failed (default: 1)",
    )
    group.addoption(
        "--peft-isolation",
        metavar="KIND",
        default="fresh",
        help="fresh: a process for each run; warm: a process of this machine does one run after "
        "another, as long as each leaves it as it was (default: %(default)s)",
    )


def _add_training(group: OptionGroup) -> None:
    """Register the options for how each run trains."""
    group.addoption(
        "--peft-engine",
        metavar="NAME",
        default="auto",
        help="auto, trainer (the Hugging Face Trainer) or cuda_graphs (its steps as CUDA graphs)",
    )
    group.addoption(
        "--peft-tune",
        metavar="N",
        help="first tune every method by N trials on validation data (needs the extra `tune`)",
    )
    group.addoption(
        "--peft-vary",
        metavar="A,B",
        help="what seeds vary: initialisation, data_order, dropout, training_subset, split; each: "
        "train every part alone too, to measure where the noise comes from",
    )
    group.addoption("--peft-save-models", metavar="DIR", help="keep each run's best model here")
    group.addoption(
        "--peft-checkpoint",
        action="store_true",
        help="save every epoch's state, so that a killed run resumes from there",
    )
    group.addoption(
        "--peft-deterministic",
        action="store_true",
        help="on a GPU too, use only operations that give identical bits every time",
    )


def _add_output(group: OptionGroup) -> None:
    """Register the options for what is written, and where."""
    group.addoption("--peft-rules", action="store_true", help="list the validity rules and exit")
    group.addoption(
        "--peft-track",
        help="log to these trackers: tensorboard, wandb, trackio, mlflow, "
        "or another one that the Hugging Face Trainer supports",
        **LIST,
    )
    group.addoption(
        "--peft-silence",
        metavar="V105,V301",
        action="append",
        default=[],
        help="skip these rules; the table lists them",
    )
    group.addoption(
        "--peft-columns",
        help="columns of the table in the terminal, e.g. accuracy,group,time,memory "
        "(default: those that fit its width)",
        **LIST,
    )
    group.addoption(
        "--peft-no-estimates",
        action="store_true",
        help="do not estimate, after the last run, the memory and time of new runs on GPUs",
    )
    group.addoption("--peft-markdown", metavar="FILE", help="write the table as Markdown")
    group.addoption(
        "--peft-csv", metavar="FILE", help="write every metric as CSV, one row per method"
    )
    group.addoption(
        "--peft-report",
        metavar="DIR",
        help="write DIR/report.html, with charts (needs the extra `report`)",
    )
    group.addoption(
        "--peft-paper",
        metavar="FILE.pdf",
        help="write the comparison as a two-column paper (needs the extra `paper`)",
    )


def _add_regression_check(group: OptionGroup) -> None:
    """Register the options for baselines, and for the constraints on recommendations."""
    group.addoption(
        "--peft-baseline",
        metavar="FILE|auto",
        help="fail if a method is worse than this baseline; auto: this device's stored file",
    )
    group.addoption(
        "--peft-fail",
        action="append",
        default=[],
        metavar="METRIC:TOLERANCE",
        help="how much worse it may be "
        "(default: accuracy:1pp, peak_memory_bytes:5%%, train_seconds:10%%)",
    )
    group.addoption(
        "--peft-allow-missing",
        action="store_true",
        help="allow a method to be missing from the session or the baseline",
    )
    group.addoption(
        "--peft-allow-reused",
        action="store_true",
        help="check records that were reused from an earlier session too",
    )
    group.addoption(
        "--peft-save-baseline",
        metavar="FILE|auto",
        help="write this session's results as a baseline if nothing failed",
    )
    group.addoption(
        "--peft-append",
        action="store_true",
        help="keep the sessions of the saved baseline and add this one: they show the drift",
    )
    group.addoption(
        "--peft-budget",
        metavar="LIMITS",
        help="recommend only methods within these limits, e.g. memory=8GB,time=10min",
    )
    group.addoption(
        "--peft-fit",
        metavar="LIMITS",
        help="skip runs that need more by estimate, e.g. memory=16GB,time=2h",
    )
    group.addoption(
        "--peft-margin",
        metavar="POINTS",
        help="differences up to this many points of quality count as none (default: 1pp)",
    )


OPTION_GROUPS: Mapping[str, Callable[[OptionGroup], None]] = {
    "what is compared": _add_choices,
    "how often each method is trained": _add_seeds,
    "how runs are executed": _add_execution,
    "clusters": add_clusters,
    "how each run trains": _add_training,
    "what is written": _add_output,
    "baselines and constraints": _add_regression_check,
}
