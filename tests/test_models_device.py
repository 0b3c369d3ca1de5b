"""No tensor of a bank's step is made on a hard-wired device: the step runs on a device of its own, in shapes alone.

Fake CUDA aborts in the backward pass on a CPU build, so the device is a Python PrivateUse1 one, and the process a fresh one. What reads
values (the longest text of a chunk, whether a norm is finite) is decided outside, since fake tensors have none.
"""

import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
import dataclasses
import sys
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
torch.elsewhere.get_amp_supported_dtype = lambda: [torch.bfloat16]
torch.__future__.set_overwrite_module_params_on_conversion(True)

from moo.models.activations import Activations
from moo.models.bank import Bank, BankConfig, Depth, Frozen, unit_factors
from moo.models.base_models import load_base
from moo.models.blocks import cut_of
from moo.models.scaling import constants

folder, layers, queries, targets = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
base = dataclasses.replace(load_base(folder, accelerator="cpu"), low_precision=False)
cut = cut_of(base.model, adapted_layers=layers)
frozen = Frozen(base=base, cut=cut, constants=constants(base, max_length=24, cut=cut))
depth = Depth(adapted_layers=layers, n_queries=queries, targets=targets)
config = BankConfig(ranks=(2, 3), n_classes=2, depth=depth, lora_alpha=4.0)
bank = Bank(config, frozen, base.hidden, [torch.Generator(), torch.Generator()])
K, P, L, d = 2, 6, 8, base.hidden

with FakeTensorMode():
    def there(*shape, dtype=torch.float32):
        return torch.empty(*shape, dtype=dtype, device="elsewhere")

    bank._apply(lambda t: there(*t.shape, dtype=t.dtype))
    x = Activations(there(K, P, d), there(K, P, L, d), there(K, P, L, dtype=torch.bool))
    records, loss = bank.record_factors(x, there(K, P, dtype=torch.long))
    units = unit_factors(records, there(K, 3, 2))
    units = {name: f.reduced() for name, f in units.items()}
    norms = torch.stack([f.squared_norms() for f in units.values()]).sum(0).sqrt()
    coefficients = (0.5 / norms.clamp_min(1e-12)).clamp(max=1.0)
    sums = {name: f.clipped_sum(coefficients) for name, f in units.items()}
    parameters = dict(bank.trainable())
    for name, p in parameters.items():
        p.grad = sums[name].view(p.shape) + 1.5 * there(*p.shape)  # noise is made where the parameter lives
    torch.optim.Adam(parameters.values(), lr=1e-3, foreach=False).step()
    made = [x.features, loss, norms, *sums.values(), *(p.grad for p in parameters.values()), *parameters.values()]
    assert {t.device.type for t in made} == {"elsewhere"}, {t.device for t in made}
print("no other device")
"""


@pytest.mark.parametrize(
    ("layers", "queries", "targets"),
    [(0, 0, "query_value"), (1, 0, "all_linear"), (1, 2, "query_key_value"), (2, 0, "all_linear")],
)
def test_a_step_runs_on_a_device_of_its_own(tiny_folder: Path, layers: int, queries: int, targets: str) -> None:
    call = [sys.executable, "-c", STEP, str(tiny_folder), str(layers), str(queries), targets]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip().endswith("no other device"), done.stderr[-1500:]
