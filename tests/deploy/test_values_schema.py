"""Values that are wrong: each is refused, with a message that names the key."""

from typing import Any

import pytest

from searchr1.settings import Settings
from tests.deploy.manifests import CHART, Helm, Object, load

GOOD: Object = {
    "model": {"name": "m"},
    "engine": {"url": "http://vllm:8000"},
    "search": {"providers": "tavily:"},
    "gateway": {"existingSecret": "keys"},
}


def set_at(path: str, value: Any) -> Object:
    """Return good values with one that is at ``path``."""
    *parents, last = path.split("/")
    values: Object = {name: dict(part) for name, part in GOOD.items()}
    place = values
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return values


BY_SCHEMA = [
    ("gatway", {}, "gatway"),
    ("gateway/replica", 3, "replica"),
    ("gateway/replicas", -1, "/gateway/replicas"),
    ("gateway/replicas", "two", "/gateway/replicas"),
    ("gateway/existingSecret", "Not A Name", "/gateway/existingSecret"),
    ("gateway/apiKeys", ["secret"], "apiKeys"),
    ("gateway/settings/SEARCHR1_MAX_TURN", 3, "SEARCHR1_MAX_TURN"),
    ("gateway/settings/SEARCHR1_MAX_TURNS", 0, "/gateway/settings/SEARCHR1_MAX_TURNS"),
    ("gateway/settings/SEARCHR1_TEMPERATURE", 3, "/gateway/settings/SEARCHR1_TEMPERATURE"),
    ("gateway/settings/SEARCHR1_LOG_LEVEL", "loud", "/gateway/settings/SEARCHR1_LOG_LEVEL"),
    ("gateway/settings/SEARCHR1_API_KEYS", "secret", "SEARCHR1_API_KEYS"),
    ("gateway/settings/SEARCHR1_TAVILY_API_KEY", "secret", "SEARCHR1_TAVILY_API_KEY"),
    ("gateway/settings/SEARCHR1_REDIS_URL", "redis://:secret@h", "SEARCHR1_REDIS_URL"),
    ("gateway/settings/SEARCHR1_PORT", 9000, "SEARCHR1_PORT"),
    ("gateway/env/SEARCHR1_MAX_TURNS", 3, "SEARCHR1_MAX_TURNS"),
    ("gateway/env/TAVILY_API_KEY", "secret", "TAVILY_API_KEY"),
    ("gateway/stopping/graceSeconds", -5, "/gateway/stopping/graceSeconds"),
    ("gateway/stopping/preStop", 5, "preStop"),
    ("gateway/resources/limits/memory", "two gigabytes", "/gateway/resources/limits/memory"),
    ("gateway/resources/maximum", {}, "maximum"),
    ("gateway/tolerations", [{"keys": "a"}], "keys"),
    ("gateway/affinity", {"nodeAfinity": {}}, "nodeAfinity"),
    ("gateway/topologySpread/whenUnsatisfiable", "Never", "/gateway/topologySpread/whenUnsatisfiable"),
    ("gateway/podDisruptionBudget/maxUnavailable", 0, "/gateway/podDisruptionBudget/maxUnavailable"),
    ("gateway/volumes", [{"name": "a", "mountPath": "/a"}], "/gateway/volumes/0"),
    ("gateway/service/port", 70000, "/gateway/service/port"),
    ("image/digest", "sha256:abc", "/image/digest"),
    ("image/pullPolicy", "Sometimes", "/image/pullPolicy"),
    ("engine/url", "vllm:8000", "/engine/url"),
    ("engine/url", "http://user:secret@vllm:8000", "/engine/url"),
    ("engine/url", "k8s://ns/vllm:8000", "/engine/url"),
    ("engine/discovery", "consul", "/engine/discovery"),
    ("engine/vllm/gpus", 1.5, "/engine/vllm/gpus"),
    ("engine/vllm/runAsUser", 0, "/engine/vllm/runAsUser"),
    ("engine/vllm/extraArgs", ["--api-key=secret"], "/engine/vllm/extraArgs/0"),
    ("engine/vllm/gpuMemoryUtilization", 1.2, "/engine/vllm/gpuMemoryUtilization"),
    ("engine/vllm/cache", {"kind": "existingClaim"}, "/engine/vllm/cache/claim"),
    ("engine/vllm/cache/kind", "hostPath", "/engine/vllm/cache/kind"),
    ("retriever", {"enabled": True, "open": True}, "/retriever/index/existingClaim"),
    ("retriever/image/repository", "Not A Name", "/retriever/image/repository"),
    ("valkey/enabled", True, "/valkey/existingSecret"),
    ("valkey/maxMemory", "1Gi", "/valkey/maxMemory"),
    ("autoscaling", {"keda": {"enabled": True}}, "/autoscaling/keda/serverAddress"),
    ("autoscaling", {"hpa": {"enabled": True}, "keda": {"enabled": True}}, "/autoscaling/keda/enabled"),
    ("httpRoute", {"enabled": True}, "/httpRoute/parentRefs"),
    ("ingress", {"enabled": True}, "/ingress/hosts"),
    ("ingress/controller", "apache", "/ingress/controller"),
    ("networkPolicy/egressPorts", ["https"], "/networkPolicy/egressPorts/0"),
    ("networkPolicy/gatewayFrom", [{"podSelektor": {}}], "podSelektor"),
    ("monitoring/serviceMonitor/interval", "often", "/monitoring/serviceMonitor/interval"),
    ("monitoring/prometheusRule/runbookUrl", "", "/monitoring/prometheusRule/runbookUrl"),
    ("serviceAccount/name", "Bad_Name", "/serviceAccount/name"),
    ("publicPaths", [], "/publicPaths"),
]


