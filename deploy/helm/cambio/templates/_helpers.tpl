{{- define "cambio.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-cambio" (.Release.Name | trunc 45 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "cambio.selector" -}}
app.kubernetes.io/name: cambio
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cambio.labels" -}}
{{ include "cambio.selector" . }}
app.kubernetes.io/component: broker
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "cambio.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{- define "cambio.host" -}}
{{- (urlParse .Values.config.issuer).host -}}
{{- end }}

{{/* cambio.yaml. What the chart decides is set after what the values say, so that a value can't move a path. */}}
{{- define "cambio.config" -}}
{{- $given := .Values.config -}}
{{- $issuers := $given.issuers -}}
{{- with .Values.cluster }}{{ if .enabled }}
{{- $ca := "/etc/cambio/cluster/ca.crt" -}}
{{- $token := "/etc/cambio/cluster/token" -}}
{{- $discovered := dict "jwks_uri" (printf "%s/openid/v1/jwks" .apiServer) "private" true "ca_file" $ca "bearer_token_file" $token -}}
{{- $cluster := dict "name" .name "provider" "kubernetes" "issuer" .issuer "audience" $given.issuer "keys" (dict "discovered" $discovered) -}}
{{- if .tokenReview.enabled }}
{{- $_ := set $cluster "token_review" (dict "api_server" .apiServer "ca_file" $ca "token_file" $token) -}}
{{- end }}
{{- $issuers = append $issuers $cluster -}}
{{- end }}{{ end }}
{{- if not $issuers }}{{ fail "no issuer: set `cluster.enabled`, or name one in `config.issuers`" }}{{ end }}
{{- $keys := deepCopy $given.keys -}}
{{- $_ := set $keys (ternary "passphrase_file" "key_file" .Values.kek.passphrase) "/etc/cambio/kek/kek" -}}
{{- $policies := dict "directory" "/etc/cambio/policies" -}}
{{- if .Values.policies.guardrails }}{{ $_ := set $policies "guardrails" "/etc/cambio/guardrails" }}{{ end -}}
{{- $listen := dict "public" "0.0.0.0:8443" "operations" "0.0.0.0:9090" -}}
{{- with .Values.proxies }}{{ $_ := set $listen "proxies" . }}{{ end -}}
{{- $tls := dict "certificate_file" "/etc/cambio/tls/tls.crt" "key_file" "/etc/cambio/tls/tls.key" -}}
{{- $config := dict
  "version" 1
  "environment" $given.environment
  "issuer" $given.issuer
  "data" "/var/lib/cambio/state"
  "issuers" $issuers
  "targets" $given.targets
  "policies" $policies
  "ledger" (dict
    "origin" ($given.origin | default (printf "%s/%s" (include "cambio.host" .) $given.environment))
    "anchors" (list (dict "file" "/var/lib/cambio-anchor/ledger/cambio.note")))
  "keys" $keys
  "listen" $listen
  "tls" (ternary "none" $tls .Values.tls.terminatedByProxy)
-}}
{{- if and .Values.tls.terminatedByProxy (not .Values.proxies) }}
{{- fail "`tls.terminatedByProxy` wants `proxies`: who speaks TLS for us?" }}
{{- end }}
{{- with $given.limits }}{{ $_ := set $config "limits" . }}{{ end -}}
{{- with $given.log }}{{ $_ := set $config "log" . }}{{ end -}}
{{- toYaml $config }}
{{- end }}

{{/* No privilege, no writing outside of the volumes: docs/threats.md, K12. */}}
{{- define "cambio.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "cambio.mounts" -}}
- { name: config, mountPath: /etc/cambio/config, readOnly: true }
- { name: policies, mountPath: /etc/cambio/policies, readOnly: true }
{{- if .Values.policies.guardrails }}
- { name: guardrails, mountPath: /etc/cambio/guardrails, readOnly: true }
{{- end }}
{{- if .Values.files }}
- { name: files, mountPath: /etc/cambio/files, readOnly: true }
{{- end }}
- { name: kek, mountPath: /etc/cambio/kek, readOnly: true }
{{- if not .Values.tls.terminatedByProxy }}
- { name: tls, mountPath: /etc/cambio/tls, readOnly: true }
{{- end }}
{{- range .Values.secrets }}
- { name: {{ printf "secret-%s" .name }}, mountPath: {{ printf "/etc/cambio/secrets/%s" .name }}, readOnly: true }
{{- end }}
{{- if .Values.cluster.enabled }}
- { name: cluster, mountPath: /etc/cambio/cluster, readOnly: true }
{{- end }}
- { name: state, mountPath: /var/lib/cambio }
- { name: anchor, mountPath: /var/lib/cambio-anchor }
{{- end }}
