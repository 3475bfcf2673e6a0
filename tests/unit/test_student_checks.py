"""What cannot serve as a student is one line, with key and mend, before anything is made."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from depo.cli import main
from depo.config.base import ConfigError, apply_overrides
from depo.config.load import dump_config, parse_config
from depo.training.checks import check_student, padded, require_targets, require_vocabulary

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]


def make_tokenizer(**names):
    alphabet = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    names = {"eos_token": "<|end|>", "pad_token": "<|pad|>"} | names
    made = PreTrainedTokenizerFast(tokenizer_object=core, **{k: v for k, v in names.items() if v})
    made.chat_template = TEMPLATE
    return made


def make_model(tokenizer, kind="llama", **shape):
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    } | shape  # fmt: skip
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))


@pytest.fixture
def folder(tmp_path):
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def configured(folder, **more):
    """A configuration whose student is the model at `folder`."""
    method = {"objective": "sft", "init": "student", **more.pop("method", {})}
    values = {
        "name": "x",
        "student": {"model": str(folder), "max_length": 512},
        "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
        "methods": {"bc": method},
    }
    values = apply_overrides(values, [f"{key}={value}" for key, value in more.items()])
    return parse_config(values)


def refused(folder, **more) -> str:
    config = configured(folder, **more)
    with pytest.raises(ConfigError) as caught:
        check_student(config, download=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_serves_is_taken(folder):
    check_student(configured(folder), download=False)
    targets = {"lora": {"target_modules": ["q_proj", "layers.0.mlp.up_proj"]}}
    check_student(configured(folder, method=targets), download=False)


def test_a_model_that_is_not_there_or_not_whole(folder):
    assert "no model at /nowhere/at/all (no such folder); give a folder" in refused("/nowhere/at/all")
    assert "(no config.json there)" in refused(folder.parent)
    (folder / "model.safetensors").unlink()
    assert refused(folder).endswith("holds no weights (*.safetensors); copy them there too")
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert "is an adapter; merge it" in refused(folder)


def test_weights_that_are_not_whole_are_named(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for part in (b"", whole[:500], whole[:-1]):
        weights.write_bytes(part)
        assert "model.safetensors is no whole file of weights" in refused(folder)
    weights.write_bytes(whole)
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}')
    assert "model-2.safetensors is missing (model.safetensors.index.json lists it)" in refused(folder)
    index.write_text("[]")
    assert "model.safetensors.index.json cannot be read" in refused(folder)


@pytest.mark.parametrize("change", [{"num_attention_heads": 0}, {"hidden_size": "x"}, {"hidden_size": -1}])
def test_a_configuration_whose_numbers_fit_nothing_is_one_line(folder, change):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert refused(folder).startswith(f"student.model: {folder} ")


@pytest.mark.parametrize("model", [" ", "a b", "a\nb", "a/b@main", "owner/na:me"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_at_once(model):
    with pytest.raises(ConfigError, match=r"student\.model: .* is neither a folder nor"):
        configured(model)


def test_a_folder_that_holds_another_kind_of_model(folder):
    (folder / "config.json").write_text('{"model_type": "vit"}')
    assert "is no causal language model" in refused(folder)
    (folder / "config.json").write_text('{"model_type": "no_such"}')
    assert "cannot be read as a model" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "cannot be read as a model" in refused(folder)


def test_a_model_without_tokenizer_or_template(folder):
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in refused(folder)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in refused(folder)


@pytest.mark.parametrize("special", [False, True])
def test_tokens_without_embeddings_are_refused_with_both_sizes(folder, special):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<|tool|>"], special_tokens=special)
    if special:
        # One that is special, and neither in the template nor named, never comes up.
        require_vocabulary(tokenizer, AutoConfig.from_pretrained(folder), "m")
        tokenizer.chat_template = "<|tool|>" + TEMPLATE
    tokenizer.save_pretrained(folder)
    assert f"has {rows + 1} tokens ('<|tool|>' is one) and the model {rows} embeddings" in refused(folder)


def test_more_embeddings_than_tokens_are_no_fault(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    require_vocabulary(tokenizer, make_model(tokenizer, vocab_size=512).config, "m")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "v_projj"], "'v_projj' names no module of the model; linear ones: down_proj, gate_proj"),
        (["proj"], "'proj' names no module"),
        (["q_proj", "lm_head"], "'lm_head' is the model's output layer"),
        (["mlp"], "'mlp' is a LlamaMLP (model.layers.0.mlp), and LoRA adapts linear layers"),
        (["input_layernorm"], "'input_layernorm' is a LlamaRMSNorm"),
    ],
)
@pytest.mark.parametrize("model", ["folder", "tiny"])
def test_every_lora_target_is_a_layer_that_is_trained(folder, targets, message, model):
    line = refused(
        folder,
        method={"lora": {"target_modules": targets}},
        **{"student.model": model} if model == "tiny" else {},
    )
    assert line.startswith(f"methods.bc.lora.target_modules: {message}")


def test_an_embedding_that_is_the_output_layer_too_is_not_adapted(folder):
    tokenizer = make_tokenizer()
    require_targets(make_model(tokenizer), ["embed_tokens"], "k")
    with pytest.raises(ConfigError, match="tied to its output layer"):
        require_targets(make_model(tokenizer, tie_word_embeddings=True), ["embed_tokens"], "k")


def test_a_pattern_of_peft_is_read_as_peft_reads_it():
    model = make_model(make_tokenizer())
    require_targets(model, r".*\.(q|v)_proj", "k")
    require_targets(model, "all-linear", "k")
    with pytest.raises(ConfigError, match="names no module"):
        require_targets(model, "q_proj", "k")


@pytest.mark.parametrize(
    ("key", "length"), [("student.max_length", 513), ("runtime.generation.vllm.max_model_len", 600)]
)
def test_no_more_tokens_than_the_model_has_positions(folder, key, length):
    line = refused(folder, **{key: length})
    assert line.startswith(f"{key}: {length} tokens are more than the 512 positions that ")


def test_yarn_stretches_the_positions(folder):
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 1e4
    }  # fmt: skip
    config.save_pretrained(folder)
    check_student(configured(folder, **{"student.max_length": 2048}), download=False)
    assert refused(folder, **{"student.max_length": 2049}).startswith("student.max_length")


@pytest.mark.parametrize("names", [{"pad_token": None}, {"pad_token": None, "eos_token": None}])
def test_a_padding_token_is_found_and_changes_no_text(names):
    tokenizer = make_tokenizer(**names)
    text = "Thought: now! <|end|>"
    before = tokenizer(text)["input_ids"], tokenizer.decode(tokenizer("a!b")["input_ids"])
    assert padded(tokenizer).pad_token_id is not None
    assert (tokenizer(text)["input_ids"], tokenizer.decode(tokenizer("a!b")["input_ids"])) == before
    assert padded(make_tokenizer()).pad_token == "<|pad|>"


def test_a_relative_path_is_resolved_once(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for relative in ("model", "./model"):
        assert configured(folder, **{"student.model": relative}).student.model == str(folder)
    for kept in (str(folder), "tiny", "meta-llama/Llama-3.1-8B-Instruct"):
        assert configured(folder, **{"student.model": kept}).student.model == kept


@pytest.mark.parametrize("command", ["plan", "run", "annotate"])
def test_the_plan_and_every_start_say_so(command, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    targets = {"lora": {"target_modules": ["v_projj"]}}
    (tmp_path / "x.yaml").write_text(dump_config(configured(folder, method=targets)))
    assert main([command, "x.yaml", "--set", "env.options.levels=[GoToRedBall]"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("depo: methods.bc.lora.target_modules: 'v_projj'") and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_hub_id_that_is_not_here_is_left_to_the_run(capsys):
    demo = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"
    assert main(["plan", str(demo), "--set", "student.model=nobody/nothing-1b"]) == 0


def test_training_checks_what_it_loads(folder):
    with pytest.raises(ConfigError, match="'o_project' names no module"):
        require_targets(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), ["o_project"], "k")