@pytest.mark.parametrize(("path", "value", "named"), BY_SCHEMA, ids=[f"{path}={value}" for path, value, _ in BY_SCHEMA])
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, path: str, value: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"at '") as refused:
        helm.render(set_at(path, value))
    assert named in str(refused.value).replace("' and '", "/")


BY_CHECK: list[tuple[Object, str]] = [
    ({"model": {"name": ""}}, r"model\.name is missing"),
    ({"engine": {"url": ""}}, r"there is no engine"),
    ({"engine": {"vllm": {"enabled": True}}}, r"engine\.url and engine\.vllm\.enabled exclude each other"),
    ({"search": {"providers": ""}}, r"nothing to search with"),
    ({"gateway": {"existingSecret": ""}}, r"gateway\.existingSecret is missing"),
    ({"demo": {"enabled": True}}, r"demo\.enabled brings its own"),
    (
        {"redis": {"existingSecret": "a"}, "valkey": {"enabled": True, "existingSecret": "b"}},
        r"redis\.existingSecret and valkey\.enabled exclude each other",
    ),
    ({"retriever": {"enabled": True, "index": {"existingClaim": "a"}}}, r"retriever\.existingSecret is missing"),
    ({"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}, r"autoscaling\.minReplicas is above"),
    (
        {"engine": {"url": "", "vllm": {"enabled": True, "gpus": 2, "tensorParallelSize": 4}}},
        r"engine\.vllm\.tensorParallelSize times",
    ),
    (
        {"gateway": {"settings": {"SEARCHR1_DEADLINE_S": 700}}},
        r"gateway\.settings\.SEARCHR1_DEADLINE_S is above SEARCHR1_MAX_DEADLINE_S",
    ),
]


@pytest.mark.parametrize(("values", "message"), BY_CHECK, ids=[message for _, message in BY_CHECK])
def test_values_that_exclude_each_other_are_refused(helm: Helm, values: Object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        helm.render({name: {**GOOD.get(name, {}), **values.get(name, {})} for name in {*GOOD, *values}})


def objects_in(schema: Any, where: str = "") -> list[tuple[str, Object]]:
    """Return every part of a schema that describes an object by its properties, with its place."""
    if isinstance(schema, list):
        return [one for i, part in enumerate(schema) for one in objects_in(part, f"{where}/{i}")]
    if not isinstance(schema, dict):
        return []
    inner = [one for name, part in schema.items() for one in objects_in(part, f"{where}/{name}")]
    return [(where, schema), *inner] if schema.get("type") == "object" else inner


def test_no_object_takes_keys_that_it_does_not_know() -> None:
    schema = load(CHART / "values.schema.json")
    maps = {"/properties/global", "/$defs/stringMap", "/$defs/env", "/$defs/quantities", "/$defs/settings"}
    loose = [
        where
        for where, one in objects_in(schema)
        if one.get("additionalProperties") is not False
        and where not in maps
        and "/$defs/io.k8s" not in where
        and not where.startswith("/$defs/settings/")
    ]
    assert loose == []


def test_every_setting_that_is_no_secret_and_not_the_charts_can_be_set() -> None:
    properties = load(CHART / "values.schema.json")["$defs"]["settings"]["properties"].keys()
    assert properties <= Settings.variables()
    assert {"SEARCHR1_MAX_TURNS", "SEARCHR1_CORS_ORIGINS", "SEARCHR1_SEARCH_BUDGET_PER_KEY"} <= properties
    assert [name for name in properties if "API_KEY" in name or "SECRET" in name or name.endswith("_URL")] == [
        "SEARCHR1_REWRITE_URL"
    ]


def test_defaults_are_values_that_the_schema_takes(helm: Helm) -> None:
    helm.render({**GOOD, **{name: part for name, part in load(CHART / "values.yaml").items() if name not in GOOD}})
