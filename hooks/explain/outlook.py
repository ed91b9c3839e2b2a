"""What would change the answer, found by asking the same rules again with other facts.

Everything begins where this answer leaves off: what it remembers, and the split that it puts in force. Metrics that are
not spoken of stay as they are. The first other answer ends the look ahead, for the samples that follow a change say
something new.
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
from hooks.reconcile.model_deployment import Assessment
from hooks.reconcile.status import Report, build_status

_STEPS: Final = 100
"""Moments that are looked at. Each window has one, so that two or three are enough."""
_ONE: Final = Fraction(1)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value of a metric, added up over all that counts, at which it is on the other side."""

    metric: int
    """Its place in the specification."""
    name: str
    value: Quantity
    below: bool
    """Whether it has to be less than the value, rather than at least that."""
    present: Quantity
    """What it is now."""
    summed: bool
    """Whether several values are added up."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that would change the answer."""

    when: str
    """What would have to be, as a clause; empty where nothing has to happen."""
    thresholds: tuple[Threshold, ...]
    """Values of metrics that belong to it."""
    after: timedelta
    """For how long it would have to be so; zero: it counts at once."""
    at: datetime
    """When the answer would change, if it were so from now on."""
    then: Split


def turns(found: Assessment, now: datetime) -> tuple[Turn, ...]:
    """What comes by itself, then all else that would change the answer sooner."""
    here = _Here(found, now)
    again = here.again()
    alone = here.alone() if again is None else again
    # What moves with every measurement moves whether or not another metric rises.
    rises = here.rises() if again is None else ()
    others = (*rises, here.falls(), *here.readable(), *here.readiness(), *here.specified())
    sooner = tuple(
        turn for turn in others if turn is not None and (alone is None or alone is again or turn.at < alone.at)
    )
    return sooner if alone is None else (alone, *sooner)


@dataclass(frozen=True, slots=True)
class _Here:
    """Where the answer leaves off."""

    found: Assessment
    now: datetime

    @property
    def facts(self) -> Facts:
        return self.found.facts

    @property
    def parent(self) -> Parent:
        """With the status that this answer writes."""
        return _remembered(self.facts, self.found.decision, self.now)

    @property
    def next(self) -> Decision:
        """The answer to the same measures under the split that is in force from now on."""
        return decide(self.facts, Previous.of(self.parent), now=self.now)

    def again(self) -> Turn | None:
        """The same values, measured again under the split that is in force from now on."""
        if self.next.split.percentage == self.found.decision.split.percentage:
            return None
        return self._turn("when the metrics are measured again and are the same", (), self.facts)

    def alone(self) -> Turn | None:
        """What comes by itself."""
        instant = self.found.decision.next_instant
        return None if instant is None else self._turn("", (), self.facts, start=instant)

    def rises(self) -> Iterator[Turn | None]:
        """Every metric that is below its target, at it."""
        for place, one in enumerate(self.facts.measures):
            if isinstance(one, Measured) and one.ratio < 1:
                bound = self._threshold(place, one, _ONE, below=False)
                yield self._turn("", (bound,), self._with({place: _at(one, bound.value)}))

    def falls(self) -> Turn | None:
        """The metrics that keep the share up, so far below that it goes down."""
        course = self.next.course
        if course.falls_below is None:
            return None
        bounds, others = [], {}
        for place, (one, standing) in enumerate(zip(self.facts.measures, course.standings, strict=True)):
            if standing is Standing.BELOW:
                continue
            if isinstance(one, Missing):
                return None
            bound = self._threshold(place, one, min(course.falls_below, _ONE), below=True)
            bounds.append(bound)
            others[place] = _at(one, Quantity(bound.value.nanos - 1))
        return self._turn("", tuple(bounds), self._with(others)) if bounds else None

    def readable(self) -> Iterator[Turn | None]:
        """Every metric that cannot be read, at its target."""
        # No more is known of it than that.
        reached = Measured((Counted("", Quantity(NANO), self.now),), (), _ONE, _ONE)
        for place, one in enumerate(self.facts.measures):
            if isinstance(one, Missing) and one.reason != reasons.NOT_EVALUATED:
                name = metric_name(self.found.metrics[place])
                yield self._turn(f"when {name} can be read and is at its target", (), self._with({place: reached}))

    def readiness(self) -> Iterator[Turn | None]:
        """The replicas, the other way round."""
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
        """What people set, set otherwise."""
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
        found = tuple(measures.get(place, one) for place, one in enumerate(self.facts.measures))
        return replace(self.facts, measures=found)

    def _threshold(self, place: int, one: Measured, ratio: Fraction, *, below: bool) -> Threshold:
        return Threshold(
            place,
            metric_name(self.found.metrics[place]),
            amount(one, one.denominator * ratio),
            below,
            amount(one, one.numerator),
            len(one.counted) > 1,
        )

    def _turn(
        self, when: str, thresholds: Sequence[Threshold], facts: Facts, *, start: datetime | None = None
    ) -> Turn | None:
        """The first other percentage, if the facts were these from now on; else, where no value of a metric is spoken
        of, the first other reason; None when there is neither.

        Args:
            when: as in `Turn`.
            thresholds: as in `Turn`.
            facts: that would be.
            start: when they are looked at first, where that is not now.
        """
        present, parent, moment = self.found.decision.split, self.parent, start or self.now
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
    """The same facts about the parent as it is later."""
    return replace(facts, observation=replace(facts.observation, parent=parent))


def _remembered(facts: Facts, decision: Decision, now: datetime) -> Parent:
    """The parent with the status that follows from the decision."""
    parent = facts.observation.parent
    told = (conditions.local_ready(facts.readiness),)
    status = build_status(Report(told, decision.split, memory=decision.course.memory), parent, now=now)
    metadata = {"namespace": parent.namespace, "name": parent.name, "uid": parent.uid, "generation": parent.generation}
    return Parent.of({"metadata": metadata, "spec": dict(parent.spec), "status": status})


def _at(one: Measured, value: Quantity) -> Measured:
    """The same metric with another value."""
    return Measured((Counted("", value, one.oldest),), (), one.target, one.times)


def _first_seen(measure: Measured | Missing) -> Measured | Missing:
    """What could not be measured without a pod takes its time then."""
    early = isinstance(measure, Missing) and measure.reason == reasons.NO_READY_PODS
    return Missing(reasons.SETTLING, "") if early else measure


def _updated(part: Any, **fields: Any) -> Any:
    """A part of the specification with other values."""
    return part.model_copy(update=fields)
