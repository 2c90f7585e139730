"""What a checkpoint's folder can carry, and what is done with it: one table of files and of keys.

Whatever changes the vectors is *honoured*, or *refused* in one line; the rest has *no effect*. ``folder.check`` holds
a folder against the table.

Sources: sentence-transformers 6.2 (``config_keys`` of its modules, ``BaseModel.save``, ``Transformer.load_config``),
transformers 5.23, peft 0.21, FlagEmbedding 1.4.2. A test compares the table with the installed sentence-transformers.
"""

from ecom_rag.models.checkpoints.keys import CODE, HONOURED, NO_EFFECT, REFUSED, Key
from ecom_rag.models.checkpoints.quantized import PACKED


def _words(text: str) -> list[str]:
    return text.split()


ADAPTER = (
    "put the adapter's files into a folder of their own, merge them into the base model with ecom-rag merge, and pass"
    " the merged folder"
)

# Files at the root, or in the folder of the Transformer module. The first pattern that fits counts; a file of weights
# that fits none is not read, and that is said; any other file has no effect.
FILES: tuple[tuple[str, str], ...] = (
    ("adapter_config.json", REFUSED),
    ("adapter_model.*", REFUSED),
    ("adapter_model-*", REFUSED),
    ("pytorch_adapter.bin", REFUSED),
    ("config.json", HONOURED),
    ("modules.json", HONOURED),
    ("sentence_*_config.json", HONOURED),
    ("config_sentence_transformers.json", HONOURED),
    ("tokenizer.json", HONOURED),
    ("tokenizer_config.json", HONOURED),
    ("special_tokens_map.json", HONOURED),
    ("added_tokens.json", HONOURED),
    ("vocab.txt", HONOURED),
    ("vocab.json", HONOURED),
    ("merges.txt", HONOURED),
    ("*.model", HONOURED),
    (PACKED, HONOURED),
    ("model.safetensors*", HONOURED),
    ("model-?????-of-?????.safetensors", HONOURED),
    ("pytorch_model.bin*", HONOURED),
    ("pytorch_model-?????-of-?????.bin", HONOURED),
    ("sparse_linear.pt", HONOURED),
    ("colbert_linear.pt", HONOURED),
    ("generation_config.json", NO_EFFECT),
    ("preprocessor_config.json", NO_EFFECT),
    ("processor_config.json", NO_EFFECT),
    ("chat_template.*", NO_EFFECT),
    ("training_args.bin", NO_EFFECT),
    ("optimizer.*", NO_EFFECT),
    ("scheduler.pt", NO_EFFECT),
    ("scaler.pt", NO_EFFECT),
    ("rng_state*", NO_EFFECT),
    ("ema.pt", NO_EFFECT),
    ("openvino_model*.bin", NO_EFFECT),
    ("*.py", NO_EFFECT),  # never run; what names it is refused
)
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")  # one of them at least
SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

LOADING = Key(REFUSED, (None, {}), remedy="save the model again with those options applied")

# Architectures whose hub folders name code that ecom_rag has of its own (``networks.decoder``): it is not needed.
OWN_NETWORKS = ("LayerWiseMiniCPMForCausalLM", "CostWiseGemmaForCausalLM")

# Keys of config.json and the tokenizer's files are transformers' own and honoured by it, but for these.
CONFIG: dict[str, Key] = {
    "auto_map": CODE,
    "quantization_config": Key(REFUSED, (None, {}), remedy="use the checkpoint that it was quantised from"),
    "adapters": Key(REFUSED, (None, {}), remedy=ADAPTER),
    "pruned_heads": Key(REFUSED, (None, {}), remedy="save the pruned model again with transformers 4"),
    "vision_config": Key(REFUSED, remedy="use an encoder of texts alone"),
    "audio_config": Key(REFUSED, remedy="use an encoder of texts alone"),
    **dict.fromkeys(
        _words(
            """
            hidden_size d_model dim n_embd num_hidden_layers num_attention_heads intermediate_size
            max_position_embeddings vocab_size type_vocab_size pad_token_id
            """
        ),
        Key(HONOURED, type=int),
    ),
    "model_type": Key(HONOURED, type=str),
    "architectures": Key(HONOURED, type=list),
    "id2label": Key(HONOURED, type=dict),
}
OWN_CONFIG: dict[str, Key] = {**CONFIG, "auto_map": Key(NO_EFFECT)}
TOKENIZER_CONFIG: dict[str, Key] = {"auto_map": CODE, "model_max_length": Key(HONOURED, type=float)}

# Of BERT, RoBERTa and XLM-R every key is known; another one is ignored by transformers, and that is said.
BERTS = ("bert", "roberta", "xlm-roberta")
_NO_OTHER_POSITIONS = Key(
    REFUSED, (None, "absolute"), remedy="transformers 5 computes absolute positions only; use another checkpoint"
)
BERT_CONFIG: dict[str, Key] = {
    **CONFIG,
    "position_embedding_type": _NO_OTHER_POSITIONS,
    **dict.fromkeys(("hidden_act", "layer_norm_eps", "is_decoder", "add_cross_attention", "num_labels"), Key(HONOURED)),
    **dict.fromkeys(
        _words(
            """
            _name_or_path _commit_hash _attn_implementation attn_implementation transformers_version torch_dtype
            dtype use_cache output_past gradient_checkpointing label2id problem_type initializer_range
            initializer_factor finetuning_task tokenizer_class bos_token_id eos_token_id sep_token_id
            cls_token_id mask_token_id unk_token_id return_dict output_hidden_states output_attentions
            torchscript use_bfloat16 hidden_dropout_prob attention_probs_dropout_prob classifier_dropout
            tie_word_embeddings sentence_transformers sbert_ce_default_activation_function directionality
            pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
            is_encoder_decoder prefix chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
            task_specific_params custom_pipelines task do_sample language name model_name tie_encoder_decoder
            tf_legacy_loss max_length min_length num_beams num_beam_groups diversity_penalty temperature top_k
            top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
            bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
            forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
            begin_suppress_tokens early_stopping
            """
        ),
        Key(NO_EFFECT),
    ),
}

