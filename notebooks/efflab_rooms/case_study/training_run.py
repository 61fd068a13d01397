"""What training a language model of some size in some days would take, beside runs that were made.

Everything follows from 6 FLOPs a parameter and token (`cost.training_flops`) and from the
utilization: FLOPs of the model itself over what the devices could have done at their 16-bit peak in
that time (Chowdhery et al. 2022, section 4.1, without attention's scores). Activations computed
twice count once, so that a run with recomputation is worth what it trained. No torch here.
"""

from dataclasses import dataclass

from efflab import cost
from efflab.arguments import check_arguments
from efflab.data import published
from efflab.devices import DEVICES, Device
from efflab.errors import require, require_positive

HOURS_PER_DAY = 24
PUBLISHED_DEVICES = {"A100 80GB": "A100 80GB SXM"}
"""A device's name in runs.csv -> its name in `DEVICES`."""


@check_arguments
def peak(device: Device) -> float:
    """FLOP/s of 16-bit products, in which all these models are trained."""
    return device.peak("fp16")


@check_arguments
def run_days(
    n_params: float, n_tokens: float, n_devices: float, device: Device, utilization: float
) -> float:
    """Days that the run takes.

    >>> round(run_days(174.6e9, 300e9, 2048, DEVICES["V100 SXM2"], 0.5), 1)
    28.4
    """
    achieved = peak(device) * _share(utilization)
    return cost.training_days(n_params, n_tokens, n_devices, achieved, recompute=False)


@check_arguments
def devices_needed(
    n_params: float, n_tokens: float, days: float, device: Device, utilization: float
) -> float:
    """Devices with which the run takes so many days; a fraction, round it up.

    >>> round(devices_needed(100e9, 300e9, 3, DEVICES["V100 SXM2"], 0.5))
    11111
    """
    require_positive("days", days)
    return run_days(n_params, n_tokens, 1, device, utilization) / days


@check_arguments
def tokens_possible(
    n_params: float, days: float, n_devices: float, device: Device, utilization: float
) -> float:
    """Tokens on which so many devices train the model in so many days."""
    require_positive("days", days)
    needed = run_days(n_params, 1, n_devices, device, utilization)
    require(needed > 0, "n_devices", n_devices, "fewer: a token would take no time")
    return days / needed


@check_arguments
def utilization_needed(
    n_params: float, n_tokens: float, days: float, n_devices: float, device: Device
) -> float:
    """The utilization with which the run takes so many days; above 1 no machine has it."""
    require_positive("days", days)
    return run_days(n_params, n_tokens, n_devices, device, 1) / days


def _share(utilization: float) -> float:
    require(0 < utilization <= 1, "utilization", utilization, "a share above 0, up to 1")
    return utilization


# --- Published runs --------------------------------------------------------------------------


@check_arguments
@dataclass(frozen=True)
class TrainingRun:
    """A run that its authors report, or in "(estimate)" work out; the sources count differently.

    `device_hours` may include restarts and failures; `n_devices` is None where it is not said.
    """

    name: str
    n_params: float
    n_tokens: float
    device: Device
    n_devices: int | None
    device_hours: float
    source: str

    @property
    def days(self) -> float | None:
        """Days on all its devices at once; None where their number is not said."""
        return (
            None if self.n_devices is None else self.device_hours / self.n_devices / HOURS_PER_DAY
        )

    @property
    def utilization(self) -> float:
        """The model's own FLOPs over what the devices could have done in these hours."""
        device_days = self.device_hours / HOURS_PER_DAY
        return utilization_needed(self.n_params, self.n_tokens, device_days, 1, self.device)

    def devices_for(self, days: float) -> float:
        """Devices with which this run would take so many days, at the utilization it had."""
        require_positive("days", days)
        return self.device_hours / HOURS_PER_DAY / days


def published_runs() -> list[TrainingRun]:
    """The rows of runs.csv, in its order."""
    return [_run(row) for row in published("runs")]


def _run(row: dict) -> TrainingRun:
    hours = row["device_hours"] or row["n_devices"] * row["days"] * HOURS_PER_DAY
    return TrainingRun(
        name=row["model"],
        n_params=row["params_billions"] * 1e9,
        n_tokens=row["tokens_billions"] * 1e9,
        device=DEVICES[PUBLISHED_DEVICES[row["device"]]],
        n_devices=row["n_devices"],
        device_hours=hours,
        source=row["source"],
    )
