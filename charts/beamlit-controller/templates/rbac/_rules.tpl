{{- define "beamlit.hooksRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- if ne (include "beamlit.metricInformer" . | fromJson).type "prometheus" }}
- apiGroups: [metrics.k8s.io]
  resources: [pods]
  verbs: [list]
# A metric of objects is a subresource of their kind (pods/requests), an external one is a resource: ModelDeployments
# name them, so there is no list.
- apiGroups: [custom.metrics.k8s.io]
  resources: ["*"]
  verbs: [get]
- apiGroups: [external.metrics.k8s.io]
  resources: ["*"]
  verbs: [list]
{{- end }}
{{- if include "beamlit.platformSecret" . }}
# Before anything is changed on the platform on behalf of an object, that object is read.
- apiGroups: [deployment.beamlit.com]
  resources: [modeldeployments]
  verbs: [get]
- apiGroups: [authorization.beamlit.com]
  resources: [policies]
  verbs: [get]
{{- end }}
{{- end -}}

{{- /* Where the gateway sends requests for local replicas: pods or service. */ -}}
{{- define "beamlit.endpoints" -}}
{{- dig "endpoints" "pods" (.Values.config.gateway | default dict) | default "pods" -}}
{{- end -}}

{{- define "beamlit.gatewayRules" -}}
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch]
{{- if ne (include "beamlit.endpoints" .) "service" }}
# Which pods the Services of models have, so that each request goes to one of them.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [deployment.beamlit.com]
  resources: [modeldeployments]
  verbs: [get]
{{- end -}}


{{- /* What Metacontroller writes: children, status and finalizers of parents, events. */ -}}
{{- define "beamlit.writes" -}}
{{- $patch := ternary ", patch" "" (ne "" (include "beamlit.flag" (dict "root" . "word" "-apply-strategy[= ]server-side-apply"))) -}}
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, update, delete{{ $patch }}]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [create, update, delete{{ $patch }}]
- apiGroups: [deployment.beamlit.com]
  resources: [modeldeployments/status]
  verbs: [update]
- apiGroups: [authorization.beamlit.com]
  resources: [policies/status]
  verbs: [update]
# Its finalizer, which is in the metadata of a parent. The right to take it off must outlive the token of the platform, or
# the objects that still have one could not be deleted.
- apiGroups: [deployment.beamlit.com]
  resources: [modeldeployments]
  verbs: [update]
- apiGroups: [authorization.beamlit.com]
  resources: [policies]
  verbs: [update]
# Clusters that enforce it (OpenShift) ask for this right of everyone who writes an owner reference that blocks its deletion.
- apiGroups: [deployment.beamlit.com]
  resources: [modeldeployments/finalizers]
  verbs: [update]
{{ include "beamlit.events" . }}
{{- end -}}

{{- define "beamlit.events" -}}
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "beamlit.leases" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{ include "beamlit.events" . }}
{{- end -}}
