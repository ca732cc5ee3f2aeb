"""The registry: where methods come from, and that nothing else names them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from wheel_builders import make_wheel, unpack

import peft_methods
from peft_methods.methods.registry import METHODS, Registry, built_in
from peft_methods.report.methods import families_markdown
from peft_methods.runs.code_fingerprint import code_fingerprint
from peft_methods.utils.errors import OptionError

PACKAGE = Path(peft_methods.__file__).parent
METHOD = '''
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft_methods.methods import ApplyContext, DefaultRate, Method, MethodInfo, ParamGroup
from peft_methods.methods.base import freeze_all_but


@dataclass(frozen=True, kw_only=True)
class NormTuning(Method):
    """Train the weights and biases of the encoder's norms."""

    info = MethodInfo(
        name="norm_tuning",
        title="Norm tuning",
        family="selective",
        paper="Zhao et al. 2024, arXiv:2312.11420",
        citations=(
            "@misc{zhao2024norm, title = {Tuning LayerNorm in attention}, year = {2024}}",
        ),
        trained="layer norms",
        about="trains the norms.",
        aliases=r"norm[\\s_-]*tuning",
        needs="any model",
        learning_rates={"encoder": DefaultRate(1e-2, "a guess for a test")},
    )

    scale: float = 10.0

    def apply(self, model, context: ApplyContext):
        freeze_all_but(model, context.head)
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name:
                parameter.requires_grad = True
        return model

    def expected_trainable(self, architecture):
        return (1 + 2 * architecture.layers) * 2 * architecture.hidden

    def param_groups(self, model, head: Sequence[str]) -> Sequence[ParamGroup]:
        own = [p for name, p in model.named_parameters() if name.endswith("LayerNorm.weight")]
        group = ParamGroup(own, self.learning_rate * self.scale)
        return (*super().param_groups(model, head), group)
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for installed packages, on the path of this process and its children."""
    assert "full" in METHODS  # loaded without that folder, whichever test comes first
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{PACKAGE.parent}")
    return folder


def test_an_installed_method_is_sorted_cited_and_part_of_its_fingerprint(
    site: Path, tmp_path: Path
) -> None:
    unpack(make_wheel(tmp_path, "norms2", METHOD, "norm_tuning = norms2:NormTuning"), site)
    found = Registry()
    selective = [name for name in found if found[name].info.family == "selective"]
    assert selective[-1] == "norm_tuning"
    method = found.create("norm_tuning", {"learning_rate": 0.1}, "test")
    full = METHODS.create("full", {"learning_rate": 0.1}, "test")
    assert code_fingerprint(method) != code_fingerprint(full)
    assert found.problems == ()


@pytest.mark.parametrize(
    ("module", "points", "reason"),
    [
        ("import no_such_module", "mine = broken:Mine", "No module named 'no_such_module'"),
        (
            "Mine = 3",
            "mine = broken:Mine",
            "3 is not a subclass of peft_methods.methods.Method",
        ),
        ("raise RuntimeError('sad')", "mine = broken:Mine", "RuntimeError: sad"),
        (METHOD.replace('"norm_tuning"', '"lora"'), "mine = broken:NormTuning", "'lora' is taken"),
        (METHOD.replace("info = ", "other = "), "mine = broken:NormTuning", "is not a MethodInfo"),
        ("raise SystemExit('bye')", "mine = broken:Mine", "SystemExit: bye"),
        (
            METHOD.replace('"norm_tuning"', '"Norm tuning,*"'),
            "mine = broken:NormTuning",
            "the name 'Norm tuning,*' should be lower-case letters, digits and '_'",
        ),
        (re.sub("title=[^,]*,", "", METHOD), "mine = broken:NormTuning", "'title'"),
        (
            re.sub("title=[^,]*,", "title=None,", METHOD),
            "mine = broken:NormTuning",
            "info.title = None should be a text",
        ),
        (
            re.sub("title=[^,]*,", "title='',", METHOD),
            "mine = broken:NormTuning",
            "info.title = '' should be a text",
        ),
        (
            re.sub(r'aliases=r"[^"]*"', 'aliases="("', METHOD),
            "mine = broken:NormTuning",
            "info.aliases = '(' is not a regular expression",
        ),
        (
            METHOD.replace("info = ", "odd: 'NoSuchType' = 1\n    info = "),
            "mine = broken:NormTuning",
            "its settings cannot be read",
        ),
    ],
    ids=[
        *("import", "type", "error", "name", "info", "exit", "letters", "no title", "none"),
        *("empty", "alias", "settings"),
    ],
)
def test_a_broken_package_is_named_in_one_line(
    site: Path, tmp_path: Path, module: str, points: str, reason: str
) -> None:
    sys.modules.pop("broken", None)
    unpack(make_wheel(tmp_path, "broken", module, points), site)
    found = Registry()
    assert "lora" in found
    assert "mine" not in found
    (problem,) = found.problems
    assert problem.startswith("the package 'broken' brings a method 'mine' (broken:")
    assert reason in problem
    assert "\n" not in problem
    with pytest.raises(OptionError, match="the package 'broken' brings a method 'mine'"):
        found["mine"]
    sys.modules.pop("broken", None)


def test_built_in_methods_are_found_in_subpackages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft_methods import methods

    family = tmp_path / "found_family"
    family.mkdir()
    (family / "__init__.py").write_text("", encoding="utf-8")
    (family / "norms.py").write_text(METHOD, encoding="utf-8")
    (family / "modules.py").write_text("raise RuntimeError('a helper is not imported')", "utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert "norm_tuning" in {method.name for method in built_in()}


def strings_of(path: Path) -> set[str]:
    """The string literals of a Python file that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    }


def test_no_file_outside_methods_names_a_method() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "methods" not in path.parents]
    named = {str(path.relative_to(PACKAGE)): strings_of(path) & set(METHODS) for path in files}
    assert {file: names for file, names in named.items() if names} == {}


def test_the_readme_lists_every_method_as_generated() -> None:
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    listed = text.partition("<!-- methods -->\n")[2].partition("\n<!-- /methods -->")[0]
    assert listed == families_markdown(), "put families_markdown() between the marks"
