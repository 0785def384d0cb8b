"""Building blocks of the tiny models, before any training."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from discovla.demo import bpe
from discovla.demo.captions import image_caption, video_caption, vocabulary
from discovla.demo.scene import Placed, Thing, draw_still, draw_story
from discovla.demo.targets import N_TARGETS, attribute_targets


def test_merges_follow_frequency_then_alphabet() -> None:
    assert bpe.learn_merges(["ab ab cd"]) == [("a", "b</w>"), ("c", "d</w>")]
    assert bpe.learn_merges(["aaa"], limit=1) == [("a", "a")]
    assert bpe.vocabulary_size([("a", "b</w>")]) == 515


def test_merges_file_is_reproducible_and_has_no_final_newline(tmp_path) -> None:
    bpe.write_merges(tmp_path / "a.gz", [("a", "b</w>")])
    bpe.write_merges(tmp_path / "b.gz", [("a", "b</w>")])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"#version: 0.2\na b</w>"


def test_every_word_of_the_world_is_one_token(tmp_path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    rng = np.random.default_rng(0)
    texts = [image_caption(draw_still(rng)[0], rng) for _ in range(1500)]
    texts += [video_caption(draw_story(rng), rng) for _ in range(1500)]
    merges = bpe.learn_merges(texts)
    bpe.write_merges(tmp_path / "bpe.txt.gz", merges)
    tokenizer = SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"), context_length=40)
    assert tokenizer.vocab_size == bpe.vocabulary_size(merges)
    assert all(len(tokenizer.encode(word)) == 1 for word in vocabulary())
    long = tokenizer(["a red ring " * 30], context_length=32)[0]
    assert len(long) == 32
    assert long[-1] == tokenizer.eot_token_id == long.max()


def test_targets_mark_each_pair_of_attributes() -> None:
    red = Placed(Thing("red", "circle", "small", striped=False), 0.5, 0.5, 8)
    white = Placed(Thing("white", "ring", "large", striped=True), 0.5, 0.5, 13)
    target = attribute_targets([red, white])
    assert target.shape == (N_TARGETS,) == (56,)
    assert np.flatnonzero(target).tolist() == [0, 27, 28, 41, 42, 55]
    assert attribute_targets([]).sum() == 0


def test_caption_scores() -> None:
    from discovla.demo.quality import caption_scores

    truth = ["a small red ring", "a large blue cross and a small striped pink ring"]
    assert caption_scores(truth, truth) == dict.fromkeys(
        ("exact", "count", "colour", "shape", "size", "striped"), 1.0
    )
    scores = caption_scores(["a small red cross", "a large blue cross"], truth)
    assert scores == {
        "exact": 0.0,
        "count": 0.5,
        "colour": 1.0,
        "shape": 0.0,
        "size": 1.0,
        "striped": 1.0,
    }
    assert caption_scores(["", ""], truth)["exact"] == 0


@pytest.fixture(scope="module")
def processor():
    from discovla.demo.llava_model import build_processor

    return build_processor()


def test_prompt_has_the_image_first_and_only_known_words(processor) -> None:
    from discovla.captioning.prompt import guided_prompt, unguided_prompt
    from discovla.demo.llava_model import chat_prompt

    assert chat_prompt(processor, unguided_prompt()) == (
        "USER: <image> Provide a caption for the provided image. ASSISTANT:"
    )
    rng = np.random.default_rng(0)
    captions = [video_caption(draw_story(rng), rng) for _ in range(300)]
    prompts = [chat_prompt(processor, guided_prompt(caption)) for caption in captions]
    ids = processor.tokenizer([*prompts, " ".join(vocabulary())])["input_ids"]
    assert all(processor.tokenizer.unk_token_id not in row for row in ids)


def test_training_shortcuts_equal_the_models_own_forward(processor) -> None:
    import torch

    from discovla.demo.clip_model import build_clip, image_tower, text_tower, to_pixels
    from discovla.demo.llava_model import (
        build_llava,
        chat_prompt,
        copy_tower,
        image_embeddings,
        patch_features,
    )

    torch.manual_seed(0)
    clip = build_clip(600).eval()
    model = build_llava(len(processor.tokenizer)).eval()
    copy_tower(clip, model)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    pixels = to_pixels(images)
    prompts = [chat_prompt(processor, "provide a caption")] * 2
    inputs = processor(images=list(images), text=prompts, padding=True, return_tensors="pt")

    class Tokens:
        def __call__(self, texts: list[str]) -> torch.Tensor:
            return torch.tensor([[598, 5, 599, 0, 0], [598, 5, 6, 7, 599]])

    with torch.inference_mode():
        assert torch.allclose(inputs["pixel_values"][:, 0], pixels, atol=1e-6)
        own = model.model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], return_dict=True
        )
        assert torch.allclose(
            torch.stack(list(own.pooler_output)), image_embeddings(model, pixels), atol=1e-5
        )
        hidden = clip.visual.transformer(clip.visual._embeds(pixels))
        assert torch.allclose(patch_features(model, pixels), hidden[:, 1:], atol=1e-4)
        assert torch.allclose(image_tower(clip, pixels)[1], clip.encode_image(pixels), atol=1e-5)
        tokens = torch.zeros(2, 40, dtype=torch.long)
        tokens[:, :5] = Tokens()([])
        assert torch.allclose(
            text_tower(clip, Tokens(), ["", ""]), clip.encode_text(tokens), atol=1e-5
        )
