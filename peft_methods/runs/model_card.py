"""The README.md of a saved model: what it is, and the calls that load what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from peft_methods.methods.base import Method
from peft_methods.models.model_head import ModelHead
from peft_methods.recipes.bundled_names import PREFIX
from peft_methods.utils.files import is_only_a_path

NEW_HEAD = """
**Do not load this folder with `{auto_model}.from_pretrained` or `pipeline()`**: they refuse it or,
in some versions, load the base model with a new, random head, whose predictions mean nothing.
"""
NOT_PLAIN = """
**Do not load this folder with `{auto_model}.from_pretrained` or `pipeline()`**: they refuse it or
load the base model without what was trained.
"""
GENERATE = """
Write a completion, as it was measured (greedily, at most {tokens} tokens):

```python
prompt = "…"  # as in training: by the template, or for conversations the chat template
inputs = tokenizer(prompt, return_tensors="pt")
written = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""
OURS = """
```python
import peft_methods
from transformers import AutoTokenizer

folder = "."  # the path of this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = peft_methods.load_trained(folder)
```
"""
PLAIN = """
```python
from transformers import {auto_model}, AutoTokenizer

folder = "."  # the path of this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto_model}.from_pretrained(folder)
```
"""
LABELS = "config = AutoConfig.from_pretrained(folder)  # it has the names of the labels\n"
WITH_PEFT = """
With PEFT and transformers alone:

```python
from peft import PeftModel
from transformers import {imports}
{base_import}
folder = "."  # the path of this folder
{config}base = {auto_model}.from_pretrained(
    {base}{options}
)
model = PeftModel.from_pretrained(base, folder).eval()
```
"""
MERGED = """
As a plain transformers model, with the trained weights folded into those of the base:

```python
import peft_methods
from transformers import AutoTokenizer

folder = "."  # the path of this folder
model = peft_methods.load_trained(folder, merge=True)
model.save_pretrained("merged")
AutoTokenizer.from_pretrained(folder).save_pretrained("merged")
```

`{auto_model}.from_pretrained("merged")` and `pipeline()` load that folder with its head.
"""


def model_card(
    method: Method, description: Mapping[str, Any], head: ModelHead, usage: str = ""
) -> str:
    """Return the README of a saved model; `description` is the content of its method.json.

    `usage` is what the task says about reading the outputs.
    """
    return _loading(method, description, head) + (f"\n## Use it\n{usage}" if usage else "")


def _loading(method: Method, description: Mapping[str, Any], head: ModelHead) -> str:
    auto_model = head.auto_model
    saved_format, source = description["format"], description["model"]["source"]
    parts = [_front_matter(source, saved_format), _title(method, description), "\n## Load it\n"]
    if saved_format == "transformers":
        parts.append(PLAIN.format(auto_model=auto_model))
        parts.append("\n`peft_methods.load_trained(folder)` returns the same model.\n")
        return "".join([*parts, *_generation(description)])
    parts.append(OURS)
    if not head.pretrained:
        parts.append(NEW_HEAD.format(auto_model=auto_model))
    elif saved_format != "peft":  # transformers reads PEFT's folders of models without a new head
        parts.append(NOT_PLAIN.format(auto_model=auto_model))
    if saved_format == "peft" and description["model"]["weights"] == "pretrained":
        parts.append(_with_peft(description, auto_model, has_labels=not head.pretrained))
    if method.info.mergeable:
        parts.append(MERGED.format(auto_model=auto_model))
    return "".join([*parts, *_generation(description)])


def _generation(description: Mapping[str, Any]) -> list[str]:
    """Return how to write a completion, for models that do."""
    tokens = description.get("max_new_tokens")
    return [] if tokens is None else [GENERATE.format(tokens=tokens)]


def _front_matter(source: str, saved_format: str) -> str:
    """Return the metadata that model hubs read. Only a hub id can be named as the base there."""
    library = {"peft": "peft", "transformers": "transformers"}.get(saved_format, "peft-methods")
    on_hub = not source.startswith(PREFIX) and not is_only_a_path(source)
    base = f"base_model: {source}\n" if on_hub else ""
    return f"---\nlibrary_name: {library}\n{base}---\n\n"


def _title(method: Method, description: Mapping[str, Any]) -> str:
    labels = ", ".join(map(str, description["label_names"])) or "none"
    origin = description.get("converted_from")
    made = f"converted from {origin}" if origin else method.info.trained
    return (
        f"# {method.title} on {description['model']['source']}\n\n"
        f"- Task: {description['task']}; labels: {labels}\n"
        f"- {'Adapter' if origin else 'Trained'}: {made}\n"
        f"- Longest input: {description['max_length']} tokens\n"
        f"- Saved by peft-methods; `method.json` has the settings\n"
    )


def _with_peft(description: Mapping[str, Any], auto_model: str, *, has_labels: bool) -> str:
    spec, quantization = description["model"], description["quantization"]
    imports, options, base_import = [auto_model], "", ""
    if has_labels:
        imports, options = ["AutoConfig", auto_model], ", config=config"
    if spec["source"].startswith(PREFIX):
        base = f"model_folder({_quoted(spec['source'])})"
        base_import = "from peft_methods.models.bundled import model_folder\n"
    elif spec["source"].startswith("~"):
        base = f"Path({_quoted(spec['source'])}).expanduser()"
        base_import = "from pathlib import Path\n"
    else:
        base = _quoted(spec["source"])
    if spec["revision"]:
        options += f", revision={_quoted(spec['revision'])}"
    if spec["trust_remote_code"]:
        options += ", trust_remote_code=True"
    if quantization:
        kind, written = "BitsAndBytesConfig", {n: repr(value) for n, value in quantization.items()}
        if "quant_type" in quantization:
            kind, written["quant_type"] = "TorchAoConfig", f"{quantization['quant_type']}()"
            base_import += f"from torchao.quantization import {quantization['quant_type']}\n"
        imports.append(kind)
        given = "".join(f"        {name}={value},\n" for name, value in written.items())
        options += f",\n    quantization_config={kind}(\n{given}    ),\n"
        options += '    device_map={"": "cpu"},'
    return WITH_PEFT.format(
        imports=", ".join(imports),
        base_import=base_import,
        auto_model=auto_model,
        config=LABELS if has_labels else "",
        base=base,
        options=options,
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
