{{- define "searchr1.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "searchr1.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "searchr1.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "searchr1.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which a component's pods are selected. Takes (list context component). */}}
{{- define "searchr1.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ include "searchr1.name" $context }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component. Takes (list context component). */}}
{{- define "searchr1.labels" -}}
{{- $context := index . 0 -}}
{{ include "searchr1.selector" . }}
app.kubernetes.io/part-of: searchr1
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image's reference. Takes (list image default-tag). */}}
{{- define "searchr1.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 1) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The gateway's image. */}}
{{- define "searchr1.ownImage" -}}
{{ include "searchr1.image" (list .Values.image .Chart.AppVersion) }}
{{- end -}}

{{- define "searchr1.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where pods run, of a component's values. */}}
{{- define "searchr1.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The security context of a pod, by its user. */}}
{{- define "searchr1.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The security context of every container. */}}
{{- define "searchr1.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Variables of a map, sorted by name. Lists and objects are JSON. */}}
{{- define "searchr1.env" -}}
{{- range $name, $value := . }}
{{- $isJson := or (kindIs "map" $value) (kindIs "slice" $value) }}
- name: {{ $name }}
  value: {{ ternary (toJson $value) (include "searchr1.scalar" $value) $isJson | quote }}
{{- end }}
{{- end -}}

{{/* A number as it was written: Helm reads all as floating ones, and large ones would get an exponent. */}}
{{- define "searchr1.scalar" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{- define "searchr1.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "searchr1.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* True where the gateway asks the cluster's API for the replicas of its engine. */}}
{{- define "searchr1.asksApi" -}}
{{- if and .Values.engine.vllm.enabled (eq .Values.engine.discovery "kubernetes") -}}true{{- end -}}
{{- end -}}

{{/* The name under which the model is served by this chart's engine. */}}
{{- define "searchr1.servedName" -}}
{{- default (.Values.model.name | trimSuffix "/" | base) .Values.model.servedName -}}
{{- end -}}

{{- define "searchr1.engineUrl" -}}
{{- if .Values.engine.url -}}
{{- .Values.engine.url -}}
{{- else if eq .Values.engine.discovery "kubernetes" -}}
{{- printf "k8s://%s/%s-vllm:http" .Release.Namespace (include "searchr1.fullname" .) -}}
{{- else -}}
{{- printf "dns+http://%s-vllm.%s.svc:8000" (include "searchr1.fullname" .) .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{- define "searchr1.providers" -}}
{{- if .Values.search.providers -}}
{{- .Values.search.providers -}}
{{- else -}}
{{- printf "http://%s-retriever.%s.svc:8001/retrieve" (include "searchr1.fullname" .) .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* Seconds of the longest run. */}}
{{- define "searchr1.longestRun" -}}
{{- get .Values.gateway.settings "SEARCHR1_MAX_DEADLINE_S" | default 600 | ceil | int -}}
{{- end -}}

{{/* Seconds that running requests get to end. */}}
{{- define "searchr1.grace" -}}
{{- if kindIs "invalid" .Values.gateway.stopping.graceSeconds -}}
{{- include "searchr1.longestRun" . -}}
{{- else -}}
{{- int .Values.gateway.stopping.graceSeconds -}}
{{- end -}}
{{- end -}}

{{/* Seconds after which a proxy may cut a request: the longest run, and some. */}}
{{- define "searchr1.requestTimeout" -}}
{{- add (include "searchr1.longestRun" .) 30 -}}
{{- end -}}

{{/* Tokens of the longest request to the engine. */}}
{{- define "searchr1.maxModelLen" -}}
{{- $settings := .Values.gateway.settings -}}
{{- add (get $settings "SEARCHR1_MAX_CONTEXT_TOKENS" | default 4096 | int) (get $settings "SEARCHR1_MAX_COMPLETION_TOKENS" | default 500 | int) -}}
{{- end -}}

{{/* Ports of all http and https addresses in a text, as a JSON list. */}}
{{- define "searchr1.ports" -}}
{{- $ports := list -}}
{{- range regexFindAll "https?://[^,?]+" . -1 -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" -}}
{{- $ports = append $ports (default (ternary 443 80 (hasPrefix "https" .)) $port | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* Ports outside of the chart that the gateway needs, as a JSON list. */}}
{{- define "searchr1.outsidePorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.egressPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- range include "searchr1.ports" (printf "%s,%s" .Values.engine.url .Values.search.providers) | fromJsonArray }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- if .Values.redis.existingSecret }}{{ $ports = append $ports (int .Values.redis.port) }}{{ end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
