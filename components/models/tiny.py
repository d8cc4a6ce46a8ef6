"""Tiny random models for tests and dry runs: a real Llama class, its own BPE tokenizer and a ChatML template."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CHATML_TEMPLATE", "make_tiny"]

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_CORPUS = (
    "How many singers are there? SELECT count(*) FROM singer WHERE age > 30 GROUP BY country ORDER BY name",
    "singer(id, name, country, age) concert(id, title, year, stadium_id) stadium(id, location, capacity)",
    "system user assistant Answer the question with one SQL query. What is the name of the oldest student?",
    "The quick brown fox jumps over the lazy dog. A. B. C. D. yes no true false 0 1 2 3 4 5 6 7 8 9",
)


def make_tiny(
    folder: Path, seed: int = 0, hidden_size: int = 64, layers: int = 2, vocabulary: int = 400, positions: int = 1024
) -> Path:
    """Write a random Llama with tokenizer and chat template to a folder.

    Args:
        folder: Where config.json, model.safetensors and the tokenizer go; created.
        seed: Seed of the weights; another seed gives another base of the same shapes.
        hidden_size: Width; a multiple of 16.
        layers: Number of decoder blocks.
        vocabulary: Size of the byte-level BPE vocabulary, at least 300.
        positions: Longest sequence in tokens.

    Returns:
        The folder.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
