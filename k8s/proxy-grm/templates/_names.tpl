{{/* What everything is called. */}}

{{- define "proxy-grm.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
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

{{/* PROXY_GRM_ENGINE_URLS: every replica by its own name, so that a picture finds the engine that has seen it.
     Those that a scaler may add are named too: a gateway looks at each until it is there. */}}
{{- define "proxy-grm.engineUrls" -}}
{{- $deployed := splitList " " (include "proxy-grm.deployedRoles" .) -}}
{{- $service := printf "%s-engine" (include "proxy-grm.fullname" .) -}}
{{- $roles := list -}}
{{- range $role := list "judge" "proxy" -}}
{{- $urls := index $.Values.engines.external $role -}}
{{- if has $role $deployed -}}
{{- $urls = list -}}
{{- $replicas := (index $.Values.engines $role).replicas -}}
{{- if and (eq $role "judge") (ne $.Values.autoscaling.kind "none") -}}
{{- $replicas = $.Values.autoscaling.engine.maxReplicas -}}
{{- end -}}
{{- range $number := until (int $replicas) -}}
{{- $urls = append $urls (printf "http://%s-%s-%d.%s-%s.%s.svc:8000" $service $role $number $service $role $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- if $urls }}{{ $roles = append $roles (printf "%s=%s" $role (join "," $urls)) }}{{ end -}}
{{- end -}}
{{- join ";" $roles -}}
{{- end }}

{{/* How many replicas an object says it wants; whatever scales it decides that otherwise. Takes (dict "root" $ "component" "gateway" "replicas" 2). */}}
{{- define "proxy-grm.replicas" -}}
{{- if or (eq .root.Values.autoscaling.kind "none") (eq .component "engine-proxy") }}
replicas: {{ .replicas }}
{{- end }}
{{- end }}

{{/* One series, however many gateways there are: an engine's own queue is empty while a gateway still prepares pictures. */}}
{{- define "proxy-grm.loadQuery" -}}
{{- $pods := printf "{namespace=\"%s\",pod=~\"%s-gateway-.+\"}" .Release.Namespace (include "proxy-grm.fullname" .) -}}
sum(proxy_grm_inflight{{ $pods }} + proxy_grm_queued{{ $pods }})
{{- end }}

{{/* Every gateway tells the same of the jobs on their Redis. */}}
{{- define "proxy-grm.linesQuery" -}}
max(proxy_grm_job_lines_unfinished{namespace="{{ .Release.Namespace }}",pod=~"{{ include "proxy-grm.fullname" . }}-gateway-.+"})
{{- end }}

{{/* Takes the component's bounds. */}}
{{- define "proxy-grm.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies: [{ type: Percent, value: 100, periodSeconds: 30 }]
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownSeconds }}
  policies: [{ type: Pods, value: 1, periodSeconds: 60 }]
{{- end }}
