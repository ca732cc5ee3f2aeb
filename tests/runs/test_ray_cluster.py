"""Which nodes of a Ray cluster a session uses: same versions, same code, one kind of device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peft_methods.runs.executors.ray.cluster import chosen_kind, difference
from peft_methods.runs.executors.ray.probe import Facts, facts
from peft_methods.utils.errors import OptionError


def node_facts(
    name: str = "n1", code: str = "c", gpus: tuple[str, ...] = (), **other: str
) -> Facts:
    versions: dict[str, str | None] = {"torch": "2.11.0", "peft-methods": "1.0", **other}
    return Facts(name, versions, code, gpus, "EPYC")


@pytest.mark.parametrize(
    ("there", "text"),
    [
        (node_facts(), ""),
        (node_facts(torch="2.10.0"), "node n1 has torch 2.10.0, the session 2.11.0"),
        (node_facts(code="d"), "node n1 has other source code of peft-methods than the session"),
    ],
)
def test_difference_of_a_node_is_named(there: Facts, text: str) -> None:
    assert difference(node_facts("here"), there, ("torch", "peft-methods")) == text


def test_package_that_is_missing_on_a_node_is_named() -> None:
    there = replace(node_facts(), versions={"torch": None})
    assert "torch (missing)" in difference(node_facts(), there, ("torch",))


def test_session_uses_one_kind_of_gpu_and_the_user_chooses() -> None:
    big, small = node_facts(gpus=("H200 (140 GiB)",) * 2), node_facts(gpus=("L4 (22 GiB)",))
    assert chosen_kind([node_facts(), big], None) == "H200 (140 GiB)"
    assert chosen_kind([big, small], "l4") == "L4 (22 GiB)"
    with pytest.raises(OptionError, match=r"several kinds.*H200.*L4") as caught:
        chosen_kind([big, small], None)
    assert caught.value.setting == "ray_kind"
    with pytest.raises(OptionError, match=r"'A100'.*H200.*L4"):
        chosen_kind([big, small], "A100")
    assert chosen_kind([node_facts()], None) == "EPYC"


def test_facts_of_this_machine_name_its_versions_and_code() -> None:
    found = Facts(**facts(("torch", "no-such-package"), "peft_methods"))
    assert found.versions["torch"]
    assert found.versions["no-such-package"] is None
    assert len(found.code) == 64
    assert found.kind
