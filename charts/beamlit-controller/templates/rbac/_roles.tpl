{{- /* A Role for hooks or the gateway, or a ClusterRole where no namespace is given. Arguments: root, component, namespace,
     rules. */ -}}
{{- define "beamlit.reader" -}}
{{- $cluster := eq .namespace "" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRole" "Role" $cluster }}
metadata:
  {{- include "beamlit.metadata" (merge (dict "suffix" .component "cluster" $cluster) .) | nindent 2 }}
rules:
  {{- .rules | nindent 2 }}
{{- end -}}

{{- /* The binding of such a role. Arguments: root, component, namespace. */ -}}
{{- define "beamlit.readerBinding" -}}
{{- $cluster := eq .namespace "" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "ClusterRoleBinding" "RoleBinding" $cluster }}
metadata:
  {{- include "beamlit.metadata" (merge (dict "suffix" .component "cluster" $cluster) .) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ ternary "ClusterRole" "Role" $cluster }}, name: {{ include "beamlit.fullname" .root }}-{{ .component }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "beamlit.serviceAccount" . }}, namespace: {{ .root.Release.Namespace }}}
{{- end -}}

{{- /* A Role for Metacontroller. Arguments: root, namespace, suffix, rules. */ -}}
{{- define "beamlit.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "beamlit.metadata" (merge (dict "component" "metacontroller") .) | nindent 2 }}
rules:
  {{- .rules | nindent 2 }}
{{- end -}}

{{- /* The binding of such a Role. Arguments: root, namespace, suffix. */ -}}
{{- define "beamlit.roleBinding" -}}
{{- $metacontroller := include "beamlit.metacontroller" .root | fromJson -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "beamlit.metadata" (merge (dict "component" "metacontroller") .) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "beamlit.fullname" .root }}-{{ .suffix }}}
subjects:
  - {kind: ServiceAccount, name: {{ $metacontroller.account }}, namespace: {{ $metacontroller.namespace }}}
{{- end -}}
