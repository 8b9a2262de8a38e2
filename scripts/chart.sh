#!/usr/bin/env bash
# Checks the chart: lint, every preset and every optional part, the schemas of all supported versions of Kubernetes,
# and texts that the chart must not contain.
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHART=$ROOT/helm/meridian
VALIDATE_VERSION=1.37.0
IMAGE=(--set image.repository=registry.example.com/meridian)
ALL=(--set relay.enabled=true --set relay.ciliumPort=4244 --set hubble.nodeNameSuffix=-meridian --set clusterName=prod.eu
    --set-json 'hubble.dynamicMetrics={"metrics":[{"name":"flow","excludeFilters":[{"verdict":["DROPPED"]}]}]}'
    --set-json 'hubble.flowLogs=[{"name":"all","filePath":"stdout"}]'
    --set podMonitor.enabled=true --set prometheusRule.enabled=true --set prometheusRule.recording=true
    --set prometheusRule.usdPerGb.crossZone=0.02 --set-json prometheusRule.usdPerGb.crossRegion=0.02
    --set prometheusRule.monthlyBudget=1000 --set dashboards.enabled=true --set dashboards.namespace=monitoring
    --set dashboards.annotations.grafana_folder=Meridian
    --set page.tokenSecret=meridian-page
    --set agent.ciliumStateDir=/var/run/cilium/state --set controller.priorityClassName=system-cluster-critical
    --set-json 'staticTable={"zones":[{"name":"eu-1b","region":"eu-1"}],"external":[{"name":"db","cidr":"10.9.8.0/24","zone":"eu-1b","class":"database"}]}'
    --set-json 'controller.prices={"discount":{"aws":"10%"},"rules":[{"id":"ours","from":"dc","sender":"0.01"}]}'
    --set otlp.endpoint=https://otel.example.com:4317 --set otlp.caConfigMap=otel-ca --set otlp.headersSecret=otel-headers
    --set-json 'controller.budgets=[{"namespace":"shop","usd_per_month":"500"}]' --set-json 'controller.history.labels=["team"]'
    --set-json 'image.pullSecrets=[{"name":"pull"}]' --set podMonitor.labels.release=prometheus
    --set agent.seccompProfile.type=Localhost --set agent.seccompProfile.localhostProfile=meridian-agent.json
    --set-json 'networkPolicies.clients=[{"namespaceSelector":{}}]'
    --set-json 'networkPolicies.scrapers=[{"namespaceSelector":{"matchLabels":{"team":"monitoring"}}}]'
    --set-json 'agent.extraEnv=[{"name":"A","value":"b"}]' --set agent.podLabels.team=net)
NONE=(--set tls.secretName=given --set relay.enabled=true --set hubble.tls.serverSecretName=given-too
    --set hubble.tls.relaySecretName=given-as-well
    --set controller.replicas=1 --set uninstall.enabled=false --set networkPolicies.enabled=false --set controller.history.enabled=false
    --set agent.priorityClass.create=false --set agent.priorityClass.name= --set image.digest="sha256:$(printf '%064d' 0)")

validate=$CACHE/kubernetes-validate-$VALIDATE_VERSION
if [ ! -x "$validate/bin/kubernetes-validate" ]; then
    need_packages python3-venv
    python3 -m venv "$validate"
    "$validate/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$VALIDATE_VERSION"
fi
rendered=$(mktemp -d)
trap 'rm -r "$rendered"' EXIT

# render HELM NAME ARGUMENT...: renders the chart into a file of this name, with its hooks.
render() {
    local helm=$1 name=$2
    shift 2
    "$helm" template m "$CHART" --namespace meridian "${IMAGE[@]}" "$@" >"$rendered/$name.yaml"
}

# refused HELM WORDS ARGUMENT...: fails unless helm refuses these values with an error that contains these words.
refused() {
    local helm=$1 words=$2 output
    shift 2
    if output=$("$helm" template m "$CHART" "$@" 2>&1); then
        die "helm takes $*"
    fi
    grep -q "$words" <<<"$output" || die "helm refuses $* with other words: $output"
}

for version in 3 4; do
    helm=$("$ROOT/scripts/helm.sh" "$version")
    "$helm" lint --strict --quiet "$CHART" "${IMAGE[@]}" >&2
    render "$helm" "$version-default"
    render "$helm" "$version-all" "${ALL[@]}"
    render "$helm" "$version-none" "${NONE[@]}"
    render "$helm" "$version-api" --set controller.listenInCluster=true --set hubble.tls.serverSecretName=given
    render "$helm" "$version-clear" --set relay.enabled=true --set hubble.tls.enabled=false
    for preset in "$CHART"/presets/*.yaml; do
        name=$(basename "$preset" .yaml)
        render "$helm" "$version-$name" --values "$preset"
        render "$helm" "$version-$name-all" --values "$preset" "${ALL[@]}"
    done
    refused "$helm" "hoook" "${IMAGE[@]}" --set agent.hoook=auto
    refused "$helm" "hook" "${IMAGE[@]}" --set agent.hook=xdp
    refused "$helm" "image.repository: name the image"
    refused "$helm" "prometheusRule.monthlyBudget: the alert needs" "${IMAGE[@]}" --set prometheusRule.enabled=true \
        --set prometheusRule.monthlyBudget=5
    refused "$helm" "prometheusRule.enabled: set alerts" "${IMAGE[@]}" --set prometheusRule.enabled=true \
        --set prometheusRule.alerts=false
    refused "$helm" "otlp" "${IMAGE[@]}" --set otlp.endpoint=otel-collector
    refused "$helm" "crossZone" "${IMAGE[@]}" --set prometheusRule.usdPerGb.crossZone=cheap
    refused "$helm" "hubble.tls.relaySecretName: name" "${IMAGE[@]}" --set relay.enabled=true \
        --set hubble.tls.serverSecretName=given
done

for file in "$rendered"/3-*.yaml; do
    # Everything except the certificate, which each helm makes anew.
    diff <(sed -E 's/(ca.crt|tls.crt|tls.key): .*/\1/' "$file") \
        <(sed -E 's/(ca.crt|tls.crt|tls.key): .*/\1/' "${file/"$rendered/3-"/"$rendered/4-"}") >&2 ||
        die "helm 3 and helm 4 make different things of $(basename "$file")"
