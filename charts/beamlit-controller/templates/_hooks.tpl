{{- define "beamlit.hooksHost" -}}
{{ include "beamlit.fullname" . }}-hooks.{{ .Release.Namespace }}.svc
{{- end -}}

{{- /* The Secret of the token that hooks ask for. */ -}}
{{- define "beamlit.bearerSecret" -}}
{{- .Values.hooks.auth.bearer.existingSecret | default (printf "%s-hooks-bearer" (include "beamlit.fullname" .)) -}}
{{- end -}}

{{- /* The generated certificate of hooks with its key and its authority, as JSON: crt, key, ca. It is generated once for
     all templates of a rendering, and an upgrade finds it in the cluster and keeps it. */ -}}
{{- define "beamlit.hooksCertificate" -}}
{{- if not (hasKey .Values "hooksCertificate") -}}
{{- $fullname := include "beamlit.fullname" . -}}
{{- $host := include "beamlit.hooksHost" . -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (printf "%s-hooks-tls" $fullname)).data | default dict -}}
{{- $certificate := dict -}}
{{- if and (hasKey $kept "tls.crt") (hasKey $kept "tls.key") (hasKey $kept "ca.crt") -}}
{{- $certificate = dict "crt" (index $kept "tls.crt" | b64dec) "key" (index $kept "tls.key" | b64dec) "ca" (index $kept "ca.crt" | b64dec) -}}
{{- else -}}
{{- /* The authority has another name than the certificate: OpenSSL takes one that names itself as its issuer for
     self-signed. */ -}}
{{- $authority := genCA (printf "%s-hooks-ca" $fullname) 3650 -}}
{{- $names := list $host (printf "%s.%s" $host (include "beamlit.clusterDomain" .)) (trimSuffix ".svc" $host) -}}
{{- $signed := genSignedCert (printf "%s-hooks" $fullname) nil $names 3650 $authority -}}
{{- $certificate = dict "crt" $signed.Cert "key" $signed.Key "ca" $authority.Cert -}}
{{- end -}}
{{- $_ := set .Values "hooksCertificate" $certificate -}}
{{- end -}}
{{- .Values.hooksCertificate | toJson -}}
{{- end -}}

{{- /* The authority that Metacontroller trusts when it calls hooks; empty where a ConfigMap holds it or none is given. */ -}}
{{- define "beamlit.hooksAuthority" -}}
{{- $tls := .Values.hooks.tls -}}
{{- if and (not .Values.hooks.url) (not $tls.existingSecret) -}}
{{- (include "beamlit.hooksCertificate" . | fromJson).ca -}}
{{- else if not $tls.caConfigMap -}}
{{- $tls.caBundle -}}
{{- end -}}
{{- end -}}

{{- /* Changes with the release and with the certificate of hooks. */ -}}
{{- define "beamlit.hooksVersion" -}}
{{- printf "%s-%s" .Chart.Version (printf "%s%s" (include "beamlit.hooksAuthority" .) .Values.hooks.tls.generation | sha256sum | trunc 8) -}}
{{- end -}}

{{- /* Hooks of a CompositeController. Arguments: root, path, hooks with their timeouts. With a token of the platform there is
     a finalize hook too: Metacontroller holds an object until it is removed from the platform. */ -}}
{{- define "beamlit.webhooks" -}}
{{- $values := .root.Values.hooks -}}
{{- $base := $values.url | default (printf "https://%s:8443" (include "beamlit.hooksHost" .root)) | trimSuffix "/" -}}
{{- $authority := include "beamlit.hooksAuthority" .root -}}
{{- $finalize := include "beamlit.platformSecret" .root | empty | ternary dict (dict "finalize" "10s") -}}
{{- range $hook, $timeout := merge (dict) .hooks $finalize }}
{{ $hook }}:
  version: v1
  webhook:
    # Metacontroller reads URL and authority anew only when the URL changes: its query has the version of both.
    url: {{ printf "%s/%s/%s?v=%s" $base $.path $hook (include "beamlit.hooksVersion" $.root) }}
    timeout: {{ $timeout }}
    responseUnMarshallMode: strict
    {{- if and $values.tls.caConfigMap (or $values.tls.existingSecret $values.url) }}
    caBundle:
      configMapRef: {name: {{ $values.tls.caConfigMap }}, namespace: {{ $.root.Release.Namespace }}, key: ca.crt}
    {{- else if $authority }}
    caBundle:
      inline: |
        {{- $authority | trim | nindent 8 }}
    {{- end }}
    {{- if $values.auth.bearer.enabled }}
    authorization:
      type: Bearer
      secretRef: {name: {{ include "beamlit.bearerSecret" $.root }}, namespace: {{ $.root.Release.Namespace }}, key: token}
    {{- end }}
{{- end }}
{{- end -}}
