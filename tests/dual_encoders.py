"""Tiny dual encoders with random weights, as folders of Hugging Face transformers."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ("a", "photo", "of", "cat", "red", "blue", "square", "boat", "lake", "the", "words", "two")


def write_clip(folder: Path) -> Path:
    """Write a model of the family clip: byte pairs, 12 positions, the shorter side to 36 px, 32 × 32 of the centre."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>")]
    tokens = [*bytes_, *(f"{one}</w>" for one in bytes_), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokens), "max_position_embeddings": 12}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    spread(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [tiny]\n---\n# A tiny CLIP\n", encoding="utf-8")
    return folder


def write_siglip(folder: Path) -> Path:
    """Write a model of the family siglip: words, 10 positions, images of 32 × 32 px whatever their proportions."""
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessorPil, SiglipModel

    tokens = ["<pad>", "</s>", "<unk>", *WORDS]
    words = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "model_input_names": ["input_ids"]}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokens), "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    spread(SiglipModel(SiglipConfig(text_config={**text, "pad_token_id": 1}, vision_config=vision))).save_pretrained(
        folder
    )
    return folder


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Make random weights larger, so that different inputs have clearly different vectors."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3)
    return model


WRITERS = {"clip": write_clip, "siglip": write_siglip}
