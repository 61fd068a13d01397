"""Notebook 06's published rows: NVIDIA's DeepLearningExamples, mixed precision over a baseline."""

from functools import lru_cache

from efflab import data


@lru_cache(maxsize=1)
def published() -> list[dict]:
    """Rows of data/published/amp.csv with the gain: mixed over the baseline's throughput."""
    rows = data.published("amp")
    return [row | {"gain": row["mixed_per_second"] / row["baseline_per_second"]} for row in rows]


def gains(baseline: str, device: str = "") -> list[float]:
    """Published gains over one baseline ("TF32" or "FP32") on devices whose name begins so."""
    rows = [r for r in published() if r["baseline"] == baseline and r["device"].startswith(device)]
    return [row["gain"] for row in rows]


def published_rows() -> list[dict]:
    """Every published row: work, devices, batches, gain."""
    return [
        {
            "model": row["model"],
            "task": row["task"],
            "devices": row["n_devices"],
            "device": row["device"],
            "tokens": row["seq_len"],
            "baseline": row["baseline"],
            "batch": f"{row['baseline_batch']} → {row['mixed_batch']}"
            if row["mixed_batch"]
            else "-",
            "times faster": row["gain"],
            "kind": "published",
        }
        for row in published()
    ]


def batch_gains() -> list[float]:
    """How many times the batch that the published mixed runs used, where both are given."""
    rows = [r for r in published() if r["mixed_batch"]]
    return [r["mixed_batch"] / r["baseline_batch"] for r in rows]
