{{/* What the pods have in common. Everything here fits the restricted pod security standard. */}}

{{/* Takes (dict "root" $ "component" "gateway"); with "settings" true, new settings make new pods; "labels" are further ones. */}}
{{- define "proxy-grm.podMetadata" -}}
# Not the chart's version: a new chart alone makes no engine load again.
labels:
  {{- include "proxy-grm.selector" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .settings .root.Values.podAnnotations }}
annotations:
  {{- if .settings }}
  checksum/settings: {{ include "proxy-grm.settings" .root | sha256sum }}
  {{- end }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "proxy-grm.podSecurity" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
automountServiceAccountToken: false
# Kubernetes would add variables such as PROXY_GRM_GATEWAY_PORT, and a variable that is no setting is refused.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .Values.podSecurity.runAsUser }}
  runAsUser: {{ int . }}
  {{- end }}
  {{- with .Values.podSecurity.fsGroup }}
  fsGroup: {{ int . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "proxy-grm.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Takes (dict "root" $ "name" "gateway"): the image's name. */}}
{{- define "proxy-grm.containerImage" -}}
image: {{ include "proxy-grm.image" . }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
{{- end }}

{{/* One key of the Secret. Takes (dict "root" $ "key" "workerKey"). */}}
{{- define "proxy-grm.secret" -}}
valueFrom: { secretKeyRef: { name: {{ .root.Values.secrets.name }}, key: {{ index .root.Values.secrets .key }} } }
{{- end }}

{{- define "proxy-grm.redisEnv" -}}
{{- if .Values.redis.bundled.enabled }}
- name: REDIS_PASSWORD
  {{- include "proxy-grm.secret" (dict "root" . "key" "redisPassword") | nindent 2 }}
- name: PROXY_GRM_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "proxy-grm.fullname" . }}-redis:6379/0
{{- else }}
- name: PROXY_GRM_REDIS_URL
  {{- include "proxy-grm.secret" (dict "root" . "key" "redisUrl") | nindent 2 }}
{{- end }}
{{- end }}

{{/* What gateway and worker mount alike. */}}
{{- define "proxy-grm.commonMounts" -}}
- { name: settings, mountPath: /etc/proxy-grm/settings, readOnly: true }
- { name: scratch, mountPath: /tmp }
{{- end }}

{{/* Takes (dict "root" $ "scratch" "1Gi"). */}}
{{- define "proxy-grm.commonVolumes" -}}
- name: settings
  configMap: { name: {{ include "proxy-grm.fullname" .root }}-settings }
- name: scratch
  emptyDir: { sizeLimit: {{ .scratch }} }
{{- end }}

{{- define "proxy-grm.redisCaMount" -}}
{{- if and (not .Values.redis.bundled.enabled) .Values.redis.external.caSecret }}
- { name: redis-ca, mountPath: /etc/proxy-grm/redis-ca, readOnly: true }
{{- end }}
{{- end }}

{{- define "proxy-grm.redisCaVolume" -}}
{{- if and (not .Values.redis.bundled.enabled) .Values.redis.external.caSecret }}
- name: redis-ca
  secret: { secretName: {{ .Values.redis.external.caSecret }} }
{{- end }}
{{- end }}

{{- define "proxy-grm.releaseMount" -}}
{{- if .Values.release.volume.enabled }}
- { name: releases, mountPath: /releases, readOnly: true }
{{- end }}
{{- end }}

{{- define "proxy-grm.releaseVolume" -}}
{{- if .Values.release.volume.enabled }}
- name: releases
  persistentVolumeClaim: { claimName: {{ include "proxy-grm.releaseClaim" . }} }
{{- end }}
{{- end }}

{{/* Waits for the download; a folder appears under its name only once it is whole. */}}
{{- define "proxy-grm.awaitRelease" -}}
{{- if and .Values.release.volume.enabled .Values.release.download.repository }}
initContainers:
  - name: await-release
    {{- include "proxy-grm.containerImage" (dict "root" . "name" "gateway") | nindent 4 }}
    command: [sh, -c, 'until test -d "$1"; do echo "waiting for $1"; sleep 5; done', await, {{ include "proxy-grm.release" . }}]
    {{- include "proxy-grm.containerSecurity" . | nindent 4 }}
    resources:
      requests: { cpu: 10m, memory: 16Mi }
      limits: { memory: 64Mi }
    volumeMounts:
      {{- include "proxy-grm.releaseMount" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* Takes (dict "keys" topologyKeys "root" $ "component" "gateway"). */}}
{{- define "proxy-grm.spread" -}}
{{- if .keys }}
topologySpreadConstraints:
  {{- range .keys }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "proxy-grm.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Takes the component's values. */}}
{{- define "proxy-grm.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The settings file: what somebody wrote under `settings`; variables of the pods stand over it. */}}
{{- define "proxy-grm.settings" -}}
{{- if .Values.settings }}{{ toToml .Values.settings }}{{ end }}
{{- end }}
