"""Published figures of GPUs: looked up by any of their names, refused with the nearest one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_methods.estimation.time.devices import GIB, devices, find_device
from peft_methods.utils.errors import OptionError

NAMES = st.sampled_from(sorted(devices()))


@given(NAMES, st.data())
def test_case_spaces_and_the_vendor_do_not_matter(name: str, data: st.DataObject) -> None:
    written = "".join(
        data.draw(st.sampled_from([one.lower(), one.upper()]))
        if one != " "
        else data.draw(st.sampled_from([" ", "-", "_", ""]))
        for one in name
    )
    vendor = data.draw(st.sampled_from(["", "NVIDIA ", "nvidia-"]))
    assert find_device(vendor + written).name == name


@given(NAMES)
def test_the_size_may_follow_the_name(name: str) -> None:
    device = find_device(name)
    bare = name.partition(f" {device.nominal:.0f}GB")[0]
    for size in (f"{device.nominal:.0f}GB", f"{device.nominal:.0f} GiB"):
        assert find_device(f"{bare} {size}").name == name


def test_names_of_torch_and_common_ones() -> None:
    for given_name, name in {
        "Tesla T4": "T4",
        "Tesla V100-SXM2-32GB": "V100 32GB",
        "NVIDIA A100-SXM4-80GB": "A100 80GB",
        "NVIDIA A100-PCIE-40GB": "A100 PCIe 40GB",
        "NVIDIA A100 80GB PCIe": "A100 PCIe 80GB",
        "A100": "A100 40GB",
        "NVIDIA GeForce RTX 3090": "RTX 3090",
        "4090": "RTX 4090",
        "NVIDIA H100 80GB HBM3": "H100 SXM",
        "NVIDIA H100 PCIe": "H100 PCIe",
        "h100": "H100 SXM",
        "NVIDIA B200": "B200",
    }.items():
        assert find_device(given_name).name == name


@given(NAMES)
def test_published_figures_are_plausible(name: str) -> None:
    device = find_device(name)
    assert 0.85 * device.nominal < device.memory / GIB <= device.nominal
    assert device.flops["fp32"] < device.flops["half"] <= 35 * device.flops["fp32"]
    assert device.flops["half"] < device.flops.get("int8", 1e20)
    assert 2e11 < device.bandwidth < 1e13
    assert 50 <= device.watts <= 1200
    assert device.source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("T5", "Did you mean 'T4'?"),
        ("RTX 4900", "Did you mean 'RTX 4090'?"),
        ("A100 60GB", "Known: T4, V100 16GB"),
        ("T4 24GB", "Known: T4"),
        ("", "give its memory, such as 16GB"),
        ("16GB", "no published figures"),  # a size is no device: see `gpu_of`
        ("-16GB", "Known: T4"),
    ],
)
def test_unknown_names_are_refused_with_what_is_allowed(name: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_device(name)
    assert message in str(caught.value)
    assert caught.value.setting == "gpu"
