{{- /* What helm prints after an installation. A template of its own, so that tests can render it. */ -}}
{{- define "beamlit.notes" -}}
{{- include "beamlit.fill" . -}}
{{- $fullname := include "beamlit.fullname" . -}}
{{- $served := include "beamlit.served" . | fromJsonArray -}}
{{- $namespace := first (append $served "default") -}}
{{- $service := .Values.config.proxyService -}}
{{- if .Values.installBeamlitGateway -}}
{{- $service = dict "namespace" .Release.Namespace "name" (printf "%s-gateway" $fullname) "port" .Values.gateway.service.port -}}
{{- end -}}
{{- $tls := and .Values.installBeamlitGateway .Values.config.gateway.tls -}}
{{- $remote := .Values.config.defaultRemoteBackend | default dict -}}
ModelDeployments are served in {{ if $served }}{{ join ", " $served }}{{ else }}all namespaces{{ end }}. Next:

  kubectl apply --namespace {{ $namespace }} -f my-model.yaml    # docs/install.md has a first one
  kubectl wait --namespace {{ $namespace }} --for=condition=Ready --timeout=10m modeldeployments --all
{{- if $service.name }}
  kubectl get --raw /api/v1/namespaces/{{ $service.namespace }}/services/{{ $tls | empty | ternary "" "https:" }}{{ $service.name }}:{{ $service.port }}/proxy{{ include "beamlit.access" . | empty | ternary "/v1/models" "/health" }}

Clients in the cluster ask {{ $tls | empty | ternary "http" "https" }}://{{ $service.name }}.{{ $service.namespace }}{{ if ne (int $service.port) 80 }}:{{ $service.port }}{{ end }}. The Service in front of your pods is not intercepted.
{{- end }}
{{- if .Values.installBeamlitGateway }}

A page at http://localhost:8081 shows what a gateway does now, after
kubectl port-forward --namespace {{ .Release.Namespace }} deploy/{{ $fullname }}-gateway 8081
{{- end }}
{{- if $remote.host }}
{{- if and (contains "$workspace" ($remote.pathPrefix | default "")) (not $remote.workspace) }}

config.defaultRemoteBackend.workspace is empty. A ModelDeployment that offloads and names no remote backend of its own is
served by its own replicas alone, and its condition RefsResolved says WorkspaceUnknown, until you set it.
{{- end }}
{{- if not (include "beamlit.credentialsSecret" .) }}

There are no credentials for the default remote backend, so requests go to {{ $remote.host }} without a token.
{{- end }}
{{- end }}
{{- if include "beamlit.access" . }}
{{- $access := .Values.config.gateway.access | default dict }}
{{- if or .Values.gateway.access.existingSecret $access.keysDirectory }}

Requests need an API key{{ with .Values.gateway.access.existingSecret }}, a value of the Secret {{ . }}{{ end }}: `Authorization: Bearer <key>`.
{{- with $access.jwt }} A token of {{ .issuer }} does, too.{{ end }}
{{- else }}

Requests need a token of {{ $access.jwt.issuer }}: `Authorization: Bearer <token>`.
{{- end }}
{{- else if .Values.installBeamlitGateway }}

Everyone who can reach the gateway may use every model, the remote backend at your expense too: gateway.access.existingSecret
names a Secret with API keys, and config.gateway.access.jwt an issuer of tokens.
{{- end }}
{{- if and .Values.installBeamlitGateway (not .Values.config.gateway.clusterRanges) }}

config.gateway.clusterRanges is empty: who may write a ModelDeployment may name any address of this cluster as its
remote backend.
{{- end }}
{{- if not (include "beamlit.admissionPolicy" .) }}

Who may write a ModelDeployment may have any pod created in its namespace, by spec.server, without the right to create
Deployments: {{ ternary "this cluster serves no ValidatingAdmissionPolicy" "admissionPolicy.enabled is false" .Values.admissionPolicy.enabled }}.
{{- end }}
{{- $server := include "beamlit.prometheus" . | fromJson -}}
{{- if .Values.hooks.url }}{{/* What hooks outside the cluster read is up to them. */ -}}
{{- else if $server }}
{{- if and (not $server.namespaceLabel) (ne (len $served) 1) }}

config.metricInformer.prometheus.namespaceLabel is empty: who may write a ModelDeployment may have it go by the series of
any namespace.
{{- end }}
{{- else if not (or .Values.installMetricServer (.Capabilities.APIVersions.Has "metrics.k8s.io/v1beta1")) }}

This cluster serves no metrics.k8s.io: a ModelDeployment whose metrics are of type Resource or ContainerResource finds none.
installMetricServer=true installs metrics-server.
{{- end }}
{{- if .Values.allowedNamespaces }}

Metacontroller may write in {{ join ", " .Values.allowedNamespaces }} only. A ModelDeployment elsewhere gets neither
status nor event; only Metacontroller's log says why.
{{- end }}
{{- if .Values.hooks.auth.bearer.enabled }}

hooks asks for a token: for it Metacontroller lists and watches all Secrets of the cluster.
{{- end }}
{{- if .Values.hooks.url }}

Metacontroller asks hooks at {{ .Values.hooks.url }}, outside the cluster. Nothing of hooks was deployed.
{{- end }}
{{- if include "beamlit.platformSecret" . }}

Models and policies are registered with the platform at {{ .Values.beamlitBaseUrl }}, and removed there when
their objects are deleted here.
{{- if .Values.hooks.url }} The hooks outside the cluster need the token themselves, in BEAMLIT_TOKEN.{{ end }}
{{- else }}

There is no token of the Beamlit platform: nothing is registered there, and it is never asked.
{{- end }}
{{- if not .Values.metacontroller.enabled }}

Metacontroller is the one in namespace {{ .Values.existingMetacontroller.namespace }}{{ if .Values.existingMetacontroller.serviceAccount }}, whose ServiceAccount {{ .Values.existingMetacontroller.serviceAccount }} got its rights{{ else }}; it must have its rights already{{ end }}.
{{- end }}
{{- range $key := list "controllerManager" "metricsService" "beamlit-gateway" }}
{{- if index $.Values $key }}

{{ $key }} is a value of the original controller and has no effect. docs/migrating.md says what does.
{{- end }}
{{- end }}

Before `helm uninstall {{ .Release.Name }} --namespace {{ .Release.Namespace }}`:
  kubectl delete modeldeployments.deployment.beamlit.com -A --all
removes what was created for them{{ if include "beamlit.platformSecret" . }}, on the platform too{{ end }}. Without it they stay and keep serving, and a new installation takes them over.
{{- if include "beamlit.platformSecret" . }}
  kubectl delete policies.authorization.beamlit.com -A --all
removes Policies here and on the platform.
{{- end }}
{{- end -}}
