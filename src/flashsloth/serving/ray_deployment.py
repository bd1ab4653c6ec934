"""The server on Ray Serve: replicas of the same application, on one machine or many.

    serve run flashsloth.serving.ray_deployment:application model=FOLDER replicas=2

In: settings. Out: a Ray Serve application. Each replica has a model, an engine and caches of its own; a replica whose
engine has died or hangs fails its health check, and Ray puts another in its place. Who asks too much is told so by our
application (429 with Retry-After), not by Ray's proxy. Needs `flashsloth[scale]`.

Ray runs code that its network sends it, by design: `docs/serving.md` says what that asks of the network.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.load import load
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.guards import guarded
from flashsloth.serving.service import Service
from flashsloth.serving.watchdog import LOOK_SECONDS, Watchdog

HEALTH_SECONDS = 2.0
"""Between two health checks."""
HEALTH_TIMEOUT_SECONDS = 10.0
SLACK = 1024
"""Requests under way in a replica beside those that its application accepts: health, metrics, and refusals."""
UNBOUNDED = -1


class RaySettings(BaseModel):
    """What an application is made of; `serve run` and `serve deploy` hand them over as texts.

    Attributes:
        model: a folder that every machine has under this path, or a name on the hub; None for the small model.
        name: what clients call it.
        adapter: a folder, merged into the model.
        device, dtype, quantize: see `flashsloth.load`.
        replicas: how many, or how many at least where there is a `most_replicas`.
        most_replicas: up to which Ray adds replicas while answers wait.
        cpus, gpus: of each replica; fractions of a processor let replicas share one.
        api_keys: one of them is required where there are any; separated by commas.
        allow_hosts: names beside loopback's that requests may be addressed to; separated by commas.
        max_running, max_waiting, max_tokens, deadline: see :class:`ServeConfig`; of each replica.
    """

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    name: str = "nano"
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    replicas: int = Field(default=1, ge=1)
    most_replicas: int | None = Field(default=None, ge=1)
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    api_keys: str = ""
    allow_hosts: str = ""
    max_running: int = ServeConfig.max_running
    max_waiting: int = ServeConfig.max_waiting
    max_tokens: int = ServeConfig.max_tokens
    deadline: float = ServeConfig.deadline

    def config(self) -> ServeConfig:
        """The limits of each replica.

        Raises:
            ServeError: for a value that cannot be.
        """
        return ServeConfig(
            max_running=self.max_running,
            max_waiting=self.max_waiting,
            max_tokens=self.max_tokens,
            deadline=self.deadline,
            api_keys=_texts(self.api_keys),
            allow_hosts=_texts(self.allow_hosts),
            model_names=(self.name,),
        )


def _texts(joined: str) -> tuple[str, ...]:
    return tuple(text.strip() for text in joined.split(",") if text.strip())


def application(settings: RaySettings | dict[str, Any]) -> serve.Application:
    """A Ray Serve application, for `serve.run`; Ray's command line and files give the settings as a dictionary.

    Raises:
        ServeError, ValidationError: for a setting that cannot be.
    """
    settings = RaySettings.model_validate(settings)
    config = settings.config()
    scaling: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.most_replicas is not None:
        limits = {"min_replicas": settings.replicas, "max_replicas": settings.most_replicas}
        scaling = {"autoscaling_config": {**limits, "target_ongoing_requests": config.max_running}}
    replica = serve.deployment(
        serve.ingress()(Replica),
        name="flashsloth",
        max_ongoing_requests=config.max_running + config.max_waiting + SLACK,
        max_queued_requests=UNBOUNDED,  # a full queue of Ray's would answer 503, without Retry-After
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=HEALTH_TIMEOUT_SECONDS,
        graceful_shutdown_timeout_s=config.drain_seconds,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        **scaling,
    )
    return replica.bind(settings)


class Replica:
    """One model behind the application, in a process of Ray's.

    Args:
        settings: see :class:`RaySettings`.
    """

    def __init__(self, settings: RaySettings) -> None:
        config = settings.config()
        sloth = load(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            quantize=settings.quantize,
            adapter=settings.adapter,
            engine=EngineConfig(max_rows=config.max_running),
        )
        self._service, self._config = Service(sloth, config), config
        self._problem: str | None = None
        threading.Thread(target=self._watch, name="flashsloth watchdog", daemon=True).start()

    def __serve_build_asgi_app__(self) -> Any:  # Ray's name
        """What `flashsloth serve` runs, with the same guards around it."""
        from flashsloth.serving.app import create_app

        return guarded(create_app(self._service), self._config)

    def check_health(self) -> None:
        """Ray's question whether this replica is to be replaced.

        Raises:
            RuntimeError: if its engine has died, or hangs.
        """
        if self._problem is not None:
            raise RuntimeError(self._problem)

    def _watch(self) -> None:
        while not self._service.is_warm:  # the first steps show how long later ones may take
            time.sleep(LOOK_SECONDS)
        watchdog = Watchdog(self._service.sloth.engine_thread)
        while self._problem is None:
            time.sleep(LOOK_SECONDS)
            self._problem = watchdog.problem()
