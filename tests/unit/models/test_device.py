"""Banks on a device that is not the CPU: no tensor is made on a hard-wired device.

The device is a Python PrivateUse1 one; its tensors hold theirs on the CPU. An operation on tensors
of both devices, or one that makes a CPU tensor from those of the other, is an error. The code under
test is the real one: the model, the public constants, layout, forward and backward pass, clipping,
Opacus' optimizer with given noise, and prediction. Lightning alone is left out, since it knows no
such device. The tests run in their own process, since a backend cannot be removed; most of the time
is that of its imports.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import save_tiny

STEP = r"""
import dataclasses
import sys

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
torch.elsewhere.get_amp_supported_dtype = lambda: [torch.bfloat16]
torch.__future__.set_overwrite_module_params_on_conversion(True)
THERE = torch.device("elsewhere", 0)


class There(torch.Tensor):
    # held on the CPU, and taken for a tensor of the other device by everything else
    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=THERE
        )

    def __init__(self, held):
        self.held = held

    def __deepcopy__(self, memo):  # as Opacus' optimizer copies gradients
        copied = self.detach().clone()
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    def tolist(self):
        return self.held.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return on_its_device(func, args, kwargs or {})


def on_its_device(func, args, kwargs):
    leaves = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = any(isinstance(t, There) for t in leaves)
    wanted = kwargs.get("device")
    copies = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
    strays = [t for t in leaves if not isinstance(t, There) and t.dim()]
    if there and strays and not copies:
        raise RuntimeError(f"{func} meets tensors of the CPU: {[tuple(t.shape) for t in strays]}")
    if there and wanted is not None and torch.device(wanted).type == "cpu" and not copies:
        raise RuntimeError(f"{func} makes a tensor on the CPU")
    inner_args, inner_kwargs = tree_map(lambda t: t.held if isinstance(t, There) else t, (args, kwargs))
    if wanted is not None:
        inner_kwargs["device"] = "cpu"
    out = func(*inner_args, **inner_kwargs)
    to = torch.device(wanted).type == "elsewhere" if wanted is not None else there
    if func.overloadpacket is torch.ops.aten.copy_:
        return args[0]
    if not to:
        return out.clone() if copies and there else out
    out = tree_map(lambda t: There(t) if isinstance(t, torch.Tensor) else t, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


class Elsewhere(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        wanted = kwargs.get("device")
        if any(isinstance(t, There) for t in tree_leaves((args, kwargs))) or (
            wanted is not None and torch.device(wanted).type == "elsewhere"
        ):
            return on_its_device(func, args, kwargs)
        return func(*args, **kwargs)


from moo.models.trunk.packed import Packed
from moo.models.bank.bank import Bank, BankConfig, Depth, Frozen
from moo.models.pretrained.loading import load_base
from moo.models.pretrained.architectures import cut_of
from moo.models.dp.poisson_sampling import PoissonBatches
from moo.models.dp.optimizer import DPSettings
from moo.models.bank.lightning_module import BankModule, OptimizerSettings, log_probs
from moo.models.bank.feature_scaling import constants
from moo.models.trunk.encode import encode

folder, layers, queries, targets = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
TEXTS = ["abc", "hello world", "zz", "the quick brown fox", "a1b2c3", "lorem ipsum", "qwerty", "0123456789"]


def trained(device):
    base = dataclasses.replace(load_base(folder, accelerator="cpu"), low_precision=False)
    base.model.config._attn_implementation = "eager"
    base.model.to(device)
    base = dataclasses.replace(base, device=device)
    cut = cut_of(base.model, adapted_layers=layers)
    frozen = Frozen(base=base, cut=cut, constants=constants(base, max_length=24, cut=cut))
    depth = Depth(adapted_layers=layers, n_queries=queries, targets=targets)
    config = BankConfig(ranks=(2, 2, 3), n_classes=2, depth=depth, lora_alpha=4.0)
    bank = Bank(config, frozen, base.hidden, [torch.Generator().manual_seed(k) for k in range(3)])
    out = encode(base, TEXTS, max_length=24, cut=cut)
    packed = Packed(
        features=torch.from_numpy(frozen.constants.features(out.mean)),
        tokens=torch.from_numpy(np.concatenate(out.tokens)),
        offsets=torch.from_numpy(np.cumsum([0, *map(len, out.tokens)])),
    )
    draw = np.random.default_rng(0)
    module = BankModule(
        bank,
        packed.to(device),
        torch.tensor([0, 1] * 4).to(device),
        settings=OptimizerSettings(learning_rate=1e-3, head_learning_rate=0.05),
        dp=DPSettings(noise_multiplier=0.5, max_grad_norm=0.2, expected_batch_size=3.0),
        noise=lambda shadow, shape, where: torch.from_numpy(draw.standard_normal(shape, np.float32)).to(where),
    )
    module.to(device)
    optimizer = module.configure_optimizers()
    module.optimizers = lambda: optimizer
    units = np.array([0, 0, 0, 1, 2, 2, 3, 4])
    batches = PoissonBatches(
        units=units, lengths=packed.lengths, members=np.ones((3, 8), bool), sample_rate=0.8, steps=2,
        generators=[np.random.default_rng(k) for k in range(3)],
    )
    for i, batch in enumerate(batches):
        module.training_step(batch.to(device), i)
    made = [*bank.state_dict().values(), *(p.grad for p in optimizer.params)]
    assert {t.device.type for t in made} == {device.type}, {t.device for t in made}
    return [log_probs(bank, packed), *(p.detach().cpu() for p in bank.trainable().values())]


expected = trained(torch.device("cpu"))
with Elsewhere():
    found = trained(THERE)
for ours, own in zip(found, expected, strict=True):
    assert type(ours) is torch.Tensor, type(ours)
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-4)
print("no other device")
"""

SLOW = [
    ("bert", 0, 0, "query_value"),
    ("bert", 1, 0, "all_linear"),
    ("bert", 2, 0, "all_linear"),
    ("llama", 2, 0, "query_value"),
]
SHAPES = [
    pytest.param("bert", 1, 2, "query_key_value", id="queries"),
    *(pytest.param(*shape, id=f"{shape[0]}-{shape[1]}", marks=pytest.mark.slow) for shape in SLOW),
]


@pytest.mark.parametrize(("kind", "layers", "queries", "targets"), SHAPES)
def test_a_bank_is_trained_on_a_device_of_its_own(
    tmp_path: Path, kind: str, layers: int, queries: int, targets: str
) -> None:
    folder = save_tiny(tmp_path, kind=kind)
    call = [sys.executable, "-c", STEP, str(folder), str(layers), str(queries), targets]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip().endswith("no other device"), done.stderr[-1500:]
