"""The webhooks as functions from a request of Metacontroller to the JSON of its response.

Each reads the world, asks the core once, carries out on the platform what the core decided, and builds the response.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from hooks.clients.gateways import DrillSource
from hooks.decision_metrics import Decisions
from hooks.gatherer import gather
from hooks.kube.objects import Object
from hooks.metrics import Sources
from hooks.observation.observation import InstallDefaults, Observation
from hooks.platform.beamlit.registrar import Registrar
from hooks.platform.registration import Registration
from hooks.protocol import CustomizeRequest, FinalizeResponse, SyncRequest, SyncResponse
from hooks.reconcile import model_deployment, policy
from hooks.reconcile.related import customize


class UnsettledDecision(Protocol):
    """Decision of the core, from which the response follows when its task on the platform is carried out."""

    @property
    def now(self) -> datetime:
        """Time of the decision."""

    @property
    def registration(self) -> Registration:
        """Registration with the platform before its task is carried out."""

    def response(self, registration: Registration, /) -> SyncResponse | FinalizeResponse:
        """Return the response, for the registration as it is after its task."""


class Webhooks:
    """The five webhooks of a process."""

    def __init__(
        self,
        defaults: InstallDefaults,
        decisions: Decisions,
        *,
        sources: Sources | None,
        drill_source: DrillSource | None,
        registrar: Registrar | None,
        clock: Callable[[], datetime],
    ) -> None:
        """Use sources and a registrar that the caller opened and will close.

        Args:
            defaults: the configuration of the installation.
            decisions: the record of decisions that is exposed as metrics.
            sources: the sources of the metrics that models offload by; with None no metric is read.
            drill_source: the source of what gateways found in their drills; with None none is asked.
            registrar: the account on the platform; with None nothing is done there.
            clock: the time, read once per request: the only time that a decision sees.
        """
        self._defaults = defaults
        self._decisions = decisions
        self._sources = sources
        self._drill_source = drill_source
        self._registrar = registrar
        self._clock = clock

    async def sync(self, request: SyncRequest) -> Object:
        """Return the desired children and the status of a ModelDeployment."""
        observation = await gather(request, self._defaults, self._sources, drill_source=self._drill_source)
        now = self._clock()
        decision = model_deployment.decide_sync(
            observation, now=now, account=self._account, recheck=self._is_recheck_due(request, now)
        )
        if decision.assessment is not None:
            self._decisions.record(decision.assessment, now=now)
        return await self._respond(decision)

    async def customize(self, request: CustomizeRequest) -> Object:
        """Return rules for the objects that a sync of the ModelDeployment needs to see."""
        return customize(request).as_json()

    async def finalize(self, request: SyncRequest) -> Object:
        """Return whether a ModelDeployment that is being deleted may go."""
        metadata = request.parent["metadata"]
        self._decisions.forget(metadata["namespace"], metadata["name"])
        observation = Observation.of(request, self._defaults)
        return await self._respond(
            model_deployment.decide_finalize(observation, now=self._clock(), account=self._account)
        )

    async def policy_sync(self, request: SyncRequest) -> Object:
        """Return the status of a Policy."""
        now = self._clock()
        recheck = self._is_recheck_due(request, now)
        return await self._respond(
            policy.decide_sync(request, self._defaults, account=self._account, now=now, recheck=recheck)
        )

    async def policy_finalize(self, request: SyncRequest) -> Object:
        """Return whether a Policy that is being deleted may go."""
        return await self._respond(policy.decide_finalize(request, account=self._account, now=self._clock()))

    @property
    def _account(self) -> str | None:
        return None if self._registrar is None else self._registrar.account

    def _is_recheck_due(self, request: SyncRequest, now: datetime) -> bool:
        return self._registrar is not None and self._registrar.is_recheck_due(request.parent, now)

    async def _respond(self, decision: UnsettledDecision) -> Object:
        registration = decision.registration
        if self._registrar is not None:
            registration = await self._registrar.settle(registration, now=decision.now)
        return decision.response(registration).as_json()
