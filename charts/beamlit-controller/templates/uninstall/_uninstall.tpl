{{- define "beamlit.uninstallName" -}}
{{ include "beamlit.fullname" . }}-uninstall
{{- end -}}

{{- /* Annotations of the Job, as YAML. */ -}}
{{- define "beamlit.uninstallHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* Annotations of what must exist before the Job, as YAML. */ -}}
{{- define "beamlit.uninstallFirst" -}}
{{ include "beamlit.uninstallHook" . }}
helm.sh/hook-weight: "-1"
{{- end -}}

{{- /* To take a finalizer off an object is to patch that object. */ -}}
{{- define "beamlit.finalizers" -}}
- apiGroups: [deployment.beamlit.com]
  resources: [modeldeployments]
  verbs: [patch]
- apiGroups: [authorization.beamlit.com]
  resources: [policies]
  verbs: [patch]
{{- end -}}
