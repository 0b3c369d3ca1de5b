"""Fast lane: one block, computed for its pooled token or a few learned query tokens alone.

With x_t the cached inputs of the block and s the querying state, no key or value is formed. For the
pooled token, s is its own input; for a learned query, s is the mean of the x_t plus an offset,
since below the top a pooled token has the same query for every text. Per head, with W_k already
over sqrt(d / H):

    q = W_q s + LoRA_q(s)
    l = W_k^T q + c A_k^T B_k^T q               probe; the key's bias shifts all scores alike and drops out
    a = softmax(x_t . l)
    c = sum_t a_t x_t
    v = W_v c + LoRA_v(c)                       attention is linear in the values, so LoRA acts on c

then the block's output projection, feed-forward layers and norms. Every per-unit gradient follows
from the activations and one backward pass to s, q, l, v and the outputs of the other adapted
layers.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from moo.models.bank.block_parts import block_parts
from moo.models.bank.chunked_attention import ChunkedAttention, mean_of_tokens
from moo.models.bank.lora import FrozenLinear, Lora, LoraLinear, LoraShape, Pair, split_axis
from moo.models.pretrained.architectures import Cut, Targets
from moo.models.pretrained.loading import BaseModel
from moo.models.trunk.packed import Activations, RecordBatch

if TYPE_CHECKING:
    from moo.models.trunk.constants import Constants


class FastLane(nn.Module):
    """Trainable LoRA, and learned query tokens, of K shadows on one frozen block.

    Args:
        base: Model with blocks that the fast lane supports (`Family.fast_lane`).
        constants: Public shift and scale of the block's pooled output, and of a query's output.
        cut: Cut of one block.
        targets: Layers that carry LoRA.
        shape: Ranks, scale and generators.
        n_queries: Learned query tokens; 0 computes the pooled token itself.
    """

    key_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor
    shift: Tensor
    feature_scale: Tensor
    # All of a chunk's records are computed at a time.
    chunk_divisor = 1

    def __init__(
        self,
        base: BaseModel,
        constants: "Constants",
        cut: Cut,
        *,
        targets: Targets,
        shape: LoraShape,
        n_queries: int = 0,
    ) -> None:
        super().__init__()
        parts = block_parts(base.model, cut)
        work = torch.bfloat16 if base.low_precision else torch.float32
        self.heads: int = base.model.config.num_attention_heads
        self.n_states = max(1, n_queries)
        self.hidden = d = base.hidden

        def linear(layer: Any, *, adapted: bool) -> nn.Module:
            frozen = FrozenLinear(layer, work)
            return LoraLinear(frozen, shape) if adapted else frozen

        everywhere = targets == "all_linear"
        self.query = LoraLinear(FrozenLinear(parts.query, work), shape)
        self.key = Lora(d, d, shape) if targets != "query_value" else None
        self.value = Lora(d, d, shape)
        self.dense = linear(parts.dense, adapted=everywhere)
        self.up = linear(parts.up, adapted=everywhere)
        self.down = linear(parts.down, adapted=everywhere)
        self.norm, self.last_norm, self.act = _copied(parts.norm), _copied(parts.last_norm), parts.act
        by_head = (self.heads, d // self.heads, d)
        key = parts.key.weight.detach().float() / math.sqrt(d / self.heads)
        self.register_buffer("key_weight", key.view(by_head).to(work).clone())
        self.register_buffer("value_weight", parts.value.weight.detach().view(by_head).to(work).clone())
        self.register_buffer("value_bias", parts.value.bias.detach().float().view(self.heads, 1, -1).clone())
        shift, scale = (
            (constants.query_shift, constants.query_scale)
            if n_queries
            else (constants.pooled_shift, constants.pooled_scale)
        )
        self.register_buffer("shift", torch.from_numpy(shift))
        self.register_buffer("feature_scale", torch.from_numpy(scale))
        self.offsets = nn.Parameter(_offsets(constants, shape, n_queries)) if n_queries else None
        self.eval()
        self._taken: dict[str, Tensor] = {}

    @property
    def n_features(self) -> int:
        """Return the width of the lane's output per record."""
        return self.hidden * self.n_states

    # the dropout of a frozen block stays off
    def train(self, mode: bool = True) -> "FastLane":  # noqa: ARG002
        """Keep evaluation mode: the dropout of a frozen block stays off."""
        return super().train(False)

    def run(self, x: RecordBatch, *, capture: bool = False) -> Tensor:
        """Return pooled outputs, shifted and scaled, shape (K, P, n_features).

        Args:
            x: Records laid out as (K, P), or as (1, P) if all shadows read the same ones.
            capture: Keep the activations that `factors` needs.
        """
        for layer in self._adapted().values():
            layer.capture = capture
        k, h = len(self.query.lora_a), self.heads
        first = x.first.float() if self.offsets is None else mean_of_tokens(x)
        # (K, P, Q, d)
        state = first.expand(k, *first.shape[1:])[:, :, None]
        if self.offsets is not None:
            state = state + self.offsets[:, None]
            state = state.detach().requires_grad_() if capture else state
        # (K, H, PQ, d / H)
        q_heads = self.query(state).view(k, -1, h, self.hidden // h).transpose(1, 2)
        probe = _by_head(q_heads, self.key_weight)
        key_probe = self._key_lora_probe(q_heads)
        probe = probe if key_probe is None else probe + key_probe
        context = self._attend(probe, x)
        v, value_u = self._values(context)
        out = self._finish(state, v.transpose(1, 2).reshape(state.shape))
        if capture:
            taken = {"context": context, "value_u": value_u, "v": v, "q_heads": q_heads}
            extra = {"probe": probe} if self.key is not None else {}
            self._taken = taken | extra | ({"state": state} if self.offsets is not None else {})
        return ((out - self.shift) * self.feature_scale).flatten(-2)

    def _key_lora_probe(self, q_heads: Tensor) -> Tensor | None:
        """Return the key's LoRA as a change of the probe, shape (K, H, PQ, d)."""
        if self.key is None:
            return None
        # (K, H, d / H, r)
        b = split_axis(self.key.lora_b, 1, (self.heads, -1))
        scale = self.key.scale[..., None] / math.sqrt(self.hidden / self.heads)
        return scale * (q_heads.float() @ b) @ self.key.lora_a[:, None]

    def _attend(self, probe: Tensor, x: RecordBatch) -> Tensor:
        """Return the attention-weighted mean of the block's inputs, shape (K, P, QH, d).

        Args:
            probe: Shape (K, H, PQ, d).
            x: Records.
        """
        work = self.key_weight.dtype
        by_query = split_axis(probe.to(work), 2, (-1, self.n_states))
        laid_out = x.tokens.to(work) if isinstance(x, Activations) else None
        context: Tensor = ChunkedAttention.apply(by_query, laid_out, x)  # type: ignore[no-untyped-call]
        return context

    def _values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return value projections of the contexts, LoRA included, and the output of LoRA's A.

        Frozen weight and A form one matrix for each shadow and head, so that the contexts are read
        once.

        Returns:
            Values of shape (K, H, PQ, d / H), and A's output of shape (K, H, PQ, r).
        """
        k, h = len(context), self.heads
        # (K, H, PQ, d)
        by_head = split_axis(context, 2, (-1, h)).flatten(1, 2).transpose(1, 2)
        a = self.value.lora_a.to(context.dtype)[:, None]
        joint = torch.cat([self.value_weight.expand(k, -1, -1, -1), a.expand(-1, h, -1, -1)], dim=2)
        frozen, u = torch.split(by_head @ joint.mT, [self.hidden // h, a.shape[2]], dim=-1)
        b = split_axis(self.value.scale * self.value.lora_b, 1, (h, -1)).to(u.dtype)
        return (frozen + u @ b.mT).float() + self.value_bias, u

    def _finish(self, state: Tensor, attended: Tensor) -> Tensor:
        after = self.norm(self.dense(attended).float() + state)
        out: Tensor = self.last_norm(self.down(self.act(self.up(after))).float() + after)
        return out

    def _adapted(self) -> dict[str, LoraLinear]:
        return {n: m for n, m in self.named_children() if isinstance(m, LoraLinear)}

    def taps(self) -> list[Tensor]:
        """Return the tensors with needed gradients, in the order in which `factors` takes them."""
        own = [self._taken[n] for n in ("v", "probe", "state") if n in self._taken]
        return [*own, *(layer.tap for layer in self._adapted().values())]

    def factors(self, grads: list[Tensor]) -> dict[str, Pair]:
        """Return gradient factors of each record by parameter.

        Each is (K, P, m, .), or (K, P, lead, m, .) where a parameter is split by head or query.

        Args:
            grads: Gradients of the loss at `taps()`.
        """
        taken, self._taken = self._taken, {}
        rest = list(grads)
        p = taken["context"].shape[1]
        out = self._value_factors(taken, rest.pop(0), p)
        if self.key is not None:
            out |= self._key_factors(taken, rest.pop(0), p)
        if self.offsets is not None:
            # (K, P, Q, 1, d)
            g = rest.pop(0)[..., None, :]
            out["offsets"] = (torch.ones_like(g[..., :1]), g)
        for (name, layer), g in zip(self._adapted().items(), rest, strict=True):
            out |= {f"{name}.{part}": pair for part, pair in layer.factors(g, p).items()}
        return out

    def _value_factors(self, taken: dict[str, Tensor], g_v: Tensor, p: int) -> dict[str, Pair]:
        # (K, H, PQ, d / H)
        g = self.value.scale[..., None] * g_v
        # (K, PQ, H, r)
        back = (g @ split_axis(self.value.lora_b, 1, (self.heads, -1))).transpose(1, 2)
        # (K, P, H, Q, r)
        u = split_axis(taken["value_u"].detach().float(), 2, (p, -1)).transpose(1, 2)
        return {
            "value.lora_a": (back.reshape(*taken["context"].shape[:3], -1), taken["context"].detach()),
            "value.lora_b": (split_axis(g, 2, (p, -1)).transpose(1, 2), u),
        }

    def _key_factors(self, taken: dict[str, Tensor], g_probe: Tensor, p: int) -> dict[str, Pair]:
        assert self.key is not None
        # (K, H, PQ, d / H)
        q = self.key.scale[..., None] / math.sqrt(self.hidden / self.heads) * taken["q_heads"].detach().float()
        # (K, H, PQ, d)
        g = g_probe.float()
        z = q @ split_axis(self.key.lora_b, 1, (self.heads, -1))
        w = g @ self.key.lora_a[:, None].mT

        def by_record(side: Tensor) -> Tensor:
            # (K, P, H, Q, .)
            return split_axis(side, 2, (p, -1)).transpose(1, 2)

        return {
            "key.lora_a": (by_record(z).flatten(2, 3), by_record(g).flatten(2, 3)),
            "key.lora_b": (by_record(q), by_record(w)),
        }


def _by_head(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply (K, H, rows, a) by (H, a, b) per head, in the weight's precision.

    Returns:
        Shape (K, H, rows, b).
    """
    k, h, rows, _ = x.shape
    flat = x.to(weight.dtype).transpose(0, 1).reshape(h, k * rows, -1)
    return (flat @ weight).view(h, k, rows, -1).transpose(0, 1)


def _copied(norm: Any) -> nn.LayerNorm:
    out = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    out.load_state_dict(norm.state_dict())
    return out.requires_grad_(False)


def _offsets(constants: "Constants", shape: LoraShape, n_queries: int) -> Tensor:
    """Return initial query offsets (K, Q, d): zero, then random at the spread of public tokens.

    The first query starts as the mean token.
    """
    spread = torch.from_numpy(1 / (constants.pooled_scale * math.sqrt(len(constants.pooled_scale))))
    drawn = torch.stack([torch.randn(n_queries, len(spread), generator=g) for g in shape.generators])
    drawn[:, 0] = 0
    return drawn * spread
