"""TRL's SFTTrainer on a tiny FlashSloth saved to a folder: real steps, with pictures, each way its data may be written.

Run in an environment that has TRL: `python tests/citizenship/sft_step.py FOLDER WAY...`, FOLDER being empty. Prints a
JSON line a way: the losses, how far each part of the model moved, and how many tokens were seen.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import tiny
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

import flashsloth  # noqa: F401 - makes the Auto classes know FlashSloth

STEPS, BATCH = 4, 2
PARTS = ("vision_tower", "spatial_attention_pooling", "projector", "query_tokens", "embedded_query", "language_model")
QUESTIONS = ("What is this?", "Where is it?", "Which colour?", "How many are there?")
ANSWERS = ("a red dog", "on the left", "blue, as the chair", "one")


def rows(way: str) -> list[dict[str, Any]]:
    """A row a question, each with a picture of its own."""
    made = []
    for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        asked, answered = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
        row: dict[str, Any] = {"images": [tiny.picture(number)]}
        if way == "prompt and completion":
            row |= {"prompt": [asked], "completion": [answered]}
        elif way == "text":
            row |= {"text": f"A chat. USER: <image>\n{question}<learnable> ASSISTANT: {answer}</s>"}
        else:
            row |= {"messages": [asked, answered]}
        made.append(row)
    return made


def train(folder: Path, way: str) -> dict[str, Any]:
    """Some steps; what came of them."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_pretrained(folder / "model", attn_implementation="sdpa")
    processor = AutoProcessor.from_pretrained(folder / "model")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    arguments = SFTConfig(
        output_dir=str(folder / "run"),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=1e-3,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        bf16=False,
        activation_checkpointing=way == "recomputation",
        assistant_only_loss=way == "answers alone",
        remove_unused_columns=False,
        seed=0,
    )
    dataset = datasets.Dataset.from_list(rows(way))
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=processor)
    trainer.train()
    moved = {
        part: max(float((p.detach() - before[n]).abs().max()) for n, p in model.named_parameters() if part in n)
        for part in PARTS
    }
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {"way": way, "losses": [entry["loss"] for entry in log], "moved": moved, "tokens": log[-1]["num_tokens"]}


def main(folder: Path, ways: list[str]) -> None:
    tokenizer = tiny.make_tokenizer()
    config = tiny.make_config(tokenizer)
    tiny.make_model(config).save_pretrained(folder / "model")
    tiny.make_processor(tokenizer, config).save_pretrained(folder / "model")
    for way in ways:
        print(json.dumps(train(folder, way)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
