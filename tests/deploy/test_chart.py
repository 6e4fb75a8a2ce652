"""The chart, rendered by real Helm: valid for Kubernetes and for the custom resources it uses, and fit to be run."""

import json
from pathlib import Path
from typing import Any

import pytest

from searchr1.environment import OTHER_VARIABLES
from searchr1.settings import Settings
from tests.deploy.manifests import (
    CHART,
    CUSTOM,
    VALUES_FILES,
    Helm,
    Object,
    by_key,
    check_by_kubernetes,
    containers,
    environment,
    load,
    pod_specs,
    wrong_custom_resources,
)

KUBERNETES = ("1.30", "1.37")
"""The oldest and the newest release that rendered objects are held to."""
LEAST: Object = {
    "model": {"name": "m"},
    "engine": {"url": "http://vllm:8000"},
    "search": {"providers": "tavily:"},
    "gateway": {"existingSecret": "keys"},
}


def gateway(objects: list[Object]) -> Object:
    return next(one for where, one in containers(objects) if where.endswith("/gateway"))


def gateway_pod(objects: list[Object]) -> Object:
    [spec] = [spec for _, spec in pod_specs(objects) if spec["containers"][0]["name"] == "gateway"]
    return spec


def merged(values: Object, **more: Any) -> Object:
    return {**values, **{name: {**values.get(name, {}), **part} for name, part in more.items()}}


def test_no_values_are_refused_with_what_is_missing(helm: Helm) -> None:
    with pytest.raises(ValueError, match=r"model\.name is missing"):
        helm.render({})


def test_every_values_file_lints(helm: Helm, values_file: Path) -> None:
    assert helm.lint(load(values_file)) == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_values_file_makes_what_kubernetes_takes(helm: Helm, values_file: Path, version: str) -> None:
    objects = helm.render(load(values_file), kube_version=f"v{version}.0")
    check_by_kubernetes(objects, version)


def test_every_custom_resource_is_what_its_project_takes(helm: Helm, custom_resources: Path) -> None:
    objects = [one for path in VALUES_FILES for one in helm.render(load(path))]
    custom = [one for one in objects if one["apiVersion"].startswith(CUSTOM)]
    assert {one["kind"] for one in custom} == {"HTTPRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor"}
    assert wrong_custom_resources(custom_resources, custom) == []


def test_a_wrong_custom_resource_is_seen(custom_resources: Path) -> None:
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a"}}
    spec = {"rules": [{"timeouts": {"request": "long"}}]}
    [wrong] = wrong_custom_resources(custom_resources, [{**route, "spec": spec}])
    assert "timeouts/request" in wrong


def test_pods_keep_to_the_restricted_standard(helm: Helm, values_file: Path) -> None:
    objects = helm.render(load(values_file))
    for where, spec in pod_specs(objects):
        security = spec["securityContext"]
        assert security["runAsNonRoot"], where
        assert security["runAsUser"] > 0, where
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), where
        assert not [volume for volume in spec.get("volumes", ()) if "hostPath" in volume], where
    for where, one in containers(objects):
        security = one["securityContext"]
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, where
        assert one["resources"]["requests"].keys() >= {"cpu", "memory"}, where
        assert one["resources"]["limits"].keys() >= {"cpu", "memory"}, where


def test_every_variable_of_ours_is_a_setting(helm: Helm, values_file: Path) -> None:
    known = Settings.variables() | OTHER_VARIABLES
    for where, one in containers(helm.render(load(values_file))):
        assert {name for name in environment(one) if name.startswith("SEARCHR1_")} <= known, where


