"""The outlook: what would change the split, found by applying the same rules to other facts.

The look ahead begins with the state after this response: what it remembers, and the split that it puts in force.
Metrics that are not mentioned stay as they are. The first other split ends the look ahead, for the samples that follow
a change tell something new.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from hooks import reasons
from hooks.backends.readiness import MESSAGES, Readiness
from hooks.backends.remote import Remote
from hooks.explain.metrics import amount
from hooks.kube.quantities import NANO, Quantity
from hooks.observation.observation import Parent
from hooks.offloading.hysteresis import Standing
from hooks.offloading.measures import Counted, Measured, Missing
from hooks.offloading.rules import Decision, Facts, Previous, Split, behavior, decide
from hooks.offloading.targets import metric_name
from hooks.reconcile import conditions
from hooks.reconcile.assessment import Assessment
from hooks.reconcile.status import StatusContent, build_status

_STEPS: Final = 100
"""Number of times that are looked at. Each window ends once, so two or three are enough."""
_ONE: Final = Fraction(1)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value of a metric, summed over all that counts, at which the metric would cross a limit."""

    metric: int
    """Index of the metric in the specification."""
    name: str
    value: Quantity
    below: bool
    """Whether the metric has to be below the value, rather than at it or above."""
    present: Quantity
    """Present value of the metric."""
    summed: bool
    """Whether the value is a sum of several."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An event that would change the split."""

    when: str
    """Condition of the event, as a clause; empty where nothing has to happen."""
    thresholds: tuple[Threshold, ...]
    """Values of metrics that the event needs."""
    after: timedelta
    """Time for which the condition would have to hold; zero where it counts at once."""
    at: datetime
    """Time at which the split would change if the condition held from now on."""
    then: Split


def turns(assessment: Assessment, now: datetime) -> tuple[Turn, ...]:
    """Return what will change by itself, then everything that would change the split sooner, or otherwise."""
    here = _Here(assessment, now)
    again = here.again()
    alone = here.alone() if again is None else again
    # What moves with every measurement moves whether or not another metric rises.
    rises = here.rises() if again is None else ()
    falls = tuple(here.falls())
    others = (*rises, *falls, *here.readable(), *here.readiness(), *here.specified())
    if alone is None or alone is again:
        sooner = tuple(turn for turn in others if turn is not None)
        return sooner if alone is None else (alone, *sooner)
    # A metric that falls may make at the same time what is more than comes by itself.
    sooner = tuple(
        turn
        for turn in others
        if turn is not None
        and (
            turn.at < alone.at
            or (turn in falls and turn.at == alone.at and turn.then.percentage < alone.then.percentage)
        )
    )
    return (alone, *sooner)


