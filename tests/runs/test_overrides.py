"""What is written as an argument, Hydra and OmegaConf read back as the very value."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vaelab.runs.overrides import leaves, literal, overrides, quoted, unlisted, unquoted

# Any character that an argument of a process can hold, with those that a grammar may mind often.
CHARACTERS = st.one_of(
    st.sampled_from("'\"\\,=(){}[]$~#&:; \t\näß中文.-+*?|/%@"),
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"),
)
STRINGS = st.one_of(
    st.text(CHARACTERS, max_size=12),
    st.sampled_from(["", " ", " a ", "1", "1e-4", "null", "True", "nan", "inf", "-1", "1_000"]),
    st.sampled_from(["${a}", "\\${a}", "\\\\${a}", "a\\", "a\\\\", "\\'", "'", '"', "~", "???"]),
)
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False))
KEYS = st.one_of(
    st.from_regex(r"[A-Za-z_][\w\-]{0,5}", fullmatch=True).filter(str.isascii),
    st.text("ab/-\\+.$%*@?|()[]{}:=, _", min_size=1, max_size=6).map(lambda key: f"k{key}k"),
    st.integers(),
).filter(lambda key: str(key).lower() not in ("null", "true", "false", "nan", "inf"))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


def read_back(argument: str) -> Any:
    """The value of ``key=value``, by Hydra's parser and then, as in a config, by OmegaConf."""
    (override,) = OverridesParser.create().parse_overrides([argument])
    config = OmegaConf.create({"a": "wrong"})
    OmegaConf.update(config, "key", override.value(), merge=False, force_add=True)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return plain["key"]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(VALUES)
@example(1e-4)
@example(1e16)
@example(-0.0)
@example(["1", 1, 1.0, True, "true", None, "null"])
@example({"a": {"b": [{"c": "d, e"}]}})
def test_a_value_is_read_back_as_it_was(value: Any):
    # ??? is OmegaConf's word for a value that is missing, and no string.
    if "???" not in str(value):
        assert same(read_back(f"key={literal(value)}"), value)


def test_no_number_is_read_back_too():
    assert math.isnan(read_back(f"key={literal(math.nan)}"))


@given(st.text(CHARACTERS, max_size=12))
@example("a\\'")
def test_what_is_quoted_can_be_unquoted(text: str):
    assert unquoted(quoted(text, interpolations=True)) == text


@pytest.mark.parametrize("text", ["", "a", "'", "'a", "'a'b'", "'a','b'", "'a\\'", "\"a'"])
def test_what_is_no_quoted_string_is_not_unquoted(text: str):
    assert unquoted(text) is None


def test_an_interpolation_is_kept_where_that_is_asked_for():
    config = OmegaConf.create({"a": "there", "key": None})
    (override,) = OverridesParser.create().parse_overrides(
        [f"key={quoted('${a}/x (1)', interpolations=True)}"]
    )
    config.key = override.value()
    assert config.key == "there/x (1)"


@pytest.mark.parametrize("key", ["", "1", "null", "True", "1e3", "ä", "it's", True, 1.5, None])
def test_a_key_that_the_grammar_cannot_express_is_refused(key: Any):
    with pytest.raises(ValueError, match="not a key"):
        literal({key: 1})


def test_words_and_paths_stay_readable():
    assert overrides({"task": "train", "a.b": "/data/x-1", "c": [1e-4, "z"]}, "++") == [
        "++task=train",
        "++a.b=/data/x-1",
        "++c=[0.0001,z]",
    ]


def test_leaves_are_named_by_their_path():
    assert dict(leaves({"a": {"b": 1, "c": {}}, "d": [2]}, "x.")) == {
        "x.a.b": 1,
        "x.a.c": {},
        "x.d": [2],
    }


@given(st.lists(STRINGS.filter(lambda text: "${" not in text)))
def test_a_list_of_strings_is_read_without_hydra_too(texts: list[str]):
    assert unlisted(literal(texts)) == texts
