from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.caption_case import GRIDS, case_of
from discovla.captioning.llava import LlavaNextCaptioner, Sampling
from discovla.captioning.llava.attention import attention, merge, plain_attention
from discovla.captioning.llava.decoding import Chooser
from discovla.captioning.llava.generation import Generator
from discovla.captioning.llava.images import Images
from discovla.captioning.prompt import guided_prompt
from discovla.errors import UserError
from tests.captioning.conftest import noise

IMAGES = [noise(i, *shape) for i, shape in enumerate([(24, 40), (32, 32), (48, 20)])]
PROMPTS = [guided_prompt(c) for c in ("a red ring", "green disc jumps", "and then a large cross")]
#: What comes out of `generate` when an answer was of no use; written down a second time here.
PENALTIES = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "min_new_tokens": 3}


def made(folder, **options) -> LlavaNextCaptioner:
    return LlavaNextCaptioner(str(folder), device="cpu", max_new_tokens=7, **options)


def questions() -> tuple[list[np.ndarray], list[str]]:
    pairs = [(image, prompt) for image in IMAGES for prompt in PROMPTS]
    return [image for image, _ in pairs], [prompt for _, prompt in pairs]


def plainly(captioner: LlavaNextCaptioner, image: np.ndarray, text: str, **options) -> str:
    """The answer to one conversation alone, by `generate` on its embeddings."""
    inputs = captioner.processor(images=[image], text=[text], return_tensors="pt")
    model = captioner.model
    embeddings = model.get_input_embeddings()(inputs["input_ids"]).detach()
    found = model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    places = inputs["input_ids"] == model.config.image_token_id
    embeddings[places] = torch.cat(list(found.pooler_output)).detach()
    output = model.generate(
        inputs_embeds=embeddings,
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        max_new_tokens=7,
        **options,
    )
    (answer,) = captioner.tokenizer.batch_decode(output, skip_special_tokens=True)
    return answer.strip()


# The whole, at the real number of image tokens


@pytest.mark.parametrize("tokens", [500, 100_000])
def test_twenty_prompts_about_several_frames(tokens: int) -> None:
    case = case_of("test", "cpu", torch.float32, frames=3, captions=20, answer=12)
    case.tokens = tokens  # frames and tails read one by one, and all together
    shared = case.shared()
    assert [len(answer) for answer in shared] == [12] * 60
    assert shared == case.naive(20)
    assert case.frames()[0].length(case.frames()[0].shared) >= 1368
    # Not trivially so: answers depend on image and prompt, and are no loops of one word.
    assert len({tuple(answer) for answer in shared}) > 50
    assert len({token for answer in shared for token in answer}) > 60


def test_one_prompt_per_image_and_the_single_grid() -> None:
    case = case_of(
        "test", "cpu", torch.float32, frames=5, captions=1, answer=6, height=90, width=160,
        grid="single",
    )  # fmt: skip
    frame = case.frames()[0]
    assert frame.image_tokens == 926
    assert frame.shared == len(frame.questions[0].tokens) - 1
    assert case.shared() == case.naive(1)


def test_no_token_is_padding_whatever_the_lengths(monkeypatch) -> None:
    """Prompts of one image each are read many at once, and every token once."""
    case = case_of("test", "cpu", torch.float32, frames=12, captions=1, answer=1)
    case.tokens = 6 * 1500
    read: list[int] = []
    inner = Generator._forward

    def forward(self, embeddings, positions, work):
        read.append(embeddings.shape[:2].numel())
        return inner(self, embeddings, positions, work)

    monkeypatch.setattr(Generator, "_forward", forward)
    case.shared()
    frames = case.frames()
    lengths = {len(question.tokens) for frame in frames for question in frame.questions}
    assert len(lengths) > 5
    assert sum(read) == sum(f.length(f.shared) + f.tail(f.questions[0]) for f in frames)
    assert len(read) == 2 + 1  # six prefixes at once, twice; what is left of all prompts


@pytest.mark.parametrize(
    ("width", "height", "tokens", "single"),
    [
        (320, 240, 1368, 1026),
        (240, 320, 1032, 1032),
        (336, 336, 1176, 1176),
        (640, 480, 2340, 1026),
        (1920, 1080, 1948, 926),
    ],
)
def test_image_tokens(width: int, height: int, tokens: int, single: int) -> None:
    vision = SimpleNamespace(image_size=336, patch_size=14)
    for grids, expected in ((GRIDS, tokens), ([[336, 336]], single)):
        config = SimpleNamespace(vision_config=vision, image_grid_pinpoints=grids)
        with Images(SimpleNamespace(config=config), None) as images:
            assert images.tokens(np.empty((height, width, 3), np.uint8)) == expected


