"""Settings: casting, errors, and what makes up a run id."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovla.config import load_yaml
from discovla.errors import UserError
from discovla.methods.options import read_settings
from discovla.storage.files import content_hash


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    defaults = load_yaml("config/defaults.yaml")["settings"]
    return {**defaults, "method": "discovla", "backbone": "vit-b32"}


def test_defaults_are_complete(values: dict[str, Any]) -> None:
    settings = read_settings(values, "test")
    assert (settings.alpha, settings.beta, settings.lr) == (0.3, 1.0, 6e-4)
    assert settings.to_dict()["vision_layers"] == 4


def test_unknown_setting_names_file_key_and_known_keys(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"table1.yaml: 'alhpa' is not a known setting.*'alpha'"):
        read_settings({**values, "alhpa": 1}, "config/tables/table1.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": "both"}, "attention is 'both'; allowed: ivfusion, image, video, average"),
        ({"alpha": -1}, "alpha is -1.0; it must be at least 0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"lr": "6e-4"}, "lr must be float, got '6e-4'.*write 6.0e-4"),
        ({"epochs": 2.5}, "epochs must be int"),
        ({"epochs": True}, "epochs must be int"),
        ({"adapter_bias": 1}, "adapter_bias must be bool"),
        ({"batch_size": 1}, "at least 2"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_settings({**values, **change}, "row b1")


def test_missing_constant_is_named(values: dict[str, Any]) -> None:
    rest = {name: value for name, value in values.items() if name != "alpha"}
    with pytest.raises(UserError, match=r"no value for \['alpha'\]"):
        read_settings(rest, "row b1")


@given(order=st.permutations(["alpha", "beta", "epochs", "lr", "frames"]), data=st.data())
def test_hash_ignores_order_and_number_type(order: list[str], data: st.DataObject) -> None:
    defaults = load_yaml("config/defaults.yaml")["settings"]
    base = {**defaults, "method": "discovla", "backbone": "vit-b32", "alpha": 1, "beta": 2}
    changed = {name: base[name] for name in order} | base
    as_float = data.draw(st.sampled_from(["alpha", "beta", "epochs"]))
    changed[as_float] = float(changed[as_float])
    one = read_settings(base, "a").hashed()
    two = read_settings(changed, "b").hashed()
    assert content_hash(one) == content_hash(two)


def test_behaviour_at_its_default_is_not_hashed(values: dict[str, Any]) -> None:
    plain = read_settings(values, "a").hashed()
    same = read_settings({**values, "attention": "ivfusion"}, "b").hashed()
    other = read_settings({**values, "attention": "video"}, "c").hashed()
    assert plain == same
    assert "attention" not in plain
    assert other["attention"] == "video"


def test_captions_do_not_enter_the_settings_hash(values: dict[str, Any]) -> None:
    guided = read_settings(values, "a")
    unguided = read_settings({**values, "captions": "unguided"}, "b")
    assert guided.hashed() == unguided.hashed()
