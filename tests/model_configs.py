"""A config.json that tests change."""

from typing import Any

LLAMA: dict[str, Any] = {  # Llama 3 8B
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
