"""The script of a TRL user, with our names in the place of TRL's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from training_help import REPLIES, SEEN, SYSTEM, make_home
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

from depo.config.base import ConfigError
from depo.policies.chat import ChatRenderer
from depo.training import DEPOConfig, DEPOTrainer
from depo.training.conversations import samples_of

pytestmark = pytest.mark.slow

COMMON = {
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "num_train_epochs": 1,
    "learning_rate": 5e-3, "lr_scheduler_type": "constant", "bf16": False, "use_cpu": True, "beta": 0.5,
    "report_to": "none", "logging_steps": 1, "disable_tqdm": True, "save_strategy": "no",
    "gradient_checkpointing": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("api"))


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def conversation(number: int, turns: int) -> dict:
    chat = [message("system", SYSTEM), message("user", SEEN[number % 3])]
    for turn in range(turns):
        chat.append(message("assistant", REPLIES[(number + turn) % 2]))
        if turn < turns - 1:
            chat.append(message("user", SEEN[(number + turn + 1) % 3]))
    return {"prompt": chat[:2], "completion": chat[2:], "label": number % 2 == 0}


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def load(home: Path):
    return AutoModelForCausalLM.from_pretrained(home / "start/model")


def trainer_on(home: Path, out: Path, rows: list[dict], evaluated: list[dict] | None = None, **changes):
    return DEPOTrainer(
        model=load(home),
        args=DEPOConfig(str(out), **COMMON | changes),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(evaluated) if evaluated else None,
        processing_class=AutoTokenizer.from_pretrained(home / "start/model"),
        peft_config=lora(),
    )


def test_a_trl_users_script_trains_conversations_of_several_turns(home, tmp_path):
    script = tmp_path / "script.py"
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([conversation(n, 1 + n % 3) for n in range(18)]))
    script.write_text(f"""
import json, sys
from datasets import Dataset
from peft import LoraConfig
from depo.training import DEPOConfig, DEPOTrainer

dataset = Dataset.from_list(json.load(open({str(rows)!r})))
trainer = DEPOTrainer(
    model={str(home / "start/model")!r},
    args=DEPOConfig(
        output_dir={str(tmp_path / "out")!r}, per_device_train_batch_size=4, num_train_epochs=2,
        learning_rate=5e-3, bf16=False, use_cpu=True, report_to="none", logging_steps=1, save_steps=3,
    ),
    train_dataset=dataset,
    eval_dataset=dataset.select(range(6)),
    peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
)
before = trainer.evaluate()["eval_loss"]
trainer.train()
trainer.save_model()
assert trainer.evaluate()["eval_loss"] < before
assert "ray" not in sys.modules
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    trained = PeftModel.from_pretrained(load(home), str(out))
    assert any(p.abs().max() > 0 for n, p in trained.named_parameters() if "lora_B" in n)
    log = json.loads((out / "checkpoint-10" / "trainer_state.json").read_text())["log_history"]
    assert log[0]["step"] == 1 and abs(log[0]["logratio_desirable"]) < 1e-3
    assert log[-1]["epoch"] == 2.0 and log[-1]["bonus"] > 0
    audit = pq.read_table(out / "audit.parquet").to_pandas()
    assert (audit.groupby("sample_id").size() == 2).all() and len(audit) == 36
    # Each epoch has an order of its own.
    first, second = audit[audit.step <= 5], audit[audit.step > 5]
    assert [*first.groupby("step").sample_id.agg(set)] != [*second.groupby("step").sample_id.agg(set)]


def test_only_the_assistants_turns_of_the_completion_are_trained(home):
    tokenizer = AutoTokenizer.from_pretrained(home / "start/model")
    renderer = ChatRenderer(tokenizer)
    chat = conversation(0, 3)
    whole = chat["prompt"] + chat["completion"]
    # The first turn is history here, which is read and not trained.
    split = {"prompt": whole[:4], "completion": whole[4:], "label": True}
    everything, later = samples_of([chat, split], tokenizer, "rows", 0)
    assert everything.token_ids == later.token_ids
    own = [t for t, mark in zip(everything.token_ids, everything.agent_mask, strict=True) if mark]
    assert own == [t for n in range(3) for t in renderer.reply(REPLIES[n % 2])]
    own = [t for t, mark in zip(later.token_ids, later.agent_mask, strict=True) if mark]
    assert own == [t for n in (1, 2) for t in renderer.reply(REPLIES[n % 2])]
    assert (everything.num_steps, later.num_steps) == (3, 2)
    assert later.num_tokens == len(own) - 2


