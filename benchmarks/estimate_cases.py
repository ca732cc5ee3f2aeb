"""The cases of the grid that compares estimates with measurements: what a case is, and its run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from peft_methods.estimation.question import question_of
from peft_methods.methods.base import ApplyContext, Method
from peft_methods.methods.registry import METHODS
from peft_methods.models import presets
from peft_methods.recipes.schema import Recipe

QUANTISED = ("nf4", "fp4", "int8")
# Sizes of models that are no preset of the package.
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    # Wang et al. 2020, arXiv:2002.10957, table 1: 6 layers of 384, with BERT's vocabulary
    "MiniLM-L6": {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_position_embeddings": 512,
    },
    # Clark et al. 2020, arXiv:2003.10555, appendix A: the base discriminator
    "electra-base": {
        "model_type": "electra",
        "vocab_size": 30522,
        "embedding_size": 768,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
    },
    # Radford et al. 2019, table 2: the smallest model
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
    },
}


@dataclass(frozen=True)
class Case:
    """A training: `rows` rows of at most `tokens` tokens by an engine.

    `precision` is that of the products, or the format of the frozen weights with products in bf16.
    """

    architecture: str
    method: str
    precision: str
    checkpointing: bool
    rows: int
    tokens: int
    engine: str = "trainer"

    @property
    def key(self) -> str:
        """The name of the case, for people and in files."""
        layers = "checkpointed" if self.checkpointing else "stored"
        shape = f"{self.rows}x{self.tokens}"
        return "/".join(
            (self.architecture, self.method, self.precision, layers, shape, self.engine)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def recipe_and_method(case: Case) -> tuple[Recipe, Method]:
    """Return what the product estimates and trains. Raises `PeftMethodsError`.

    Most rows have the full length. Some are shorter, as in real data: a batch has a mask then.
    """
    precision = "bf16" if case.precision in QUANTISED else case.precision
    lengths = [case.tokens // 2, *[case.tokens] * 8]
    question = question_of(
        source_of(case.architecture),
        methods=(case.method,),
        batch_size=case.rows,
        max_length=case.tokens,
        precision=precision,
        checkpointing=case.checkpointing,
        engine=case.engine,
        settings=(
            f"data.train={8 * case.rows}",
            f"data.validation={max(2, case.rows)}",
            "data.test=2",
            f"data.token_lengths={lengths}",
            f"budget.evaluation_batch_size={case.rows}",
            "budget.epochs=1",
        ),
    )
    (method,) = question.methods
    if case.precision in QUANTISED and method.info.quantization is None:
        method = over_quantised(method, case.precision)
    return question.recipe, method


@cache
def source_of(architecture: str) -> str:
    """Return the preset, or a folder with the config, of an architecture."""
    if architecture in presets.presets():
        return architecture
    folder = Path(tempfile.mkdtemp(prefix=f"{architecture}-"))
    config = json.dumps(CONFIGS[architecture])
    (folder / "config.json").write_text(config, encoding="utf-8")
    return str(folder)


def over_quantised(method: Method, kind: Any) -> Method:
    """Return the same method over frozen weights in this format, as QLoRA is LoRA over NF4."""
    plain = type(method)
    info = replace(plain.info, quantization=kind, start_tolerance=None)

    def apply(self: Method, model: Any, context: ApplyContext) -> Any:
        from peft import prepare_model_for_kbit_training

        from peft_methods.models.quantization import protect_tensors

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        protect_tensors(model)
        return plain.apply(self, model, context)

    made: Any = type(f"{plain.__name__}Over{kind}", (plain,), {"info": info, "apply": apply})
    return made(**{one.name: getattr(method, one.name) for one in fields(method)})


def known_methods() -> list[str]:
    """Return the names of all methods that train without the results of other runs."""
    return [name for name in METHODS if name != "adapter_fusion"]
