"""The tables of docs/predictions.md: every freeze of times beside what was measured."""

from pathlib import Path

from efflab.advice import frozen
from efflab.base.json_files import read_json
from efflab.base.significant import significant
from efflab.experiments import decoder_cases
from efflab.publishing.catalog import ROOT
from efflab.publishing.ledger import table

SCORE = {
    "en": (
        "Freeze {n}: **{verdict}**. {inside} of {total} times inside; high / low {width} in the "
        "median; {wrong} of {pairs} pairs misordered; mean interval score {score}. {machine}, "
        "{date}."
    ),
    "zh": (
        "第 {n} 次：**{verdict}**。{total} 个耗时中有 {inside} 个落在区间内；"
        "区间上下限之比的中位数为 {width}；"
        "说出快慢的 {pairs} 对中说反 {wrong} 对；平均区间得分为 {score}。"
        "{machine}，{date}。"
    ),
}
VERDICTS = {"en": ("not met", "met"), "zh": ("未达到", "达到")}
UNMEASURED = {"en": "Freeze {n}: not measured yet.", "zh": "第 {n} 次预测：尚未实测。"}
HEADS = {
    "en": ("model", "format", "phase", "tokens", "texts", "predicted (ms)", "measured (ms)"),
    "zh": ("模型", "格式", "阶段", "token 数", "文本数", "预测（毫秒）", "实测（毫秒）"),
}
PHASES = {"en": {}, "zh": {"prefill": "预填充", "decode": "解码"}}


def freezes(root: Path = ROOT, language: str = "en") -> str:
    """Each freeze's score and its table; a time outside its interval is bold."""
    paths = enumerate(decoder_cases.frozen(root / "data" / "predicted"), 1)
    return "\n\n".join(_freeze(path, n, language) for n, path in paths)


def _freeze(path: Path, number: int, language: str) -> str:
    cases, about = frozen.rows(path), read_json(path)
    rows = table(HEADS[language], [_row(case, language) for case in cases])
    if not all("measured" in case for case in cases):
        return f"{UNMEASURED[language].format(n=number)}\n\n{rows}"
    own = frozen.score(cases)
    values = dict(verdict=VERDICTS[language][frozen.holds(own)], total=len(cases))
    values |= dict(inside=round(own.coverage * len(cases)), width=significant(own.width))
    values |= dict(wrong=own.wrong_orders, pairs=own.n_orders, score=significant(own.score))
    values |= dict(machine=about["machine"], date=about["date"])
    return f"{SCORE[language].format(n=number, **values)}\n\n{rows}"


def _row(case: dict, language: str) -> tuple:
    phase = PHASES[language].get(case["phase"], case["phase"])
    low, ms, high = (significant(case[key]) for key in ("low", "ms", "high"))
    measured = significant(case["measured"]) if "measured" in case else ""
    if "measured" in case and not case["low"] <= case["measured"] <= case["high"]:
        measured = f"**{measured}**"
    step = phase, case["n_tokens"], case["n_texts"]
    return case["model"], case["format"], *step, f"{ms} ({low}–{high})", measured
