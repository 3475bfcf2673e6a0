"""Configuration: strict, with errors that name the key and the mend."""

from pathlib import Path

import pytest

from depo.config.base import ConfigError, apply_overrides, dump_yaml
from depo.config.load import dump_config, load_config, parse_config

CONFIGS = sorted((Path(__file__).parents[2] / "experiments" / "configs").glob("*.yaml"))
MINIMAL = {
    "name": "x",
    "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
    "methods": {"bc": {"objective": "sft", "init": "student"}},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_parse_and_read_back_equal(path, tmp_path):
    config = load_config(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(copy) == config


def test_there_are_shipped_configurations():
    assert {"babyai-tiny", "babyai-tiny-published"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.taks=3", "evaluation.taks: unknown key; did you mean 'tasks'?"),
        ("methods.bc.learning_rte=1", "methods.bc.learning_rte: unknown key; did you mean 'learning_rate'?"),
        ("methods.bc.beta=-1", "methods.bc.beta: input should be greater than 0, not -1"),
        ("methods.bc.init=bcc", "methods.bc.init: 'bcc' is not defined; known: student"),
        ("methods.bc.samples=web", "methods.bc.samples: 'web' is not defined; known: teacher"),
        ("methods.bc.alpha_steps=1", "methods.bc: alpha_steps is not read by objective 'sft'; it belongs to"),
        ("annotation.teacher.kappa2=0.95", "annotation.teacher: needs kappa2 <= kappa1 <= kappa0; reorder"),
        ("annotation.other={}", "annotation.other: 'other' is not defined; known: teacher"),
        ("name=../x", "name: string should match pattern"),
        ("sweep={space: {alpha: [1]}, method: bc}", "sweep.space: 'alpha' is not defined"),
        ("methods.report={objective: sft, init: student}", "methods.report: the name is taken"),
        ("methods.suites={objective: sft, init: student}", "methods.suites: the name is taken"),
        ("evaluation.seeds=[]", "evaluation.seeds: empty; name one at least"),
        ("evaluation.seeds=[0, 1, 0]", "evaluation.seeds: 0 stands there twice, and would count twice"),
        ("evaluation.decoding=[greedy, greedy]", "evaluation.decoding: greedy stands there twice"),
        ("evaluation.methods=[bc, bc]", "evaluation.methods: 'bc' stands there twice; leave one out"),
        (
            "evaluation.comparisons=[[bc, bcc]]",
            "evaluation.comparisons: 'bcc' is not defined; known: student, bc; did you mean 'bc'?",
        ),
        ("evaluation.comparisons=[[bc, student]]", "evaluation.comparisons: 'student' is not tried; add"),
        ("evaluation.comparisons=[[bc, bc]]", "evaluation.comparisons: 'bc' with itself says nothing; drop"),
        ("evaluation.prices={gpt: {input: 1, output: 2}}", "evaluation.prices: 'gpt' is not defined; known:"),
        ("evaluation.difficulty={easy: []}", "evaluation.difficulty: 'easy' names no level; give it"),
        ("evaluation.suites={bc: {env: {id: maths}}}", "evaluation.suites.bc: the name is taken; rename"),
        ("evaluation.suites={far: {}}", "evaluation.suites.far.env: missing; add it"),
        ("evaluation.controlled={few: {method: bc}}", "evaluation.controlled.few: controls nothing; set"),
        ("evaluation.controlled={few: {method: bc, tokens: null}}", "evaluation.controlled.few: controls"),
        ("evaluation.controlled={few: {method: bc, max_steps: 12}}",
         "evaluation.controlled.few.max_steps: 12 cuts nothing off the 12 turns"),
        ("evaluation.controlled={few: {method: bc, max_steps: 4, remind_at: 4}}",
         "evaluation.controlled.few.remind_at: must be less than the 4 turns of an episode, not 4"),
        ("evaluation.controlled={few: {method: bc, stop_after_repeats: 12}}",
         "evaluation.controlled.few.stop_after_repeats: must be less than the 12 turns"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_with_key_and_mend(override, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(apply_overrides(MINIMAL, [override]))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_round_acting_by_a_policy_trained_on_it_is_a_circle():
    values = apply_overrides(MINIMAL, ["methods.bc.samples=own"])
    values["rounds"] = [*values["rounds"], {"name": "own", "policy": {"kind": "engine", "model": "bc"}}]
    with pytest.raises(ConfigError, match="needs itself"):
        parse_config(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "line"), ("- a", "holds no mapping"), (None, "cannot be read")],
)
def test_an_unreadable_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_overrides_are_yaml_and_leave_the_original_alone():
    before = {"a": {"b": 1}}
    assert apply_overrides(before, ["a.c=[1, 2]", "d.e=x"]) == {"a": {"b": 1, "c": [1, 2]}, "d": {"e": "x"}}
    assert before == {"a": {"b": 1}}
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        apply_overrides(before, ["a.b"])
    with pytest.raises(ConfigError, match="is a value, not a section"):
        apply_overrides(before, ["a.b.c=1"])


def test_an_override_reaches_into_a_list_by_number():
    assert apply_overrides({"a": [{"b": 1}, {"b": 2}]}, ["a.1.b=3"]) == {"a": [{"b": 1}, {"b": 3}]}
    with pytest.raises(ConfigError, match="picks no entry of a list of 1"):
        apply_overrides({"a": [1]}, ["a.1=3"])


def test_an_override_may_stand_in_a_file(tmp_path):
    (tmp_path / "node.yaml").write_text("num_cpus: 2")
    assert apply_overrides({}, [f"runtime=@{tmp_path / 'node.yaml'}"]) == {"runtime": {"num_cpus": 2}}
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        apply_overrides({}, [f"runtime=@{tmp_path / 'absent.yaml'}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.max_tokens=2048",
         "evaluation.max_tokens: replies of 2048 tokens leave no room in a context"),
        ("student.max_length=64",
         "evaluation.max_tokens: replies of 64 tokens leave no room in a context of 64 (student"),
        ("evaluation.suites={far: {env: {id: maths}, max_tokens: 9999}}",
         "evaluation.suites.far.max_tokens: replies"),
        ("rounds.0={name: teacher, policy: {kind: engine, model: student}, search: {max_tokens: 4096}}",
         "rounds.0.search.max_tokens: replies of 4096 tokens"),
        ("runtime.generation={vllm: {max_model_len: 64}}",
         "evaluation.max_tokens: replies of 64 tokens leave no room in a context of 64 (runtime.generation"),
        ("rounds.0.search={max_steps: 4, max_depth: 5}",
         "rounds.0.search: max_depth: 5 is more than max_steps"),
        ("evaluation.controlled={few: {method: bc, tokens: 65}}",
         "evaluation.controlled.few.tokens: 65 allows"),
        ("evaluation.thought_utility=91", "evaluation.thought_utility: 91 episodes are more than the 90"),
        ("runtime.generation={actors: 1, min_actors: 2}",
         "runtime.generation: min_actors: 2 are more than actors"),
        ("runtime.generation={num_gpus: 1, vllm: {tensor_parallel: 2}}",
         "runtime.generation: vllm.tensor_parallel: 2 GPUs are more than the num_gpus=1"),
        ("runtime.generation={vllm: {lora: 'on', max_lora_rank: 8}}",
         "runtime.generation.vllm.max_lora_rank: 8 is below the rank 16 of methods.bc.lora.r"),
        ("student.tiny={hidden_size: 100, heads: 3}",
         "student.tiny: hidden_size: 100 is no multiple of twice heads=3"),
    ],
)  # fmt: skip
def test_limits_that_contradict_each_other_are_refused_by_key(override, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(apply_overrides(MINIMAL, [override]))
    assert str(caught.value).startswith(message)


def test_a_reply_is_as_long_as_a_teacher_likes():
    teacher = ["rounds.0.search.max_tokens=4096"]  # no context that is known of
    assert parse_config(apply_overrides(MINIMAL, teacher)).rounds[0].search.max_tokens == 4096


ASKED = "base_url: 'http://127.0.0.1:1/v1', model: m"


@pytest.mark.parametrize(
    "override",
    ["student.model=nobody/model", "evaluation.decoding=[greedy]", "runtime.generation.engine=transformers"],
)
def test_the_other_side_of_a_switch_may_stand(override):
    demo = next(path for path in CONFIGS if path.stem == "babyai-tiny")
    given = ["student.tiny.layers=2", "evaluation.temperature=1", "runtime.generation.vllm.lora=on"]
    config = load_config(demo, [*given, override])
    assert load_config(demo, given) != config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds.0={name: teacher, policy: {kind: imported, path: x}, tasks: 300}",
         "rounds.0: tasks is not read while policy is imported: leave it out"),
        ("rounds.0={name: teacher, policy: {kind: imported, path: x}, search: {}}",
         "rounds.0: search is not read"),
        (f"rounds.0={{name: teacher, policy: {{kind: openai, {ASKED}}}, search: {{structured: false}}}}",
         "rounds.0: search.structured is not read by an endpoint"),
        (f"annotation={{teacher: {{rephrase: {{endpoint: {{{ASKED}}}}}}}}}",
         "annotation.teacher.rephrase: endpoint is not read while kind is 'rule'"),
        ("sweep={method: bc, space: {epochs: [1]}, reduction: 3}",
         "sweep: reduction is not read while scheduler"),
        ("sweep={method: bc, space: {epochs: [1]}, seed: 0}", "sweep: seed is not read by a grid"),
        ("runtime.generation={vllm: {lora: 'off', adapters: 4}}",
         "runtime.generation: vllm.adapters is not read while vllm.lora is"),
        ("runtime.sweep={distributed: true, cpus_per_trial: 1}",
         "runtime.sweep: cpus_per_trial is not read by"),
        ("methods.bc={objective: sft, init: student, beta: 0.2}",
         "methods.bc: beta is not read by objective 'sft'"),
        ("rounds.0.search.budget.money=1", "rounds.0: search.budget.money is not read by a policy whose"),
        (f"rounds.0={{name: teacher, policy: {{kind: openai, {ASKED}}}, search: {{budget: {{money: 1}}}}}}",
         "rounds.0: search.budget.money is not read"),
        ("annotation={teacher: {imported: labels}}", "annotation.teacher.imported is not read of a round"),
        ("methods.kto={objective: kto, lora: {dropout: 0.0}}",
         "methods.kto.lora.dropout is not read by objective 'kto'"),
        ("methods.kto={objective: kto, scheduler: constant, warmup_ratio: 0.05}",
         "methods.kto.warmup_ratio is not read while scheduler is 'constant'"),
        ("methods.dpo={objective: dpo, placement: margin}",
         "methods.dpo.placement is not read while alpha_tokens and alpha_steps are 0"),
        ("methods.bc={objective: sft, init: student, full_parameters: true, lora: {}}",
         "methods.bc: lora is not read while full_parameters is True"),
    ],
)  # fmt: skip
def test_a_setting_that_nothing_reads_is_refused_at_its_default_too(override, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(apply_overrides(MINIMAL, [override]))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.reference=student", "evaluation.reference: 'student' is not tried"),
        ("rounds.0.name=scripted", "rounds.scripted: the name is taken"),
        ("methods.bc.lora.target_modules=[]", "methods.bc.lora.target_modules"),
        ("methods.bc.beta=true", "methods.bc.beta: true is no number; give one"),
        ("evaluation.tasks=true", "evaluation.tasks: true is no number"),
        *((f"{key}={seed}", f"{key}: input should be ")
          for key in ("seed", "methods.bc.seed") for seed in (-1, 2**32)),
        ("evaluation.seeds=[9223372036854775808]", "evaluation.seeds.0: input should be less than"),
    ],
)  # fmt: skip
def test_what_no_stage_could_use_is_refused_when_it_is_read(override, message):
    with pytest.raises(ConfigError) as caught:
        parse_config(apply_overrides(MINIMAL, [override]))
    assert str(caught.value).startswith(message)


