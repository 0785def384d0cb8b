from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovla.captioning.engine import Caption, fault_of
from discovla.captioning.fingerprint import folder_fingerprint
from discovla.captioning.prompt import guided_prompt, unguided_prompt
from discovla.errors import UserError
from tests.captioning.conftest import noise

NEW_TOKENS = 9
IMAGES = [noise(i, *shape) for i, shape in enumerate([(24, 40), (32, 32), (48, 20), (7, 5)])]
CAPTIONS = ["a red ring", "large blue disc and small cross jumps then moves", "green", "{a} x 'y'"]


@pytest.fixture(scope="module")
def captioner(llava_folder):
    from discovla.captioning.llava import LlavaNextCaptioner

    made = LlavaNextCaptioner(
        str(llava_folder), device="cpu", max_new_tokens=NEW_TOKENS, batch_size=5
    )
    ring = made.tokenizer.convert_tokens_to_ids("ring")
    # The random model never says its end mark; a word that it says now and then takes its place.
    made.model.generation_config.eos_token_id = [3, ring]
    made._ends = {3, ring}
    made._generator.ends = [3, ring]
    return made


def one_by_one(captioner, image: np.ndarray, prompt: str, longest: int = NEW_TOKENS) -> Caption:
    """The plain path of transformers' documentation: processor, then generate, alone in a batch."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    text = captioner.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = captioner.processor(images=[image], text=[text], return_tensors="pt")
    output = captioner.model.generate(**inputs, do_sample=False, max_new_tokens=longest)
    answer = output[0, inputs["input_ids"].shape[1] :].tolist()
    stop = next((n for n, token in enumerate(answer) if token in captioner._ends), None)
    words = captioner.tokenizer.decode(answer[:stop], skip_special_tokens=True)
    return Caption(words.strip(), len(answer[:stop]), "length" if stop is None else "stop")


def test_batches_say_what_one_by_one_says(captioner) -> None:
    questions = [(i, guided_prompt(c)) for i in range(len(IMAGES)) for c in CAPTIONS]
    questions += [(i, unguided_prompt()) for i in range(len(IMAGES))]
    # Shuffled, so that images and lengths come mixed; with 5 a batch there are several windows.
    order = np.random.default_rng(0).permutation(len(questions))
    questions = [questions[n] for n in order] + questions[:3]
    got = captioner.caption([IMAGES[i] for i, _ in questions], [p for _, p in questions])
    assert got == [one_by_one(captioner, IMAGES[i], p) for i, p in questions]
    # Not trivially so: answers differ with image and prompt, some end and some are cut off.
    assert len({answer.text for answer in got}) > len(questions) / 2
    assert {answer.finish_reason for answer in got} == {"stop", "length"}
    assert len({len(row) for row in captioner._tokens(dict(questions).values()).values()}) > 2


def test_longer_answers_say_what_one_by_one_says(captioner) -> None:
    questions = [(image, guided_prompt(c)) for image in IMAGES for c in CAPTIONS]
    got = captioner.caption([i for i, _ in questions], [p for _, p in questions], longer=True)
    assert got == [one_by_one(captioner, i, p, 2 * NEW_TOKENS) for i, p in questions]
    assert {answer.n_tokens for answer in got if answer.finish_reason == "length"} == {
        2 * NEW_TOKENS
    }


def test_an_image_is_encoded_once(captioner, monkeypatch) -> None:
    from discovla.captioning.llava.images import Images

    encoded: list[int] = []
    inner = Images.encode

    def encode(self, images):
        encoded.extend(map(id, images))
        return inner(self, images)

    monkeypatch.setattr(Images, "encode", encode)
    images = [IMAGES[i % 2] for i in range(30)]
    captioner.caption(images, [guided_prompt(CAPTIONS[i // 2 % 4]) for i in range(30)])
    assert sorted(encoded) == sorted([id(IMAGES[0]), id(IMAGES[1])])


def test_nothing_to_caption(captioner) -> None:
    assert captioner.caption([], []) == []


def test_marks_in_a_caption_stay_text(captioner) -> None:
    hostile = guided_prompt("an <image> of </s> and <s><pad>")
    (row,) = captioner._tokens([hostile]).values()
    assert row.count(captioner._image_id) == 1
    assert captioner.tokenizer.eos_token_id not in row
    (answer,) = captioner.caption([IMAGES[0]], [hostile])
    assert answer.n_tokens <= NEW_TOKENS


def test_begin_mark_of_the_template_is_not_doubled(captioner, monkeypatch) -> None:
    begin = captioner.tokenizer.bos_token_id
    monkeypatch.setattr(captioner, "chat_text", lambda prompt: f"<s> <image> {prompt}")
    assert captioner._tokens(["a red ring"])["a red ring"].count(begin) == 1


def test_second_try_breaks_a_loop(captioner) -> None:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(12)]
    prompts = [guided_prompt("a red ring")] * 12
    first = captioner.caption(images, prompts)
    second = captioner.caption(images, prompts, second_try=True)
    assert first != second
    assert all(answer.n_tokens >= 3 for answer in second)


def test_bf16_runs(llava_folder) -> None:
    from discovla.captioning.llava import LlavaNextCaptioner

    captioner = LlavaNextCaptioner(
        str(llava_folder), dtype="bf16", device="cpu", max_new_tokens=3, batch_size=2
    )
    answers = captioner.caption([IMAGES[0]] * 3, [unguided_prompt()] * 3)
    assert len(set(answers)) == 1
    assert captioner.describe() == {
        "engine": "transformers",
        "model": str(llava_folder),
        "revision": None,
        "dtype": "bf16",
        "decoding": "greedy",
        "max_new_tokens": 3,
        "seed": None,
        "weights": folder_fingerprint(str(llava_folder)),
    }


def test_hub_model_that_is_not_there(monkeypatch) -> None:
    from huggingface_hub import constants

    from discovla.captioning.llava import LlavaNextCaptioner

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as error:
        LlavaNextCaptioner("nobody-at-all/no-such-llava")
    for part in (
        "nobody-at-all/no-such-llava",
        "HF_HUB_OFFLINE",
        "hf download",
        "captioner_path",
        "config/captioners.yaml",
    ):
        assert part in str(error.value)


def damaged(folder: Path, tmp_path: Path, fault: str) -> str:
    copy = tmp_path / "copy"
    if fault == "absent":
        return str(copy / "no" / "such" / "folder")
    shutil.copytree(folder, copy)
    weights = copy / "model.safetensors"
    if fault == "empty folder":
        shutil.rmtree(copy)
        copy.mkdir()
    elif fault == "cut off":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif fault == "no weights":
        weights.unlink()
    elif fault == "tensor missing":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        del tensors[next(name for name in tensors if name.endswith("lm_head.weight"))]
        save_file(tensors, weights, {"format": "pt"})
    elif fault == "other model":
        (copy / "config.json").write_text('{"model_type": "bert"}')
    elif fault == "no template":
        (copy / "chat_template.jinja").unlink()
    return str(copy)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("absent", "no such folder"),
        ("empty folder", r"no config\.json"),
        ("cut off", "cannot be loaded"),
        ("no weights", "cannot be loaded"),
        ("tensor missing", r"1 tensors are missing.*lm_head\.weight"),
        ("other model", "type 'bert'"),
        ("no template", "conversation template"),
    ],
)
def test_damaged_models(llava_folder, tmp_path, fault: str, message: str) -> None:
    from discovla.captioning.llava import LlavaNextCaptioner

    with pytest.raises(UserError, match=message):
        LlavaNextCaptioner(damaged(llava_folder, tmp_path, fault))


def test_no_such_device(llava_folder) -> None:
    from discovla.captioning.llava import LlavaNextCaptioner

    with pytest.raises(UserError, match="allowed: auto, cpu, cuda"):
        LlavaNextCaptioner(str(llava_folder), device="toaster")
    with pytest.raises(UserError, match="dtype is 'fp8'"):
        LlavaNextCaptioner(str(llava_folder), dtype="fp8")


@pytest.mark.parametrize(
    "text",
    [
        "a red ring and a blue ring and a green ring",
        "a very very very small disc",
        "a cat, a cat and a cat",
        "x",
        "the band played on and on and on until the end",
        "aaaa aaa aa a",
        "ha ha ha hat",
    ],
)
def test_captions_of_use(text: str) -> None:
    assert fault_of(text) is None


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from("abcdefghijkl"), max_size=6),
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=20),
    st.lists(st.sampled_from("mnopq"), max_size=3),
)
def test_loops_are_found_wherever_they_are(before, block, after) -> None:
    assert fault_of(" ".join(before + block * 3 + after)) == "repeated"
    assert fault_of(" ".join(before + block[:1] * 4 + after)) == "repeated"


@pytest.mark.parametrize("text", ["", " ", "\n\t "])
def test_empty(text: str) -> None:
    assert fault_of(text) == "empty"
