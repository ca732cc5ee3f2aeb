"""The benchmark of decoders compares loops that do the same work, in any order."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import make_decoder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SETTINGS = ["data.max_length=32", "data.token_lengths=[8,24]"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_trainer_computes_in_16_bits_after_the_engine_and_after_itself(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # type: ignore[no-untyped-call]
    from decoders import Decoder, GraphsTrainer

    monkeypatch.setattr(GraphsTrainer, "compile_layers", False)
    decoder = Decoder(
        str(make_decoder(tmp_path, "llama")), method, 2, 1, device="cpu", settings=SETTINGS
    )
    for kind in ("cuda_graphs", "trainer", "trainer"):  # a Trainer checks its products
        assert decoder.paced(kind, tmp_path, 1, counts_flops=False).tokens_per_second > 0