_ANSWERED = {"chat_template": {"add_generation_prompt": True}}  # of a reranker, whose prompts end so
TEXT_METHODS = {
    "feature-extraction": {"method": "forward", "method_output_name": "last_hidden_state"},
    "sequence-classification": {"method": "forward", "method_output_name": "logits"},
    "text-generation": {"method": "forward", "method_output_name": "logits"},
}
SENTENCE_BERT: dict[str, Key] = {
    "max_seq_length": Key(HONOURED, type=int),
    "do_lower_case": Key(HONOURED, type=bool),
    "transformer_task": Key(
        REFUSED, (None, *TEXT_METHODS), remedy="expected an encoder (feature-extraction) or a reranker"
    ),
    "modality_config": Key(HONOURED, type=dict),  # checked below: texts by forward
    "module_output_name": Key(
        REFUSED, (None, "token_embeddings", "scores", "causal_logits"), remedy="expected token_embeddings"
    ),
    "processing_kwargs": Key(REFUSED, (*LOADING.plain, _ANSWERED), remedy=LOADING.remedy),
    "unpad_inputs": Key(NO_EFFECT),
    "query_length": Key(REFUSED, remedy="set the longest text with max_length, and take the key out"),
    "document_length": Key(REFUSED, remedy="set the longest text with max_length, and take the key out"),
    "query_expansion": Key(REFUSED, remedy="that is for ColBERT models; use an encoder of one vector a text"),
    "tokenizer_name_or_path": Key(REFUSED, remedy="put the tokenizer's files into the folder"),
    **dict.fromkeys(
        ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
        Key(HONOURED, type=dict),  # checked below: options of loading that change no number
    ),
}
LOADING_OPTIONS = {
    "torch_dtype",
    "dtype",
    "attn_implementation",
    "trust_remote_code",
    "device_map",
    "use_cache",
    "add_pooling_layer",
    "low_cpu_mem_usage",
    "model_max_length",
}

SENTENCE_TRANSFORMERS: dict[str, Key] = {
    "__version__": Key(NO_EFFECT),
    "requirements": Key(NO_EFFECT),
    "model_type": Key(
        REFUSED, (None, "SentenceTransformer", "CrossEncoder"), remedy="expected an encoder of one vector a text"
    ),
    "prompts": Key(HONOURED, type=dict),
    "default_prompt_name": Key(HONOURED, type=str),
    "similarity_fn_name": Key(
        REFUSED, (None, "cosine"), remedy="scores are cosines here, which rank otherwise; use a model made for cosine"
    ),
    "truncate_dim": Key(HONOURED, type=int),
    "activation_fn": Key(NO_EFFECT),  # of a reranker, whose logits are given
    "keep_in_fp32_modules": Key(NO_EFFECT),
}

MODULE: dict[str, Key] = {
    "idx": Key(NO_EFFECT),
    "name": Key(NO_EFFECT),
    "path": Key(HONOURED, type=str),
    "type": Key(HONOURED, type=str),
    "kwargs": Key(REFUSED, (None, [], {}), remedy="use a model that takes no further arguments"),
}
_SENTENCE = (None, "sentence_embedding")
POOLING: dict[str, Key] = {
    "word_embedding_dimension": Key(NO_EFFECT),
    "embedding_dimension": Key(NO_EFFECT),
    "include_prompt": Key(HONOURED, type=bool),
    "pooling_mode": Key(HONOURED),
    **dict.fromkeys(
        (
            "pooling_mode_cls_token",
            "pooling_mode_mean_tokens",
            "pooling_mode_lasttoken",
            "pooling_mode_max_tokens",
            "pooling_mode_mean_sqrt_len_tokens",
            "pooling_mode_weightedmean_tokens",
        ),
        Key(HONOURED, type=bool),  # those that are on, by ``pooling_of``
    ),
}
ACTIVATIONS = ("Tanh", "Identity", "GELU", "ReLU")
DENSE: dict[str, Key] = {
    "in_features": Key(HONOURED, type=int),
    "out_features": Key(HONOURED, type=int),
    "bias": Key(HONOURED, type=bool),
    "activation_function": Key(HONOURED, type=str),
    "use_residual": Key(REFUSED, (None, False), remedy="use a model without residual Dense layers"),
    "module_input_name": Key(REFUSED, _SENTENCE, remedy="expected sentence_embedding"),
    "module_output_name": Key(REFUSED, _SENTENCE, remedy="expected sentence_embedding"),
}
NORMALIZE: dict[str, Key] = {
    "module_input_name": Key(REFUSED, _SENTENCE, remedy="expected sentence_embedding"),
    "module_output_name": Key(REFUSED, _SENTENCE, remedy="expected sentence_embedding"),
}
LOGIT_SCORE: dict[str, Key] = {  # a language model as a reranker
    "true_token_id": Key(HONOURED, type=int),
    "false_token_id": Key(HONOURED, type=int),
    "module_input_name": Key(REFUSED, (None, "causal_logits"), remedy="expected causal_logits"),
}
MODULES: dict[str, dict[str, Key]] = {
    "Transformer": SENTENCE_BERT,
    "Pooling": POOLING,
    "Dense": DENSE,
    "Normalize": NORMALIZE,
    "LogitScore": LOGIT_SCORE,
}
