{{/* Labels that select a component's pods: `include "ferrolb.selector" "controller"`. A namespace has
one FerroLB, so the release is not among them. */}}
{{- define "ferrolb.selector" -}}
app.kubernetes.io/name: ferrolb
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* Helm's own labels. */}}
{{- define "ferrolb.release" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Metadata of a namespaced object, from component and name:
`include "ferrolb.metadata" (list . "controller" "speaker-bgp")`. */}}
{{- define "ferrolb.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "ferrolb.selector" (index . 1) | nindent 2 }}
  {{- include "ferrolb.release" $root | nindent 2 }}
{{- end }}

{{/* Name of a ClusterRole and of its binding: `include "ferrolb.clusterRole" (list . "speaker")`. */}}
{{- define "ferrolb.clusterRole" -}}
{{ (index . 0).Release.Namespace }}:ferrolb-{{ index . 1 }}
{{- end }}

{{/* Their metadata, from component and name:
`include "ferrolb.clusterMetadata" (list . "controller" "node-failure")`. */}}
{{- define "ferrolb.clusterMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "ferrolb.clusterRole" (list $root (index . 2)) }}
labels:
  {{- include "ferrolb.selector" (index . 1) | nindent 2 }}
  {{- include "ferrolb.release" $root | nindent 2 }}
{{- end }}

{{/* API group of the custom resources that FerroLB reads. */}}
{{- define "ferrolb.group" -}}
{{- if .Values.metallbNamespace }}metallb.io{{ else }}ferrolb.io{{ end -}}
{{- end }}

{{/* Name of a Role in the namespace of these custom resources:
`include "ferrolb.role" (list . "speaker-bgp")`. MetalLB has a Role `controller` in its own namespace. */}}
{{- define "ferrolb.role" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.metallbNamespace }}ferrolb-{{ end }}{{ index . 1 -}}
{{- end }}

{{/* Metadata of such a Role and of its binding:
`include "ferrolb.roleMetadata" (list . "speaker" "speaker-bgp")`. */}}
{{- define "ferrolb.roleMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "ferrolb.role" (list $root (index . 2)) }}
namespace: {{ $root.Values.metallbNamespace | default $root.Release.Namespace }}
labels:
  {{- include "ferrolb.selector" (index . 1) | nindent 2 }}
  {{- include "ferrolb.release" $root | nindent 2 }}
{{- end }}

{{/* Role and ServiceAccount of a binding:
`include "ferrolb.binding" (list . "Role" "speaker-bgp" "speaker")`. */}}
{{- define "ferrolb.binding" -}}
{{- $root := index . 0 -}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ index . 1 }}, name: {{ index . 2 | quote }}}
subjects:
  - {kind: ServiceAccount, name: {{ index . 3 }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}

{{/* Labels and annotations of a component's pods. */}}
{{- define "ferrolb.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
labels:
  {{- include "ferrolb.selector" $component | nindent 2 }}
  {{- with $values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := dict -}}
{{- if $root.Values.prometheus.scrapeAnnotations -}}
{{- $annotations = dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString $root.Values.prometheus.metricsPort) -}}
{{- end -}}
{{- with merge (dict) ($values.podAnnotations | default dict) $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Pod fields that are the same for both components. */}}
{{- define "ferrolb.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
serviceAccountName: {{ $component }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
nodeSelector:
  {{- merge (dict) ($values.nodeSelector | default dict) (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Name of an image: with its digest, if the values have one. */}}
{{- define "ferrolb.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- if $image.digest }}{{ $name = printf "%s@%s" $name $image.digest }}{{ end -}}
{{- $name | quote -}}
{{- end }}

{{/* Container fields that are the same for both components. The speaker's own environment variables
come between the first and the last. */}}
{{- define "ferrolb.container" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
{{- if eq (int $root.Values.probePort) (int $root.Values.prometheus.metricsPort) }}
{{- fail "probePort and prometheus.metricsPort are the same port: give them two" }}
{{- end }}
name: {{ $component }}
image: {{ include "ferrolb.image" (list $root $values.image) }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args:
  - --log-format=json
  {{- if ne $values.logLevel "info" }}
  - --log-level={{ $values.logLevel }}
  {{- end }}
  {{- if eq $component "controller" }}
  {{- if ne $values.nodeFailureEndpoints "services" }}
  - --node-failure-endpoints={{ $values.nodeFailureEndpoints }}
  {{- end }}
  {{- end }}
  {{- if $values.ignoreExcludeLB }}
  - --ignore-exclude-label=true
  {{- end }}
  {{- with $values.excludeInterfaces }}
  - {{ printf "--exclude-interfaces=%s" (join "," .) | quote }}
  {{- end }}
  {{- range $values.extraArgs }}
  - {{ . | quote }}
  {{- end }}
ports:
  - {name: admin, containerPort: {{ $root.Values.prometheus.metricsPort }}, protocol: TCP}
  - {name: probes, containerPort: {{ $root.Values.probePort }}, protocol: TCP}
{{- /* Speakers use the node's network, where other hosts can reach every address but loopback. */}}
{{- $loopback := eq $component "speaker" }}
{{- $host := ternary "host: 127.0.0.1, " "" $loopback }}
livenessProbe:
  httpGet: { {{- $host -}} path: /healthz, port: probes}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: { {{- $host -}} path: /readyz, port: probes}
  periodSeconds: 5
  timeoutSeconds: 5
resources:
  {{- toYaml $values.resources | nindent 2 }}
env:
  {{- with $root.Values.metallbNamespace }}
  - {name: FERROLB_NAMESPACE, value: {{ . | quote }}}
  - {name: FERROLB_API_GROUP, value: {{ include "ferrolb.group" $root }}}
  {{- else }}
  - name: FERROLB_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  {{- end }}
  {{- with $root.Values.loadBalancerClass }}
  - {name: FERROLB_LOAD_BALANCER_CLASS, value: {{ . | quote }}}
  - {name: FERROLB_DEFAULT_IMPLEMENTATION, value: "false"}
  {{- end }}
  {{- if ne (int $root.Values.prometheus.metricsPort) 7472 }}
  - {name: FERROLB_ADMIN_LISTEN, value: "0.0.0.0:{{ $root.Values.prometheus.metricsPort }}"}
  {{- end }}
  {{- if not (and $loopback (eq (int $root.Values.probePort) 7474)) }}
  - {name: FERROLB_PROBE_LISTEN, value: "{{ ternary "127.0.0.1" "0.0.0.0" $loopback }}:{{ $root.Values.probePort }}"}
  {{- end }}
  {{- if eq $component "controller" }}
  - name: FERROLB_NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  {{- end }}
{{- end }}

{{- /* Whether the controller may mark pods. Without SpeakerStatuses it cannot. */ -}}
{{- define "ferrolb.marksPods" -}}
{{- and (ne .Values.controller.nodeFailureEndpoints "off") (not .Values.metallbNamespace) -}}
{{- end }}
