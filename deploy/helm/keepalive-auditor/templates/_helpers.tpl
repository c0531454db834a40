{{- define "keepalive-auditor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keepalive-auditor.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keepalive-auditor.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "keepalive-auditor.selectorLabels" . }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keepalive-auditor.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "keepalive-auditor.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "keepalive-auditor.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* "annotation", "field" or "": how AppArmor is switched off; only reading other processes' namespaces takes it. */}}
{{- define "keepalive-auditor.appArmor" -}}
{{- if eq .Values.privileges "standard" -}}
{{- if eq .Values.appArmor "auto" -}}
{{- ternary "field" "annotation" (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- else if ne .Values.appArmor "none" -}}
{{- .Values.appArmor -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What PodMonitor and ServiceMonitor say of the endpoint. */}}
{{- define "keepalive-auditor.endpoint" -}}
- port: metrics
  path: /metrics
  {{- if .Values.web.tls }}
  scheme: https
  {{- end }}
  {{- with .Values.monitor.tlsConfig }}
  tlsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.monitor.basicAuth }}
  basicAuth:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  interval: {{ .Values.monitor.interval }}
  scrapeTimeout: {{ .Values.monitor.scrapeTimeout }}
  # The agent's namespace, pod and container labels name the connection's owner, not the agent.
  honorLabels: true
  relabelings:
    - action: replace
      sourceLabels: [__meta_kubernetes_pod_node_name]
      targetLabel: node
    {{- with .Values.monitor.relabelings }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.monitor.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
