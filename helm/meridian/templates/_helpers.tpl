{{- define "meridian.labels" -}}
app.kubernetes.io/name: meridian
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What a part is selected by: (list . "agent"). */}}
{{- define "meridian.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: meridian
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "meridian.image" -}}
{{- $repository := required "image.repository: name the image that you have pushed, for example --set image.repository=registry.example.com/meridian" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "meridian.tlsSecret" -}}
{{ .Values.tls.secretName | default "meridian-controller-tls" }}
{{- end }}

{{/* Whether anything of Hubble's is served beyond a node or a pod, and with TLS. */}}
{{- define "meridian.hubbleTls" -}}
{{- if and .Values.hubble.tls.enabled (or (include "meridian.flowsBeyondNode" .) (include "meridian.apiInCluster" .)) -}}true{{- end -}}
{{- end }}

{{- define "meridian.hubbleSecret" -}}
{{ .Values.hubble.tls.serverSecretName | default "meridian-hubble-tls" }}
{{- end }}

{{- define "meridian.relaySecret" -}}
{{- if .Values.hubble.tls.serverSecretName -}}
{{ required "hubble.tls.relaySecretName: name the relay's certificate, too; it is of the same authority as that of hubble.tls.serverSecretName" .Values.hubble.tls.relaySecretName }}
{{- else -}}
{{ .Values.hubble.tls.relaySecretName | default "meridian-relay-tls" }}
{{- end -}}
{{- end }}

{{/* The certificate of a client in a controller's pod: the relay's, or the server's where that is the only one given. */}}
{{- define "meridian.clientSecret" -}}
{{- if and .Values.hubble.tls.serverSecretName (not .Values.hubble.tls.relaySecretName) -}}
{{ .Values.hubble.tls.serverSecretName }}
{{- else -}}
{{ include "meridian.relaySecret" . }}
{{- end -}}
{{- end }}

{{/* The token that agents and replicas show each other. */}}
{{- define "meridian.tokenVolume" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {path: token, audience: meridian-controller, expirationSeconds: 3600}
{{- end }}

{{- define "meridian.caVolume" -}}
- name: ca
  secret:
    secretName: {{ include "meridian.tlsSecret" . }}
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}

{{/* Of pods that need no privilege at all. */}}
{{- define "meridian.noPrivilege" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "meridian.containerNoPrivilege" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "meridian.flowsBeyondNode" -}}
{{- if or .Values.agent.hubble.listenOnNode .Values.relay.enabled -}}true{{- end -}}
{{- end }}

{{- define "meridian.apiInCluster" -}}
{{- if or .Values.controller.listenInCluster .Values.relay.enabled -}}true{{- end -}}
{{- end }}

{{/* The agents' affinity: what was asked for, without the nodes that can have none. */}}
{{- define "meridian.agentAffinity" -}}
{{- $without := list -}}
{{- range $key, $values := .Values.agent.nodesWithout -}}
{{- $without = append $without (dict "key" $key "operator" "NotIn" "values" $values) -}}
{{- end -}}
{{- $affinity := deepCopy .Values.agent.affinity -}}
{{- if $without -}}
{{- $node := get $affinity "nodeAffinity" | default dict -}}
{{- $required := get $node "requiredDuringSchedulingIgnoredDuringExecution" | default dict -}}
{{- $terms := list -}}
{{- range get $required "nodeSelectorTerms" | default (list dict) -}}
{{- $terms = append $terms (set (deepCopy .) "matchExpressions" (concat (get . "matchExpressions" | default list) $without)) -}}
{{- end -}}
{{- $required = set $required "nodeSelectorTerms" $terms -}}
{{- $affinity = set $affinity "nodeAffinity" (set $node "requiredDuringSchedulingIgnoredDuringExecution" $required) -}}
{{- end -}}
{{- with $affinity -}}{{ toYaml . }}{{- end -}}
{{- end }}

{{/* A map of labels as KEY=VALUE, with commas. */}}
{{- define "meridian.labelList" -}}
{{- $labels := list -}}
{{- range $key, $values := . -}}
{{- range (kindIs "slice" $values) | ternary $values (list $values) -}}
{{- $labels = append $labels (printf "%s=%v" $key .) -}}
{{- end -}}
{{- end -}}
{{ join "," $labels }}
{{- end }}

{{/* The seconds of a time like 1h30m. */}}
{{- define "meridian.seconds" -}}
{{- $seconds := 0 -}}
{{- range $unit, $of := dict "h" 3600 "m" 60 "s" 1 -}}
{{- with regexFind (printf "[0-9]+%s" $unit) $ -}}
{{- $seconds = add $seconds (mul $of (trimSuffix $unit . | int)) -}}
{{- end -}}
{{- end -}}
{{ $seconds }}
{{- end }}

{{/* The group of constants that the recording rules use: the prices and the budget. */}}
{{- define "meridian.constants" -}}
{{- $rule := .Values.prometheusRule -}}
{{- $prices := dict "cross-zone" $rule.usdPerGb.crossZone "cross-region" $rule.usdPerGb.crossRegion -}}
- name: meridian-constants
  rules:
    {{- range $locality, $price := $prices }}
    {{- if not (kindIs "invalid" $price) }}
    - record: meridian:price:usd_per_gb
      expr: vector({{ $price }})
      labels: {locality: {{ $locality }}}
    {{- end }}
    {{- end }}
    {{- if not (kindIs "invalid" $rule.monthlyBudget) }}
    - record: meridian:budget:usd_per_month
      expr: vector({{ $rule.monthlyBudget }})
    {{- end }}
{{- end }}

{{/* Whether there is any constant. */}}
{{- define "meridian.hasConstants" -}}
{{- $rule := .Values.prometheusRule -}}
{{- $priced := or (not (kindIs "invalid" $rule.usdPerGb.crossZone)) (not (kindIs "invalid" $rule.usdPerGb.crossRegion)) -}}
{{- if not (kindIs "invalid" $rule.monthlyBudget) -}}
{{- if not (and $priced $rule.recording) -}}
{{- fail "prometheusRule.monthlyBudget: the alert needs prometheusRule.recording=true and a price in prometheusRule.usdPerGb" -}}
{{- end -}}
{{- end -}}
{{- if $priced -}}true{{- end -}}
{{- end }}
