"""Rules that only audited tables have: planted faults, near misses, fields, honest tables."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from audit_faults import A100, ROW_FAULTS, gigabytes, row, written

from peft_methods.analysis.checks import RULES
from peft_methods.analysis.checks.device_limits import limits_of
from peft_methods.analysis.checks.parameter_counts import known_models
from peft_methods.analysis.checks.row import ResultRow
from peft_methods.analysis.checks.rule import Finding
from peft_methods.analysis.external.audit import DEFAULTS, OF_RECORDS, audit_rows, check_table
from peft_methods.methods.registry import METHODS

TABLES_OF = ["row", "comparison", "table"]
NEAR_MISSES: dict[str, list[list[ResultRow]]] = {
    "V211": [[row("LoRA", trainable=written("0.0", 1e6))]],
    # "125M" may be the size of the model, which is the same in every row
    "V212": [
        [row("Full", trainable=written("125", 1e6)), row("LoRA", trainable=written("125", 1e6))]
    ],
    "V213": [
        [row("LoRA", trainable=739_586, total=66_955_010, trainable_share=written("1.10", 0.01))],
        [row("LoRA", trainable=739_586, total=67_694_596, trainable_share=written("1.09", 0.01))],
        [row("LoRA", trainable=739_586, total=66_955_010, trainable_share=written("1", 0.01))],
        # Totals in millions and thousands, without the unit
        [
            row(
                "LoRA",
                trainable=739_586,
                total=written("66.9"),
                trainable_share=written("1.1", 0.01),
            )
        ],
        [row("LoRA", trainable=739_586, total=66_955, trainable_share=written("1.10", 0.01))],
        [
            row(
                "LoRA",
                trainable=written("0.74"),
                total=66_955,
                trainable_share=written("1.1", 0.01),
            )
        ],
    ],
    "V214": [
        [
            row("LoRA q+v", trainable=written("0.59", 1e6), rank=8.0, targets=("q", "v")),
            row("LoRA k+o", trainable=written("0.59", 1e6), rank=8.0, targets=("k", "o")),
        ]
    ],
    "V215": [
        [
            row("LoRA", model="roberta-base", trainable=589_824),
            row("IA3", model="roberta-base", trainable=55_296),
        ]
    ],
    "V307": [
        [
            row("Full", accuracy=0.95, validation_accuracies=(0.94, 0.95)),  # two digits
            row("LoRA", accuracy=0.94, validation_accuracies=(0.93, 0.94)),
        ]
    ],
    "V308": [[row("LoRA", scores={"loss": 0.0, "forgetting": 0.0}), row("IA3", accuracy=0.001)]],
    "V309": [
        [row("LoRA", data="MRPC", accuracy=0.68)],  # two digits
        [row("LoRA", data="MRPC", accuracy=0.6863)],
        [row("LoRA", data="RTE", accuracy=0.6838)],
        [row("LoRA", scores={"mrpc_f1": 0.6838})],
    ],
    "V417": [
        [row("Full", peak_memory=gigabytes("9.12")), row("IA3", peak_memory=gigabytes("9.97"))]
    ],
    "V418": [
        [
            row("LoRA r=4", trainable=2_600_000, rank=4.0, peak_memory=gigabytes("6.4")),
            row("LoRA r=64", trainable=42_000_000, rank=64.0, peak_memory=gigabytes("7.1")),
        ],
        # A small model: activations of further targets may explain a tenth of a gigabyte
        [
            row("LoRA q+v", trainable=33_539, peak_memory=written("118", 1e6)),
            row("LoRA all", trainable=131_843, peak_memory=written("295", 1e6)),
        ],
    ],
    "V419": [
        [row("QLoRA", model="bert-base-uncased", peak_memory=written("145", 1e6))],
        [row("QLoRA", total=7_000_000_000, peak_memory=gigabytes("1.1"))],  # parted over 8 GPUs
        [row("Full, ZeRO-3, CPU offload", model="mistral-7b", peak_memory=gigabytes("1.2"))],
    ],
    "V424": [
        [row("LoRA (FSDP)", model="mistral-7b", peak_memory=gigabytes("3.1"))],
        [row("Full", model="mistral-7b", peak_memory=gigabytes("14.9"))],
        [row("Full", model="mistral-7b", peak_memory=gigabytes("5.3"), device="4x A100 80GB")],
        [row("QLoRA", model="mistral-7b", peak_memory=gigabytes("4.9"))],
    ],
    "V420": [[row("Full", model="roberta-base", train_seconds=60.0, **A100)]],
    # An untrained model takes no time; nor is every row a method
    "V425": [
        [row("LoRA", train_seconds=0.4)],
        [row("LoRA", train_seconds=0.0, trainable=0), row("Zero-shot", train_seconds=0.0)],
    ],
    "V421": [[row("LoRA", train_seconds=600.0, samples_per_second=130.0, **A100)]],
    "V422": [
        # 4 GPUs of 16 rows; the last batch is not full
        [row("LoRA", train_rows=25_000.0, batch_size=16.0, steps_per_epoch=391.0, epochs=3.0)],
        [row("LoRA", train_rows=25_000.0, batch_size=16.0, steps_per_epoch=1563.0, epochs=3.0)],
        [row("LoRA", steps_per_epoch=100.0, epochs=3.0, total_steps=250.0)],  # ended early
    ],
    "V423": [[row("LoRA", train_seconds=600.0, energy_joules=1.8e5, device="A100")]],
    "V510": [[row("Full", train_seconds=300.0), row("LoRA", train_seconds=155.0)]],
}


@pytest.mark.parametrize("rule", list(ROW_FAULTS))
def test_rule_finds_its_planted_fault_and_nothing_else(rule: str) -> None:
    # No setting of LoRA trains as many parameters as full fine-tuning: V203 says that too.
    also = {"V203"} if rule == "V212" else set()
    assert {one.rule for one in check_table(ROW_FAULTS[rule])} == {rule} | also
    assert check_table(ROW_FAULTS[rule], [rule, *also]) == []


@pytest.mark.parametrize("rule", list(ROW_FAULTS))
def test_rule_finds_nothing_in_near_misses(rule: str) -> None:
    for rows in NEAR_MISSES[rule]:
        assert rule not in {one.rule for one in check_table(rows)}


@pytest.mark.parametrize("rule", list(ROW_FAULTS))
def test_needs_are_true_and_sufficient(rule: str) -> None:
    """Without one field of every way to find something, a rule finds nothing and is not applied."""
    rows = ROW_FAULTS[rule]
    assert rule in audit_rows(rows).applied
    for fields in itertools.product(*RULES[rule].needs):
        if set(fields) & {"method", "architectures", "total_parameters"}:
            continue  # derived from names and counts
        audit = audit_rows([without(one, fields) for one in rows])
        assert rule not in audit.applied
        assert rule not in {one.rule for one in audit.findings}


def without(one: ResultRow, fields: Sequence[str]) -> ResultRow:
    return replace(one, **{name: DEFAULTS[name] for name in fields})


def test_every_rule_of_tables_names_fields_that_exist() -> None:
    for rule in RULES.values():
        assert bool(rule.needs) == (rule.scope in TABLES_OF), rule.id
        assert {name for way in rule.needs for name in way} <= set(DEFAULTS)
    assert set(DEFAULTS) >= OF_RECORDS


def test_each_finding_names_its_lines() -> None:
    (found,) = check_table(ROW_FAULTS["V214"])
    assert found.lines == (0, 1)
    (found,) = check_table(ROW_FAULTS["V308"])
    assert (found.subject, found.lines) == ("IA3", (1,))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(30_720, ["V211"]), (61_440, []), (30_720 + 545_792, [])],
)
def test_v211_knows_the_head_from_full_fine_tuning(count: int, expected: list[str]) -> None:
    """The head has 20 classes of width 1,536: no usual rank on any targets has as many."""
    full = row("Full", model="qwen2-1.5b", trainable=1_543_745_024)
    lora = row("LoRA", model="qwen2-1.5b", trainable=count)
    assert [one.rule for one in check_table([full, lora]) if one.severity == "error"] == expected


def test_v215_sees_that_full_fine_tuning_counts_the_head() -> None:
    """16,384,000 is rank 8 on query and value without the head of 20 classes."""
    full = row("Full", model="qwen2-72b", trainable=71_460_659_200)
    lora = row("LoRA", model="qwen2-72b", trainable=16_384_000, rank=8.0)
    (found,) = check_table([full, lora])
    assert (found.rule, found.subject) == ("V215", "LoRA")
    assert found.evidence == "counted without the head, and Full with it"


def test_v215_takes_a_rounded_count_that_is_below_the_head() -> None:
    rows = [
        row("Full", model="roberta-base", trainable=124_647_170),
        row("LoRA", model="roberta-base", trainable=written("294.91", 1e3)),
    ]
    assert [(one.rule, one.subject) for one in check_table(rows)] == [("V215", "LoRA")]


def test_v418_needs_less_where_the_rank_alone_differs() -> None:
    rows = [
        row("LoRA (r=16)", trainable=33_539, rank=16.0, peak_memory=written("118", 1e6)),
        row("LoRA (r=64)", trainable=131_843, rank=64.0, peak_memory=written("295", 1e6)),
    ]
    assert [one.rule for one in check_table(rows)] == ["V418"]


def test_v213_finds_a_wrong_share_of_a_total_without_its_unit() -> None:
    share = written("11", 0.01)
    (found,) = check_table(
        [row("LoRA", trainable=739_586, total=written("66.9"), trainable_share=share)]
    )
    assert found.rule == "V213"
    assert found.evidence.startswith(
        "739,586 of 66.9 parameters (in the unit that fits best) are 1.11%, not 11 %"
    )


@pytest.mark.parametrize(
    ("scores", "data"),
    [
        ({"mrpc": 0.6838, "sst2": 0.93}, "MRPC"), ({"RTE": 0.527}, "RTE"),
        ({"qnli": 0.5054}, "QNLI"),
        ({"SST-2": 0.509}, "SST-2"), ({"imdb": 0.5}, "IMDb"), ({"MRPC": 0.665}, "MRPC"),
        ({"CoLA": 0.6913}, "CoLA"), ({"BoolQ": 0.6217}, "BoolQ"), ({"AG News": 0.25}, "AG News"),
    ],
)  # fmt: skip
def test_v309_knows_the_most_frequent_class(scores: dict[str, float], data: str) -> None:
    (found,) = check_table([row("LoRA", scores=scores)])
    assert (found.rule, found.subject) == ("V309", "LoRA")
    assert f"on {data}, that of predicting its most frequent class" in found.evidence


def test_v308_counts_a_few_right_answers_of_thousands_as_none() -> None:
    rows = [row("LoRA", accuracy=0.482), row("IA3", accuracy=1 / 1319)]
    assert [(one.rule, one.subject) for one in check_table(rows)] == [("V308", "IA3")]
    assert check_table([row("LoRA", accuracy=0.004), row("IA3", accuracy=0.001)]) == []


def test_one_seed_that_learnt_nothing_is_named() -> None:
    seeds = [
        row("Full", seed=float(seed), data="CoLA", accuracy=accuracy, scores={"mcc": mcc})
        for seed, (accuracy, mcc) in enumerate([(0.828, 0.571), (0.6913, 0.0), (0.834, 0.588)])
    ]
    found = check_table([replace(one, line=line) for line, one in enumerate(seeds)])
    assert [(one.rule, one.subject, one.lines) for one in found] == [
        ("V308", "Full (row 2)", (1,)),
        ("V309", "Full (row 2)", (1,)),
    ]


def test_v506_compares_qlora_with_the_row_of_the_same_setting() -> None:
    rows = [
        row("LoRA r=64", rank=64.0, train_seconds=1000.0),
        row("LoRA r=8", rank=8.0, train_seconds=300.0),
        row("QLoRA r=8", rank=8.0, train_seconds=360.0),
    ]
    assert check_table(rows) == []
    slow = replace(rows[1], train_seconds=3000.0)
    assert [one.rule for one in check_table([rows[0], slow, rows[2]])] == ["V506"]


def test_v213_names_the_row_whose_share_it_is() -> None:
    rows = [
        row("Full", trainable=66_955_010),
        row("LoRA", trainable=739_586, trainable_share=written("0.97", 0.01)),
        row("IA3", trainable=647_426, trainable_share=written("0.97", 0.01)),
    ]
    (found,) = check_table(rows)
    assert (found.rule, found.subject) == ("V213", "LoRA")
    assert found.evidence.endswith("are 1.10%, not 0.97 %, which is that of IA3")


def test_v510_says_what_explains_a_ratio_up_to_four() -> None:
    def advice(seconds: float) -> str:
        (found,) = check_table(
            [row("Full", train_seconds=900.0), row("LoRA", train_seconds=seconds)]
        )
        return found.advice

    assert advice(300.0).startswith("optimizer, precision, checkpointing, batch or epochs")
    assert advice(200.0).startswith("nothing ordinary explains this")


def test_v510_counts_epochs_and_leaves_other_budgets_to_v502() -> None:
    full = row("Full", train_seconds=900.0, epochs=3.0, batch_size=16.0)
    once = row("LoRA", train_seconds=250.0, epochs=1.0, batch_size=16.0)
    other = row("LoRA", train_seconds=250.0, epochs=3.0, batch_size=64.0)
    assert {one.rule for one in check_table([full, once])} == {"V502"}
    assert {one.rule for one in check_table([full, other])} == {"V502"}


@pytest.mark.parametrize("text", ["5410", "2413.7"])
def test_v406_counts_a_zero_at_the_end_of_a_whole_number(text: str) -> None:
    def alike(text: str) -> list[Finding]:
        return check_table([row(name, peak_memory=written(text, 1e6)) for name in ("LoRA", "IA3")])

    assert [one.rule for one in alike(text)] == ["V406"]
    assert alike("5400") == []


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", ("A100", 1)),
        ("8x A100 80GB", ("A100", 8)),
        ("Tesla T4", ("T4", 1)),
        ("RTX 4090", ("RTX 4090", 1)),
        ("4 GPUs, H100", ("H100", 4)),
        ("L4", ("L4", 1)),
        ("8xA100", ("A100", 8)),
        ("A100-80GB (x8)", ("A100", 8)),
        ("RTX 3090 x2", ("RTX 3090", 2)),
        ("GTX 1080 x2", None),
        ("CPU", None),
        ("A100 and T4", None),
        ("–", None),
        (None, None),
    ],
)
def test_limits_are_those_of_the_named_devices(
    device: str | None, expected: tuple[str, int] | None
) -> None:
    found = limits_of(device)
    assert (found and (found[0].name, found[1])) == expected


def honest_tables(count: int) -> Iterator[list[ResultRow]]:
    """Generate tables of equal work: closed-form counts, and costs as they were measured.

    Times, as shares of full fine-tuning's, and memory are drawn from ranges somewhat wider than
    those of the project's own records of small encoders and decoders.
    """
    draw = random.Random(0)
    # Methods enumerate all sets of targets, which are too many for encoders with decoders.
    models = [one for one in known_models().values() if 0 < len(one.linear_layers) < 10]
    for _ in range(count):
        architecture = draw.choice(models)
        size = architecture.encoder_parameters + architecture.head_parameters
        peak, seconds = size * draw.uniform(16, 60), draw.uniform(20, 20_000)
        rows, batch = draw.randrange(500, 100_000), draw.choice((8, 16, 32))
        steps, epochs = -(-rows // batch), float(draw.randrange(1, 6))
        best = round(draw.uniform(0.6, 0.97), draw.choice((3, 4)))
        names = ("Full", "LoRA r=8", "LoRA r=16", "IA3", "QLoRA")
        costs = {"full": (1.0, 1.0)}
        table = []
        for name in names:
            method = str(METHODS.recognize(name))
            cost = costs.setdefault(method, (draw.uniform(0.52, 1.3), draw.uniform(0.35, 1.15)))
            counts = counts_of(method, architecture)
            trainable = size if method == "full" else counts and draw.choice(counts)
            memory = peak * cost[1] * draw.uniform(0.97, 1.03) + 16 * (trainable or 0)
            own = best + round(draw.uniform(-0.03, 0.03), 4)
            log = tuple(round(own + draw.gauss(0, 0.008), 4) for _ in range(int(epochs)))
            table.append(
                row(
                    name,
                    accuracy=own,
                    validation_accuracies=log,
                    trainable=trainable or None,
                    total=size,
                    architectures=(architecture,),
                    trainable_share=written(f"{100 * trainable / size:.2f}", 0.01)
                    if trainable
                    else None,
                    train_seconds=seconds * cost[0],
                    samples_per_second=rows
                    * epochs
                    / (seconds * cost[0])
                    * draw.uniform(0.95, 1.1),
                    peak_memory=written(f"{memory / 1e6:.1f}", 1e6),
                    train_rows=float(rows),
                    batch_size=float(batch),
                    steps_per_epoch=float(steps),
                    total_steps=steps * epochs,
                    epochs=epochs,
                )
            )
        yield table


def counts_of(method: str, architecture: object) -> list[int]:
    known = METHODS[method].possible_counts(architecture)  # type: ignore[arg-type]
    return list(itertools.islice(known, 40))


def test_rules_of_tables_find_nothing_in_honest_tables() -> None:
    """150 tables, 750 rows: no error, and a warning in at most one table of a hundred."""
    own = set(ROW_FAULTS)
    found = [one for table in honest_tables(150) for one in check_table(table) if one.rule in own]
    assert [one for one in found if one.severity == "error"] == []
    assert len(found) <= 1
