"""Which Ray cluster a session joins, and which nodes it uses: same versions, code and kind."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest

from builders import error_line
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


# The address


@pytest.fixture
def not_connected() -> None:
    """Leave the cluster that another test has joined."""
    pytest.importorskip("ray", reason="needs the extra `ray`").shutdown()


def quick_session(pytester: pytest.Pytester, *options: str) -> tuple[pytest.RunResult, float]:
    before = time.monotonic()
    found = pytester.runpytest_inprocess(
        "-p", "peft_methods.plugin", "-p", "no:cacheprovider", *options
    )
    return found, time.monotonic() - before


@pytest.mark.ray
@pytest.mark.usefixtures("not_connected")
def test_address_without_a_cluster_is_refused_in_one_line_within_ten_seconds(
    pytester: pytest.Pytester,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = ("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}")
        for address in addresses:
            found, seconds = quick_session(
                pytester, "--peft-executor=ray", f"--peft-ray-address={address}"
            )
            assert found.ret == pytest.ExitCode.USAGE_ERROR
            line = error_line(found)
            assert f"no Ray cluster can be used at {address} (" in line
            assert "--peft-ray-address" in line
            assert seconds < 10


@pytest.mark.usefixtures("not_connected")
@pytest.mark.parametrize("address", ["head", "head:port", "ray://head:10001"])
def test_address_of_another_form_is_refused(pytester: pytest.Pytester, address: str) -> None:
    found, _ = quick_session(pytester, "--peft-executor=ray", f"--peft-ray-address={address}")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert repr(address) in error_line(found)


def test_address_needs_the_executor(pytester: pytest.Pytester) -> None:
    found, _ = quick_session(pytester, "--peft-ray-address=head:6379")
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "needs the executor 'ray', and it is 'local'" in error_line(found)
