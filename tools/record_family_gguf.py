"""Records GGUF files of LLaDA-MoE and Dream, with the public `gguf` package.

Of the recorded checkpoints in `crates/llada/tests/goldens/families`, in F32 and without a vocabulary.
Names of tensors are those that the package's own map gives, which llama.cpp's converter uses; the
experts of a layer are stacked, and keys are written, as its `conversion/llada.py` and
`conversion/dream.py` do it.

    python -m venv venv && venv/bin/pip install gguf numpy safetensors
    venv/bin/python tools/record_family_gguf.py
"""

import json
import re
from pathlib import Path

import gguf
import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map
from safetensors import safe_open

TESTS = Path(__file__).resolve().parent.parent / "crates/llada/tests"
FAMILIES = TESTS / "goldens/families"
OUT = TESTS / "gguf"
EXPERT = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(\d+)\.(\w+)\.weight")


def tensors(folder):
    """The tensors of a folder in f32, those of experts stacked."""
    values, experts = {}, {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "np") as opened:
            for name in opened.keys():
                value = opened.get_tensor(name).astype(np.float32)
                if found := EXPERT.fullmatch(name):
                    stack, index, part = found.groups()
                    experts.setdefault(f"{stack}.{part}.weight", {})[int(index)] = value
                else:
                    values[name] = value
    for name, of_expert in experts.items():
        values[name] = np.stack([of_expert[i] for i in range(len(of_expert))])
    return values


def record(family, model, architecture, mask, name):
    folder = FAMILIES / family / "models" / model
    c = json.loads((folder / "config.json").read_text())
    w = GGUFWriter(OUT / name, gguf.MODEL_ARCH_NAMES[architecture])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_causal_attention(False)
    w.add_diffusion_shift_logits(architecture == MODEL_ARCH.DREAM)
    w.add_mask_token_id(mask)
    w.add_eos_token_id(c["eos_token_id"])
    w.add_pad_token_id(c["pad_token_id"])
    w.add_vocab_size(c["vocab_size"])
    if "num_experts" in c:
        w.add_expert_count(c["num_experts"])
        w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c["expert_intermediate_size"])
    else:
        w.add_feed_forward_length(c["intermediate_size"])
    names = get_tensor_name_map(architecture, c["num_hidden_layers"])
    for hf, value in tensors(folder).items():
        found = names.get_name(hf, try_suffixes=(".weight", ".bias"))
        assert found, hf
        w.add_tensor(found, value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(name, (OUT / name).stat().st_size)


if __name__ == "__main__":
    masks = {
        family: json.loads(next((FAMILIES / family / "generate").glob("*.json")).read_text())["mask_id"]
        for family in ("lladamoe", "dream")
    }
    record("lladamoe", "moe-f32", MODEL_ARCH.LLADA_MOE, masks["lladamoe"], "llada-moe-f32.gguf")
    record("dream", "gqa-f32", MODEL_ARCH.DREAM, masks["dream"], "dream-f32.gguf")
