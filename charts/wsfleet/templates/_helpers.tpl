{{- define "wsfleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "wsfleet.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "wsfleet.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "wsfleet.selectorLabels" -}}
app.kubernetes.io/name: wsfleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "wsfleet.labels" -}}
{{ include "wsfleet.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: wsfleet
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "wsfleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "wsfleet.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "wsfleet.leaseName" -}}
{{- default (include "wsfleet.fullname" .) .Values.leaderElection.leaseName }}
{{- end }}

{{/* Reference of an image: (dict "image" {repository, tag, digest} "root" $) */}}
{{- define "wsfleet.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}