done
# Every agent's DaemonSet leaves out nodes where its pods would wait for ever, also beside an affinity of the user's.
for file in "$rendered"/*.yaml; do
    grep -q 'key: eks.amazonaws.com/compute-type' "$file" || die "agents go to Fargate's nodes in $(basename "$file")"
    grep -q -- '--agentless-labels=eks.amazonaws.com/compute-type=fargate,type=virtual-kubelet,type=kwok' "$file" ||
        die "the controller waits for agents on Fargate's nodes in $(basename "$file")"
done
terms='{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
    {"matchExpressions":[{"key":"a","operator":"Exists"}]},{"matchExpressions":[{"key":"b","operator":"Exists"}]}]}}}'
render "$helm" affinity --set-json "agent.affinity=$terms"
[ "$(grep -c 'key: eks.amazonaws.com/compute-type' "$rendered/affinity.yaml")" = 2 ] ||
    die "a term of the user's affinity takes Fargate's nodes in"
rm "$rendered/affinity.yaml"
render "$helm" everywhere --set-json 'agent.nodesWithout={"type":null,"eks.amazonaws.com/compute-type":null}'
if grep -q 'compute-type' "$rendered/everywhere.yaml" || ! grep -q -- '--agentless-labels=off' "$rendered/everywhere.yaml"; then
    die "nodes are left out that were not to be"
fi
rm "$rendered/everywhere.yaml"
# No agent opens a port for flows that nobody beyond its node needs, and a server's certificate is no client's.
grep -q 'listen: "off"' "$rendered/4-default.yaml" || die "an agent listens on loopback by default"
grep -q 'listen: ":4344"' "$rendered/4-all.yaml" || die "the relay reaches no agent"
certificates() {
    awk -v secret="  name: $1" '$0 == secret {on = 1} on && / (ca|tls).crt: / {print $1, $2} /^---/ {on = 0}' \
        "$rendered/4-all.yaml" | awk -v key="$2:" '$1 == key {print $2}' | base64 -d
}
certificates meridian-hubble-tls tls.crt >"$rendered/server" && certificates meridian-hubble-tls ca.crt >"$rendered/clients"
certificates meridian-relay-tls tls.crt >"$rendered/client" && certificates meridian-relay-tls ca.crt >"$rendered/servers"
openssl verify -CAfile "$rendered/servers" "$rendered/server" >/dev/null || die "the relay refuses the agents"
openssl verify -CAfile "$rendered/clients" "$rendered/client" >/dev/null || die "the agents refuse the relay"
if openssl verify -CAfile "$rendered/clients" "$rendered/server" >/dev/null 2>&1; then
    die "a server's certificate is good for a client"
fi
if found=$(grep -nE 'privileged: true|hostPID|hostIPC|:latest|SYS_ADMIN|allowPrivilegeEscalation: true' "$rendered"/*.yaml); then
    die "this must not be in the chart: $found"
fi
# The rules and the dashboards are in the chart as they are in its files.
rules_and_dashboards() {
    "$validate/bin/python" - "$CHART/files" "$rendered/4-all.yaml" <<'PYTHON'
import json, pathlib, sys, yaml

files, objects = pathlib.Path(sys.argv[1]), list(yaml.safe_load_all(open(sys.argv[2])))
groups = next(o for o in objects if o and o["kind"] == "PrometheusRule")["spec"]["groups"]
constants = [group for group in groups if group["name"] == "meridian-constants"]
rules = {rule["record"] + str(rule.get("labels", "")): rule["expr"] for rule in constants[0]["rules"]}
assert rules == {
    "meridian:price:usd_per_gb{'locality': 'cross-zone'}": "vector(0.02)",
    "meridian:price:usd_per_gb{'locality': 'cross-region'}": "vector(0.02)",
    "meridian:budget:usd_per_month": "vector(1000)",
}, rules
written = [yaml.safe_load((files / name).read_text())["groups"] for name in ("alerts.yaml", "recording.yaml")]
assert [group for group in groups if group not in constants] == sum(written, []), "the rules are others"
maps = [o for o in objects if o and o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
for item in maps:
    assert item["metadata"]["namespace"] == "monitoring", item["metadata"]
    assert item["metadata"]["annotations"] == {"grafana_folder": "Meridian"}, item["metadata"]
rendered = {name: json.loads(text) for item in maps for name, text in item["data"].items()}
kept = {f"meridian-{path.name}": json.loads(path.read_text()) for path in (files / "dashboards").glob("*.json")}
assert len(kept) == 3 and rendered == kept, "the dashboards are others"
PYTHON
}
rules_and_dashboards || die "rules and dashboards are not rendered as they are"
for kubernetes in 1.28 1.29 1.30 1.31 1.32 1.33 1.34 1.35 1.36; do
    # Both versions of helm render the same.
    output=$("$validate/bin/kubernetes-validate" --strict --quiet --kubernetes-version "$kubernetes" "$rendered"/4-*.yaml 2>&1) ||
        die "not Kubernetes $kubernetes: $output"
done
say "the chart is as Kubernetes 1.28 to 1.36 has it: $(find "$rendered" -name '*.yaml' | wc -l) ways"