def test_what_the_chart_sets_is_taken_by_the_settings(
    helm: Helm, values_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(gateway(helm.render(load(values_file))))
    if "SEARCHR1_DEMO" in variables:
        variables |= {"SEARCHR1_MODEL": "m", "SEARCHR1_RETRIEVER": "index:none"}
    for name, value in variables.items():
        if name.startswith("SEARCHR1_"):
            monkeypatch.setenv(name, value)
    if "SEARCHR1_SECRETS_DIR" in variables:
        monkeypatch.setenv("SEARCHR1_SECRETS_DIR", str(tmp_path))
        if weights := json.loads(variables.get("SEARCHR1_TENANT_WEIGHTS", "{}")):
            keys = {tenant: [f"a-key-of-{tenant}-{'0' * 32}"] for tenant in weights}
            (tmp_path / "SEARCHR1_TENANT_KEYS").write_text(json.dumps(keys), "utf-8")
    for provider in ("TAVILY", "BRAVE"):
        monkeypatch.setenv(f"SEARCHR1_{provider}_API_KEY", "key")
    settings = Settings.load()
    settings.engine_config()
    settings.search()


def test_variables_of_services_are_kept_away(helm: Helm, values_file: Path) -> None:
    # A service named searchr1 would set SEARCHR1_PORT to tcp://…, and one named vllm VLLM_PORT.
    for where, spec in pod_specs(helm.render(load(values_file))):
        assert spec["enableServiceLinks"] is False, where


def test_no_secret_is_written_down(helm: Helm, values_file: Path) -> None:
    objects = helm.render(load(values_file))
    assert [one for one in objects if one["kind"] == "Secret"] == []
    for where, one in containers(objects):
        for name, value in environment(one).items():
            if any(word in name for word in ("KEY", "PASSWORD", "SECRET")) and name != "SEARCHR1_SECRETS_DIR":
                assert "secretKeyRef" in value, (where, name)


@pytest.mark.parametrize(
    ("stopping", "settings", "grace_s", "period_s"),
    [
        ({}, {}, 600, 615),
        ({"preStopSeconds": 5, "drainSeconds": 10}, {"SEARCHR1_MAX_DEADLINE_S": 900}, 900, 925),
        ({"graceSeconds": 30}, {}, 30, 45),
        ({"graceSeconds": 0, "drainSeconds": 0}, {}, 0, 10),
    ],
)
def test_a_pod_may_take_as_long_to_stop_as_its_runs(
    helm: Helm, stopping: Object, settings: Object, grace_s: int, period_s: int
) -> None:
    objects = helm.render(merged(LEAST, gateway={"stopping": stopping, "settings": settings}))
    assert environment(gateway(objects))["SEARCHR1_SHUTDOWN_GRACE_S"] == str(grace_s)
    assert gateway_pod(objects)["terminationGracePeriodSeconds"] == period_s


def test_keys_in_redis_need_no_secret_of_keys(helm: Helm) -> None:
    in_redis = merged(LEAST, gateway={"existingSecret": "", "settings": {"SEARCHR1_KEYS_IN_REDIS": True}})
    objects = helm.render(merged(in_redis, redis={"existingSecret": "redis"}))
    assert environment(gateway(objects))["SEARCHR1_KEYS_IN_REDIS"] == "true"
    forgetful = merged(in_redis, valkey={"enabled": True, "existingSecret": "v", "persistence": {"enabled": False}})
    with pytest.raises(ValueError, match="which forgets them when it restarts"):
        helm.render(forgetful)


def test_operators_may_have_a_port_of_their_own(helm: Helm) -> None:
    monitored = {"monitoring": {"serviceMonitor": {"enabled": True}}, "networkPolicy": {"enabled": True}}
    objects = helm.render(merged(LEAST, gateway={"opsPort": 9100}, **monitored))
    assert environment(gateway(objects))["SEARCHR1_OPS_PORT"] == "9100"
    assert {"name": "ops", "containerPort": 9100} in gateway(objects)["ports"]
    of_kind = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    clients, operators = (of_kind["Service", name]["spec"] for name in ("release-searchr1", "release-searchr1-ops"))
    assert [port["targetPort"] for port in clients["ports"]] == ["http"]
    assert [port["targetPort"] for port in operators["ports"]] == ["ops"]
    assert operators["selector"] == clients["selector"]
    assert "type" not in operators, "whatever the clients' is, this one stays inside"
    monitor = of_kind["ServiceMonitor", "release-searchr1"]["spec"]
    labels = of_kind["Service", "release-searchr1-ops"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    ingress = of_kind["NetworkPolicy", "release-searchr1"]["spec"]["ingress"]
    assert [port["port"] for rule in ingress for port in rule["ports"]] == ["http", "ops"]
    assert "ops" not in str(helm.render(merged(LEAST, **monitored)))


def test_notes_tell_of_runs_that_a_short_grace_cuts(helm: Helm) -> None:
    short = merged(LEAST, gateway={"stopping": {"graceSeconds": 30}})
    assert "below the longest run (600 s)" in helm.notes(short)
    assert "below the longest run" not in helm.notes(LEAST)


def test_vllm_is_started_as_the_gateway_needs_it(helm: Helm) -> None:
    objects = helm.render(load(CHART / "ci" / "everything-values.yaml"), namespace="ns")
    [vllm] = [one for where, one in containers(objects) if where.endswith("/vllm")]
    assert vllm["command"] == ["vllm", "serve"]
    assert vllm["args"] == [
        "org/model-7b",
        "--served-model-name=model-7b",
        "--host=0.0.0.0",
        "--port=8000",
        "--max-model-len=8692",
        "--dtype=auto",
        "--enable-prompt-tokens-details",
        "--scheduling-policy=priority",
        "--shutdown-timeout=30",
        "--gpu-memory-utilization=0.9",
        "--tensor-parallel-size=2",
        "--data-parallel-size=2",
        "--kv-cache-dtype=fp8",
    ]
    assert vllm["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in vllm["volumeMounts"]
    variables = environment(gateway(objects))
    assert variables["SEARCHR1_MODEL"] == "model-7b"
    assert variables["SEARCHR1_ENGINE_URL"] == "k8s://ns/answers-vllm:http"
    assert variables["SEARCHR1_ENGINE_PRIORITY"] == "true"


def test_the_gateway_finds_replicas_by_a_headless_service(helm: Helm) -> None:
    objects = by_key(helm.render(load(CHART / "ci" / "cpu-values.yaml"), namespace="ns"))
    service = objects["Service/release-searchr1-vllm"]["spec"]
    assert service["clusterIP"] == "None"
    variables = environment(gateway(list(objects.values())))
    assert variables["SEARCHR1_ENGINE_URL"] == "dns+http://release-searchr1-vllm.ns.svc:8000"
    stateful = objects["StatefulSet/release-searchr1-vllm"]["spec"]
    assert stateful["serviceName"] == "release-searchr1-vllm"
    assert stateful["template"]["metadata"]["labels"].items() >= service["selector"].items()


@pytest.mark.parametrize(("discovery", "asks"), [("dns", False), ("kubernetes", True)])
def test_the_api_may_be_asked_only_where_it_is(helm: Helm, discovery: str, asks: bool) -> None:
    values = merged(LEAST, engine={"url": "", "discovery": discovery, "vllm": {"enabled": True}})
    objects = helm.render(values)
    assert gateway_pod(objects)["automountServiceAccountToken"] is asks
    roles = [one for one in objects if one["kind"] == "Role"]
    assert [one["rules"] for one in roles] == (
        [[{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}]] if asks else []
    )


@pytest.mark.parametrize("scaler", ["hpa", "keda"])
def test_a_scaler_alone_says_how_many_pods_there_are(helm: Helm, scaler: str) -> None:
    keda = {"serverAddress": "http://prometheus:9090"}
    scaling = {scaler: {"enabled": True, **(keda if scaler == "keda" else {})}}
    objects = helm.render({**LEAST, "autoscaling": scaling})
    [deployment] = [one for one in objects if one["kind"] == "Deployment"]
    assert "replicas" not in deployment["spec"]
    kinds = {one["kind"] for one in objects}
    assert kinds & {"HorizontalPodAutoscaler", "ScaledObject"} == {
        {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}[scaler]
    }


def test_the_network_policy_lets_through_what_is_configured(helm: Helm) -> None:
    values = merged(
        LEAST,
        engine={"url": "http://vllm:8100,https://other.example.org"},
        search={"providers": "searxng:http://searx:8080,tavily:"},
        redis={"existingSecret": "redis", "port": 6380},
        networkPolicy={"egressPorts": [443]},
    )
    policy = by_key(helm.render(values))["NetworkPolicy/release-searchr1"]["spec"]
    ports = [port["port"] for port in policy["egress"][1]["ports"]]
    assert ports == [443, 8100, 8080, 6380]


def test_the_retriever_reaches_its_own_provider(helm: Helm) -> None:
    provider = "opensearch:http://search:9200/wiki,elasticsearch:https://other/wiki"
    retriever = {"enabled": True, "open": True, "provider": provider, "index": {"existingClaim": "none"}}
    policy = by_key(helm.render(merged(LEAST, retriever=retriever)))["NetworkPolicy/release-searchr1-retriever"]
    assert [port["port"] for port in policy["spec"]["egress"][1]["ports"]] == [9200, 443]


def test_every_part_has_a_policy(helm: Helm, values_file: Path) -> None:
    values = load(values_file)
    objects = helm.render(values)
    workloads = [one for one in objects if one["kind"] in ("Deployment", "StatefulSet")]
    policies = [one["spec"]["podSelector"]["matchLabels"] for one in objects if one["kind"] == "NetworkPolicy"]
    expected = [one["spec"]["selector"]["matchLabels"] for one in workloads]
    enabled = values.get("networkPolicy", {}).get("enabled", True)
    assert sorted(map(str, policies)) == (sorted(map(str, expected)) if enabled else [])


def test_requests_outlast_the_longest_run(helm: Helm) -> None:
    objects = by_key(helm.render(load(CHART / "ci" / "everything-values.yaml")))
    [rule] = objects["HTTPRoute/answers"]["spec"]["rules"]
    assert rule["timeouts"] == {"request": "930s", "backendRequest": "930s"}
    annotations = objects["Ingress/answers"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "930"


def test_what_is_scraped_is_a_service(helm: Helm) -> None:
    objects = helm.render(load(CHART / "ci" / "everything-values.yaml"))
    services = [one for one in objects if one["kind"] == "Service"]
    monitors = [one for one in objects if one["kind"] == "ServiceMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [one for one in services if one["metadata"]["labels"].items() >= wanted]
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_labels_of_pods_are_selected_by_their_services(helm: Helm, values_file: Path) -> None:
    objects = helm.render(load(values_file))
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in objects if "template" in one.get("spec", {})]
    for service in (one for one in objects if one["kind"] == "Service"):
        selected = [labels for labels in pods if labels.items() >= service["spec"]["selector"].items()]
        assert len(selected) == 1, service["metadata"]["name"]


def test_alerts_lead_to_where_the_runbook_is_kept(helm: Helm) -> None:
    url = "https://runbooks.example.org/searchr1"
    monitoring = {"monitoring": {"prometheusRule": {"enabled": True, "runbookUrl": url}}}
    [rule] = [one for one in helm.render(merged(LEAST, **monitoring)) if one["kind"] == "PrometheusRule"]
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    assert {one["annotations"]["runbook_url"] for one in alerts} == {f"{url}#{one['alert'].lower()}" for one in alerts}
