"""One model through mlx_lm.evaluate's own classes on the benchmark's probes; run as a child.

Usage: python benchmarks/peer_mlx_lm.py MODEL_DIR PROBES_JSONL OUT_JSON MAX_TOKENS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonlines
import lm_eval
from mlx_lm.evaluate import MLXLM


def tasks(probes: Path, folder: Path, max_tokens: int) -> list[dict[str, Any]]:
    """A generation task over all probes and a multiple-choice task over those with options."""
    generate, choose = folder / "generate.jsonl", folder / "choose.jsonl"
    with (
        jsonlines.open(probes) as rows,
        jsonlines.open(generate, "w") as g,
        jsonlines.open(choose, "w") as c,
    ):
        for row in rows:
            g.write({"id": row["id"], "question": row["prompt"]})
            if row.get("distractors"):
                options = [row["accepted"][0], *row["distractors"]]
                c.write({"id": row["id"], "question": row["prompt"], "options": options})
    shared = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{question}}"}
    return [
        {
            **shared,
            "task": "generate",
            "dataset_kwargs": {"data_files": {"test": str(generate)}},
            "output_type": "generate_until",
            "doc_to_target": "",
            "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": max_tokens},
            "metric_list": [{"metric": "bypass"}],
        },
        {
            **shared,
            "task": "choose",
            "dataset_kwargs": {"data_files": {"test": str(choose)}},
            "output_type": "multiple_choice",
            "doc_to_choice": "{{options}}",
            "doc_to_target": 0,
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        },
    ]


def main() -> None:
    """Evaluate and write {"generate": {id: text}, "choose": {id: [log-probabilities]}}."""
    model, probes, out, max_tokens = sys.argv[1:5]
    lm = MLXLM(model, batch_size=8, use_chat_template=True)
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=tasks(Path(probes), Path(out).parent, int(max_tokens)),
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = results["samples"]
    answers = {
        "generate": {s["doc"]["id"]: s["resps"][0][0] for s in samples["generate"]},
        "choose": {s["doc"]["id"]: [r[0][0] for r in s["resps"]] for s in samples["choose"]},
    }
    Path(out).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
