{{/* What everything is called. */}}

{{- define "proxy-grm.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of an object of one component. Takes (dict "root" $ "component" "gateway"). */}}
{{- define "proxy-grm.labels" -}}
{{ include "proxy-grm.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The labels that find its pods; they never change. Same argument. */}}
{{- define "proxy-grm.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image by name. Takes (dict "root" $ "name" "gateway"). */}}
{{- define "proxy-grm.image" -}}
{{- $image := index .root.Values.images .name -}}
{{- $registry := .root.Values.images.registry | trimSuffix "/" -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end }}

{{/* What PROXY_GRM_RELEASE says: a shipped name, or a folder on the volume. */}}
{{- define "proxy-grm.release" -}}
{{- if .Values.release.volume.enabled }}/releases/{{ end }}{{ .Values.release.name -}}
{{- end }}

{{- define "proxy-grm.releaseClaim" -}}
{{- default (printf "%s-releases" (include "proxy-grm.fullname" .)) .Values.release.volume.existingClaim -}}
{{- end }}

{{/* The roles whose engines are deployed here, with a space between them. */}}
{{- define "proxy-grm.deployedRoles" -}}
{{- $roles := list -}}
{{- range $role := list "judge" "proxy" -}}
{{- if and (index $.Values.engines $role).enabled (not (index $.Values.engines.external $role)) -}}
{{- $roles = append $roles $role -}}
{{- end -}}
{{- end -}}
{{- join " " $roles -}}
{{- end }}

{{/* PROXY_GRM_ENGINE_URLS: every replica by its own name, so that a picture finds the engine that has seen it. */}}
{{- define "proxy-grm.engineUrls" -}}
{{- $deployed := splitList " " (include "proxy-grm.deployedRoles" .) -}}
{{- $service := printf "%s-engine" (include "proxy-grm.fullname" .) -}}
{{- $roles := list -}}
{{- range $role := list "judge" "proxy" -}}
{{- $urls := index $.Values.engines.external $role -}}
{{- if has $role $deployed -}}
{{- $urls = list -}}
{{- range $number := until (int (index $.Values.engines $role).replicas) -}}
{{- $urls = append $urls (printf "http://%s-%s-%d.%s-%s.%s.svc:8000" $service $role $number $service $role $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- if $urls }}{{ $roles = append $roles (printf "%s=%s" $role (join "," $urls)) }}{{ end -}}
{{- end -}}
{{- join ";" $roles -}}
{{- end }}
