"""Controls for the reader: sliders, choices, toggles, and how a function declares them."""

import inspect
import math
from bisect import bisect
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal

from efflab.errors import require, require_one_of
from efflab.lab.text import number, tr_name

NOISE = 1e-9
"""Rounding error allowed in a value, as a share of a slider's range."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """What all controls have; `label` and `unit` are English and translated when shown.

    `stored=False`: left out of a stored page's menu, for example if its values are measured on
    this machine.
    """

    unit: str = ""
    label: str = ""
    stored: bool = True

    def __post_init__(self):
        if self.value is not None:
            self.check_value(self.value)

    def check_value(self, value) -> None:
        """Refuse a value that the control cannot take."""
        require_one_of("value", value, self.values())


@dataclass(frozen=True)
class Slider(Control):
    """Numbers from low to high: `Slider(16, 512, 128, step=16, unit="tokens")`.

    Integers give integers. `scale="log2"` takes low, 2 low, 4 low, ... up to high.
    """

    low: float
    high: float
    value: float | None = None
    step: float | None = field(default=None, kw_only=True)
    scale: str = field(default="linear", kw_only=True)

    def __post_init__(self):
        for name in ("low", "high", "value", "step"):
            entry = getattr(self, name)
            if entry is None and name in ("value", "step"):
                continue
            is_number = isinstance(entry, int | float) and not isinstance(entry, bool)
            require(is_number and math.isfinite(entry), name, entry, "a finite number")
        require_one_of("scale", self.scale, ("linear", "log2"))
        require(self.low < self.high, "low", self.low, f"less than high={self.high}")
        if self.scale == "log2":
            require(self.low > 0, "low", self.low, "above 0 for a log2 slider")
            require(self.step is None, "step", self.step, "no step: a log2 slider doubles")
        if self.step is not None:
            require(0 < self.step <= self.high - self.low, "step", self.step, "0 < step <= range")
        super().__post_init__()

    def check_value(self, value) -> None:
        """Refuse a value out of range, or between the steps of a log2 slider."""
        if self.scale == "log2":
            super().check_value(value)
        slack = NOISE * (self.high - self.low)
        within = isinstance(value, int | float) and self.low - slack <= value <= self.high + slack
        ends = dict(low=self.low, high=self.high)
        require(within, "value", value, "a number from {low} to {high}", **ends)

    def values(self) -> Sequence:
        """Every value that the slider can take."""
        if self.scale == "log2":
            doubles = range(math.floor(math.log2(self.high / self.low) + 1e-9) + 1)
            return [self.low * 2**i for i in doubles]
        if self.is_whole:
            return range(self.low, self.high + 1, self.step or 1)
        low, step, n = self._steps()
        return [float(low + i * step) for i in range(n + 1)]

    def _steps(self) -> tuple[Decimal, Decimal, int]:
        """(low, step, number of steps), as decimals so that 6 x 0.05 is exactly 0.3."""
        low, high = Decimal(repr(self.low)), Decimal(repr(self.high))
        step = (high - low) / 100 if self.step is None else Decimal(repr(self.step))
        n = round((high - low) / step)
        if math.isclose(n * step, high - low, rel_tol=NOISE):
            return low, (high - low) / n, n  # a step of 1 / 3 ends at the high end too
        return low, step, int((high - low) // step)

    def nearest(self, value):
        """The slider's value nearest to `value`."""
        values = self.values()
        i = bisect(values, value)
        return min(values[max(i - 1, 0) : i + 1], key=lambda own: abs(own - value))

    @property
    def is_whole(self) -> bool:
        """Whether all its values are whole numbers."""
        numbers = (self.low, self.high, self.value, self.step)
        return all(isinstance(v, int) for v in numbers if v is not None)

    def widget(self, value, description: str):
        """The ipywidgets control."""
        import ipywidgets as w

        if self.scale == "log2":
            options = [(number(v, 6), v) for v in self.values()]
            return w.SelectionSlider(options=options, value=value, description=description)
        make = w.IntSlider if self.is_whole else w.FloatSlider
        step = self.step or (1 if self.is_whole else (self.high - self.low) / 100)
        more = {} if self.is_whole else {"readout_format": ".4g"}
        ends = dict(min=self.low, max=self.values()[-1], step=step)
        return make(value=value, description=description, **ends, **more)


