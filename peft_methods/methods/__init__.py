"""The methods, in the order in which tables show them. A new one: its file, and its class in this list."""

from __future__ import annotations

from peft_methods.methods.adapter import Adapter
from peft_methods.methods.adapter_fusion import AdapterFusion
from peft_methods.methods.base import TRAINED, Method, Registry, Task
from peft_methods.methods.bitfit import BitFit
from peft_methods.methods.full import Full
from peft_methods.methods.head_only import HeadOnly
from peft_methods.methods.ia3 import IA3
from peft_methods.methods.lora import LoRA
from peft_methods.methods.qlora import QLoRA

IS_REGISTRY = True  # one more method changes no fingerprint: see `code_fingerprint`
METHODS = Registry([Full, HeadOnly, BitFit, LoRA, QLoRA, IA3, Adapter, AdapterFusion])

__all__ = ["METHODS", "TRAINED", "Method", "Registry", "Task"]
