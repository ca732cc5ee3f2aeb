"""Every method of every task builds on the model types that people use, or says why not."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from builders import DECODERS, LACKING, make_any, write_example
from peft_methods.data import splits, tokenize
from peft_methods.methods.base import ApplyContext
from peft_methods.methods.registry import METHODS
from peft_methods.models import loading
from peft_methods.models.parameters import count_parameters
from peft_methods.recipes.schema import DataSpec, ModelSpec
from peft_methods.tasks.collate import model_inputs
from peft_methods.tasks.registry import TASKS
from peft_methods.utils.errors import ModelError

ENCODERS = ("modernbert", "deberta-v2", "electra", "albert", "xlm-roberta")
NAMED = (
    *ENCODERS,
    *("llama", "qwen2", "qwen3", "gemma", "gemma3_text", "gpt2", "opt", "mistral", "t5", "bart"),
)
FITTING = {
    "token_classification": ENCODERS,
    "causal_lm": [kind for kind in NAMED if kind in DECODERS],
}
QUICK = {("token_classification", "modernbert"), ("causal_lm", "gpt2"), ("regression", "t5")}
CASES = [
    pytest.param(task, kind, marks=() if (task, kind) in QUICK else pytest.mark.slow)
    for task in TASKS
    for kind in NAMED
    if task != "text_classification"  # test_model_types.py
]
UNFIT = [(task, kind) for task, fitting in FITTING.items() for kind in NAMED if kind not in fitting]


@pytest.mark.parametrize(
    ("task_name", "kind"),
    [case for case in CASES if case.values not in {tuple(one) for one in UNFIT}],
)
def test_every_method_builds_or_says_why_not(task_name: str, kind: str, tmp_path: Path) -> None:
    """Every trained parameter has a gradient, and their number is the expected one."""
    task = TASKS[task_name]
    spec = DataSpec(str(write_example(task, tmp_path / "data")), 32, 12, 20, max_length=12)
    texts = splits.load(spec, task)
    model = ModelSpec(str(make_any(tmp_path / "model", kind)))
    built = 0
    for name in METHODS:
        if name in LACKING:
            continue
        settings = {"learning_rate": 0.01, **METHODS[name].example_settings()}
        method = METHODS.create(name, settings, "test")
        base = loading.load(
            model, task.head, texts.facts.label_names, quantization=method.info.quantization
        )
        if (reason := method.unsupported(base.architecture, "cpu")) is not None:
            assert method.title in reason
            assert kind in reason or "this task" in reason
            continue
        tokens = tokenize.tokenize(texts, base.tokenizer, spec, task)
        batch = task.collator(base.tokenizer)([tokens.train[row] for row in range(4)])
        context = ApplyContext(
            base.architecture,
            base.head,
            task.peft_type,
            unquantized=lambda: loading.load(model, task.head, texts.facts.label_names).model,
            train_batches=lambda most, batch=batch: [model_inputs(batch)] * most,  # type: ignore[misc]
        )
        trained = method.apply(base.model, context).eval()
        task.loss(trained, batch).mean.backward()
        counts = count_parameters(trained, base.head)
        assert counts.method == method.expected_trainable(base.architecture), name
        idle = [n for n, p in trained.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == [], name
        built += 1
    assert built >= 5


@pytest.mark.parametrize(("task_name", "kind"), UNFIT)
def test_a_model_that_cannot_carry_the_head_is_refused_with_what_is_needed(
    task_name: str, kind: str, tmp_path: Path
) -> None:
    task = TASKS[task_name]
    with pytest.raises(ModelError) as caught:
        loading.load(ModelSpec(str(make_any(tmp_path, kind))), task.head, ("O", "B-X", "I-X"))
    message = str(caught.value)
    assert task.head.needed in message
    assert task.head.examples in message
    assert f"the nearest type that can: {kind!r}" not in message


def test_the_nearest_decoder_is_no_encoder_decoder() -> None:
    """ALBERT was sent to PLBART."""
    from transformers import CONFIG_MAPPING

    found = {
        named[1]
        for kind in CONFIG_MAPPING
        if (named := re.search(r"that can: '(.*)'", _misfit("causal_lm", kind)))
    }
    assert len(found) > 20
    assert [one for one in found if _is_encoder_decoder(one)] == []


def _is_encoder_decoder(kind: str) -> bool:
    from transformers import CONFIG_MAPPING

    try:
        return bool(CONFIG_MAPPING[kind]().is_encoder_decoder)
    except Exception:  # it needs the configs of its parts
        return False


def _misfit(task_name: str, kind: str) -> str:
    return TASKS[task_name].head.misfit(SimpleNamespace(model_type=kind, is_encoder_decoder=False))
