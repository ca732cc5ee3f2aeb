"""Records what a program does with memory, operation by operation, on tensors without data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from peft_methods.estimation.memory.attention_flops import attention_formulas
from peft_methods.estimation.memory.kernels import workspace_bytes
from peft_methods.estimation.memory.repeated import Repeated
from peft_methods.estimation.memory.values import OWN, KnownValues
from peft_methods.estimation.operations import Operation
from peft_methods.models.quantization import flop_formulas
from peft_methods.profiling.peak_memory import Event
from peft_methods.training.cuda_graphs.compile import LARGEST_RANK

ABOVE = frozenset({"aten.gt", "aten.ge"})
DROPOUT = "aten.native_dropout"
# PEFT reads weights in 4 bits by it, and the compiler cannot follow: it ends a graph there.
ENDS_A_GRAPH = "bitsandbytes.dequantize_4bit"
# Operations whose results the compiler computes again in the backward pass: each value follows from
# few others, and no product is needed.
CHEAP = frozenset(
    {
        DROPOUT,
        *(
            f"aten.{name}"
            for name in (
                *("_to_copy", "add", "sub", "mul", "div", "neg", "pow", "rsqrt", "sqrt", "exp"),
                *("silu", "gelu", "relu", "sigmoid", "tanh", "mean", "sum", "var_mean", "cat"),
                *("clone", "where", "cos", "sin", "rsub", "reciprocal", "square", "maximum"),
                *("native_layer_norm", "masked_fill", "expand_copy", "clamp", "softplus"),
            )
        ),
        "peft_methods.nf4_weights",
    }
)


@dataclass
class Recording:
    """Events of memory and operations, in order.

    `makers` has the name of the operation that allocated an address. Addresses are numbers that
    occur once.
    """

    events: list[Event] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    makers: dict[int, str] = field(default_factory=dict)

    def ended(self) -> Recording:
        """Return what is recorded by now. A model that is collected later still adds releases."""
        return Recording(list(self.events), list(self.operations), dict(self.makers))


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records allocations, releases and operations of all tensors that are made while it is on.

    `part` is written to the operations. Temporary memory within kernels, which no operation shows,
    is recorded as an allocation and a release. `recomputes_ranks`: LoRA's second products are as
    cheap as sums, since the engine computes them again beside layers in 4 bits.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = Recording()
        self.part = "forward"
        self.values = KnownValues()
        self._repeated = Repeated(mode)
        self._known: dict[int, int] = {}  # storages that are alive, and their addresses
        self._next = 0
        self._flops = {**flop_registry, **_wrapped(attention_formulas() | flop_formulas())}
        self.storages: dict[int, weakref.ref[Any]] = {}  # by address
        self.sizes: dict[int, int] = {}
        self.parents: dict[int, tuple[int, ...]] = {}  # of cheap values, since `new_region`
        self.given = 0  # the last address before it
        self.recomputes_ranks = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper of torch takes time

    def own(self, tensors: Iterable[torch.Tensor]) -> list[int]:
        """Record that these tensors are there, if that is not known. Return their addresses."""
        return [address for one in tensors if (address := self._seen(one, "given")) is not None]

    def address_of(self, tensor: torch.Tensor) -> int | None:
        """Return the address of a tensor that was recorded, or None."""
        if tensor.layout != torch.strided:
            return None
        return self._known.get(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.prim.device.default:  # asked for most often
            return args[0].fake_device
        with torch._C.DisableTorchFunction():  # no rule asks for a tensor's size
            if func is torch.ops.aten._local_scalar_dense.default:
                return self._some_value(args[0])
            return self._recorded(func, args, dict(kwargs or {}))

    def _recorded(self, func: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Run an operation. Record what it allocates, and itself unless it only makes a view."""
        result = self._repeated.run(func, args, options, self.values.run)
        inputs = list(_tensors((args, options)))
        outputs = list(_tensors(result))
        self.values.follow(func, args, options, inputs, outputs)
        name = str(func._overloadpacket)
        # The compiler ends a graph where sizes follow from values, too.
        is_sparse = any(one.layout != torch.strided for one in outputs)
        if func._overloadpacket in OWN or is_sparse or name == ENDS_A_GRAPH:
            self.new_region()
        made = [one for one in outputs if self._seen(one, name) is not None]
        self._note_parents(name, inputs, made)
        self._use(workspace_bytes(name, inputs, outputs), name)
        if made or not _is_view(func):
            count = self._flops.get(func._overloadpacket)
            flops = 0 if count is None else int(count(*args, **options, out_val=result))
            self.recording.operations.append(self._operation(name, inputs, outputs, flops))
        return result

    def add(self, size: int, maker: str) -> None:
        """Record that so many more bytes are taken from now on, if any."""
        if size > 0:
            self._next += 1
            self.recording.events.append(Event(self._next, size))
            self.recording.makers[self._next] = maker

    def new_region(self) -> None:
        """Forget how values were computed: from now on all that exist are given."""
        self.parents.clear()
        self.given = self._next

    def phantom(self, address: int, holder: Any) -> None:
        """Record that the bytes of this address are needed for as long as `holder` lives."""
        maker = f"{self.recording.makers[address]} (stored)"
        self.phantom_bytes(self.sizes[address], maker, holder)

    def phantom_bytes(self, size: int, maker: str, holder: Any) -> None:
        """Record that so many bytes are needed for as long as `holder` lives."""
        self._next += 1
        own = self._next
        self.recording.events.append(Event(own, size))
        self.recording.makers[own] = maker
        weakref.finalize(holder, self.recording.events.append, Event(own, 0))

    def _note_parents(
        self, name: str, inputs: list[torch.Tensor], made: list[torch.Tensor]
    ) -> None:
        """Note what a cheap operation's first result can be computed from again."""
        if not made or not (name in CHEAP or self._is_of_a_rank(name, inputs)):
            return
        found = {address for one in inputs if (address := self.address_of(one)) is not None}
        if name == DROPOUT and len(made) > 1:
            found.add(self.address_of(made[1]) or 0)  # the mask
        self.parents[self.address_of(made[0]) or 0] = tuple(sorted(found))

    def _is_of_a_rank(self, name: str, inputs: list[torch.Tensor]) -> bool:
        """Whether it is LoRA's second product, where these are computed again."""
        is_product = self.recomputes_ranks and name == "aten.mm"
        return is_product and inputs[0].shape[-1] <= LARGEST_RANK

    def _operation(
        self, name: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor], flops: int
    ) -> Operation:
        return Operation(
            name,
            self.part,
            flops=flops,
            read_bytes=sum(map(_bytes_of, inputs)),
            written_bytes=sum(map(_bytes_of, outputs)),
            dtype=outputs[0].dtype if outputs else None,
            shapes=tuple(tuple(one.shape) for one in inputs),
        )

    def _some_value(self, tensor: torch.Tensor) -> Any:
        """Return a number in place of a value that a program asks for, since there is none.

        A number is above another one (PEFT compares a random one with a share of layers to leave
        out), and no other condition is true (it looks for infinite values).
        """
        if tensor.dtype == torch.bool:
            return self.recording.makers.get(self.address_of(tensor) or 0) in ABOVE
        return 1.0 if tensor.dtype.is_floating_point else 1

    def _seen(self, tensor: torch.Tensor, maker: str) -> int | None:
        """Record a tensor's storage, if it is new. Return its address, or None if it was known."""
        if tensor.layout != torch.strided:
            return None  # its parts are tensors of their own
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return None
        self._next += 1
        address = self._known[key] = self._next
        self.recording.events.append(Event(address, storage.nbytes()))
        self.recording.makers[address] = maker
        self.storages[address], self.sizes[address] = weakref.ref(storage), storage.nbytes()
        weakref.finalize(storage, self._released, key, address)
        return address

    def _released(self, key: int, address: int) -> None:
        self._known.pop(key, None)
        self.recording.events.append(Event(address, 0))

    def _use(self, sizes: Iterable[int], name: str) -> None:
        """Record memory that a kernel has only while it runs."""
        addresses = []
        for size in sizes:
            self._next += 1
            addresses.append(self._next)
            self.recording.events.append(Event(self._next, size))
            self.recording.makers[self._next] = f"{name} (within)"
        self.recording.events.extend(Event(address, 0) for address in addresses)


def _wrapped(formulas: Mapping[Any, Callable[..., int]]) -> dict[Any, Callable[..., int]]:
    """Return formulas of shapes as formulas of tensors, as torch's own are."""
    from torch.utils.flop_counter import shape_wrapper

    wrapped: Any = shape_wrapper
    return {name: wrapped(formula) for name, formula in formulas.items()}


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors of nested arguments or results."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for one in values:
            yield from _tensors(one)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _bytes_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_view(func: Any) -> bool:
    """Whether an operation's results share the memory of its arguments, unchanged.

    One without results changes its arguments.
    """
    results = func._schema.returns
    return bool(results) and all(
        one.alias_info is not None and not one.alias_info.is_write for one in results
    )
