"""What stands in a YAML file or behind `--set` is read as it is meant, or refused in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depo.cli import main
from depo.config.base import ConfigError, apply_overrides, dump_yaml, load_yaml
from depo.config.load import load_config, parse_config

DEMO = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_yaml(text, "c.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: 2\na: 3\n",
        "x: {a: 1,\nb: 2,\n'a': 3}",
        "<<: {a: 1}\nb: 2\n<<: {c: 3}\n",
    ],
)
def test_a_key_that_stands_there_twice_is_named_with_its_line(text):
    key = "<<" if "<<" in text else "a"
    assert refusal(text).startswith(f"c.yaml, line 3: key '{key}' stands there twice, first in line 1")


def test_words_are_words_and_truth_is_true_or_false():
    assert load_yaml("[on, off, yes, no, y, true, False, trueish]", "") == [
        "on", "off", "yes", "no", "y", True, False, "trueish",
    ]  # fmt: skip
    assert "'foo' is neither true nor false" in refusal("a: !!bool foo")
    words = ["on", "no", "true", "True", True]
    assert load_yaml(dump_yaml(words), "") == words
    config = load_config(DEMO, ["runtime.generation.vllm.lora=on", "tracking.enabled=on"])
    assert config.runtime.generation.vllm.lora == "on" and config.tracking.enabled is True


def test_a_run_directory_of_before_a_key_was_renamed_is_read(tmp_path):
    text = DEMO.read_text()
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(load_yaml(text, "") | {"evaluation": {"compare": [["kto", "bc"]]}}))
    assert load_config(path, resolved=True).evaluation.comparisons == [("kto", "bc")]
    with pytest.raises(ConfigError, match=r"evaluation\.compare: .*comparisons"):
        load_config(path)


def test_a_merge_may_give_a_key_another_value():
    text = "a: &a {k: 1, l: 1}\nb: &b {<<: *a, k: 2}\nc: {<<: *b, k: 3}\n"
    assert load_yaml(text, "") == {"a": {"k": 1, "l": 1}, "b": {"k": 2, "l": 1}, "c": {"k": 3, "l": 1}}


@pytest.mark.parametrize(
    "overrides",
    [["sweep.space={beta: [1], beta: [2]}"], ["runtime=@twice.yaml"]],
)
def test_keys_are_counted_wherever_yaml_is_read(overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.yaml").write_text("num_cpus: 2\nnum_cpus: 4\n")
    with pytest.raises(ConfigError, match="stands there twice"):
        load_config(DEMO, overrides)


def test_an_axis_or_option_that_is_given_twice_is_refused(capsys):
    assert main(["sweep", str(DEMO), "--grid", "beta=1", "--grid", "beta=2"]) == 1
    assert "--grid beta: stands there twice" in capsys.readouterr().err
    assert main(["check-env", "babyai", "--options", '{"levels": [], "levels": []}']) == 1
    assert "--options: key 'levels' stands there twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "a: 2020-99-99",
        "a: " + "9" * 5000,
        "a: !!int b",
        "a: !!float b",
        "[" * 5000,
        "a: 010",
        "a: 1:30",
        "[1",
    ],
)
def test_what_is_not_what_it_looks_like_is_one_line(text):
    assert refusal(text).startswith("c.yaml")


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_bytes("name: Käse".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml: is no UTF-8 text \(byte 7\)"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["1e-4", "1E5", "-2.5e+3", ".5e3"])
def test_a_number_with_an_exponent_is_a_number(text):
    assert load_yaml(text, "") == float(text)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    )
    | st.from_regex(r"\A[-+]?[0-9._]*(e|E|:)?[-+0-9]*\Z")
)
def test_what_is_written_reads_back_the_same(value):
    assert load_yaml(dump_yaml(value), "") == value


NUMBERS = [
    "methods.depo.learning_rate", "methods.depo.beta", "methods.depo.epochs", "methods.depo.weight_decay",
    "methods.depo.max_grad_norm", "evaluation.temperature", "evaluation.success_reward",
    "rounds.1.search.exploration", "rounds.1.search.temperature", "runtime.generation.num_gpus",
    "runtime.generation.vllm.kv_cache_gib", "student.tiny.learning_rate",
    "evaluation.prices={default: {input: NUMBER, output: 1}}",
]  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "nan", "inf", "1e999"])
def test_no_number_is_infinite_or_none(key, number):
    override = key.replace("NUMBER", number) if "NUMBER" in key else f"{key}={number}"
    with pytest.raises(ConfigError, match=key.partition("=")[0].removeprefix("rounds.1.")):
        load_config(DEMO, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.options.x=.nan", "env.options: x: nan is no finite number"),
        ("env.options.x={a: [1, .inf]}", "env.options: x: a: inf is no finite number"),
        ("env.options.x=2020-01-01", "env.options: x: 2020-01-01 is a date; quote it"),
        ("env.options.x={1: a}", "env.options: x: 1: a key is text here; quote it"),
        ("sweep.space={beta: [1, .inf]}", "sweep.space.beta.values.1"),
        ("sweep={space: {beta: {low: 1, high: .inf}}}", "sweep.space.beta.range.high"),
    ],
)  # fmt: skip
def test_neither_are_options_and_what_a_sweep_tries(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config(DEMO, [override])
    assert str(caught.value).removeprefix(f"{DEMO}: ").startswith(message)


def test_options_that_hold_themselves_are_refused():
    options: dict = {}
    options["x"] = options
    values = apply_overrides(load_yaml(DEMO.read_text(), ""), []) | {"env": {"options": options}}
    with pytest.raises(ConfigError, match=r"env\.options: is nested without end"):
        parse_config(values)


def test_what_is_quoted_stays_short_and_on_one_line():
    for override in (f"evaluation.tasks={'x' * 10_000}", f"{'a.' * 5000}b=1", 'methods={"a\\nb": {}}'):
        with pytest.raises(ConfigError) as caught:
            load_config(DEMO, [override])
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"size": NaN}', '{"size": [Infinity]}', '{"size": 1e999}'])
def test_options_of_a_check_are_finite_too(text, capsys):
    assert main(["check-env", "babyai", "--options", text]) == 1
    assert "--options: size: " in capsys.readouterr().err
