"""What a user of TRL's `KTOTrainer` does besides training once: each has its right value here."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model
from tiny_llama import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from depo.config.base import ConfigError
from depo.training import DEPOConfig, DEPOTrainer

pytestmark = pytest.mark.slow

PLAIN = {"alpha_tokens": 0.0, "alpha_steps": 0.0}
COMMON = {
    "per_device_train_batch_size": 2, "per_device_eval_batch_size": 8, "max_steps": 2, "learning_rate": 1e-2,
    "lr_scheduler_type": "constant", "bf16": False, "use_cpu": True, "report_to": "none", "logging_steps": 1,
    "disable_tqdm": True, "save_strategy": "no", "beta": 0.5,
}  # fmt: skip
ROWS = [
    {
        "prompt": f"You see door {n}.",
        "completion": [" go left", " turn right again"][n % 2],
        "label": n % 3 > 0,
    }
    for n in range(6)
]
LATER = [{"prompt": "A key.", "completion": " open door", "label": n < 1} for n in range(3)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("drop-in") / "model", seed=0))


@pytest.fixture
def make(home, tmp_path):
    def trainer(rows=ROWS, kind=DEPOConfig, settings=PLAIN, **given):
        changes = {name: given.pop(name) for name in list(given) if name in kind.__dataclass_fields__}
        arguments = {"model": home, "args": kind(str(tmp_path / "out"), **COMMON | settings | changes)}
        data = rows if not isinstance(rows, list) else Dataset.from_list(rows)
        return DEPOTrainer(**arguments | {"train_dataset": data} | given)

    return trainer


def losses(trainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_a_kto_config_trains_plain_kto_with_trls_numbers(home, make, tmp_path):
    ours = make(kind=KTOConfig, settings={}, loss_type="apo_zero_unpaired", max_steps=3)
    ours.train()
    theirs = KTOTrainer(
        model=home,
        args=KTOConfig(
            str(tmp_path / "theirs"), **COMMON | {"loss_type": "apo_zero_unpaired", "max_steps": 3}
        ),
        train_dataset=Dataset.from_list(ROWS),
    )
    theirs.train()
    assert ours.method.objective == "kto" and ours.args.loss_type == "apo_zero_unpaired"
    assert losses(ours)[0] == pytest.approx(losses(theirs)[0], rel=1e-5)
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)  # after steps of Adam
    names = [f"{kind}/{label}" for kind in ("rewards", "logps") for label in ("chosen", "rejected")]
    for mine, other in zip(ours.state.log_history[:3], theirs.state.log_history[:3], strict=True):
        shared = {name: other[name] for name in [*names, "rewards/margins"] if name in other}
        assert len(shared) > 1 and {n: mine[n] for n in shared} == pytest.approx(shared, rel=1e-3, abs=1e-3)
    mine, other = (t.evaluate(Dataset.from_list(LATER)) for t in (ours, theirs))
    for name in ("loss", *names, "rewards/margins"):
        assert mine[f"eval_{name}"] == pytest.approx(other[f"eval_{name}"], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("adapter", [False, True])
def test_a_data_set_that_comes_later_is_compared_with_where_training_began(make, adapter):
    peft = {"peft_config": LoraConfig(r=4, target_modules="all-linear")} if adapter else {}
    given = Dataset.from_list(LATER)
    trainer = make(eval_dataset=given, **peft)
    before = trainer.evaluate()
    trainer.train()
    weights = {name: p.clone() for name, p in trainer.model.named_parameters()}
    after = trainer.evaluate()
    assert abs(before["eval_rewards/chosen"]) < 1e-4 < 1e-2 < abs(after["eval_rewards/chosen"])
    rows = len(trainer.table.ids)
    for data in (
        given, trainer.eval_dataset, Dataset.from_list(LATER), given.to_iterable_dataset(),
        trainer.eval_dataset.select([0, 1, 2]),
    ):  # fmt: skip
        found = trainer.evaluate(data)
        for name in ("loss", "rewards/chosen", "logps/rejected", "rewards/margins"):
            assert found[f"eval_{name}"] == pytest.approx(after[f"eval_{name}"], rel=1e-4), name
    several = trainer.evaluate(DatasetDict({"a": given, "b": Dataset.from_list(ROWS)}))
    assert several["eval_a_loss"] == pytest.approx(after["eval_loss"], rel=1e-4)
    assert several["eval_a_logps/chosen"] != several["eval_b_logps/chosen"]
    predicted = trainer.predict(Dataset.from_list(LATER))
    assert predicted.metrics["test_loss"] == pytest.approx(after["eval_loss"], rel=1e-4)
    assert predicted.predictions.shape[:2] == predicted.label_ids.shape
    assert len(trainer.table.ids) == rows
    assert all(torch.equal(weights[name], p) for name, p in trainer.model.named_parameters())


def test_without_a_kept_reference_a_later_data_set_is_refused(make):
    trainer = make(eval_dataset=Dataset.from_list(LATER), precompute_ref_log_probs=True)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(
        ConfigError, match="Cannot compute reference log-probs for a dataset passed to"
    ) as caught:
        trainer.evaluate(Dataset.from_list(LATER))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"placement": "margin"}, {"placement": "weight"}, {"placement": "centred"},
        {"difficulty": "task"},
        {"penalize_undesirable": True}, {"nll_coefficient": 0.3}, {"kl": "moving"},
    ],
)  # fmt: skip
def test_the_loss_of_an_evaluation_is_the_loss_that_is_trained(make, settings):
    trainer = make(
        settings={"alpha_steps": 2.0} | settings, eval_dataset=Dataset.from_list(ROWS),
        per_device_train_batch_size=6, max_steps=1,
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert before == pytest.approx(losses(trainer)[0], rel=1e-5)


def test_training_again_goes_on_from_the_weights_and_the_reference_stays(make):
    trainer = make(per_device_train_batch_size=6, max_steps=3)
    trainer.train()
    ended = trainer.evaluate(Dataset.from_list(ROWS))
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(ended["eval_loss"], rel=1e-4)
    assert losses(trainer)[0] < 0.5 - 1e-3


def test_a_training_that_stops_goes_on_as_if_it_had_not(make, tmp_path):
    saves = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = make(**saves)
    whole.train()
    audit = pq.read_table(tmp_path / "out" / "audit.parquet")
    again = make(**saves)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    for name, weight in again.model.named_parameters():
        assert torch.equal(weight, whole.model.get_parameter(name))
    assert audit["step"].to_pylist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert pq.read_table(tmp_path / "out" / "audit.parquet").equals(audit)


def test_streamed_rows_train_as_those_of_a_file(make):
    settings = {"train_sampling_strategy": "sequential", "max_steps": 3}
    streamed = make(Dataset.from_list(ROWS).to_iterable_dataset(), **settings)
    whole = make(**settings)
    for trainer in (streamed, whole):
        trainer.train()
    assert len(streamed.table.rows) == 6 and losses(streamed) == losses(whole)
    with pytest.raises(ConfigError, match="max_steps: a streamed"):
        make(Dataset.from_list(ROWS).to_iterable_dataset(), max_steps=-1)


def test_noise_in_the_embeddings_is_not_taken_for_a_wrong_reference(make):
    noisy = make(neftune_noise_alpha=50.0, per_device_train_batch_size=6, max_steps=1)
    noisy.train()
    assert noisy.state.log_history[0]["logps/chosen"] != pytest.approx(noisy.table.ref_logp.mean(), rel=1e-3)
    assert np.isfinite(losses(noisy)[0])


def test_the_reference_may_be_a_model_or_its_name_beside_adapters_too(home, make, tmp_path):
    other = str(save_model(tmp_path / "other", seed=1))
    loaded = AutoModelForCausalLM.from_pretrained(other)
    found = [
        make(ref_model=ref, peft_config=peft).table.ref_logp
        for ref in (loaded, other)
        for peft in (None, LoraConfig(r=4, target_modules="all-linear"))
    ]
    itself = make(model=other).table.ref_logp
    assert all(logp == pytest.approx(itself, rel=1e-5) for logp in found)
    trainer = make(ref_model=loaded)
    trainer.train()
    assert trainer.ref_model is loaded and abs(trainer.state.log_history[0]["rewards/chosen"]) > 1


@pytest.mark.parametrize("shared", ["itself", "below its adapters"])
def test_a_reference_that_would_be_trained_too_is_refused(home, make, shared):
    model = AutoModelForCausalLM.from_pretrained(home)
    policy = model if shared == "itself" else get_peft_model(model, LoraConfig(r=4))
    with pytest.raises(ValueError, match="ref_model"):
        make(model=policy, ref_model=model, processing_class=AutoTokenizer.from_pretrained(home))


def test_metrics_of_the_users_see_logits_and_tokens(make):
    def shapes(given):
        return {"same": float(given.predictions.shape[:2] == given.label_ids.shape)}

    trainer = make(eval_dataset=Dataset.from_list(LATER), compute_metrics=shapes)
    assert trainer.evaluate()["eval_same"] == 1.0


def test_what_a_collator_keeps_and_masks_is_trained(make):
    plain, cut = make(), make(data_collator=DataCollatorForUnpairedPreference(pad_token_id=0, max_length=12))
    assert plain.table.lengths.max() > 12 == cut.table.lengths.max()
    row = int(plain.table.lengths.argmax())
    assert cut.table.sequence(row)[0].tolist() == plain.table.sequence(row)[0][:12].tolist()

    def second_half(examples):
        batch = DataCollatorForUnpairedPreference(pad_token_id=0)(examples)
        batch["completion_mask"][:, : batch["input_ids"].shape[1] - 2] = 0
        return batch

    masked = make(data_collator=second_half)
    assert all((masked.table.sequence(row)[1] != 0).sum() == 2 for row in masked.table.rows)
    with pytest.raises(ConfigError, match="data_collator"):
        make(data_collator=lambda examples: {"input_ids": torch.zeros(1, 4)})


def test_rows_of_token_ids_are_taken_as_they_are(make):
    texts = make()
    again = make(texts.train_dataset)
    for row in range(len(ROWS)):
        assert [part.tolist() for part in again.table.sequence(row)] == [
            part.tolist() for part in texts.table.sequence(row)
        ]
    by_hand = {"prompt_ids": [5, 6], "completion_ids": [7, 8, 4]}
    rows = [by_hand | {"label": n > 0} for n in range(2)]
    assert make(rows).table.sequence(0)[1].tolist() == [0, 0, 1, 1, 1]


def test_a_row_without_prompt_is_trained_from_its_second_token(make):
    bare = {"prompt_ids": [], "completion_ids": [5, 6, 4]}
    trainer = make([bare | {"label": n > 0} for n in range(2)], max_steps=1)
    assert trainer.table.sequence(0)[1].tolist() == [0, 1, 1]
    trainer.train()
    texts = make([row | {"prompt": ""} for row in ROWS])
    assert all(texts.table.sequence(row)[1].tolist()[0] == 0 for row in range(len(ROWS)))


def test_what_holds_nothing_is_one_line(make):
    rows = Dataset.from_list(ROWS)
    for empty in (rows.select([]), rows.to_iterable_dataset().take(0)):
        with pytest.raises(ConfigError, match="train_dataset: holds no row"):
            make(empty)
    with pytest.raises(ConfigError, match="eval_dataset: 'b' was not given at the start; known: a"):
        make(eval_dataset={"a": Dataset.from_list(ROWS)}).evaluate("b")
    with pytest.raises(ConfigError, match="learning_rate: inf is no finite number"):
        make(learning_rate=float("inf"))


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_virtual_tokens_before_a_sequence_shift_no_log_prob(make, kind):
    virtual = kind(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4)
    trainer = make(peft_config=virtual, gradient_checkpointing=False)
    ids = torch.tensor(trainer.table.sequence(0)[0])[None]
    with torch.no_grad():
        logits = trainer.model.eval()(input_ids=ids).logits[:, -ids.shape[1] :]
    chosen = logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    own = torch.tensor(trainer.table.sequence(0)[1])[1:] != 0
    assert trainer.table.ref_logp[0] == pytest.approx(chosen[own].sum().item(), rel=1e-5)
    trainer.train()
    assert np.isfinite(losses(trainer)).all()


def test_arguments_of_a_row_reach_its_template(home, make):
    tokenizer = AutoTokenizer.from_pretrained(home)
    tokenizer.chat_template = (
        "{% if tools %}<|system|>{{ tools[0]['name'] }}<|end|>{% endif %}{% if loud %}LOUD{% endif %}"
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    parts = [{"type": "text", "text": text} for text in ("which ", "door")]
    rows = [
        {
            "prompt": [{"role": "user", "content": parts}],
            "completion": [{"role": "assistant", "content": "left"}],
            "label": bool(n % 2),
            "chat_template_kwargs": {"loud": n > 1},
            "tools": [{"name": f"tool{n}"}],
        }
        for n in range(4)
    ]
    shown = make(rows, processing_class=tokenizer).train_dataset
    read = [tokenizer.decode(row["prompt_ids"] + row["completion_ids"]) for row in shown]
    assert read[0] == "<|system|>tool0<|end|><|user|>which door<|end|><|assistant|>left<|end|>"
    assert "tool3" in read[3] and "LOUD" in read[3] and "LOUD" not in read[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "desirable"}, "row 0: label is 'desirable'"),
        ({"label": 0.7}, "row 0: label is 0.7"),
        ({"label": 2}, "row 0: label is 2"),
        ({"prompt": [{"content": "a"}]}, "row 0: a message has no role"),
        ({"tools": "{"}, "row 0: tools is no JSON"),
        (
            {"prompt": [{"role": "user", "content": "a", "tool_calls": [{"name": "f"}]}]},
            "row 0: tool_calls are",
        ),
        ({"prompt": [{"role": "user", "content": None}]}, "row 0: a message of role 'user' has NoneType"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "row 0: a message .* type 'image'"),
    ],
)
def test_rows_that_say_something_else_are_named(make, change, said):
    row = {
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    with pytest.raises(ConfigError, match=said) as caught:
        make([row | {"label": True} | change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sync_ref_model": True}, "sync_ref_model=True is not read"),
        ({"use_liger_kernel": True}, "use_liger_kernel=True is not read"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef=0.1 is not read"),
        ({"pad_to_multiple_of": 8}, "pad_to_multiple_of=8 is not read"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1 is not read"),
        ({"loss_type": "ipo"}, "loss_type: 'ipo' is not defined"),
        ({"model_init_kwargs": {"dtype": "float16"}}, "its trained weights are float16"),
    ],
)
def test_settings_without_effect_are_refused_in_one_line(make, settings, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make(kind=KTOConfig, settings={}, **settings)
    assert "\n" not in str(caught.value)