@pytest.mark.parametrize("kind", ["messages", "text"])
def test_on_single_turns_ids_masks_and_first_loss_are_trls(home, tmp_path, kind):
    rows = [conversation(n, 1) for n in range(4)]
    if kind == "text":
        rows = [{"prompt": SEEN[n % 3] + " ", "completion": REPLIES[n % 2], "label": n < 2} for n in range(4)]
    ours = trainer_on(home, tmp_path / "ours", rows, objective="kto", kl="zero")
    theirs = KTOTrainer(
        model=load(home),
        args=KTOConfig(str(tmp_path / "theirs"), **COMMON),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(home / "start/model"),
        peft_config=lora(),
    )
    for row, expected in enumerate(theirs.train_dataset):
        ids, weights = ours.table.sequence(row)
        assert ids.tolist() == expected["prompt_ids"] + expected["completion_ids"]
        assert weights.tolist() == [0] * len(expected["prompt_ids"]) + [1] * len(expected["completion_ids"])
    with torch.no_grad():
        batch = theirs._prepare_inputs(theirs.data_collator(list(theirs.train_dataset)))
        reference, kl = theirs.compute_ref_log_probs(theirs.model.eval(), batch)
    assert ours.table.ref_logp == pytest.approx(reference.numpy(), rel=1e-5)
    assert len(kl) == 4
    # Policy and reference are the same, so each loss is lambda * sigmoid(0).
    ours.train()
    assert ours.state.log_history[0]["loss"] == pytest.approx(0.5, abs=1e-6)


def test_chosen_and_rejected_are_taken_apart(home, tmp_path):
    pairs = [
        {
            "chosen": [message("user", SEEN[n % 3]), message("assistant", REPLIES[0])],
            "rejected": [message("user", SEEN[n % 3]), message("assistant", REPLIES[1])],
        }
        for n in range(4)
    ]
    trainer = trainer_on(home, tmp_path / "pairs", pairs)
    assert trainer.table.desirable.sum() == 4 and len(trainer.table.rows) == 8
    assert np.isfinite(trainer.table.ref_logp).all() and np.isfinite(trainer.table.ref_kl_logp).all()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[:1], "no row of label false"),
        (lambda rows: [*rows, {**rows[0], "label": None}], "train_dataset, row 4: has no label"),
        (lambda rows: [{**rows[0], "completion": rows[0]["prompt"]}, *rows], "row 0: roles are"),
        (lambda rows: [{**rows[0], "completion": rows[0]["completion"] * 2}, *rows], "row 0: roles are"),
    ],
)
def test_bad_rows_are_named_in_one_line(home, tmp_path, spoil, said):
    with pytest.raises(ConfigError, match=said) as caught:
        trainer_on(home, tmp_path / "bad", spoil([conversation(n, 2) for n in range(4)])).train()
    assert "\n" not in str(caught.value)


def test_settings_that_cannot_be_are_one_line(home, tmp_path):
    for changes, said in (
        ({"objective": "kto", "alpha_tokens": 1.0}, "not read by objective 'kto'"),
        ({"objective": "dpo"}, "not unpaired"),
        ({"objective": "deepo"}, "not defined"),
        ({"placement": "left"}, "placement"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            trainer_on(home, tmp_path / "bad", [conversation(n, 1) for n in range(4)], **changes)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["lm_head", "v_projj"])
def test_adapters_go_where_training_reaches_them(home, tmp_path, target):
    rows = [conversation(n, 1) for n in range(4)]
    where = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", target])
    with pytest.raises(ConfigError, match=rf"peft_config\.target_modules: '{target}'"):
        DEPOTrainer(
            model=load(home),
            args=DEPOConfig(str(tmp_path), **COMMON),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(home / "start/model"),
            peft_config=where,
        )
