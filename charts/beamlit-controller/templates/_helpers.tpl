{{- /* Puts the defaults in for what is left blank: Helm takes a null of the user out of the values, with all that the chart
     has below it. Each template begins with this, and the first one that is rendered does it for all. */ -}}
{{- define "beamlit.fill" -}}
{{- if not (hasKey .Values "isFilled") -}}
{{- $known := include "beamlit.defaults" . | fromJson -}}
{{- include "beamlit.fillSection" (dict "known" $known "path" "" "values" .Values "defaults" $known.defaults) -}}
{{- $_ := set .Values "isFilled" true -}}
{{- end -}}
{{- end -}}

{{- define "beamlit.fillSection" -}}
{{- range $key, $default := .defaults -}}
{{- $path := printf "%s.%s" $.path $key | trimPrefix "." -}}
{{- $given := index $.values $key -}}
{{- if kindIs "invalid" $given -}}
{{- if has $path $.known.blank | not -}}{{- $_ := set $.values $key (deepCopy $default) -}}{{- end -}}
{{- else if has $path $.known.sections -}}
{{- include "beamlit.fillSection" (dict "known" $.known "path" $path "values" $given "defaults" $default) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Name of the product, in names and labels. The chart's own name says where in a registry it is. */ -}}
{{- define "beamlit.product" -}}beamlit-controller{{- end -}}

{{- /* The prefix of names. A release may have dots in its name, a Service may not. */ -}}
{{- define "beamlit.fullname" -}}
{{- $name := .Values.nameOverride | default (include "beamlit.product" .) -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $whole | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "beamlit.selector" -}}
app.kubernetes.io/name: {{ include "beamlit.product" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* The metadata of an object. Arguments: root, component, suffix of the name or the whole name, namespace or cluster,
     further annotations. What the chart says wins over what users add. */ -}}
{{- define "beamlit.metadata" -}}
{{- $own := dict
    "app.kubernetes.io/version" .root.Chart.AppVersion
    "app.kubernetes.io/managed-by" .root.Release.Service
    "app.kubernetes.io/part-of" "beamlit-controller"
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $labels := merge (include "beamlit.selector" . | fromYaml) $own (.labels | default dict) .root.Values.commonLabels -}}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
name: {{ .name | default (printf "%s%s" (include "beamlit.fullname" .root) (.suffix | empty | ternary "" (printf "-%s" .suffix))) }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{- end }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
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

{{- define "beamlit.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount -}}
{{- $own := printf "%s-%s" (include "beamlit.fullname" .root) .component -}}
{{- $account.name | default (ternary $own "default" $account.create) -}}
{{- end -}}

{{- /* The pod template of a component, but for its containers and volumes. */ -}}
{{- define "beamlit.pod" -}}
{{- $values := index .root.Values .component -}}
{{- $selector := include "beamlit.selector" . | fromYaml -}}
{{- $checksums := dict "checksum/config" (include "beamlit.config" .root | sha256sum) -}}
{{- with .checksum -}}
{{- $_ := set $checksums "checksum/tls" . -}}
{{- end -}}
metadata:
  labels:
    {{- merge (dict) $selector (dict "app.kubernetes.io/part-of" "beamlit-controller") $values.podLabels .root.Values.commonLabels | toYaml | nindent 4 }}
  annotations:
    {{- merge (dict) $checksums $values.podAnnotations | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ include "beamlit.serviceAccount" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .root.Values.podSecurityContext | nindent 4 }}
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
  {{- $spread := $values.topologySpreadConstraints -}}
  {{- if and (not $spread) $values.spreadOverNodes -}}
  {{- $spread = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
  {{- end }}
  {{- with $spread }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ merge (dict) . (dict "labelSelector" (dict "matchLabels" $selector)) | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- end }}
{{- end -}}

{{- /* What hooks' and the gateway's containers have in common. */ -}}
{{- define "beamlit.container" -}}
{{- $values := index .root.Values .component -}}
image: {{ include "beamlit.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with concat (.env | default list) ($values.env | default list) }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
{{- end -}}

{{- define "beamlit.podDisruptionBudget" -}}
{{- $values := index .root.Values .component -}}
{{- $budget := $values.podDisruptionBudget -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "beamlit.metadata" (merge (dict "suffix" .component) .) | nindent 2 }}
spec:
  {{- if ne (toString $budget.minAvailable) "" }}
  minAvailable: {{ $budget.minAvailable }}
  {{- else }}
  maxUnavailable: {{ $budget.maxUnavailable }}
  {{- end }}
  # A pod that is not ready serves no request: it must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "beamlit.selector" . | nindent 6 }}
{{- end -}}

{{- /* A value, or nothing where the placeholder of the original's values file was left in place. */ -}}
{{- define "beamlit.given" -}}
{{- if and . (ne (toString .) "REPLACE_ME") -}}{{ . }}{{- end -}}
{{- end -}}

{{- define "beamlit.oauth" -}}
{{- ((.Values.config.defaultRemoteBackend | default dict).authConfig | default dict).oauthConfig | default dict | toYaml -}}
{{- end -}}

{{- define "beamlit.credentialsSecret" -}}
{{- $oauth := include "beamlit.oauth" . | fromYaml -}}
{{- if $oauth.existingSecret -}}
{{ $oauth.existingSecret }}
{{- else if include "beamlit.given" $oauth.clientId -}}
{{ include "beamlit.fullname" . }}-remote
{{- end -}}
{{- end -}}

{{- /* The Secret with the token of the platform; empty where there is none, and nothing is asked of the platform. */ -}}
{{- define "beamlit.platformSecret" -}}
{{- if .Values.beamlitApiTokenExistingSecret -}}
{{ .Values.beamlitApiTokenExistingSecret }}
{{- else if include "beamlit.given" .Values.beamlitApiToken -}}
{{ include "beamlit.fullname" . }}-platform
{{- end -}}
{{- end -}}

{{- /* The CompositeControllers, as JSON. Metacontroller's finalizer carries such a name, of 43 characters at most. */ -}}
{{- define "beamlit.controllers" -}}
{{- $fullname := include "beamlit.fullname" . -}}
{{- dict "modeldeployments" $fullname "policies" (printf "%s-policies" ($fullname | trunc 34 | trimSuffix "-")) | toJson -}}
{{- end -}}

{{- define "beamlit.clusterDomain" -}}
{{- .Values.config.clusterDomain | default .Values.kubernetesClusterDomain | default "cluster.local" -}}
{{- end -}}

{{- /* Namespaces whose ModelDeployments are served, as a JSON list; empty: all. */ -}}
{{- define "beamlit.served" -}}
{{- $given := .Values.config.namespaces -}}
{{- if kindIs "slice" $given -}}{{ $given | toJson }}{{- else -}}{{ $given | default "" | nospace | splitList "," | compact | toJson }}{{- end -}}
{{- end -}}

{{- /* The values of the Prometheus server as JSON, with the Secret of its credentials, the keys in it and the values that
     it gets here; empty where it is not asked. */ -}}
{{- define "beamlit.prometheus" -}}
{{- $given := .Values.config.metricInformer | default dict -}}
{{- $server := dict -}}
{{- if eq ($given.type | default "") "prometheus" -}}
{{- $server = deepCopy ($given.prometheus | default dict) -}}
{{- $basic := $server.basicAuth | default dict -}}
{{- $bearer := $server.bearer | default dict -}}
{{- $own := printf "%s-prometheus" (include "beamlit.fullname" .) -}}
{{- if $basic.existingSecret -}}
{{- $_ := set $server "secret" (dict "name" $basic.existingSecret "keys" (list "username" "password")) -}}
{{- else if $basic.username -}}
{{- $_ := set $server "secret" (dict "name" $own "keys" (list "username" "password") "data" (pick $basic "username" "password")) -}}
{{- else if $bearer.existingSecret -}}
{{- $_ := set $server "secret" (dict "name" $bearer.existingSecret "keys" (list "token")) -}}
{{- else if $bearer.token -}}
{{- $_ := set $server "secret" (dict "name" $own "keys" (list "token") "data" (pick $bearer "token")) -}}
{{- end -}}
{{- end -}}
{{- $server | toJson -}}
{{- end -}}

{{- /* The section metricInformer of config.yaml, as JSON. Credentials and authority are files there. */ -}}
{{- define "beamlit.metricInformer" -}}
{{- $given := .Values.config.metricInformer | default dict -}}
{{- $section := merge (dict "type" ($given.type | default "kubernetes")) (omit $given "prometheus") -}}
{{- $server := include "beamlit.prometheus" . | fromJson -}}
{{- if $server -}}
{{- $files := dict -}}
{{- range $key := ($server.secret | default dict).keys -}}
{{- $_ := set $files (eq $key "token" | ternary "bearerFile" (printf "%sFile" $key)) (printf "/etc/beamlit/prometheus/%s" $key) -}}
{{- end -}}
{{- if or $server.caConfigMap $server.caSecret -}}
{{- $_ := set $files "caFile" "/etc/beamlit/prometheus-ca/ca.crt" -}}
{{- end -}}
{{- $known := omit $server "basicAuth" "bearer" "caConfigMap" "caSecret" "secret" -}}
{{- $_ := set $section "prometheus" (merge $files $known) -}}
{{- end -}}
{{- $section | toJson -}}
{{- end -}}

{{- /* "yes" where the gateway serves no request without an API key or a token. */ -}}
{{- define "beamlit.access" -}}
{{- $access := .Values.config.gateway.access | default dict -}}
{{- if and .Values.installBeamlitGateway (or .Values.gateway.access.existingSecret $access.keysDirectory $access.jwt) -}}yes{{- end -}}
{{- end -}}

{{- /* Environment variables of the gateway for its traces, as JSON; those of gateway.env come behind them and win. */ -}}
{{- define "beamlit.tracing" -}}
{{- $env := list -}}
{{- if ((.Values.config.gateway | default dict).tracing | default dict).endpoint -}}
{{- $pod := dict "fieldRef" (dict "fieldPath" "metadata.name") -}}
{{- $env = append $env (dict "name" "POD_NAME" "valueFrom" $pod) -}}
{{- $attributes := printf "k8s.namespace.name=%s,k8s.pod.name=$(POD_NAME)" .Release.Namespace -}}
{{- $env = append $env (dict "name" "OTEL_RESOURCE_ATTRIBUTES" "value" $attributes) -}}
{{- end -}}
{{- with .Values.gateway.tracing.headersSecret -}}
{{- $env = append $env (dict "name" "OTEL_EXPORTER_OTLP_HEADERS" "valueFrom" (dict "secretKeyRef" (dict "name" . "key" "headers"))) -}}
{{- end -}}
{{- dict "env" $env | toJson -}}
{{- end -}}

{{- /* config.yaml. */ -}}
{{- define "beamlit.config" -}}
{{- $given := .Values.config -}}
{{- $oauth := include "beamlit.oauth" . | fromYaml -}}
{{- $remote := deepCopy ($given.defaultRemoteBackend | default (dict "host" "")) -}}
{{- $auth := dict -}}
{{- if include "beamlit.credentialsSecret" . -}}
{{- $known := omit $oauth "clientId" "clientSecret" "existingSecret" "caConfigMap" "caSecret" -}}
{{- range $key := list "scope" "audience" "resource" "parameters" "tokenAuth" -}}
{{- if not (get $known $key) -}}{{- $known = omit $known $key -}}{{- end -}}
{{- end -}}
{{- $files := dict "clientIdFile" "/etc/beamlit/credentials/clientId" "clientSecretFile" "/etc/beamlit/credentials/clientSecret" -}}
{{- if or $oauth.caConfigMap $oauth.caSecret -}}
{{- $_ := set $files "caFile" "/etc/beamlit/credentials-ca/ca.crt" -}}
{{- end -}}
{{- $auth = dict "type" ($remote.authConfig.type | default "oauth") "oauthConfig" (merge $files $known) -}}
{{- end -}}
{{- $_ := set $remote "authConfig" ($auth | empty | ternary nil $auth) -}}
{{- $service := $given.proxyService -}}
{{- if .Values.installBeamlitGateway -}}
{{- $service = dict "namespace" .Release.Namespace "name" (printf "%s-gateway" (include "beamlit.fullname" .)) "port" .Values.gateway.service.port "adminPort" 8081 "adminAddress" (printf "%s-gateway-admin.%s.svc.%s:8081" (include "beamlit.fullname" .) .Release.Namespace (include "beamlit.clusterDomain" .)) -}}
{{- end -}}
{{- $gateway := merge (dict "lameDuckSeconds" .Values.gateway.lameDuckSeconds "drainSeconds" .Values.gateway.drainSeconds "install" (printf "%s/%s" .Release.Namespace .Release.Name)) $given.gateway -}}
{{- $memory := include "beamlit.bytes" ((((.Values.gateway.resources | default dict).limits | default dict).memory) | default "") -}}
{{- if and $memory (not (include "beamlit.given" ($given.gateway.limits | default dict).memoryBytes)) -}}
{{- $limits := deepCopy ($given.gateway.limits | default dict) -}}
{{- $_ := set $limits "memoryBytes" (max 1048576 (div ($memory | int64) 4)) -}}
{{- $gateway = merge (dict "limits" $limits) (omit $gateway "limits") -}}
{{- end -}}
{{- $replicas := .Values.gateway.autoscaling.enabled | ternary .Values.gateway.autoscaling.maxReplicas .Values.gateway.replicas -}}
{{- $drill := merge (deepCopy ($given.gateway.drill | default dict)) (dict "replicas" (max 1 ($replicas | int)) "peers" (printf "%s-gateway-admin.%s.svc.%s" (include "beamlit.fullname" .) .Release.Namespace (include "beamlit.clusterDomain" .))) -}}
{{- $gateway = merge (dict "drill" $drill) (omit $gateway "drill") -}}
{{- $access := deepCopy ($given.gateway.access | default dict) -}}
{{- if .Values.gateway.access.existingSecret -}}
{{- $_ := set $access "keysDirectory" "/etc/beamlit/access" -}}
{{- end -}}
{{- if .Values.gateway.access.jwtCaConfigMap -}}
{{- $_ := set $access "jwt" (merge (dict "caFile" "/etc/beamlit/access-ca/ca.crt") ($access.jwt | default dict)) -}}
{{- end -}}
{{- if .Values.gateway.access.rulesConfigMap -}}
{{- $_ := set $access "rulesFile" "/etc/beamlit/access-rules/callers.yaml" -}}
{{- end -}}
{{- if $access -}}
{{- $gateway = merge (dict "access" $access) (omit $gateway "access") -}}
{{- end -}}
{{- $own := dict "namespaces" ($given.namespaces | default "") "clusterDomain" (include "beamlit.clusterDomain" .) "defaultRemoteBackend" $remote "proxyService" $service "gateway" $gateway "metricInformer" (include "beamlit.metricInformer" . | fromJson) -}}
{{- $rest := omit $given "namespaces" "clusterDomain" "defaultRemoteBackend" "proxyService" "gateway" "metricInformer" -}}
{{- range $key, $value := $rest -}}
{{- if or (kindIs "string" $value | not) $value -}}{{- $_ := set $own $key $value -}}{{- end -}}
{{- end -}}
{{- if include "beamlit.platformSecret" . -}}
{{- $_ := set $own "platform" (dict "baseUrl" .Values.beamlitBaseUrl "tokenFile" "/etc/beamlit/platform/token") -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{- /* A quantity of memory such as 1Gi in bytes; empty for one in another notation. */ -}}
{{- define "beamlit.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $text := kindIs "string" . | ternary . (printf "%.0f" (. | float64)) -}}
{{- if regexMatch "^[0-9]+([kMGT]|[KMGT]i)?$" $text -}}
{{- mul (regexFind "^[0-9]+" $text | int64) (get $units (regexFind "[A-Za-z]*$" $text)) -}}
{{- end -}}
{{- end -}}

{{- /* Whether setting spec.server needs the right to create Deployments: where the API server has policies for it. */ -}}
{{- define "beamlit.admissionPolicy" -}}
{{- $kind := "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- if and .Values.admissionPolicy.enabled (.Capabilities.APIVersions.Has $kind) -}}true{{- end -}}
{{- end -}}

{{- /* Where Metacontroller runs and under which ServiceAccount, as JSON. */ -}}
{{- define "beamlit.metacontroller" -}}
{{- $ours := .Values.metacontroller -}}
{{- $theirs := .Values.existingMetacontroller -}}
{{- if $ours.enabled -}}
{{- $labels := dict "app.kubernetes.io/name" ($ours.nameOverride | default "metacontroller") "app.kubernetes.io/instance" .Release.Name -}}
{{- dict "namespace" ($ours.namespaceOverride | default .Release.Namespace) "account" $ours.serviceAccount.name "labels" $labels | toJson -}}
{{- else -}}
{{- dict "namespace" $theirs.namespace "account" $theirs.serviceAccount "labels" $theirs.podLabels | toJson -}}
{{- end -}}
{{- end -}}

{{- /* Whether Metacontroller's flags have a word in them. */ -}}
{{- define "beamlit.flag" -}}
{{- if regexMatch .word (join " " .root.Values.metacontroller.commandArgs) -}}true{{- end -}}
{{- end -}}