@dataclass(frozen=True)
class Choice(Control):
    """One of several: `Choice(["gpipe", "1f1b"], label="schedule")`.

    Texts with a space in them are translated; single words are shown as they are unless a catalog
    has them.
    """

    options: list | tuple
    value: object = None

    def __post_init__(self):
        require(len(self.options) > 0, "options", self.options, "at least one option")
        fit = all(isinstance(option, Hashable) for option in self.options)
        require(fit, "options", self.options, "values that can be keys, such as tuples, no lists")
        super().__post_init__()

    def values(self) -> list:
        """The options."""
        return list(self.options)

    def widget(self, value, description: str):
        """The ipywidgets control."""
        import ipywidgets as w

        options = [(show_value(v), v) for v in self.options]
        return w.Dropdown(options=options, value=value, description=description)


@dataclass(frozen=True)
class Toggle(Control):
    """Yes or no: `Toggle(False, label="causal")`."""

    value: bool | None = None

    def values(self) -> list:
        """[False, True]."""
        return [False, True]

    def widget(self, value, description: str):
        """The ipywidgets control."""
        import ipywidgets as w

        return w.Checkbox(value=value, description=description, indent=False)


def show_value(value) -> str:
    """A control's value as text."""
    return tr_name(value) if isinstance(value, str) else number(value, 6)


def settle(control: Control, value) -> tuple[object, bool]:
    """(the control's value nearest to `value`, whether they are equal up to rounding)."""
    if not isinstance(control, Slider):
        return value, True
    own = control.nearest(value)
    return own, abs(own - value) <= NOISE * (control.high - control.low)


def as_control(name: str, spec) -> Control:
    """A control, or one from a shorthand: (low, high[, step]), a list of options, a bool."""
    if isinstance(spec, Control):
        return spec
    if isinstance(spec, bool):
        return Toggle(spec)
    if isinstance(spec, tuple) and len(spec) in (2, 3):
        return Slider(*spec[:2], step=spec[2] if len(spec) == 3 else None)
    if isinstance(spec, list):
        return Choice(spec)
    allowed = "(low, high), (low, high, step), a list, a bool, Slider, Choice or Toggle"
    raise ValueError(f"{name}={spec!r}: expected {allowed}")


def _controls_of(fn: Callable, specs: dict) -> dict[str, Control]:
    """The controls of parameters of `fn`; one of no parameter is refused."""
    parameters = inspect.signature(fn).parameters
    for name in specs:
        require_one_of("control", name, parameters)
    return {name: as_control(name, spec) for name, spec in specs.items()}


def bind(fn: Callable, overrides: dict) -> dict[str, tuple[Control, object]]:
    """{parameter: (control, first value)} of `fn`, from `@explorer` and `overrides`.

    A first value is the control's own, else the function's default, else the control's first.
    A control for no parameter, or a parameter with neither control nor default, is a `ValueError`.
    """
    parameters = inspect.signature(fn).parameters
    declared = getattr(fn, "controls", {})
    controls = _controls_of(fn, {**declared, **overrides})
    require(bool(controls), "controls", controls, "at least one control")
    bound = {}
    for name, control in controls.items():
        if name in overrides and name in declared and not isinstance(overrides[name], Control):
            original = declared[name]
            control = replace(control, unit=original.unit, label=original.label)
        value = control.value
        if value is None:
            value = _default(parameters[name].default, control)
        own, is_same = settle(control, value)
        bound[name] = (control, own if is_same else value)
    for name, parameter in parameters.items():
        is_rest = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        has_value = is_rest or parameter.default is not parameter.empty
        require(name in bound or has_value, "controls", list(bound), f"a control for {name!r} too")
    return bound


def _default(default, control: Control):
    """The function's default if the control allows it, else the control's first value."""
    with suppress(ValueError):
        control.check_value(default)
        return default
    return control.values()[0]


def explorer(**controls) -> Callable:
    """Decorate a function from keyword values to a figure with its controls (`fn.controls`)."""

    def attach(fn):
        fn.controls = _controls_of(fn, controls)
        return fn

    return attach