@dataclass(frozen=True, slots=True)
class _Here:
    """The state after the response: what it remembers, and the split that it puts in force."""

    assessment: Assessment
    now: datetime

    @property
    def facts(self) -> Facts:
        return self.assessment.facts

    @property
    def parent(self) -> Parent:
        """Return the parent with the status that this response writes."""
        return _remembered(self.facts, self.assessment.decision, self.now)

    @property
    def next(self) -> Decision:
        """Return the decision on the same measures under the split that is in force from now on."""
        return decide(self.facts, Previous.of(self.parent), now=self.now)

    def again(self) -> Turn | None:
        """Return facts with the same values, measured again under the split that is in force from now on."""
        if self.next.split.percentage == self.assessment.decision.split.percentage:
            return None
        return self._turn("when the metrics are measured again and are the same", (), self.facts)

    def alone(self) -> Turn | None:
        """Return the change that comes by itself, if there is one."""
        instant = self.assessment.decision.next_instant
        return None if instant is None else self._turn("", (), self.facts, start=instant)

    def rises(self) -> Iterator[Turn | None]:
        """Return the changes if a metric that is below its target reached it."""
        for place, one in enumerate(self.facts.measures):
            if isinstance(one, Measured) and one.ratio < 1:
                bound = self._threshold(place, one, _ONE, below=False)
                yield self._turn("", (bound,), self._with({place: _at(one, bound.value)}))

    def falls(self) -> Iterator[Turn | None]:
        """Return the changes if the metrics that keep the share up fell: so far that it went down, and so far that all
        requests came back at once."""
        course = self.next.course
        bounds = [bound for bound in (course.falls_below, course.back_below) if bound is not None]
        for bound in bounds:
            allowed = bound == course.falls_below
            yield self._falls(
                min(bound, _ONE),
                [
                    (standing is Standing.BELOW) if allowed else (isinstance(one, Measured) and one.ratio < bound)
                    for one, standing in zip(self.facts.measures, course.standings, strict=True)
                ],
            )

    def _falls(self, ratio: Fraction, are_low: Sequence[bool]) -> Turn | None:
        """Return the change if all metrics fell below a ratio that are not low yet."""
        thresholds, others = [], {}
        for place, (one, is_low) in enumerate(zip(self.facts.measures, are_low, strict=True)):
            if is_low:
                continue
            if isinstance(one, Missing):
                return None
            threshold = self._threshold(place, one, ratio, below=True)
            thresholds.append(threshold)
            others[place] = _at(one, Quantity(threshold.value.nanos - 1))
        return self._turn("", tuple(thresholds), self._with(others)) if thresholds else None

    def readable(self) -> Iterator[Turn | None]:
        """Return the changes if a metric that cannot be read were at its target."""
        # No more is known of it than that.
        reached = Measured((Counted("", Quantity(NANO), self.now),), (), _ONE, _ONE)
        for place, one in enumerate(self.facts.measures):
            if isinstance(one, Missing) and one.reason != reasons.NOT_EVALUATED:
                name = metric_name(self.assessment.metrics[place])
                yield self._turn(f"when {name} can be read and is at its target", (), self._with({place: reached}))

    def readiness(self) -> Iterator[Turn | None]:
        """Return the change if ready replicas were lost, or if one became ready."""
        if not self.facts.has_local:
            return
        if self.facts.readiness.is_ready:
            none = Readiness(0, reasons.NO_READY_REPLICA, MESSAGES[reasons.NO_READY_REPLICA])
            yield self._turn("when no replica is ready", (), replace(self.facts, readiness=none))
        else:
            one = Readiness(1, reasons.REPLICAS_READY, MESSAGES[reasons.REPLICAS_READY])
            measures = tuple(_first_seen(measure) for measure in self.facts.measures)
            yield self._turn("when a replica is ready", (), replace(self.facts, readiness=one, measures=measures))

    def specified(self) -> Iterator[Turn | None]:
        """Return the changes if users set a field of the specification otherwise."""
        spec = self.facts.spec
        if not spec.enabled:
            yield self._turn("with spec.enabled: true", (), replace(self.facts, spec=_updated(spec, enabled=True)))
        override = behavior(spec).override
        if override is not None and self.now < override.until and spec.offloading_config is not None:
            plain = _updated(spec.offloading_config, behavior=_updated(behavior(spec), override=None))
            without = replace(self.facts, spec=_updated(spec, offloading_config=plain))
            yield self._turn("without the override", (), without)
        if self.facts.refusals and isinstance(self.facts.remote, Remote):
            yield self._turn("when the policies allow it", (), replace(self.facts, refusals=()))

    def _with(self, measures: dict[int, Measured]) -> Facts:
        replaced = tuple(measures.get(place, one) for place, one in enumerate(self.facts.measures))
        return replace(self.facts, measures=replaced)

    def _threshold(self, place: int, one: Measured, ratio: Fraction, *, below: bool) -> Threshold:
        return Threshold(
            place,
            metric_name(self.assessment.metrics[place]),
            amount(one, one.denominator * ratio),
            below,
            amount(one, one.numerator),
            len(one.counted) > 1,
        )

    def _turn(
        self, when: str, thresholds: Sequence[Threshold], facts: Facts, *, start: datetime | None = None
    ) -> Turn | None:
        """Return the first other percentage, if the facts were these from now on; else, where no value of a metric is
        involved, the first other reason; None where there is neither.

        Args:
            when: as in `Turn`.
            thresholds: as in `Turn`.
            facts: that would be.
            start: when they are looked at first, where that is not now.
        """
        present, parent, moment = self.assessment.decision.split, self.parent, start or self.now
        other: Turn | None = None
        for _ in range(_STEPS):
            decision = decide(facts, Previous.of(parent), now=moment)
            turn = Turn(when, tuple(thresholds), max(moment - self.now, timedelta(0)), moment, decision.split)
            if decision.split.percentage != present.percentage:
                return turn
            if other is None and not thresholds and decision.split.reason != present.reason:
                other = turn
            if decision.next_instant is None or decision.next_instant <= moment:
                break
            parent, moment = _remembered(_with_parent(facts, parent), decision, moment), decision.next_instant
        return other


def _with_parent(facts: Facts, parent: Parent) -> Facts:
    """Return the same facts with a later state of the parent."""
    return replace(facts, observation=replace(facts.observation, parent=parent))


def _remembered(facts: Facts, decision: Decision, now: datetime) -> Parent:
    """Return the parent with the status that follows from the decision."""
    parent = facts.observation.parent
    known = (conditions.local_ready(facts.readiness),)
    configuration = facts.spec.offloading_config
    metrics = () if configuration is None else configuration.metrics
    states = conditions.standings(metrics, facts.measures, decision.course)
    content = StatusContent(known, decision.split, memory=decision.course.memory, metrics=states)
    status = build_status(content, parent, now=now)
    metadata = {"namespace": parent.namespace, "name": parent.name, "uid": parent.uid, "generation": parent.generation}
    return Parent.of({"metadata": metadata, "spec": dict(parent.spec), "status": status})


def _at(one: Measured, value: Quantity) -> Measured:
    """Return the same metric with another value."""
    return Measured((Counted("", value, one.oldest),), (), one.target, one.times)


def _first_seen(measure: Measured | Missing) -> Measured | Missing:
    """Return measures that are only late: without a pod nothing could be measured."""
    early = isinstance(measure, Missing) and measure.reason == reasons.NO_READY_PODS
    return Missing(reasons.SETTLING, "") if early else measure


def _updated(part: Any, **fields: Any) -> Any:
    """Return a part of the specification with other values."""
    return part.model_copy(update=fields)
