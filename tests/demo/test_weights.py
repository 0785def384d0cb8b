"""The shipped weights: unchanged files, loadable by the real libraries, good enough to teach."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from discovla.demo import weights
from discovla.errors import UserError


def test_readme_lists_every_file_with_its_hash() -> None:
    listed = weights.listed_files()
    present = {
        path.relative_to(weights.WEIGHTS).as_posix()
        for path in weights.WEIGHTS.rglob("*")
        if path.is_file() and path.name != weights.README
    }
    assert set(listed) == present
    weights.verify_weights()
    assert "MIT" in (weights.WEIGHTS / weights.README).read_text()


def test_weights_are_small_and_no_pickles() -> None:
    files = [path for path in weights.WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".gz", ".md"}


def test_a_changed_or_absent_file_is_named(tmp_path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/a.json").write_text("{}")
    weights.write_readme(tmp_path, clip_parameters=1, llava_parameters=2, cpu_seconds=3)
    weights.verify_weights(tmp_path)
    (tmp_path / "clip/a.json").write_text("{} ")
    with pytest.raises(UserError, match=r"clip/a\.json"):
        weights.verify_weights(tmp_path)
    (tmp_path / "clip/a.json").unlink()
    with pytest.raises(UserError, match=r"clip/a\.json"):
        weights.verify_weights(tmp_path)


def test_training_log_is_complete() -> None:
    log = json.loads((weights.WEIGHTS / weights.LOG).read_text())
    assert log["clip"]["seed"] == log["llava"]["seed"] == 0
    assert {"torch", "open_clip_torch", "transformers"} <= set(log["versions"])
    assert log["clip"]["curve"][-1]["contrast"] < log["clip"]["curve"][0]["contrast"]
    for curve in log["llava"]["curves"].values():
        assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.fixture(scope="module")
def clip():
    from discovla.demo.clip_model import load_clip

    return load_clip(weights.CLIP)


@pytest.fixture(scope="module")
def llava():
    from discovla.demo.llava_model import load_llava

    return load_llava(weights.LLAVA)


def test_clip_knows_colour_size_and_stripes(clip) -> None:
    from discovla.demo.quality import zero_shot_accuracy

    accuracy = zero_shot_accuracy(*clip, n_images=120)
    assert accuracy["colour"] > 0.97
    assert accuracy["size"] > 0.93
    assert accuracy["striped"] > 0.93
    assert accuracy["shape"] > 0.5  # chance is 0.25


def test_clip_reads_32_words(clip) -> None:
    model, tokenizer = clip
    assert model.positional_embedding.shape[0] == tokenizer.context_length == 40
    assert model.token_embedding.num_embeddings == tokenizer.vocab_size
    tokens = tokenizer(["a small red ring and " * 9])
    assert (tokens[0] == tokenizer.eot_token_id).any()
    assert model.encode_text(tokens).shape == (1, 64)


def test_auto_classes_load_the_captioner() -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(weights.LLAVA, local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(weights.LLAVA, local_files_only=True)
    assert type(model).__name__ == "LlavaNextForConditionalGeneration"
    assert model.dtype == torch.float16
    assert processor.tokenizer.padding_side == "left"


def test_guidance_supplies_what_the_captioner_cannot_see(llava) -> None:
    from discovla.demo.pretrain_llava import draw_frames, measure_captions

    frames = draw_frames(np.random.default_rng(77), 96)
    scores = measure_captions(*llava, *frames)
    assert scores["guided"]["shape"] > scores["unguided"]["shape"] + 0.1
    assert scores["guided"]["exact"] > scores["unguided"]["exact"] + 0.1
    for kind in ("guided", "unguided"):
        assert scores[kind]["count"] > 0.9
        assert scores[kind]["colour"] > 0.9


def test_answers_do_not_depend_on_the_batch(llava) -> None:
    from discovla.captioning.prompt import guided_prompt, unguided_prompt
    from discovla.demo.llava_model import caption_images, chat_prompt
    from discovla.demo.pretrain_llava import draw_frames

    model, processor = llava
    images, captions, _ = draw_frames(np.random.default_rng(78), 6)
    prompts = [chat_prompt(processor, guided_prompt(caption)) for caption in captions]
    prompts[0] = chat_prompt(processor, unguided_prompt())
    together = caption_images(model, processor, list(images), prompts)
    alone = caption_images(model, processor, list(images), prompts, batch=1)
    assert together == alone


@pytest.mark.slow
def test_pretraining_runs_and_documents_itself(tmp_path, monkeypatch) -> None:
    from discovla.demo import pretrain as both
    from discovla.demo import pretrain_clip, quality
    from discovla.demo.pretrain import pretrain

    for module in (both, pretrain_clip):  # the measurements take longer than these few steps
        for name in ("zero_shot_accuracy", "retrieval_recall"):
            monkeypatch.setattr(module, name, partial(getattr(quality, name), n_images=8))
    log = pretrain(tmp_path / "weights", seed=3, scale=0.002)
    assert log["clip"]["seed"] == 3
    assert {path.name for path in (tmp_path / "weights").iterdir()} == weights.CONTENTS
    weights.verify_weights(tmp_path / "weights")
    assert set(weights.listed_files(tmp_path / "weights")) == set(weights.listed_files())
    assert set(log["llava"]["decoded_frames"]) == {"guided", "unguided"}


def test_commands_show_an_example(capsys) -> None:
    import argparse

    from discovla.cli.demo import add_parser

    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    for command in ("demo-world", "demo-pretrain"):
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args([command, "--help"])
        assert f"discovla {command} --output" in capsys.readouterr().out
    args = parser.parse_args(["demo-pretrain", "--output", "x", "--seed", "4"])
    assert (args.output, args.seed) == ("x", 4)
