{{- define "beamlit.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "beamlit.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "beamlit.metadata" -}}
name: {{ include "beamlit.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "beamlit.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  app.kubernetes.io/part-of: beamlit-controller
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "beamlit.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "beamlit.credentialsSecret" -}}
{{- $oauth := .Values.config.defaultRemoteBackend.authConfig.oauthConfig -}}
{{- if $oauth.existingSecret -}}
{{ $oauth.existingSecret }}
{{- else if or $oauth.clientId $oauth.clientSecret -}}
{{ include "beamlit.fullname" . }}-remote
{{- end -}}
{{- end -}}

{{- define "beamlit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "beamlit.pod" -}}
{{- $values := index .root.Values .component -}}
metadata:
  labels:
    {{- include "beamlit.selector" . | nindent 4 }}
    app.kubernetes.io/part-of: beamlit-controller
    {{- with .root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "beamlit.config" .root | sha256sum }}
    {{- with .checksum }}
    checksum/tls: {{ . }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "beamlit.fullname" .root }}-{{ .component }}
  automountServiceAccountToken: {{ eq .component "gateway" }}
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "beamlit.config" -}}
{{- $config := .Values.config -}}
{{- $remote := omit $config.defaultRemoteBackend "authConfig" -}}
{{- $oauth := $config.defaultRemoteBackend.authConfig.oauthConfig -}}
{{- $secret := include "beamlit.credentialsSecret" . -}}
{{- $files := dict -}}
{{- if $secret -}}
{{- $files = dict "clientIdFile" "/etc/beamlit/credentials/clientId" "clientSecretFile" "/etc/beamlit/credentials/clientSecret" -}}
{{- end -}}
{{- $auth := dict "type" $config.defaultRemoteBackend.authConfig.type "oauthConfig" (merge $files (dict "tokenUrl" $oauth.tokenUrl)) -}}
{{- $_ := set $remote "authConfig" (ternary $auth nil (ne $secret "")) -}}
{{- $gateway := merge (dict "lameDuckSeconds" .Values.gateway.lameDuckSeconds "drainSeconds" .Values.gateway.drainSeconds) $config.gateway -}}
{{- $service := dict "namespace" .Release.Namespace "name" (printf "%s-gateway" (include "beamlit.fullname" .)) "port" .Values.gateway.service.port "adminPort" 8081 -}}
{{- merge (dict "defaultRemoteBackend" $remote "gateway" $gateway "proxyService" $service) (omit $config "defaultRemoteBackend" "gateway") | toYaml -}}
{{- end -}}

{{- define "beamlit.hooksHost" -}}
{{ include "beamlit.fullname" . }}-hooks.{{ .Release.Namespace }}.svc
{{- end -}}