def test_the_step_rule_of_an_imported_round_is_read_where_the_rules_label_it():
    round_ = {"name": "teacher", "policy": {"kind": "imported", "path": "x"}}
    values = MINIMAL | {"rounds": [round_], "annotation": {"teacher": {"max_desirable_steps": 4}}}
    with pytest.raises(ConfigError, match=r"annotation\.teacher\.max_desirable_steps is not read while"):
        parse_config(values)
    parse_config(apply_overrides(values, ["annotation.teacher.imported=rules"]))


def test_the_documented_training_of_all_weights_is_taken():
    shipped = [path for path in CONFIGS if path.stem.endswith("b-babyai")]
    assert len(shipped) == 2
    for path in shipped:
        given = ["methods.depo.full_parameters=true", "runtime.training.deepspeed_stage=3"]
        assert load_config(path, given).methods["depo"].full_parameters


def test_a_run_directory_of_before_loads_with_all_its_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    config = load_config(CONFIGS[0])
    path.write_text(dump_yaml(config.model_dump(mode="json")))
    with pytest.raises(ConfigError, match="is not read"):
        load_config(path)
    assert load_config(path, resolved=True) == config
    assert (
        load_config(path, ["methods.bc.learning_rate=0.5"], resolved=True).methods["bc"].learning_rate == 0.5
    )
    with pytest.raises(ConfigError, match="beta is not read"):
        load_config(path, ["methods.bc.beta=0.5"], resolved=True)
