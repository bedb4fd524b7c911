"""Keys of a Hugging Face config.json that are not read: which are harmless and which would change the
results.

A key that would change the results is refused by name unless its value switches it off. Unknown keys cannot
all be refused, because published checkpoints carry the notes of every tool that touched them: those whose
name suggests arithmetic are refused too, the others are named in a note.
"""

import re
from collections.abc import Mapping

from rockledge.errors import CheckpointError
from rockledge.model.families.declaration import Family
from rockledge.model.hf_values import HfValues


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What hf_config.py reads before the family is known, or leaves alone; embedding_facts.py reads the last two.
_READ = _names(
    """architectures model_type quantization_config rope_divisors text_config is_matryoshka
    matryoshka_dimensions"""
)

# Training, storage, bookkeeping and defaults of generation: results for given tokens do not depend on them.
# From PreTrainedConfig and GenerationConfig of transformers, and from configurations published on the Hub.
_HARMLESS = _names(
    """
    _name_or_path name_or_path _commit_hash transformers_version transformers.js_config auto_class
    tokenizer_class torch_dtype dtype use_cache pretraining_tp initializer_range is_llama_config
    use_bfloat16 torchscript return_dict use_return_dict output_attentions output_hidden_states
    output_router_logits output_scores return_dict_in_generate chunk_size_feed_forward finetuning_task
    problem_type task_specific_params prefix id2label label2id num_labels tf_legacy_loss
    remove_invalid_values gradient_checkpointing use_flash_attn use_flash_attention
    activation_checkpointing residual_in_fp32 scale_attention_softmax_in_fp32 sequence_parallel
    tensor_parallel_size
    _flash_attn_2_enabled attn_implementation _attn_implementation _attn_implementation_autoset
    attn_implementation_internal _attn_implementation_internal experts_implementation
    _experts_implementation_internal do_sample early_stopping max_length min_length max_new_tokens
    temperature top_k top_p min_p typical_p epsilon_cutoff eta_cutoff repetition_penalty
    encoder_repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_beams num_beam_groups diversity_penalty num_return_sequences forced_bos_token_id
    forced_eos_token_id exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    attention_dropout hidden_dropout hidden_dropout_prob resid_pdrop resid_dropout embd_pdrop attn_pdrop
    model_max_length tokenizer_model_max_length max_sequence_length seq_length seq_len
    fused_cross_entropy router_aux_loss_coef aux_loss_coef ignore_index tie_encoder_decoder
    cross_attention_hidden_size is_decoder cache_implementation
    """
)
_HARMLESS_FORM = re.compile(r"\w+_token_id|\w+_dropout|unsloth_\w+|eos_token|bos_token|pad_token|unk_token")

# The constant of norms under names that the families do not read; tools write it beside `rms_norm_eps`.
_EPSILON = re.compile(r"(layer_?norm|norm)_(eps|epsilon)")

# What would change the results, with the values that switch it off; null, empty and 0 always do, and false
# where true does not.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "attention_bias": (),
    "mlp_bias": (),
    "lm_head_bias": (),
    "attention_out_bias": (),
    "hidden_activation": ("silu", "swish"),
    "activation_function": ("silu", "swish"),
    "mlp_activation": ("silu", "swish"),
    "use_parallel_residual": (),
    "norm_type": ("rmsnorm", "rms_norm", "RMSNorm"),
    "normalization": ("rmsnorm", "rms_norm", "RMSNorm"),
    "position_embedding_type": ("rope", "rotary"),
    "use_rope": (True,),
    "use_rotary": (True,),
    "is_causal": (True,),
    "scale_attn_weights": (True,),
    "add_cross_attention": (),
    "is_encoder_decoder": (),
    "pruned_heads": (),
    "partial_rotary_factor": (1,),
    "rotary_pct": (1,),
    "rotary_dim": (),
    "rotary_emb_base": (),
    "rope_interleaved": (),
    "rope_ratio": (1,),
    "use_mrope": (),
    "no_rope_layer_interval": (),
    "query_pre_attn_scalar": (),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "logits_soft_cap": (),
    "clip_qkv": (),
    "scale_emb": (1,),
    "scale_depth": (),
    "dim_model_base": (),
    "mup_enabled": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "attention_multiplier": (),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "attention_chunk_size": (),
    "attn_temperature_tuning": (),
    "first_k_dense_replace": (),
    "num_experts": (),
    "num_local_experts": (),
    "n_routed_experts": (),
    "num_kv_shared_layers": (),
    "kv_lora_rank": (),
    "q_lora_rank": (),
    "per_layer_config": (),
    "parallel_attn": (),
    "num_nextn_predict_layers": (),
    "transformers_weights": (),
    "rescale_every": (),
}

# Words in a name that suggest arithmetic, for unknown keys; 1 counts as switched off there too.
_ARITHMETIC = _names(
    """
    scale scales scaling multiplier multipliers softcap softcapping cap capping clip clipping clamp bias
    biases norm norms layernorm rmsnorm rope nope rotary rotation expert experts moe alibi window windows
    residual sparse sparsity temperature
    """
)


def check_keys(values: HfValues, family: Family) -> list[str]:
    """Notes about keys that nothing read; CheckpointError names one that changes the results."""
    unknown = []
    for key, value in values.stored.items():
        allowed = _NEUTRAL.get(key)
        if key in values.read or key in _READ or key in _HARMLESS or _HARMLESS_FORM.fullmatch(key):
            continue
        if _is_off(value, allowed):
            continue
        if key == "no_rope_layers" and isinstance(value, list) and all(v == 1 for v in value):
            continue  # 1 means that the layer has its rotary embedding
        if _EPSILON.fullmatch(key):
            read = values.stored.get("rms_norm_eps") or family.hf_defaults["rms_norm_eps"]
            if value == read:
                continue
            raise CheckpointError(
                f"{values.place} has {key}: {str(value)[:60]}, which would be ignored, expected "
                f"{str(read)[:60]} as rms_norm_eps has; keep the one that the model was trained with"
            )
        if allowed is None and _ARITHMETIC & set(re.split(r"[^a-z0-9]+", key.lower())):
            allowed = (1,)
        if allowed is None:
            unknown.append(key)
        elif not any(_same(value, neutral) for neutral in allowed):
            raise CheckpointError(
                f"{values.place} has {key}: {str(value)[:60]}, which changes the results and is not "
                f"supported for {family.hf_architecture}; {_expected(_NEUTRAL.get(key, ()))}"
            )
    notes = []
    if "auto_map" in unknown:
        unknown.remove("auto_map")
        notes.append(
            f"config.json names code of its own (auto_map), which is not run; the model is read as "
            f"{family.hf_architecture}."
        )
    if unknown:
        notes.append(f"{values.place} has keys that are not known and not used: {_listed(unknown)}.")
    return notes


def _is_off(value: object, allowed: tuple[object, ...] | None) -> bool:
    if value is False:
        return not any(v is True for v in allowed or ())
    return value is None or value in ("", 0) or value in ([], {})


def _same(value: object, neutral: object) -> bool:
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _expected(allowed: tuple[object, ...]) -> str:
    return f"expected {' or '.join(map(str, allowed))}" if allowed else "expected no such key, or false"


def _listed(keys: list[str]) -> str:
    shown = ", ".join(sorted(key[:40] for key in keys)[:8])
    return shown + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
