"""AdamW whose state is in 8 bits, by bitsandbytes, apart from other optimizers of the process.

Imported only where it is used: bitsandbytes takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from bitsandbytes.optim import AdamW8bit as Bitsandbytes
from bitsandbytes.optim import GlobalOptimManager
from torch import nn

MAPS = {"qmap1": "dynamic", "qmap2": "udynamic"}  # bitsandbytes' names of the 256 values of a code


class AdamW8bit(Bitsandbytes):
    """AdamW with both moments in blocks of 256 numbers of 8 bits (Dettmers et al. 2022).

    Those of tensors of fewer than 4,096 numbers are in 32 bits, and so are those of the embeddings
    of the model `of`, as the paper advises and transformers' Trainer does it. bitsandbytes keeps
    such exceptions in an object of the whole process, by the number of the group and the place in
    it: those of one optimizer would hold for the next. Here each optimizer has its own object.
    """

    def __init__(self, groups: Any, *, of: nn.Module, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.mng = GlobalOptimManager.__new__(GlobalOptimManager)
        self.mng.initialize()
        for module in of.modules():
            if isinstance(module, nn.Embedding):
                self.mng.register_module_override(module, "weight", {"optim_bits": 32})

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors alone. All tensors have the same code: it is left out."""
        found = torch.optim.Optimizer.state_dict(self)
        found["state"] = {
            index: {
                name: value if isinstance(value, torch.Tensor) else torch.tensor(value)
                for name, value in values.items()
                if name not in MAPS
            }
            for index, values in found["state"].items()
        }
        return found

    def load_state_dict(self, state: Mapping[str, Any], **options: Any) -> None:
        """Restore what `state_dict` returned, with the code of this optimizer."""
        numbered = {
            index: {name: int(v) if name == "step" else v for name, v in values.items()}
            for index, values in state["state"].items()
        }
        super().load_state_dict({**state, "state": numbered}, **options)
        for parameter, values in self.state.items():
            if values["state1"].dtype == torch.uint8:
                for name, kind in MAPS.items():
                    self.name2qmap[kind] = self.name2qmap[kind].to(parameter.device)
                    values[name] = self.name2qmap[kind]
