"""The tiny LLaVA-NeXT: transformers' own classes in 1.2 M parameters, and its processor.

A frame is one base image and one tile, both 64 x 64, so an image is 16 + 16 + 4 = 36 tokens
(base patches, tile patches, one newline per row of the tile).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

from discovla.captioning.prompt import guided_prompt, unguided_prompt
from discovla.demo.captions import vocabulary
from discovla.demo.clip_model import VISION
from discovla.demo.scene import SIZE

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
PAD, _, BOS, EOS, IMAGE = range(len(SPECIAL))
GRID = SIZE // VISION["patch_size"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}:"
    "{% for part in message['content'] if part['type'] == 'image' %} <image>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %} {{ part['text'] }}{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""`USER: <image> text ASSISTANT:`, images first."""


def build_processor() -> LlavaNextProcessor:
    """Processor with a word-level tokenizer for the two prompts and every caption word."""
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    prompts = f"user: assistant: {guided_prompt('')} {unguided_prompt()} ,".lower()
    words = {piece for piece, _ in splitter.pre_tokenize_str(prompts)} | set(vocabulary())
    vocab = {word: i for i, word in enumerate([*SPECIAL, *sorted(words)])}
    backend = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = splitter
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_grid_pinpoints=[[SIZE, SIZE]],
        image_mean=list(OPENAI_DATASET_MEAN),
        image_std=list(OPENAI_DATASET_STD),
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=VISION["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLS, which the strategy "default" then drops
        chat_template=CHAT_TEMPLATE,
    )


def build_llava(vocab_size: int) -> LlavaNextForConditionalGeneration:
    """A freshly initialised tiny LLaVA-NeXT whose tower has the shape of the tiny CLIP's."""
    width = VISION["width"]
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=VISION["layers"],
        num_attention_heads=width // VISION["head_width"],
        image_size=SIZE,
        patch_size=VISION["patch_size"],
        hidden_act="quick_gelu",
    )
    text = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_grid_pinpoints=[[SIZE, SIZE]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        image_seq_length=GRID * GRID,
    )
    model = LlavaNextForConditionalGeneration(config)
    model.generation_config.pad_token_id = PAD
    model.generation_config.bos_token_id = BOS
    model.generation_config.eos_token_id = EOS
    return model


def copy_tower(clip: open_clip.CLIP, model: LlavaNextForConditionalGeneration) -> None:
    """Give the captioner CLIP's visual weights; every weight of the tower is replaced."""
    names = {
        "conv1.weight": "embeddings.patch_embedding.weight",
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_pre": "pre_layrnorm",  # transformers' spelling
        "ln_post": "post_layernorm",
        "transformer.resblocks": "encoder.layers",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.": "self_attn.",
    }
    state: dict[str, torch.Tensor] = {}
    for name, value in clip.visual.state_dict().items():
        if name == "proj":
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                state[name.replace("in_proj_", f"{letter}_proj.")] = part
        else:
            state[name] = value
    tower = model.model.vision_tower
    getattr(tower, "vision_model", tower).load_state_dict(state, strict=True)


def patch_features(model: LlavaNextForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Patches of the tower's last layer, CLS dropped: pixels (N, 3, 64, 64) to (N, 16, 96)."""
    output = model.model.vision_tower(pixels, output_hidden_states=True)
    return output.hidden_states[-1][:, 1:]


def image_embeddings(
    model: LlavaNextForConditionalGeneration, pixels: torch.Tensor
) -> torch.Tensor:
    """The 36 embeddings that stand for each image, shape (N, 36, 128).

    The base image and the only tile have the same pixels, so the tower runs once for both:
    equal to `model.get_image_features`, in half the time.
    """
    base = model.model.multi_modal_projector(patch_features(model, pixels))  # (N, 16, 128)
    rows = base.unflatten(1, (GRID, GRID))
    newline = model.model.image_newline.expand(len(base), GRID, 1, -1)
    return torch.cat([base, torch.cat([rows, newline], 2).flatten(1, 2)], 1)


def load_llava(
    folder: Path,
) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """The captioner in float32, in evaluation mode, and its processor; nothing is downloaded."""
    model = LlavaNextForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    return model.eval(), LlavaNextProcessor.from_pretrained(folder, local_files_only=True)


def chat_prompt(processor: LlavaNextProcessor, text: str, *, image: bool = True) -> str:
    """The prompt in the model's conversation format, image first, ready for the answer."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if image:
        content.insert(0, {"type": "image"})
    conversation: list[Any] = [{"role": "user", "content": content}]
    return processor.apply_chat_template(conversation, add_generation_prompt=True)


@torch.inference_mode()
def caption_images(
    model: Any,
    processor: LlavaNextProcessor,
    images: Sequence[np.ndarray],
    prompts: Sequence[str],
    *,
    batch: int = 100,
    max_new_tokens: int = 16,
) -> list[str]:
    """Greedy answers to `prompts` (from `chat_prompt`) about uint8 (H, W, 3) images."""
    answers: list[str] = []
    for start in range(0, len(images), batch):
        inputs = processor(
            images=list(images[start : start + batch]),
            text=list(prompts[start : start + batch]),
            padding=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        answer = output[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(answer, skip_special_tokens=True)
    return answers