# Attention


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from([(4, 4), (4, 2), (6, 1)]), st.integers(1, 6),
    st.integers(0, 9), st.integers(1, 9), st.integers(0, 99),
)  # fmt: skip
def test_parts_of_the_keys_merge_to_the_whole(rows, heads, queries, first, second, seed) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int, length: int) -> torch.Tensor:
        return torch.randn(rows, count, length, 8, generator=generator, dtype=torch.float64) * 3

    query = draw(heads[0], queries)
    key, value = draw(heads[1], first + second), draw(heads[1], first + second)
    whole, total = attention(query, key, value, 0.3)
    parts = [
        attention(query, key[:, :, part], value[:, :, part], 0.3)
        for part in (slice(first, None), slice(0, first))
    ]
    torch.testing.assert_close(merge(*parts[0], *parts[1]), whole, rtol=1e-5, atol=1e-5)
    # And the whole is what the definition says.
    scores = query @ key.repeat_interleave(heads[0] // heads[1], 1).transpose(2, 3) * 0.3
    expected = scores.softmax(-1) @ value.repeat_interleave(heads[0] // heads[1], 1)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(total.double(), scores.logsumexp(-1))


@pytest.mark.parametrize("causal", [False, True])
def test_the_way_for_other_devices_is_the_same(causal: bool, monkeypatch) -> None:
    from discovla.captioning.llava import attention as module

    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 150)  # in several steps
    query, key, value = (torch.randn(5, 2, 6, 8) for _ in range(3))
    bias = None if causal else torch.randn(5, 1, 1, 6)
    expected = attention(query, key, value, 0.4, bias=bias, causal=causal)
    got = plain_attention(query, key, value, 0.4, bias=bias, causal=causal)
    torch.testing.assert_close(got, expected)


# What cannot be shared, and what is odd


@pytest.mark.parametrize("form", ["{} <image>", "<s> {} <image> user", "<image>", "<s> <image> {}"])
def test_any_order_of_text_and_image(llava_folder, monkeypatch, form: str) -> None:
    captioner = made(llava_folder)
    monkeypatch.setattr(captioner, "chat_text", form.format)
    images, prompts = questions()
    got = [answer.text for answer in captioner.caption(images, prompts)]
    assert got == [
        plainly(captioner, image, form.format(prompt))
        for image, prompt in zip(images, prompts, strict=True)
    ]
    assert len(set(got)) >= len(IMAGES)


def test_second_try_is_that_of_generate(llava_folder) -> None:
    captioner = made(llava_folder)
    images, prompts = questions()
    got = [answer.text for answer in captioner.caption(images, prompts, second_try=True)]
    assert got == [
        plainly(captioner, image, captioner.chat_text(prompt), **PENALTIES)
        for image, prompt in zip(images, prompts, strict=True)
    ]


def test_equal_questions_are_answered_once(llava_folder, monkeypatch) -> None:
    captioner = made(llava_folder)
    decoded: list[int] = []
    inner = Generator._decode

    def decode(self, rows, *others):
        decoded.extend(row.question.number for row in rows)
        return inner(self, rows, *others)

    monkeypatch.setattr(Generator, "_decode", decode)
    images, prompts = questions()
    answers = captioner.caption(images * 2, prompts * 2)
    assert answers[:9] == answers[9:]
    assert sorted(decoded) == list(range(9))


def test_a_window_that_is_too_short(llava_folder) -> None:
    captioner = made(llava_folder)
    captioner._generator.window = 20
    with pytest.raises(UserError, match=r"looks back 20 tokens only.*grid: single"):
        captioner.caption([IMAGES[0]], [PROMPTS[0]])


def test_a_longer_answer_keeps_to_the_window(llava_folder) -> None:
    captioner = made(llava_folder)

    def longer(window: int | None) -> int | None:
        captioner._generator.window = window
        return captioner.caption([IMAGES[0]], [PROMPTS[0]], longer=True)[0].n_tokens

    assert longer(None) == longer(1000) == 14
    need = next(window for window in range(1, 999) if _fits(captioner, window))
    assert longer(need + 2) == 7 + 2  # two more tokens than the usual answer needs


def _fits(captioner: LlavaNextCaptioner, window: int) -> bool:
    captioner._generator.window = window
    try:
        captioner.caption([IMAGES[0]], [PROMPTS[0]])
    except UserError:
        return False
    return True


def test_no_such_grid(llava_folder) -> None:
    with pytest.raises(UserError, match="allowed: processor, single"):
        made(llava_folder, grid="double")


# Drawn answers


def test_drawn_answers_depend_on_the_seed_and_not_on_the_batch(llava_folder) -> None:
    images, prompts = questions()
    first = made(llava_folder, sampling=Sampling(1)).caption(images, prompts)
    again = made(llava_folder, sampling=Sampling(1), batch_size=2)
    assert again.caption(images[::-1], prompts[::-1]) == first[::-1]
    assert again.describe()["decoding"] == "sampled"
    assert again.describe()["seed"] == 1
    other = made(llava_folder, sampling=Sampling(2)).caption(images, prompts)
    assert other != first
    cold = made(llava_folder, sampling=Sampling(2, temperature=1e-4)).caption(images, prompts)
    assert cold == made(llava_folder).caption(images, prompts)


def test_draws_follow_the_softmax() -> None:
    count = 4000
    keys = [str(n).encode() for n in range(count)]
    logits = torch.tensor([0.1, 0.5, 0.05, 0.35]).log()
    for top_p, expected in ((1.0, [0.1, 0.5, 0.05, 0.35]), (0.8, [0, 0.5 / 0.85, 0, 0.35 / 0.85])):
        chooser = Chooser(
            [], second_try=False, sampling=Sampling(3, top_p=top_p), keys=keys, steps=2,
            device=torch.device("cpu"),
        )  # fmt: skip
        said = torch.zeros(count, 1, dtype=torch.int64)
        drawn = chooser.choose(said, logits.expand(count, 4), torch.arange(count))
        shares = torch.bincount(drawn, minlength=4) / count
        torch.testing.assert_close(shares, torch.tensor(expected).float(), atol=0.03, rtol=0)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_sampling(wrong) -> None:
    with pytest.raises(UserError, match="sampling with"):
        Sampling(0, **wrong)
