"""A cross-encoder whose scores are known: a text with the word telescope is relevant to any question."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "telescope", "rain", "cloud", "dome", "who", "where", "alpha"]


def save_cross_encoder(folder: Path) -> Path:
    """Save it to a folder; most of its weights are zero."""
    BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
    torch.manual_seed(1)
    size = len(WORDS)
    config = BertConfig(
        vocab_size=size,
        hidden_size=size,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=64,
        num_labels=1,
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        embeddings, layer = model.bert.embeddings, model.bert.encoder.layer[0]
        embeddings.word_embeddings.weight.copy_(torch.eye(size) * 4)
        for norm in (embeddings.LayerNorm, layer.attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1)
        # Attention without preferences: [CLS] sees the mean of all tokens; "telescope" is what makes a text relevant.
        layer.attention.self.value.weight.copy_(torch.eye(size))
        layer.attention.output.dense.weight.copy_(torch.eye(size))
        model.bert.pooler.dense.weight.copy_(torch.eye(size))
        model.classifier.weight[0, WORDS.index("telescope")] = 10
    model.save_pretrained(folder)
    return folder
